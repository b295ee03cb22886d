"""The speed of a runtime on an ONNX file that Kinone wrote (`fresh_resnet`): the work of `infer_speed`.

    python benchmarks/peers/onnx_infer.py onnxruntime|openvino FILE BATCH SIZE REPEATS [THREADS]

Both compute in f32: OpenVINO would take bf16 by itself where the processor has it. Prints one JSON object: images a
second (median, lowest, highest repetition) and the peak memory of the process.
"""

import os
import sys
import time

import numpy
from common import report

# The first repetitions allocate.
WARM = 3


def onnxruntime(file, shape, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_free_dimension_override_by_name("N", shape[0])
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0], onnxruntime.__version__


def openvino(file, shape, threads):
    import openvino

    core = openvino.Core()
    model = core.read_model(file)
    model.reshape(shape)
    compiled = core.compile_model(model, "CPU", {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
    })
    request = compiled.create_infer_request()
    return lambda images: request.infer([images], share_inputs=True)[0], openvino.__version__


def main():
    runtime, file, batch, size, repeats = *sys.argv[1:3], *map(int, sys.argv[3:6])
    threads = int(sys.argv[6]) if len(sys.argv) > 6 else os.cpu_count()
    shape = [batch, 1, size, size]
    run, version = {"onnxruntime": onnxruntime, "openvino": openvino}[runtime](file, shape, threads)
    random = numpy.random.default_rng(1)
    seconds = []
    for repetition in range(repeats + WARM):
        images = random.standard_normal(shape, dtype=numpy.float32)
        start = time.perf_counter()
        run(images)
        if repetition >= WARM:
            seconds.append(time.perf_counter() - start)
    report({"runtime": runtime, "size": size, "threads": threads, "versions": {runtime: version}}, batch, seconds)


if __name__ == "__main__":
    main()
