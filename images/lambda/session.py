"""ONNX Runtime by its C interface: one thread, int64 in, float32 out; of the onnxruntime wheel, its C library and nothing else.

The Python package gives the same numbers, but importing it means importing numpy and a second, larger copy of the runtime:
most of a cold start (README.md has the measurement). The interface is a table of functions that is only ever appended to:
onnxruntime_c_api.h calls the part used here versions 1 and 5 and forbids changing them, and `GetApi` refuses a version that
it cannot serve.

It never guesses: a missing library, a table refused, a status other than success, an output of another type are errors.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from ctypes import CDLL, CFUNCTYPE, POINTER, Structure, byref, c_char_p, c_float, c_int, c_int64, c_size_t, c_uint32
from ctypes import c_void_p as pointer
from typing import Any

VERSION = 5
FLOAT, INT64 = 1, 7
INVALID_ARGUMENT = 2
NONE, EXTENDED = 0, 2
"""Levels of graph optimisations; EXTENDED is the last that does not depend on the CPU at hand: what may be saved and shipped."""

_out, _names = POINTER(pointer), POINTER(c_char_p)

# Place in the table and types of the arguments; each returns a status. Places as in onnxruntime_c_api.h.
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "CreateEnv": (3, c_int, c_char_p, _out),
    "CreateSession": (7, pointer, c_char_p, pointer, _out),
    "Run": (9, pointer, pointer, _names, _out, c_size_t, _names, c_size_t, _out),
    "CreateSessionOptions": (10, _out),
    "SetOptimizedModelFilePath": (11, pointer, c_char_p),
    "SetSessionExecutionMode": (13, pointer, c_int),
    "SetSessionGraphOptimizationLevel": (23, pointer, c_int),
    "SetIntraOpNumThreads": (24, pointer, c_int),
    "SetInterOpNumThreads": (25, pointer, c_int),
    "SessionGetInputCount": (30, pointer, POINTER(c_size_t)),
    "SessionGetInputName": (36, pointer, c_size_t, pointer, _out),
    "SessionGetOutputName": (37, pointer, c_size_t, pointer, _out),
    "CreateTensorWithDataAsOrtValue": (49, pointer, pointer, c_size_t, POINTER(c_int64), c_size_t, c_int, _out),
    "GetTensorMutableData": (51, pointer, _out),
    "GetTensorElementType": (60, pointer, POINTER(c_int)),
    "GetTensorShapeElementCount": (64, pointer, POINTER(c_size_t)),
    "GetTensorTypeAndShape": (65, pointer, _out),
    "CreateCpuMemoryInfo": (69, c_int, c_int, _out),
    "GetAllocatorWithDefaultOptions": (78, _out),
    "AddSessionConfigEntry": (130, pointer, c_char_p, c_char_p),
}
_ERROR_CODE, _ERROR_MESSAGE, _RELEASE_STATUS, _RELEASE_VALUE, _RELEASE_SHAPE, _LENGTH = 1, 2, 93, 96, 99, 131


class _Base(Structure):
    """OrtApiBase: the library's one exported symbol returns it."""

    _fields_ = (("get_api", CFUNCTYPE(pointer, c_uint32)), ("get_version", CFUNCTYPE(c_char_p)))


def library() -> str:
    """The C library inside the installed onnxruntime wheel, found without importing the package.

    Raises:
        RuntimeError: no folder of sys.path has it.
    """
    for folder in sys.path:
        inside = f"{folder or '.'}/onnxruntime/capi"
        names = os.listdir(inside) if os.path.isdir(inside) else []  # noqa: PTH112, PTH208 - importing pathlib costs 4 ms
        for name in names:
            if name.startswith("libonnxruntime.so."):
                return f"{inside}/{name}"
    raise RuntimeError("no onnxruntime/capi/libonnxruntime.so.* on sys.path: install the onnxruntime wheel for Linux")


class _Api:
    """The library's functions by name; each raises what its status says."""

    def __init__(self, path: str) -> None:
        base = CDLL(path).OrtGetApiBase
        base.restype = POINTER(_Base)
        address = base().contents.get_api(VERSION)
        if not address:
            raise RuntimeError(f"{path} does not serve version {VERSION} of its C interface")
        self._table = (pointer * _LENGTH).from_address(address)
        for name, (place, *types) in _FUNCTIONS.items():
            setattr(self, name, self._checked(CFUNCTYPE(pointer, *types)(self._table[place])))
        self.release_value = CFUNCTYPE(None, pointer)(self._table[_RELEASE_VALUE])
        self.release_shape = CFUNCTYPE(None, pointer)(self._table[_RELEASE_SHAPE])

    def _checked(self, function: Any) -> Any:  # noqa: ANN401 - ctypes' functions have no useful type
        function.errcheck = self._raise
        return function

    def _raise(self, status: int | None, _function: object, _arguments: object) -> None:
        if not status:
            return
        code = CFUNCTYPE(c_int, pointer)(self._table[_ERROR_CODE])(status)
        message = CFUNCTYPE(c_char_p, pointer)(self._table[_ERROR_MESSAGE])(status).decode()
        CFUNCTYPE(None, pointer)(self._table[_RELEASE_STATUS])(status)
        raise ValueError(message) if code == INVALID_ARGUMENT else RuntimeError(message)

    def made(self, name: str, *arguments: object) -> pointer:
        """What the function `name` writes through its last argument."""
        result = pointer()
        getattr(self, name)(*arguments, byref(result))
        return result


