"""Compares Kinone with PyTorch: the same weights and images; logits, loss, every gradient, 20 Adam steps.

    cargo run --release -p kinone-train --example parity -- target/oracle/parity
    python oracle/pytorch_parity.py target/oracle/parity

The folder holds one sub-folder a model, each with before.safetensors (weights, images `x`, targets `y`) and
after.safetensors (`logits`, `loss`, `gradient/NAME`, `adam_losses`). PyTorch runs in float64 for the logits,
the loss and the gradients, so that what is measured is Kinone's error alone, and in float32 for the steps.

A deep network turns roundings into other signs before some ReLU, and each changes gradients by far more than a
rounding. So the errors of PyTorch in float32 against itself in float64 are printed beside Kinone's: they are what
single precision costs with these weights and images. Where they exceed the limits, no program that computes in float32
could be held to them, and the case is printed but not judged. Exit 1 where a judged case exceeds a limit, or where
ResNet-18 or ResNet-50 has no judged case.
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


def gradients(name, weights, images, targets, dtype):
    """Logits, loss and the gradient of every parameter, under their names."""
    net = model(name, weights, targets.shape[1], dtype)
    logits = net(images.to(dtype))
    loss = torch.nn.BCEWithLogitsLoss()(logits, targets.to(dtype))
    loss.backward()
    found = {"logits": logits.detach(), "loss": loss.detach()}
    return found | {name: parameter.grad for name, parameter in net.named_parameters()}


def errors(found, exact):
    """Relative errors: of the logits, of the loss, the worst of the gradients and where that is."""
    each = {name: relative(found[name].reshape(value.shape), value) for name, value in exact.items()}
    logits, loss = each.pop("logits"), each.pop("loss")
    where = max(each, key=each.get)
    return logits, loss, each[where], where


def report(who, name, logits, loss, worst, where):
    print(f"{name}: {who} from float64: logits {logits:.2e}, loss {loss:.2e}, worst gradient {worst:.2e} ({where})")


def adam(name, weights, images, targets, steps, dtype):
    """The losses of some steps of Adam on one batch."""
    net = model(name, weights, targets.shape[1], dtype)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    criterion = torch.nn.BCEWithLogitsLoss()
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = criterion(net(images.to(dtype)), targets.to(dtype))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def largest(found, expected):
    return max(abs(a - b) / abs(b) for a, b in zip(found, expected, strict=True))


def within(found, steps):
    """Whether logits, loss, every gradient and the losses of the steps keep the limits."""
    return max(found[:3]) < GRADIENT_LIMIT and steps < LOSS_LIMIT


def compare(folder):
    """The network, and whether Kinone keeps the limits; `None` where PyTorch in float32 does not."""
    before = load_file(folder / "before.safetensors")
    after = load_file(folder / "after.safetensors")
    images, targets = before.pop("x"), before.pop("y")
    network = folder.name.split("-")[0]

    exact = gradients(network, before, images, targets, torch.float64)
    single = gradients(network, before, images, targets, torch.float32)
    ours = {name: after[name] for name in ("logits", "loss")}
    ours |= {name: after[f"gradient/{name}"] for name in exact if name not in ours}
    ours, single = errors(ours, exact), errors(single, exact)
    report("Kinone ", folder.name, *ours)
    report("PyTorch", folder.name, *single)

    steps = after["adam_losses"]
    theirs = adam(network, before, images, targets, len(steps), torch.float32)
    wide = adam(network, before, images, targets, len(steps), torch.float64)
    between, rounding = largest(steps.tolist(), theirs), largest(theirs, wide)
    print(f"{folder.name}: losses of {len(steps)} Adam steps: Kinone from PyTorch {between:.2e}, "
          f"PyTorch from itself in float64 {rounding:.2e}")
    agrees = within(ours, between) if within(single, rounding) else None
    verdicts = {True: "agrees", False: "DISAGREES", None: "not judged: beyond the limits for PyTorch's float32 too"}
    print(f"{folder.name}: {verdicts[agrees]}")
    return network, agrees


def main():
    folders = sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir())
    if not folders:
        sys.exit("no models in that folder: run the example `parity` first")
    judged = [(network, agrees) for network, agrees in map(compare, folders) if agrees is not None]
    print(f"{sum(agrees for _, agrees in judged)} of {len(judged)} judged cases agree")
    missing = {"resnet18", "resnet50"} - {network for network, _ in judged}
    if missing:
        sys.exit(f"no judged case of {', '.join(sorted(missing))}")
    sys.exit(0 if all(agrees for _, agrees in judged) else 1)


if __name__ == "__main__":
    main()
