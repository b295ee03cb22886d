"""Compares Kinone with PyTorch: the same weights and images; logits, loss, every gradient, 20 Adam steps.

    cargo run --release -p kinone-train --example parity -- target/oracle/parity
    python oracle/pytorch_parity.py target/oracle/parity

The folder holds one sub-folder a model, each with before.safetensors (weights, images `x`, targets `y`) and
after.safetensors (`logits`, `loss`, `gradient/NAME`, `adam_losses`). PyTorch runs in float64 for the logits,
the loss and the gradients, so that what is measured is Kinone's error alone, and in float32 for the steps.
"""

import sys
from pathlib import Path

import torch
import torchvision
from safetensors.torch import load_file

GRADIENT_LIMIT = 1e-4
LOSS_LIMIT = 1e-3


def model(name, weights, classes, dtype):
    net = getattr(torchvision.models, name)(num_classes=classes)
    net.conv1 = torch.nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    net.load_state_dict(weights, strict=True)
    return net.to(dtype).train()


def relative(ours, theirs):
    difference = torch.linalg.vector_norm(ours.double() - theirs.double())
    return (difference / (torch.linalg.vector_norm(theirs.double()) + 1e-30)).item()


def compare(folder):
    before = load_file(folder / "before.safetensors")
    after = load_file(folder / "after.safetensors")
    images, targets = before.pop("x"), before.pop("y")
    criterion = torch.nn.BCEWithLogitsLoss()

    net = model(folder.name, before, targets.shape[1], torch.float64)
    logits = net(images.double())
    loss = criterion(logits, targets.double())
    loss.backward()
    worst, where = 0.0, ""
    names = [name for name, _ in net.named_parameters()]
    for name, parameter in net.named_parameters():
        error = relative(after[f"gradient/{name}"], parameter.grad)
        if error > worst:
            worst, where = error, name
    logits_error = relative(after["logits"], logits.detach())
    loss_error = relative(after["loss"].reshape(()), loss.detach())

    net = model(folder.name, before, targets.shape[1], torch.float32)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    steps = after["adam_losses"]
    step_error = 0.0
    for ours in steps:
        optimizer.zero_grad()
        loss = criterion(net(images), targets)
        loss.backward()
        optimizer.step()
        step_error = max(step_error, abs(ours.item() - loss.item()) / abs(loss.item()))

    print(f"{folder.name}: logits {logits_error:.2e}, loss {loss_error:.2e}, "
          f"worst of {len(names)} gradients {worst:.2e} ({where}), "
          f"losses of {len(steps)} Adam steps {step_error:.2e}")
    return max(logits_error, loss_error, worst) < GRADIENT_LIMIT and step_error < LOSS_LIMIT


def main():
    folders = sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir())
    if not folders:
        sys.exit("no models in that folder: run the example `parity` first")
    results = [compare(folder) for folder in folders]
    print(f"{sum(results)} of {len(results)} models agree")
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
