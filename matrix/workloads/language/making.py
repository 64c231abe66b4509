"""Prepares the response student that ships: its training and its files, kept under the digests of what they come from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from matrix.canonical import digest, file_digest, tree_digest
from matrix.cell import LANGUAGE
from matrix.job import Event, Job, ResponseIdentity
from matrix.workloads import conversations
from matrix.workloads.cache import Cache, versions
from matrix.workloads.conversations import ResponseExample
from matrix.workloads.language import MODEL, PLAIN, TYPES, Student, gguf, student, study
from matrix.workloads.progress import Tell

_HERE = Path(__file__).parent


def made(
    job: Job, response: ResponseIdentity, answered: Sequence[ResponseExample], cache: Cache, tell: Tell
) -> ResponseIdentity:
    """`response` with the student that the job's cells ask for, trained on half of `answered`; as it was where none asks.

    Raises:
        DataError: there is too little to learn from, or the student cannot be written as GGUF.
    """
    wanted = {cell.variant for cell in job.cells if cell.workload == "response" and cell.suite in LANGUAGE}
    if not wanted:
        return response
    recipe, above = job.profile.language, _HERE.parent
    code = tree_digest((_HERE / "student.py", above / "llama.py", above / "conversations.py"), above)
    told = [code, response.sha256, response.tokenizer_sha256, recipe.model_dump(mode="json")]
    key = digest([*told, versions(("torch", "transformers"))])
    place = cache.folder("language", key)
    tokenizer, _ = conversations.read(cache.folder("conversations", response.conversations))
    cache.keep(place, lambda out: student.make(out, tokenizer, answered, recipe, tell))
    weights = file_digest(place / "model.safetensors")
    files = digest([weights, file_digest(_HERE / "gguf.py"), versions(("gguf", "llama-cpp-python"))])
    if find_spec("llama_cpp") and find_spec("gguf"):  # without them the cells that want a file say so
        _files(Student(place, cache.folder("language", files)), wanted, recipe.context, cache, tell)
    return response.model_copy(update={"student": key, "files": files, "weights_sha256": weights})


def _files(made: Student, wanted: set[str], context: int, cache: Cache, tell: Tell) -> None:
    """Every file that is wanted, and the fp32 one that they are made from once it is proven."""
    plain = made.files / PLAIN

    def write(out: Path) -> None:
        tell(Event(stage="export", detail=PLAIN))
        gguf.write(made.checkpoint, out / MODEL)
        study.prove(made.checkpoint, out / MODEL, context=context)

    def quantise(name: str, out: Path) -> None:
        tell(Event(stage="export", detail=name))
        gguf.quantise(plain / MODEL, out / MODEL, name)

    for name in (one for one in TYPES if one in wanted):
        cache.keep(plain, write)
        cache.keep(made.files / name, partial(quantise, name))
