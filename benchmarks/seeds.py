"""Does Winograd's arithmetic harm training? Trains both definitions of the convolution from several seeds.

    cargo build --release
    python benchmarks/seeds.py --steps 500

A seed decides the built-in set, the fresh weights and the order of the batches, so the runs of one definition differ as
training differs by chance; the two definitions from one seed differ by rounding alone. For each stretch of steps the
mean loss of each Winograd run is held against the lowest and the highest of all direct runs (`!` outside), and the test
part's areas under the curve likewise. Equal definitions would leave that band too: one more direct run does in a third
of the stretches, as each of six is as likely to be the highest, or the lowest. So the distances of whole curves are
printed beside it, root mean squares over the stretches: between two direct runs, and between the two definitions of one
seed. Runs are kept in --folder and are not made again. Keeps a record under benchmarks/record/; exit 1 where a Winograd
run leaves the band.
"""

import argparse
import itertools
import json
import math
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
    if not set(options.winograd.split(",")) <= set(options.direct.split(",")):
        parser.error("--winograd names a seed that --direct does not")
    options.folder.mkdir(parents=True, exist_ok=True)
    runs = {
        definition: {int(seed): run(options, definition, int(seed)) for seed in seeds.split(",")}
        for definition, seeds in (("direct", options.direct), ("winograd", options.winograd))
    }
    fewest = min(len(found["losses"]) for each in runs.values() for found in each.values())
    if fewest < options.steps:
        sys.exit(f"seeds: a run has only {fewest} steps; --flags='--epochs N' makes them longer")
    curves = {
        definition: {seed: curve(found, fewest) for seed, found in each.items()} for definition, each in runs.items()
    }
    rows, (left, cells) = bands(runs, curves)
    chance = 2 * cells / (len(runs["direct"]) + 1)
    print(f"outside the band: {left} of {cells}; one more direct run would be about {chance:.0f} times")
    seeds, definitions = distances(curves)
    record = {
        "what": "seeds",
        "command": shlex.join(["python", "benchmarks/seeds.py", *map(relative, sys.argv[1:])]),
        **machine(),
        "steps": fewest,
        "stretch": STRETCH,
        "rows": rows,
        "outside": {"of": cells, "left": left},
        "distance_of_direct_seeds": seeds,
        "distance_of_definitions": definitions,
        "test_auroc_macro": {
            definition: {str(seed): found["auroc"] for seed, found in each.items()} for definition, each in runs.items()
        },
    }
    print(f"\nkept as {keep(record, 'seeds')}")
    sys.exit(1 if left else 0)


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


def curve(found, steps):
    """The mean loss of each stretch."""
    starts = range(0, steps - STRETCH + 1, STRETCH)
    return [statistics.fmean(found["losses"][start:start + STRETCH]) for start in starts]


def bands(runs, curves):
    """A row for each stretch of steps; how many Winograd figures lie outside the direct ones, and of how many."""
    seeds = list(runs["winograd"])
    print(f"\n{'steps':>9} {'direct, lowest':>15} {'highest':>9}" + "".join(f" {f'seed {s}':>10}" for s in seeds))
    rows, left = [], 0
    stretches = (list(zip(*curves[definition].values())) for definition in ("direct", "winograd"))
    for index, (direct, winograd) in enumerate(zip(*stretches)):
        name = f"{index * STRETCH + 1}-{(index + 1) * STRETCH}"
        left += show(name, direct, winograd)
        figures = dict(zip(map(str, seeds), winograd))
        rows.append({"steps": name, "lowest": min(direct), "highest": max(direct), "winograd": figures})
    scores = [[found["auroc"] for found in runs[each].values()] for each in ("direct", "winograd")]
    left += show("AUROC", *scores)
    return rows, (left, (len(rows) + 1) * len(seeds))


def show(name, direct, winograd):
    """Prints a row; how many of its Winograd figures lie outside the direct ones."""
    low, high = min(direct), max(direct)
    fits = [low <= figure <= high for figure in winograd]
    figures = "".join(f" {figure:>9.4f}{' ' if fit else '!'}" for figure, fit in zip(winograd, fits))
    print(f"{name:>9} {low:>15.4f} {high:>9.4f}{figures}")
    return fits.count(False)


def distances(curves):
    """Between the curves of every two direct runs, and of every Winograd run and the direct run of its seed."""
    def distance(a, b):
        return math.dist(a, b) / math.sqrt(len(a))

    direct, winograd = curves["direct"], curves["winograd"]
    seeds = {f"{a}-{b}": distance(direct[a], direct[b]) for a, b in itertools.combinations(direct, 2)}
    definitions = {str(seed): distance(losses, direct[seed]) for seed, losses in winograd.items()}
    print(f"\nroot mean square distance of two direct seeds: {min(seeds.values()):.4f} to {max(seeds.values()):.4f}")
    for seed, figure in definitions.items():
        print(f"of the two definitions, seed {seed}: {figure:.4f}")
    return seeds, definitions


if __name__ == "__main__":
    main()
