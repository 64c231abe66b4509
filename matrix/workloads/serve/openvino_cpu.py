"""OpenVINO's CPU plug-in: one request under the latency hint, or a request a stream under the throughput hint."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import openvino

from matrix.errors import DataError
from matrix.workloads.serve import Inputs, Predict, check_inputs, unreadable


def load(model: Path, *, device: str, threads: int) -> Predict:
    """Serve the IR whose topology is the file `model`, a request at a time.

    Shapes are dynamic, as exported. OpenVINO 2026.4 prepares its primitives anew whenever the length differs from the call
    before: INT8 at 13 tokens takes 0.44 ms a call, and 0.95 ms at 8 to 20 tokens in turn (ONNX Runtime 0.45 and 0.48). The
    cells at the data's own lengths hold that cost, as a service would.

    Raises:
        DataError: the device is not the CPU, or the file is no model of token ids that this version can serve.
    """
    if device != "cpu":
        raise DataError(f"OpenVINO has no {device} plug-in", remedy="measure it on an x86 CPU target")
    return _request(_compiled(model, "LATENCY", threads))


def streams(model: Path, *, threads: int) -> list[Predict]:
    """As many requests at once as OpenVINO itself finds best for throughput; each answers as `load` does.

    Raises:
        DataError: as `load`.
    """
    compiled = _compiled(model, "THROUGHPUT", threads)
    return [_request(compiled) for _ in range(int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")))]


def _compiled(model: Path, hint: Literal["LATENCY", "THROUGHPUT"], threads: int) -> openvino.CompiledModel:
    """The model, ready under `hint`.

    The precision hint is fp32: on a CPU with bf16 OpenVINO computes in bf16 unless told otherwise, and an "fp32" row would lie.
    """
    config = {"PERFORMANCE_HINT": hint, "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    try:
        compiled = openvino.Core().compile_model(str(model), "CPU", config)
    except RuntimeError as error:
        raise unreadable(model, f"OpenVINO {openvino.__version__}", error) from error
    check_inputs(model, [port.any_name for port in compiled.inputs])
    return compiled


def _request(compiled: openvino.CompiledModel) -> Predict:
    request = compiled.create_infer_request()
    names = [port.any_name for port in compiled.inputs]

    def predict(inputs: Inputs) -> npt.NDArray[np.float32]:
        request.infer({name: inputs[name] for name in names}, share_inputs=True)
        logits: npt.NDArray[np.float32] = request.get_output_tensor(0).data.copy()
        return logits

    return predict
