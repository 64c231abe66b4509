"""The process of `matrix export`: turns a student into what a service loads, and proves it before it appears.

`python -m matrix.workloads.export.run ORDER` reads an order (`matrix.exported`).
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from transformers import AutoConfig

from matrix.canonical import file_digest
from matrix.errors import DataError, MatrixError
from matrix.exported import MANIFEST, Export, ExportedFile, Format, Manifest
from matrix.job import Event
from matrix.strict import parse_json
from matrix.workloads import export
from matrix.workloads.cache import versions
from matrix.workloads.export import parity
from matrix.workloads.models import check_vocabulary, load_model, load_tokenizer
from matrix.workloads.progress import Tell, teller
from matrix.workloads.serve import INPUTS, runtime_of, torch_eager

MODEL: Final = "model.onnx"
"""The name under which optimum finds it."""

_MADE_BY: Final[dict[Format, str]] = {"onnx": "onnx_fused", "onnx-int8": "onnx_int8_fused"}
_PACKAGES: Final = ("onnx", "onnxruntime", "torch", "transformers")
_LIKE: Final = 0.99
"""Least correlation of quantised logits with the checkpoint's on random ids, where this project's student shows 0.9998."""


def _chain(name: str) -> Iterator[str]:
    """Formats that `name` is made from, and itself."""
    for need in export.exporter(name).NEEDS:
        if need != "torch_fp32":
            yield from _chain(need)
    yield name


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """A hidden folder beside `out`, which goes when the block ends."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.with_name(f".{out.name}.{os.getpid()}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make(order: Export, tell: Tell) -> Manifest:
    """Export, prove, and put everything in its place by one renaming.

    Raises:
        DataError: the student is no BERT classifier, or an export answers otherwise than it.
    """
    out, name = Path(order.out), _MADE_BY[order.format]
    try:
        config = AutoConfig.from_pretrained(order.student)
    except (OSError, ValueError) as error:
        raise DataError(
            f"no classifier is at {order.student!r}", remedy=f"give a checkpoint's folder or a hub id ({error})"
        ) from error
    classes = tuple(str(config.id2label[index]) for index in range(config.num_labels))
    with _beside(out) as folder:
        made = {"torch_fp32": folder / "torch_fp32"}
        model, tokenizer = load_model(order.student, classes, "bert"), load_tokenizer(order.student)
        check_vocabulary(model, tokenizer)
        model.save_pretrained(made["torch_fp32"])
        weights = made["torch_fp32"] / "model.safetensors"
        reference = torch_eager.load(weights, device="cpu", threads=order.threads)
        asked = list(parity.probes(config.vocab_size, config.max_position_embeddings))
        apart = 0.0
        for part in _chain(name):
            tell(Event(stage="export", detail=part))
            made[part] = folder / part
            made[part].mkdir()
            module = export.exporter(part)
            module.export(made, made[part], [])
            predict = runtime_of(part).load(made[part] / module.MODEL, device="cpu", threads=order.threads)
            if part in export.EXACT:
                apart = max(apart, parity.check(part, predict, reference, asked))
            else:
                parity.alike(part, predict, reference, asked, _LIKE)
        whole = folder / "whole"
        whole.mkdir()
        shutil.move(made[name] / export.exporter(name).MODEL, whole / MODEL)
        model.config.save_pretrained(whole)
        tokenizer.save_pretrained(whole)
        manifest = Manifest(
            format=order.format,
            made_by=name,
            model=MODEL,
            inputs=INPUTS,
            classes=classes,
            longest=config.max_position_embeddings,
            student_sha256=file_digest(weights),
            fp32_max_dlogit=apart,
            packages=versions(_PACKAGES),
            files={
                path.name: ExportedFile(bytes=path.stat().st_size, sha256=file_digest(path))
                for path in sorted(whole.iterdir())
            },
        )
        (whole / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
        for path in whole.iterdir():
            path.chmod(0o644)
        whole.rename(out)
    return manifest


def main(arguments: Sequence[str]) -> int:
    """Obey the order in the file named first; a refusal goes to standard error."""
    try:
        order = parse_json(Export, Path(arguments[0]).read_bytes(), arguments[0])
        make(order, teller(Path(arguments[0]).parent))
    except MatrixError as error:
        sys.stderr.write(f"matrix: {error}\n")
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
