"""The Lambda function: a text in, its label and logits out; ONNX Runtime's C library and tokenizers, one thread.

    {"text": str}     -> {"label": str, "logits": [float]}
    {"ids": [[int]]}  -> {"logits": [[float]]}, rows of one length, as they are: neither padded nor truncated
    {"about": true}   -> what this process spent so far: seconds of init, CPU, memory, throttling

The model is loaded at import, which is Lambda's init phase. Anything else than these three events is a ValueError.
"""

from __future__ import annotations

import time

_STARTED = time.perf_counter()

import json  # noqa: E402 - the clock starts before the imports
import os  # noqa: E402
from typing import Any  # noqa: E402

from session import Session  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

# ruff: noqa: PTH110, PTH123 - importing pathlib would cost a cold start 4 ms

_IMPORTED = time.perf_counter()

MAX_TOKENS = 128
CPU_STATS = ("/sys/fs/cgroup/cpu.stat", "/sys/fs/cgroup/cpu/cpu.stat")
MODEL = os.environ.get("LAMBDA_TASK_ROOT", "/var/task") + "/model"


def load_tokenizer(folder: str) -> Tokenizer:
    """The tokenizer as trained, without padding, truncating at `MAX_TOKENS`."""
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.no_padding()
    return tokenizer


def load_labels(folder: str) -> list[str]:
    """The labels, in the order of the logits."""
    with open(f"{folder}/labels.json", encoding="utf-8") as file:
        return json.load(file)


def load_session(folder: str) -> Session:
    """The graph as `pack.py` made it, or else as exported."""
    packed = f"{folder}/packed.onnx"
    return Session(packed, optimised=True) if os.path.exists(packed) else Session(f"{folder}/model.onnx")


TOKENIZER = load_tokenizer(MODEL)
LABELS = load_labels(MODEL)
_TOKENIZED = time.perf_counter()
SESSION = load_session(MODEL)
_LOADED = time.perf_counter()


def logits_of(ids: list[list[int]]) -> list[list[float]]:
    """One row of logits a row of token ids: float32 values, exact as Python floats."""
    flat = [token for row in ids for token in row]
    known = {"input_ids": flat, "attention_mask": [1] * len(flat), "token_type_ids": [0] * len(flat)}
    return SESSION.run(known, len(ids))


def classify(text: object) -> dict[str, Any]:
    """The label with the highest logit, and all logits."""
    if not isinstance(text, str):
        raise ValueError(f"'text' must be a string, not {type(text).__name__}")  # noqa: TRY004 - the contract's one error
    logits = logits_of([TOKENIZER.encode(text).ids])[0]
    return {"label": LABELS[logits.index(max(logits))], "logits": logits}


def predict(ids: object) -> dict[str, Any]:
    """The logits of ready token ids."""
    if not (isinstance(ids, list) and ids and all(isinstance(row, list) and row for row in ids)):
        raise ValueError("'ids' must be a list of rows of token ids, with at least one row and one id in each")
    if len({len(row) for row in ids}) > 1:
        raise ValueError("the rows of 'ids' must have one length: nothing is padded here")
    if not all(type(token) is int and token >= 0 for row in ids for token in row):
        raise ValueError("every id in 'ids' must be an integer from 0")
    return {"logits": logits_of(ids)}


def _status(field: str) -> int | None:
    """A memory field of /proc/self/status, in bytes; None where the system does not tell."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            lines = file.readlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


def _cpu_stat() -> dict[str, int]:
    """The cgroup's own account of throttling, version 1 or 2; empty where it cannot be read, as on Lambda itself."""
    for path in CPU_STATS:
        try:
            with open(path, encoding="ascii") as file:
                return {name: int(value) for name, value in map(str.split, file)}
        except OSError:
            continue
    return {}


def about() -> dict[str, Any]:
    """What this process spent so far: seconds by stage of the init, CPU seconds, bytes, throttling."""
    return {
        "init": {
            "import_s": _IMPORTED - _STARTED,
            "tokenizer_s": _TOKENIZED - _IMPORTED,
            "session_s": _LOADED - _TOKENIZED,
        },
        "cpu_s": time.process_time(),
        "peak_bytes": _status("VmHWM"),
        "resident_bytes": _status("VmRSS"),
        "cpu_stat": _cpu_stat(),
        "cores": len(os.sched_getaffinity(0)),
    }


def handler(event: object, context: object = None) -> dict[str, Any]:  # noqa: ARG001 - Lambda's signature
    """Answer one event.

    Raises:
        ValueError: it is none of the three events of the contract.
    """
    match event:
        case {"text": text, **rest} if not rest:
            return classify(text)
        case {"ids": ids, **rest} if not rest:
            return predict(ids)
        case {"about": True, **rest} if not rest:
            return about()
    raise ValueError('an event is {"text": str}, {"ids": [[int]]} or {"about": true}, with no other key')
