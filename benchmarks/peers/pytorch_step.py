"""The speed of PyTorch's training step, on the work of `step_speed`: one channel, 15 classes, Adam.

    python benchmarks/peers/pytorch_step.py MODEL BATCH SIZE STEPS [LAYOUT [MODE [THREADS]]]

LAYOUT is `channels_last` or `contiguous`; MODE is `eager`, `fused` (eager, Adam in one pass) or `compile`
(torch.compile, Adam in one pass). Prints one JSON object: images a second (median, lowest, highest step) and the peak
memory of the process.
"""

import os
import sys
import time

import torch
import torchvision
from common import report

# The first steps allocate, and compile.
WARM = 2


def main():
    name, batch, size, steps = sys.argv[1], *map(int, sys.argv[2:5])
    layout = sys.argv[5] if len(sys.argv) > 5 else "channels_last"
    mode = sys.argv[6] if len(sys.argv) > 6 else "eager"
    threads = int(sys.argv[7]) if len(sys.argv) > 7 else os.cpu_count()
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    format = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}[layout]
    net = getattr(torchvision.models, name)(num_classes=15)
    net.conv1 = torch.nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    net = net.to(memory_format=format).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused={"eager": None, "fused": True, "compile": True}[mode])
    criterion = torch.nn.BCEWithLogitsLoss()
    run = torch.compile(net) if mode == "compile" else net
    seconds = []
    for step in range(steps + WARM):
        images = torch.randn(batch, 1, size, size).to(memory_format=format)
        targets = (torch.rand(batch, 15) > 0.5).float()
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = criterion(run(images), targets)
        loss.backward()
        optimizer.step()
        if step >= WARM:
            seconds.append(time.perf_counter() - start)
    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    work = {"model": name, "size": size, "layout": layout, "mode": mode, "threads": threads, "versions": versions}
    report({**work, "loss": loss.item()}, batch, seconds)


if __name__ == "__main__":
    main()
