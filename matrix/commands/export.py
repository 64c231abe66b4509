"""The command that turns a student into what a service loads: export."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import cast, get_args

import click
from rich.console import Console

from matrix import host
from matrix.commands import child
from matrix.console import Live
from matrix.errors import UsageError
from matrix.exported import MANIFEST, Export, Format, Manifest
from matrix.strict import parse_json
from matrix.units import show

_NEEDED = ("onnx", "onnxruntime", "torch", "transformers")


@click.command()
@click.argument("student")
@click.option(
    "--format",
    "format_",
    type=click.Choice(get_args(Format)),
    required=True,
    help="onnx: fp32 with fused attention. onnx-int8: dynamic INT8 from it, a quarter of the bytes.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder that the export appears in, whole.")
def export(student: str, format_: str, out: Path) -> None:
    """Export STUDENT, a BERT classifier's folder or hub id, to ONNX with model, tokenizer, labels and a manifest of digests.

    \b
      matrix distill --data utterances.csv --out student
      matrix export student --format onnx-int8 --out service

    The fp32 graph is proven to answer as the checkpoint does before anything is quantised from it. OUT loads with
    optimum's ORTModelForSequenceClassification and with a plain onnxruntime session; it holds the first token's answer only,
    whatever else the last layer would have computed.
    """  # noqa: D301 - click's own mark, a backspace
    with Live(Console(stderr=True)) as live:
        made = run(
            Export(
                student=student, format=cast("Format", format_), out=str(out.resolve()), threads=host.usable_cores()
            ),
            live,
        )
    size = made.files[made.model].bytes
    click.echo(
        f"{out}: {show(size, 'bytes')}, {len(made.classes)} classes; the fp32 graph is within {made.fp32_max_dlogit:.1e} of the "
        f"checkpoint's logits; {MANIFEST} has the digests"
    )


def run(order: Export, live: Live) -> Manifest:
    """Have a process of this Python make the export; what it is.

    Raises:
        UsageError: something is at `out`.
        HostError: this Python lacks a package.
        MatrixError: the student cannot be exported, or an export answers otherwise than it.
        IncompleteError: the process ended before its work did; nothing is at `out`.
    """
    out = Path(order.out)
    if out.exists():
        raise UsageError(f"something is at {out}", remedy="name another --out, or remove it: nothing is written over")
    child.need(_NEEDED, "exporting")
    with tempfile.TemporaryDirectory(prefix="matrix-export-") as folder:
        child.obeyed(
            "matrix.workloads.export.run",
            order,
            Path(folder),
            live,
            ("the export is not finished", "repeat the command"),
        )
    return parse_json(Manifest, (out / MANIFEST).read_bytes(), str(out / MANIFEST))
