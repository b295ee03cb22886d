"""Races Kinone against a peer on the same work: ours, theirs, ours, theirs, each a fresh process.

    python benchmarks/peers/race.py train --peer pytorch-tuned --model resnet50 --batch 16
    python benchmarks/peers/race.py infer --peer openvino --batch 1
    python benchmarks/peers/race.py train --peer kinone --theirs=--recompute

The ratio is taken pair by pair, so that a drift of the machine falls on both sides of it. `--peer kinone` races two
versions of our own program: flags (`--ours`, `--theirs`) or binaries (`--binary`, `--their-binary`); with neither it
shows the noise. Prints the medians, their spread and the ratios, and keeps them under benchmarks/record/.
"""

import argparse
import ctypes.util
import glob
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys

from record import ROOT, keep, machine, relative

PEERS = pathlib.Path(__file__).resolve().parent
JEMALLOC = "thp:always,dirty_decay_ms:-1,muzzy_decay_ms:-1"


class Failure(Exception):
    """What went wrong, and what to do."""


class Program:
    """A command that prints one JSON object about one run, and what it needs in its environment."""

    def __init__(self, command, environment=None, allocator=None):
        self.command = [str(word) for word in command]
        self.environment = environment or {}
        self.allocator = allocator

    def run(self):
        environment = {**os.environ, **self.environment}
        done = subprocess.run(self.command, env=environment, cwd=ROOT, capture_output=True, text=True)
        if done.returncode != 0:
            tail = "\n".join(done.stderr.strip().splitlines()[-15:])
            hint = ""
            if "ModuleNotFoundError" in tail:
                hint = "\n(python -m pip install -r benchmarks/peers/requirements.txt brings what the peers need)"
            raise Failure(f"{shlex.join(self.command)} failed ({done.returncode}):\n{tail}{hint}")
        try:
            figures = json.loads(done.stdout.strip().splitlines()[-1])
        except (IndexError, ValueError):
            raise Failure(f"{shlex.join(self.command)} printed no JSON object:\n{done.stdout}") from None
        if self.allocator and figures.get("allocator") != self.allocator:
            used = figures.get("allocator")
            raise Failure(f"{shlex.join(self.command)} ran with the allocator {used}, not {self.allocator}")
        return figures


def main():
    options = arguments()
    try:
        race(options)
    except Failure as failure:
        sys.exit(f"race: {failure}")
    except KeyboardInterrupt:
        sys.exit("race: interrupted; nothing was kept")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=["train", "infer"])
    parser.add_argument("--peer", choices=sorted(KNOWN), default="pytorch-tuned")
    parser.add_argument("--model", default="resnet18", help="resnet18, 34, 50, 101 or 152")
    parser.add_argument("--batch", type=positive, default=32, help="images (default 32)")
    parser.add_argument("--size", type=positive, default=224, help="pixels of a side (default 224)")
    parser.add_argument("--repeats", type=positive, help="steps or batches a process (default 4, of one image 30)")
    parser.add_argument("--threads", type=positive, default=os.cpu_count(), help="(default all cores)")
    parser.add_argument("--pairs", type=positive, default=7, help="(default 7)")
    parser.add_argument("--ours", default="", help="flags for our program, such as --ours=--recompute")
    parser.add_argument("--binary", type=pathlib.Path, help="our program (default: built from this tree)")
    parser.add_argument("--theirs", default="", help="flags for the other side, with --peer kinone")
    parser.add_argument("--their-binary", type=pathlib.Path, help="the other side's program, with --peer kinone")
    parser.add_argument("--no-record", action="store_true", help="keep nothing")
    options = parser.parse_args()
    if options.peer != "kinone" and (options.theirs or options.their_binary):
        parser.error("--theirs and --their-binary go with --peer kinone")
    if options.repeats is None:
        options.repeats = 30 if options.work == "infer" and options.batch == 1 else 4
    return options


def positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def race(options):
    ours, theirs = ("ours", "theirs") if options.peer == "kinone" else ("kinone", options.peer)
    sides = {ours: kinone(options, options.ours, options.binary), theirs: KNOWN[options.peer](options)}
    sitting = machine()
    print(f"{options.work} {options.model}, batch {options.batch}, {options.size} px, {options.threads} threads")
    print(f"{sitting['cpu']}; commit {sitting['commit']}{', changed since' if sitting['changed_since_commit'] else ''}")
    print(f"\n{'pair':>4} {ours:>20} {theirs:>20} {'ratio':>8}   (images/s)")
    pairs = []
    for index in range(options.pairs):
        pair = {name: program.run() for name, program in sides.items()}
        pairs.append(pair)
        a, b = pair[ours]["img_s"], pair[theirs]["img_s"]
        print(f"{index + 1:>4} {a:>20.2f} {b:>20.2f} {a / b:>8.3f}", flush=True)
    summary = summarize(pairs, ours, theirs)
    show(summary, ours, theirs)
    if not options.no_record:
        record = {
            "what": f"race {options.work}",
            "command": shlex.join(["python", "benchmarks/peers/race.py", *map(relative, sys.argv[1:])]),
            **sitting,
            "isa": pairs[0][ours].get("isa"),
            "threads": options.threads,
            "sides": {name: " ".join(map(relative, program.command)) for name, program in sides.items()},
            "summary": summary,
            "pairs": pairs,
        }
        name = f"race_{options.work}_{options.model}_{options.batch}_{options.peer}"
        print(f"kept in {keep(record, name)}")


