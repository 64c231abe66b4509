"""llama-cpp-python's OpenAI-compatible server in a process of its own, and a client that reads its stream.

It answers one request at a time; the others wait for its lock. By default it cuts a streamed answer off as soon as another request
arrives (`interrupt_requests`, llama-cpp-python 0.3.36), and the client sees a short answer that ended well: it is told not to.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from transformers import AutoTokenizer

from matrix.errors import EvidenceError
from matrix.orphans import die_with
from matrix.profile import Language
from matrix.workloads.concurrent import Service
from matrix.workloads.language import Student
from matrix.workloads.language.student import held_out

PROMPTS: Final = 32
_CLIENTS: Final = 32
"""Requests that may wait at the server at once; the next ones wait here, and pay for it in their latency just so."""
_READY_S: Final = 60.0
_ANSWER_S: Final = 60.0


class Completion(NamedTuple):
    """An answer: its text, the pieces that it was streamed in (a token each), and seconds from the request to the first."""

    text: str
    pieces: int
    first_s: float


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + _READY_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/models", timeout=1):  # noqa: S310 - our own server
                return
        except OSError:
            time.sleep(0.05)
    told = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
    raise EvidenceError(
        f"llama.cpp's server did not answer within {_READY_S:.0f} s",
        remedy=" / ".join(told) or "pip install 'distill-matrix[llama]'",
    )


@contextmanager
def running(model: Path, *, threads: int, context: int) -> Iterator[str]:
    """The URL of a server of `model`, which ends with the block.

    Raises:
        EvidenceError: it does not start; with the end of what it said.
    """
    port = _free_port()
    settings = {
        "model": model,
        "host": "127.0.0.1",
        "port": port,
        "n_ctx": context,
        "n_batch": context,
        "n_threads": threads,
        "n_threads_batch": threads,
        "interrupt_requests": False,
    }
    command = [sys.executable, "-m", "llama_cpp.server"]
    command += [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    with tempfile.TemporaryDirectory(prefix="matrix-server-") as folder:
        log = Path(folder) / "log"
        with log.open("wb") as told:
            process = subprocess.Popen(  # noqa: S603 - the package's own server
                command,
                stdout=told,
                stderr=told,
                env=os.environ,
                preexec_fn=partial(die_with, os.getpid()),  # noqa: PLW1509 - one system call, its library loaded before
            )
        try:
            _ready(process, f"http://127.0.0.1:{port}/v1", log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()
            process.wait()


def complete(url: str, prompt: str, tokens: int) -> Completion:
    """The most probable continuation of `prompt`, at most `tokens` long, read as it is streamed.

    Raises:
        OSError: the server refuses the request or breaks off.
        EvidenceError: the stream ends without its end.
    """
    asked = {"prompt": prompt, "max_tokens": tokens, "temperature": 0.0, "stream": True}
    request = urllib.request.Request(  # noqa: S310 - our own server
        f"{url}/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    begun, first_s, pieces = time.perf_counter(), 0.0, list[str]()
    with urllib.request.urlopen(request, timeout=_ANSWER_S) as lines:  # noqa: S310 - likewise
        for line in lines:
            if not line.startswith(b"data: "):
                continue
            if line.strip() == b"data: [DONE]":
                return Completion("".join(pieces), len(pieces), first_s)
            piece = json.loads(line.removeprefix(b"data: "))["choices"][0]["text"]
            first_s = first_s or time.perf_counter() - begun
            pieces += [piece] if piece else []
    raise EvidenceError("the server's stream broke off", remedy="look at the server's memory: was it killed?")


def questions(student: Student) -> list[str]:
    """The first held-out conversations up to where an answer begins, as text."""
    tokenizer, held = AutoTokenizer.from_pretrained(student.checkpoint), held_out(student.checkpoint)
    asked = zip(held.ids[:PROMPTS], held.prompts, strict=False)
    return [tokenizer.decode(ids[:prompt], skip_special_tokens=False) for ids, prompt in asked]


def alike(answer: Completion, alone: Completion) -> bool:
    """Whether the text is the one that the server wrote when it was alone."""
    return answer.text == alone.text


@contextmanager
def service(variant: str, student: Student, recipe: Language, threads: int) -> Iterator[Service]:
    """A server of the variant's file, asked questions of held-out conversations."""
    with running(student.file(variant), threads=threads, context=recipe.context) as url:
        yield Service(
            [lambda prompt: complete(url, prompt, recipe.answer)] * _CLIENTS, questions(student), alike, at_once=1
        )
