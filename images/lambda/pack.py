"""Turn an exported model into what the handler loads fastest: optimised here, once, its weights in a file that is mapped.

    python3 /var/task/pack.py SRC_DIR OUT_DIR

Run inside the image, by the runtime that will load it. SRC_DIR has model.onnx, tokenizer.json and labels.json; OUT_DIR gets
packed.onnx, packed.data and the other two. The same model gives the same bytes (ONNX Runtime's own .ort format does not: it
writes weights in an order that changes from run to run, as of 1.31). It refuses to leave a model whose logits differ from the
original's in a single bit.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from session import Session
from tokenizers import Tokenizer

LENGTHS = (1, 2, 7, 16, 64, 128)
MADE = ("packed.onnx", "packed.data")


def probe(session: Session, words: int) -> list[list[list[float]]]:
    """The logits of rows of several lengths, one and two at once, of token ids below `words`."""

    def logits(rows: int, length: int) -> list[list[float]]:
        ids = [(37 * at + length) % words for at in range(rows * length)]
        known = {"input_ids": ids, "attention_mask": [1] * len(ids), "token_type_ids": [0] * len(ids)}
        return session.run(known, rows)

    return [logits(rows, length) for length in LENGTHS for rows in (1, 2)]


def pack(source: Path, out: Path) -> None:
    """Fill OUT_DIR.

    Raises:
        RuntimeError: the packed model answers differently; it is gone.
    """
    out.mkdir(exist_ok=True)
    Session(str(source / "model.onnx"), save=str(out / "packed.onnx"))
    words = Tokenizer.from_file(str(source / "tokenizer.json")).get_vocab_size()
    packed = probe(Session(str(out / "packed.onnx"), optimised=True), words)
    if packed != probe(Session(str(source / "model.onnx")), words):
        for name in MADE:
            (out / name).unlink(missing_ok=True)
        raise RuntimeError("the packed model's logits differ from the original's: ship model.onnx as it is")
    for name in ("tokenizer.json", "labels.json"):
        shutil.copyfile(source / name, out / name)


if __name__ == "__main__":
    pack(Path(sys.argv[1]), Path(sys.argv[2]))
