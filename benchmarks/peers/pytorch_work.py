"""What the scripts that measure PyTorch share: their arguments, the network and the images."""

import os
import sys

import torch
import torchvision


class Work:
    """MODEL BATCH SIZE REPEATS [LAYOUT [MODE [THREADS]]] of the command line: the network, and images for it."""

    def __init__(self):
        self.name, self.batch, self.size, self.repeats = sys.argv[1], *map(int, sys.argv[2:5])
        self.layout = sys.argv[5] if len(sys.argv) > 5 else "channels_last"
        self.mode = sys.argv[6] if len(sys.argv) > 6 else "eager"
        self.threads = int(sys.argv[7]) if len(sys.argv) > 7 else os.cpu_count()
        torch.set_num_threads(self.threads)
        torch.manual_seed(1)
        self.format = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}[self.layout]
        net = getattr(torchvision.models, self.name)(num_classes=15)
        net.conv1 = torch.nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.net = net.to(memory_format=self.format)

    def images(self):
        return torch.randn(self.batch, 1, self.size, self.size).to(memory_format=self.format)

    def described(self):
        """What the record says of it."""
        versions = {"torch": torch.__version__, "torchvision": torchvision.__version__}
        return {
            "model": self.name, "size": self.size, "layout": self.layout, "mode": self.mode, "threads": self.threads,
            "versions": versions,
        }
