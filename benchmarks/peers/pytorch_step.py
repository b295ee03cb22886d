"""The speed of PyTorch's training step, on the work of `step_speed`: one channel, 15 classes, Adam.

    python benchmarks/peers/pytorch_step.py MODEL BATCH SIZE STEPS [LAYOUT [MODE [THREADS]]]

LAYOUT is `channels_last` or `contiguous`; MODE is `eager`, `fused` (eager, Adam in one pass) or `compile`
(torch.compile, Adam in one pass). Prints one JSON object: images a second (median, lowest, highest step) and the peak
memory of the process.
"""

import time

import torch
from common import report
from pytorch_work import Work

# The first steps allocate, and compile.
WARM = 2


def main():
    work = Work()
    net = work.net.train()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused={"eager": None, "fused": True, "compile": True}[work.mode])
    criterion = torch.nn.BCEWithLogitsLoss()
    run = torch.compile(net) if work.mode == "compile" else net
    seconds = []
    for step in range(work.repeats + WARM):
        images = work.images()
        targets = (torch.rand(work.batch, 15) > 0.5).float()
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = criterion(run(images), targets)
        loss.backward()
        optimizer.step()
        if step >= WARM:
            seconds.append(time.perf_counter() - start)
    report({**work.described(), "loss": loss.item()}, work.batch, seconds)


if __name__ == "__main__":
    main()
