"""Replays models that Kinone wrote in onnxruntime, and has onnx check them.

    cargo run --release -p kinone-onnx --example dump_models -- target/oracle/models
    python oracle/onnx_check.py target/oracle/models

The folder holds manifest.json: each model with its file, its runs (inputs and Kinone's output, as raw
little-endian f32), and the largest difference allowed, relative to the largest magnitude of Kinone's output.
Each model must pass onnx.checker with strict shape inference, and each run must agree.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime


def array(folder, described):
    numbers = np.fromfile(folder / described["file"], dtype="<f4")
    return numbers.reshape(described["shape"])


def difference(found, expected):
    """The largest |found - expected| over the largest |expected|; NaN must meet NaN."""
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return float("inf")
    if found.size == 0:
        return 0.0
    if not np.array_equal(np.isnan(found), np.isnan(expected)):
        return float("inf")
    distance = np.abs(np.nan_to_num(found.astype(np.float64)) - np.nan_to_num(expected.astype(np.float64)))
    largest = np.abs(np.nan_to_num(expected.astype(np.float64))).max()
    return 0.0 if distance.max() == 0.0 else float(distance.max() / largest) if largest > 0.0 else float("inf")


def check(folder, described):
    """The worst difference of the model's runs; raises what onnx or onnxruntime object to."""
    path = folder / described["file"]
    onnx.checker.check_model(str(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    worst = 0.0
    for run in described["runs"]:
        inputs = [array(folder, value) for value in run["inputs"]]
        if len(inputs) != len(names):
            raise ValueError(f"{len(names)} inputs in the model, {len(inputs)} in the manifest")
        (found,) = session.run(None, dict(zip(names, inputs)))
        worst = max(worst, difference(found, array(folder, run["output"])))
    return worst


def main():
    folder = Path(sys.argv[1])
    manifest = json.loads((folder / "manifest.json").read_text())
    models = manifest["models"]
    agree, worst, where = 0, 0.0, "all alike"
    for described in models:
        try:
            found = check(folder, described)
        except Exception as error:  # whatever it is, the model did not pass: say so and go on
            print(f"FAILED {described['name']}: {error}")
            continue
        if not found <= manifest["relative"]:
            print(f"DIFFERS {described['name']}: {found:.2e} relative")
            continue
        agree += 1
        if found > worst:
            worst, where = found, described["name"]
    for refused in manifest["refused"]:
        print(f"not in ONNX: {refused['name']}: {refused['reason']}")
    print(f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}: "
          f"{agree} of {len(models)} agree, worst {worst:.2e} ({where})")
    sys.exit(0 if models and agree == len(models) else 1)


if __name__ == "__main__":
    main()
