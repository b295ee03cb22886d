"""The speed of PyTorch's inference, on the work of `infer_speed`: one channel, 15 classes.

    python benchmarks/peers/pytorch_infer.py MODEL BATCH SIZE REPEATS [LAYOUT [MODE [THREADS]]]

LAYOUT is `channels_last` or `contiguous`; MODE is `eager` or `compile` (torch.compile with frozen weights). Prints one
JSON object: images a second (median, lowest, highest repetition) and the peak memory of the process.
"""

import os
import sys
import time

import torch
import torchvision
from common import report

# The first repetitions allocate, and compile.
WARM = 3


def main():
    name, batch, size, repeats = sys.argv[1], *map(int, sys.argv[2:5])
    layout = sys.argv[5] if len(sys.argv) > 5 else "channels_last"
    mode = sys.argv[6] if len(sys.argv) > 6 else "eager"
    threads = int(sys.argv[7]) if len(sys.argv) > 7 else os.cpu_count()
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    format = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}[layout]
    net = getattr(torchvision.models, name)(num_classes=15)
    net.conv1 = torch.nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    net = net.to(memory_format=format).eval()
    if mode == "compile":
        from torch._inductor import config

        config.freezing = True
        net = torch.compile(net)
    seconds = []
    with torch.no_grad() if mode == "compile" else torch.inference_mode():
        for repetition in range(repeats + WARM):
            images = torch.randn(batch, 1, size, size).to(memory_format=format)
            start = time.perf_counter()
            net(images)
            if repetition >= WARM:
                seconds.append(time.perf_counter() - start)
    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    work = {"model": name, "size": size, "layout": layout, "mode": mode, "threads": threads, "versions": versions}
    report(work, batch, seconds)


if __name__ == "__main__":
    main()
