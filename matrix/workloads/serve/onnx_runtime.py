"""ONNX Runtime on the CPU, one session, sequential execution."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import onnxruntime

from matrix.errors import DataError
from matrix.workloads.serve import Inputs, Predict, check_inputs, unreadable


def load(model: Path, *, device: str, threads: int) -> Predict:
    """Serve the graph in the file `model`.

    Threads are set by hand: the default is one a core of the host, whatever the cgroup's quota says (onnxruntime 1.31).

    Raises:
        DataError: the device is not the CPU, or the file is no model of token ids that this version can serve.
    """
    if device != "cpu":
        raise DataError(f"this build of ONNX Runtime has no {device} provider", remedy="measure it on a CPU target")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # onnxruntime lists AzureExecutionProvider first when providers are left to it
    try:
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common base
        raise unreadable(model, f"ONNX Runtime {onnxruntime.__version__}", error) from error
    names = [item.name for item in session.get_inputs()]
    check_inputs(model, names)

    def predict(inputs: Inputs) -> npt.NDArray[np.float32]:
        return cast("npt.NDArray[np.float32]", session.run(None, {name: inputs[name] for name in names})[0])

    return predict
