"""The speed of PyTorch's inference, on the work of `infer_speed`: one channel, 15 classes.

    python benchmarks/peers/pytorch_infer.py MODEL BATCH SIZE REPEATS [LAYOUT [MODE [THREADS]]]

LAYOUT is `channels_last` or `contiguous`; MODE is `eager` or `compile` (torch.compile with frozen weights). Prints one
JSON object: images a second (median, lowest, highest repetition) and the peak memory of the process.
"""

import time

import torch
from common import report
from pytorch_work import Work

# The first repetitions allocate, and compile.
WARM = 3


def main():
    work = Work()
    net = work.net.eval()
    if work.mode == "compile":
        from torch._inductor import config

        config.freezing = True
        net = torch.compile(net)
    seconds = []
    with torch.no_grad() if work.mode == "compile" else torch.inference_mode():
        for repetition in range(work.repeats + WARM):
            images = work.images()
            start = time.perf_counter()
            net(images)
            if repetition >= WARM:
                seconds.append(time.perf_counter() - start)
    report(work.described(), work.batch, seconds)


if __name__ == "__main__":
    main()
