"""Does Winograd's arithmetic harm training? Trains both definitions of the convolution from several seeds.

    cargo build --release
    python benchmarks/seeds.py --steps 500

A seed decides the built-in set, the fresh weights and the order of the batches, so the runs of one definition differ as
training differs by chance; the two definitions from one seed differ by rounding alone. For each stretch of steps the
mean loss of each Winograd run is held against the lowest and the highest of all direct runs, and the test part's
areas under the curve likewise. Runs are kept in --folder and are not made again. Keeps a record under
benchmarks/record/; exit 1 where a Winograd run leaves the spread.
"""

import argparse
import json
import pathlib
import shlex
import statistics
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "peers"))
from record import ROOT, keep, machine, relative  # noqa: E402

STRETCH = 50


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/kinone")
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / "target/seeds", help="where runs are kept")
    parser.add_argument("--direct", default="42,1,2,3,4", help="seeds of the direct runs")
    parser.add_argument("--winograd", default="42,1,2", help="seeds of the Winograd runs")
    parser.add_argument("--steps", type=int, default=500, help="the least number of steps a run must have")
    parser.add_argument("--flags", default="--epochs 10", help="flags for `kinone train`, the same for all")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    runs = {
        definition: {int(seed): run(options, definition, int(seed)) for seed in seeds.split(",")}
        for definition, seeds in (("direct", options.direct), ("winograd", options.winograd))
    }
    fewest = min(len(found["losses"]) for each in runs.values() for found in each.values())
    if fewest < options.steps:
        sys.exit(f"seeds: a run has only {fewest} steps; --flags='--epochs N' makes them longer")
    rows, inside = compare(runs, fewest)
    record = {
        "what": "seeds",
        "command": shlex.join(["python", "benchmarks/seeds.py", *map(relative, sys.argv[1:])]),
        **machine(),
        "steps": fewest,
        "stretch": STRETCH,
        "rows": rows,
        "inside": inside,
        "test_auroc_macro": {
            definition: {str(seed): found["auroc"] for seed, found in each.items()} for definition, each in runs.items()
        },
    }
    print(f"\nkept as {keep(record, 'seeds')}")
    sys.exit(0 if inside else 1)


def run(options, definition, seed):
    """The losses and the score of one training, made if it is not there."""
    folder = options.folder / f"{definition}-{seed}"
    if not (folder / "summary.json").exists():
        print(f"training {definition} from seed {seed} ...", flush=True)
        command = [options.binary, "train", "--run-dir", folder, "--seed", seed, "--conv-algo", definition]
        done = subprocess.run([*map(str, command), *shlex.split(options.flags)], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"seeds: {folder} failed ({done.returncode}):\n{done.stderr.strip()[-500:]}")
    events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {
        "losses": [event["loss"] for event in events if event["event"] == "step"],
        "auroc": json.loads((folder / "summary.json").read_text())["test_auroc_macro"],
    }


def compare(runs, steps):
    """A row for each stretch of steps, and whether every Winograd run stays within the direct ones."""
    seeds = list(runs["winograd"])
    print(f"\n{'steps':>9} {'direct, lowest':>15} {'highest':>9}" + "".join(f" {f'seed {s}':>10}" for s in seeds))
    rows, inside = [], True
    for start in range(0, steps - STRETCH + 1, STRETCH):
        def mean(found):
            return statistics.fmean(found["losses"][start:start + STRETCH])
        direct = [mean(found) for found in runs["direct"].values()]
        winograd = {str(seed): mean(found) for seed, found in runs["winograd"].items()}
        row = {"from": start + 1, "to": start + STRETCH, "lowest": min(direct), "highest": max(direct)}
        rows.append({**row, "winograd": winograd})
        inside &= show(f"{start + 1}-{start + STRETCH}", direct, winograd.values())
    scores = [[found["auroc"] for found in runs[each].values()] for each in ("direct", "winograd")]
    inside &= show("AUROC", *scores)
    return rows, inside


def show(name, direct, winograd):
    """Prints a row; whether all of its Winograd figures lie within the direct ones."""
    low, high = min(direct), max(direct)
    fits = [low <= figure <= high for figure in winograd]
    figures = "".join(f" {figure:>9.4f}{' ' if fit else '!'}" for figure, fit in zip(winograd, fits))
    print(f"{name:>9} {low:>15.4f} {high:>9.4f}{figures}")
    return all(fits)


if __name__ == "__main__":
    main()
