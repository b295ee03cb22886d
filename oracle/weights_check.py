"""Opens a run's weights with NumPy, safetensors and torchvision, as others would.

    kinone train --run-dir RUN
    kinone export-onnx --run-dir RUN --output-filename model.onnx --replay-dir REPLAY
    python oracle/weights_check.py RUN REPLAY

best.safetensors and best_model_*.npz must hold the same arrays; torchvision's resnet18 with one input channel
must load them with strict=True and give Kinone's logits for the images in REPLAY within 1e-5.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torchvision
from safetensors.numpy import load_file

LIMIT = 1e-5


def array(folder, described):
    return np.fromfile(folder / described["file"], dtype="<f4").reshape(described["shape"])


def main():
    run, replay = Path(sys.argv[1]), Path(sys.argv[2])
    weights = load_file(run / "checkpoints/best.safetensors")
    (path,) = sorted((run / "checkpoints").glob("best_model_*.npz"))
    with np.load(path, allow_pickle=False) as archive:
        if set(archive.files) != set(weights):
            sys.exit(f"{path} holds other names than best.safetensors")
        for name, expected in weights.items():
            found = archive[name]
            if found.dtype != expected.dtype or found.shape != expected.shape or found.tobytes() != expected.tobytes():
                sys.exit(f"{path}: {name} differs from best.safetensors")
    print(f"numpy {np.__version__}: {len(weights)} arrays of {path.name} equal those of best.safetensors")

    classes = weights["fc.bias"].shape[0]
    net = torchvision.models.resnet18(num_classes=classes)
    net.conv1 = torch.nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    net.load_state_dict({name: torch.from_numpy(np.copy(value)) for name, value in weights.items()}, strict=True)
    net.eval()
    worst, images = 0.0, 0
    for described in json.loads((replay / "manifest.json").read_text())["models"][0]["runs"]:
        (x,) = [array(replay, value) for value in described["inputs"]]
        with torch.no_grad():
            found = net(torch.from_numpy(x)).numpy()
        worst = max(worst, float(np.abs(found - array(replay, described["output"])).max()))
        images += x.shape[0]
    print(f"torchvision {torchvision.__version__}: strict=True, {images} images, largest difference {worst:.2e}")
    sys.exit(0 if images and worst <= LIMIT else 1)


if __name__ == "__main__":
    main()
