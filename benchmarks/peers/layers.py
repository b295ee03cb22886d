"""Races single convolutions of the middle layers against PyTorch's: ours, theirs, ours, theirs.

    python benchmarks/peers/layers.py --threads 1

Forward pass, input gradient and weight gradient of 32 images, in GFLOP/s and as share of the peak that our program
measures beside each row (multiply-adds in registers). PyTorch runs channels_last. For filters of one pixel it also
multiplies the two matrices, which is all that such a layer is: what a library's product reaches on this machine. A
program's figure is its fastest run, as in `cargo xtask bench kernels`; of several pairs the median is shown. Kept under
benchmarks/record/.
"""

import argparse
import json
import pathlib
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

import torch

from race import Failure, example_of, positive
from record import keep, machine, relative

BATCH = 32
SIZE = 224
# As our program names them: the stage, the taps, channels and filters.
LAYERS = [
    "layer2 3x3 128-128", "layer3 3x3 256-256",
    "layer2 1x1 128-512", "layer2 1x1 512-128", "layer3 1x1 256-1024", "layer3 1x1 1024-256",
]
PASSES = ["forward", "input", "weight"]  # the last two: gradients


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=positive, default=1, help="(default 1)")
    parser.add_argument("--pairs", type=positive, default=3, help="(default 3)")
    options = parser.parse_args()
    try:
        race(options.threads, options.pairs)
    except Failure as failure:
        sys.exit(f"layers: {failure}")
    except KeyboardInterrupt:
        sys.exit("layers: interrupted; nothing was kept")


def race(threads, pairs):
    torch.set_num_threads(threads)
    program = example_of("kinone-kernels", "conv_speed")
    sitting = machine()
    rows = []
    print(f"{threads} threads, batch {BATCH}, GFLOP/s (share of the peak): kinone, pytorch, its matrix product")
    for name in LAYERS:
        seen = [(kinone(program, name, threads), pytorch(*shape_of(name))) for _ in range(pairs)]
        row = {"layer": name, "peak": statistics.median(ours["peak"] for ours, _ in seen)}
        for part in PASSES:
            row[part] = {
                "kinone": statistics.median(ours[part] for ours, _ in seen),
                "pytorch": statistics.median(theirs[part] for _, theirs in seen),
                "ratio": statistics.median(ours[part] / theirs[part] for ours, theirs in seen),
            }
        if "product" in seen[0][1]:
            row["forward"]["product"] = statistics.median(theirs["product"] for _, theirs in seen)
        rows.append(row)
        show(row)
    record = {
        "what": "race layers",
        "command": shlex.join(["python", "benchmarks/peers/layers.py", *map(relative, sys.argv[1:])]),
        **sitting,
        "isa": seen[0][0]["isa"],
        "threads": threads,
        "batch": BATCH,
        "pairs": pairs,
        "versions": {"torch": torch.__version__},
        "rows": rows,
    }
    print(f"kept in {keep(record, 'race_layers')}")


def shape_of(name):
    """Channels, filters, side of the filter and of the images: the second stage has an eighth of the input's side."""
    stage, side, channels, filters = map(int, re.fullmatch(r"layer(\d) (\d)x\2 (\d+)-(\d+)", name).groups())
    return channels, filters, side, SIZE >> (stage + 1)


def show(row):
    print(f"{row['layer']:<22} peak {row['peak']:.0f}")
    for part in PASSES:
        speeds = [speed for name, speed in row[part].items() if name != "ratio"]
        figures = "  ".join(f"{speed:6.1f} ({100 * speed / row['peak']:3.0f} %)" for speed in speeds)
        print(f"  {part:<8} {figures}  kinone/pytorch {row[part]['ratio']:.3f}")


def kinone(program, name, threads):
    """Our program's row of this layer, its pixels not zero."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "rows"
        command = [program, str(threads), str(SIZE), name, "--record", str(file)]
        done = subprocess.run(command, stdout=subprocess.DEVNULL)
        if done.returncode != 0:
            raise Failure(f"{shlex.join(command)} failed ({done.returncode})")
        lines = [json.loads(line) for line in file.read_text().splitlines()]
    line = next(line for line in lines if line.get("layer") == name and line["algorithm"] == "direct")
    names = ["peak", "forward", "input_gradient", "weight_gradient"]
    return {"isa": lines[0]["isa"], **dict(zip(["peak", *PASSES], (line[f"{field}_gflops"] for field in names)))}


def pytorch(channels, filters, side, size):
    """The same of PyTorch."""
    padding = [side // 2] * 2
    images = lambda count: torch.randn(BATCH, count, size, size).to(memory_format=torch.channels_last)
    x, dy = images(channels), images(filters)
    w = torch.randn(filters, channels, side, side).to(memory_format=torch.channels_last)
    work = 2e-9 * dy.numel() * channels * side * side

    def backward(mask):
        return torch.ops.aten.convolution_backward(dy, x, w, None, [1, 1], padding, [1, 1], False, [0, 0], 1, mask)

    with torch.no_grad():
        speeds = {
            "forward": fastest(lambda: torch.nn.functional.conv2d(x, w, padding=padding), work),
            "input": fastest(lambda: backward([True, False, False]), work),
            "weight": fastest(lambda: backward([False, True, False]), work),
        }
        if side == 1:
            left, right = w.reshape(filters, channels).contiguous(), torch.randn(channels, BATCH * size * size)
            out = torch.empty(filters, BATCH * size * size)
            speeds["product"] = fastest(lambda: torch.mm(left, right, out=out), work)
    return speeds


def fastest(run, work, seconds=1.0):
    """The speed of the fastest of the runs that fit into some seconds, at least three."""
    run()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return work / min(times)


if __name__ == "__main__":
    main()