def summarize(pairs, ours, theirs):
    """Medians and spreads of both sides, and of the ratios of the pairs."""
    def spread(values):
        return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}

    summary = {
        name: {"img_s": spread([pair[name]["img_s"] for pair in pairs]), "ms": spread([p[name]["ms"] for p in pairs])}
        for name in (ours, theirs)
    }
    summary["ratio"] = spread([pair[ours]["img_s"] / pair[theirs]["img_s"] for pair in pairs])
    if all(pair[name].get("peak_mib") for pair in pairs for name in (ours, theirs)):
        for name in (ours, theirs):
            summary[name]["peak_mib"] = spread([pair[name]["peak_mib"] for pair in pairs])
        summary["memory_ratio"] = spread([pair[ours]["peak_mib"] / pair[theirs]["peak_mib"] for pair in pairs])
    return summary


def show(summary, ours, theirs):
    def line(name, spread, digits):
        numbers = (f"{spread[key]:.{digits}f}" for key in ("median", "lowest", "highest"))
        return "{:<32} {:>10} {:>12}-{}".format(name, *numbers)

    print(f"\n{'':<32} {'median':>10} {'lowest-highest':>19}")
    for name in (ours, theirs):
        print(line(f"{name}, images/s", summary[name]["img_s"], 2))
        print(line(f"{name}, ms", summary[name]["ms"], 1))
        if "peak_mib" in summary[name]:
            print(line(f"{name}, peak MiB", summary[name]["peak_mib"], 0))
    print(line(f"speed, {ours}/{theirs}", summary["ratio"], 3))
    if "memory_ratio" in summary:
        print(line(f"peak memory, {ours}/{theirs}", summary["memory_ratio"], 3))


def work_of(options):
    return [options.model, options.batch, options.size, options.repeats]


def kinone(options, flags, binary):
    """Our program: a given one, or the one built from this tree."""
    example = "step_speed" if options.work == "train" else "infer_speed"
    program = binary.resolve() if binary else example_of("kinone-train", example)
    return Program([program, *work_of(options), options.threads, *shlex.split(flags)])


def example_of(package, example):
    """Builds an example; its program."""
    return build(["--package", package, "--example", example], example)


def build(arguments, name, environment=None, hint=""):
    command = ["cargo", "build", "--release", "--message-format=json-render-diagnostics", *map(str, arguments)]
    done = subprocess.run(
        command, env={**os.environ, **(environment or {})}, cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    if done.returncode != 0:
        raise Failure(f"{shlex.join(command)} failed ({done.returncode}){hint}")
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == name:
            return message["executable"]
    raise Failure(f"{shlex.join(command)} built no program {name}")


def pytorch(mode, layout="channels_last", tuned=True):
    """PyTorch in a mode for training and one for inference."""
    def program(options):
        script = "pytorch_step.py" if options.work == "train" else "pytorch_infer.py"
        which = mode[options.work]
        command = [sys.executable, PEERS / script, *work_of(options), layout, which, options.threads]
        if not tuned:
            return Program(command, allocator="system")
        environment = {"LD_PRELOAD": jemalloc(), "MALLOC_CONF": JEMALLOC}
        return Program(command, environment, allocator="jemalloc")
    return program


def jemalloc():
    """The shared library of jemalloc."""
    found = ctypes.util.find_library("jemalloc")
    if found:
        return found
    for pattern in ("/usr/lib/*/libjemalloc.so.2", "/usr/lib/libjemalloc.so.2", "/usr/local/lib/libjemalloc.so.2"):
        for path in sorted(glob.glob(pattern)):
            return path
    raise Failure("libjemalloc.so.2 is not installed; on Debian: apt-get install libjemalloc2")


def runtime(name):
    """A runtime on the file that Kinone writes."""
    def program(options):
        if options.work != "infer":
            raise Failure(f"{name} only infers; use: race.py infer --peer {name}")
        folder = ROOT / "target/bench"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{options.model}_{options.size}.onnx"
        writer = Program([example_of("kinone-onnx", "fresh_resnet"), options.model, options.size, file])
        done = subprocess.run(writer.command, capture_output=True, text=True)
        if done.returncode != 0:
            raise Failure(done.stderr.strip())
        command = [sys.executable, PEERS / "onnx_infer.py", name, file, *work_of(options)[1:], options.threads]
        return Program(command)
    return program


def rust(name, rustflags=None):
    """A framework in Rust: the program of the package in the folder of its name."""
    def program(options):
        manifest = PEERS / name / "Cargo.toml"
        # A folder for each: under other flags every package is built anew.
        arguments = ["--locked", "--manifest-path", manifest, "--target-dir", ROOT / "target/peers" / name]
        environment = {"RUSTFLAGS": rustflags} if rustflags else None
        hint = f"\n(its packages must be here: cargo fetch --locked --manifest-path {relative(str(manifest))})"
        binary = build(arguments, f"{name}_speed", environment, hint)
        command = [binary, options.work, *work_of(options), options.threads]
        return Program(command, {"RAYON_NUM_THREADS": str(options.threads)}, allocator="system")
    return program


# Every peer: from the options to a program.
KNOWN = {
    "kinone": lambda options: kinone(options, options.theirs, options.their_binary or options.binary),
    "pytorch-installed": pytorch({"train": "eager", "infer": "eager"}, tuned=False),
    "pytorch-contiguous": pytorch({"train": "eager", "infer": "eager"}, layout="contiguous", tuned=False),
    "pytorch-tuned": pytorch({"train": "fused", "infer": "eager"}),
    "pytorch-compile": pytorch({"train": "compile", "infer": "compile"}),
    "onnxruntime": runtime("onnxruntime"),
    "openvino": runtime("openvino"),
    "burn": rust("burn"),
    # As candle's own repository builds it; its plain loops are vectorised at compile time only.
    "candle": rust("candle", "-C target-cpu=native"),
}


if __name__ == "__main__":
    main()
