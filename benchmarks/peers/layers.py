"""Races single convolutions of the middle layers against PyTorch's: ours, theirs, ours, theirs.

    python benchmarks/peers/layers.py [THREADS [PAIRS]]

Forward pass, input gradient and weight gradient of 32 images, in GFLOP/s and as share of the peak that our program
measures beside each row (multiply-adds in registers). PyTorch runs channels_last. For filters of one pixel it also
multiplies the two matrices, which is all that such a layer is: what a library's product reaches on this machine. A
program's figure is its fastest run, as in `cargo xtask bench kernels`; of several pairs the median is shown. Kept under
benchmarks/record/.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import torch

from record import ROOT, keep, machine

BATCH = 32
# As our program names them: name, input channels, filters, side of the filter, side of the image.
LAYERS = [
    ("layer2 3x3 128-128", 128, 128, 3, 28),
    ("layer3 3x3 256-256", 256, 256, 3, 14),
    ("layer2 1x1 128-512", 128, 512, 1, 28),
    ("layer2 1x1 512-128", 512, 128, 1, 28),
    ("layer3 1x1 256-1024", 256, 1024, 1, 14),
    ("layer3 1x1 1024-256", 1024, 256, 1, 14),
]
PASSES = ["forward", "input", "weight"]  # the last two: gradients


def main():
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    pairs = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    torch.set_num_threads(threads)
    build = "cargo build --release -p kinone-kernels --example conv_speed"
    subprocess.run(build.split(), cwd=ROOT, check=True)
    rows = []
    print(f"{threads} threads, batch {BATCH}, GFLOP/s (share of the peak): kinone, pytorch, its matrix product")
    for name, *shape in LAYERS:
        seen = [(kinone(name, threads), pytorch(*shape)) for _ in range(pairs)]
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
    about = {"threads": threads, "batch": BATCH, "pairs": pairs, "versions": {"torch": torch.__version__}}
    print(f"kept in {keep({**machine(), 'what': 'layers', **about, 'rows': rows}, 'race_layers')}")


def show(row):
    print(f"{row['layer']:<22} peak {row['peak']:.0f}")
    for part in PASSES:
        speeds = [speed for name, speed in row[part].items() if name != "ratio"]
        figures = "  ".join(f"{speed:6.1f} ({100 * speed / row['peak']:3.0f} %)" for speed in speeds)
        print(f"  {part:<8} {figures}  kinone/pytorch {row[part]['ratio']:.3f}")


def kinone(name, threads):
    """Our program's row of this layer, its pixels not zero."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "rows"
        program = ROOT / "target/release/examples/conv_speed"
        command = [program, str(threads), "224", name, "--record", file]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        lines = [json.loads(line) for line in file.read_text().splitlines()]
    line = next(line for line in lines if line.get("layer") == name and line["algorithm"] == "direct")
    names = ["peak", "forward", "input_gradient", "weight_gradient"]
    return dict(zip(["peak", *PASSES], (line[f"{field}_gflops"] for field in names)))


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
