"""The speed of PyTorch's training step, on the work of `step_speed`: one channel, 15 classes, Adam.

    python benchmarks/peers/pytorch_step.py MODEL BATCH SIZE STEPS [contiguous|channels_last] [eager|compile]

Prints one JSON object: images a second (median, lowest, highest step) and the peak memory of the process.
"""

import json
import resource
import sys
import time

import torch
import torchvision


def main():
    name, batch, size, steps = sys.argv[1], *map(int, sys.argv[2:5])
    layout = sys.argv[5] if len(sys.argv) > 5 else "channels_last"
    mode = sys.argv[6] if len(sys.argv) > 6 else "eager"
    threads = int(sys.argv[7]) if len(sys.argv) > 7 else 2
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    net = getattr(torchvision.models, name)(num_classes=15)
    net.conv1 = torch.nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    net = net.to(memory_format=format).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=mode == "compile")
    criterion = torch.nn.BCEWithLogitsLoss()
    run = torch.compile(net) if mode == "compile" else net
    speeds = []
    for step in range(steps + 2):
        images = torch.randn(batch, 1, size, size).to(memory_format=format)
        targets = (torch.rand(batch, 15) > 0.5).float()
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = criterion(run(images), targets)
        loss.backward()
        optimizer.step()
        if step >= 2:
            speeds.append(batch / (time.perf_counter() - start))
    speeds.sort()
    print(json.dumps({
        "model": name, "batch": batch, "size": size, "layout": layout, "mode": mode, "threads": threads,
        "torch": torch.__version__, "img_s": round(speeds[len(speeds) // 2], 2), "low": round(speeds[0], 2),
        "high": round(speeds[-1], 2), "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }))


if __name__ == "__main__":
    main()