class Session:
    """One graph, ready to run. It lives as long as its process: nothing of it is ever released.

    With `optimised`, the graph is taken to be so already. With `save`, the graph as optimised here, up to what does not depend
    on the CPU at hand, is written to that .onnx file, and its weights into one beside it, from where they can be mapped.
    """

    def __init__(self, model: str, *, optimised: bool = False, save: str | None = None) -> None:
        self._api = api = _Api(library())
        options = api.made("CreateSessionOptions")
        # the default is one thread a core that the host has, whatever share of them the function got (onnxruntime 1.31)
        api.SetIntraOpNumThreads(options, 1)
        api.SetInterOpNumThreads(options, 1)
        api.SetSessionExecutionMode(options, 0)
        if optimised:
            api.SetSessionGraphOptimizationLevel(options, NONE)
        if save:
            weights = save.rpartition("/")[2].replace(".onnx", ".data").encode()
            api.AddSessionConfigEntry(options, b"session.optimized_model_external_initializers_file_name", weights)
            api.SetSessionGraphOptimizationLevel(options, EXTENDED)
            api.SetOptimizedModelFilePath(options, save.encode())
        environment = api.made("CreateEnv", 2, b"lambda")
        self._session = api.made("CreateSession", environment, model.encode(), options)
        self._memory = api.made("CreateCpuMemoryInfo", 0, 0)
        allocator = api.made("GetAllocatorWithDefaultOptions")
        count = c_size_t()
        api.SessionGetInputCount(self._session, byref(count))
        names = [api.made("SessionGetInputName", self._session, at, allocator) for at in range(count.value)]
        self.inputs = [_text(name) for name in names]
        self._output = _text(api.made("SessionGetOutputName", self._session, 0, allocator))

    def run(self, inputs: Mapping[str, Sequence[int]], rows: int) -> list[list[float]]:
        """The first output of the graph, a row of floats for each of the `rows` rows that every input holds, end to end.

        Raises:
            ValueError: ONNX Runtime calls an input invalid.
            RuntimeError: anything else that it reports, or an output that is not float32.
        """
        data = [(c_int64 * len(inputs[name]))(*inputs[name]) for name in self.inputs]
        values = [self._tensor(numbers, rows) for numbers in data]
        result = pointer()
        try:
            names = (c_char_p * len(values))(*(name.encode() for name in self.inputs))
            held = (pointer * len(values))(*values)
            output = (c_char_p * 1)(self._output.encode())
            self._api.Run(self._session, None, names, held, len(values), output, 1, byref(result))
            flat = self._floats(result)
        finally:
            for value in (*values, result):
                self._api.release_value(value)
        width = len(flat) // rows
        return [flat[start : start + width] for start in range(0, len(flat), width)]

    def _tensor(self, numbers: Any, rows: int) -> pointer:  # noqa: ANN401 - a ctypes array of any length
        """A tensor over `numbers`, which it does not copy."""
        shape = (c_int64 * 2)(rows, len(numbers) // rows)
        return self._api.made(
            "CreateTensorWithDataAsOrtValue", self._memory, numbers, 8 * len(numbers), shape, 2, INT64
        )

    def _floats(self, value: pointer) -> list[float]:
        """A copy of a float32 tensor, end to end."""
        shape = self._api.made("GetTensorTypeAndShape", value)
        kind, count = c_int(), c_size_t()
        self._api.GetTensorElementType(shape, byref(kind))
        self._api.GetTensorShapeElementCount(shape, byref(count))
        self._api.release_shape(shape)
        if kind.value != FLOAT:
            raise RuntimeError(f"the graph's first output has ONNX element type {kind.value}, not float32 ({FLOAT})")
        return (c_float * count.value).from_address(self._api.made("GetTensorMutableData", value).value)[:]


def _text(address: pointer) -> str:
    return (c_char_p.from_buffer(address).value or b"").decode()
