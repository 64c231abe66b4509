"""A teacher's logits, kept by example and tokenizer: what was asked once is taken from here, what is missing is asked.

A row's key is the digest of its token ids without padding and of its tokenizer, never its place in a batch or an epoch: other
words are another key, so that an augmented example misses. Kept are a row's fp32 logits (4 bytes a class: ten classes are 40 B
an example), its key (32 B) and the step that it was made in (8 B); in memory the last two take about 140 B as Python's objects.
Nothing is evicted.

What a frozen teacher's row holds is decided up to rounding, because its padding and its neighbours order the teacher's sums:
a row padded from 20 to 64 tokens, or asked alone instead of among 8, moved a logit by at most 5e-7 of the largest one (torch
2.13, CPU, fp32; 66 M parameters and less). So a row equals the online teacher's to the bit where both came from batches of one
shape, and to that rounding elsewhere. A teacher that moves, on the other hand, moves away from all that is kept: `share`
regenerates that part of every step's rows, oldest first.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from pydantic import Field
from transformers import PreTrainedModel

from matrix import whole
from matrix.canonical import digest
from matrix.errors import DataError
from matrix.strict import Strict, parse_json

Teach = Callable[[torch.Tensor], torch.Tensor]
"""Asked for some rows of the batch, by position and in their order; answers their logits, rows x classes, without gradient."""

_FORMAT: Final = "distill-matrix teacher logits 1"
_KEY_BYTES: Final = 32
_VOLATILE: Final = ("_name_or_path", "transformers_version", "architectures", "torch_dtype")


@dataclass(frozen=True)
class Origin:
    """Whose logits they are: the teacher's digest, the precision it computes in, and the digest of its tokenizer."""

    teacher: str
    precision: str
    tokenizer: str


class _Header(Strict):
    teacher: str
    precision: str
    classes: int = Field(ge=0)
    entries: int = Field(ge=0)
    step: int = Field(ge=0)


def teacher_digest(model: PreTrainedModel) -> str:
    """SHA-256 (hex) of a model's configuration and of every tensor's name, type, shape and bytes; about a second a gigabyte."""
    config: dict[str, Any] = json.loads(model.config.to_json_string(use_diff=False))
    told = hashlib.sha256(digest({key: config[key] for key in config if key not in _VOLATILE}).encode())
    for name, tensor in sorted(model.state_dict().items()):
        told.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        told.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return told.hexdigest()


def keys_of(ids: torch.Tensor, mask: torch.Tensor, tokenizer: str) -> list[bytes]:
    """Each row's key, 32 bytes, from `ids` and `mask` (batch x length) and the tokenizer's digest.

    Raises:
        DataError: padding is not at the end: with it a token's position, and so the logits, would change under one key.
    """
    seen = mask.bool()
    if not bool(seen[:, 0].all()) or bool((seen[:, 1:] & ~seen[:, :-1]).any()):
        raise DataError(
            "a row of the batch is empty, or padded elsewhere than at its end",
            remedy="pad on the right (tokenizer.padding_side): a cached row stands for its tokens at their own positions",
        )
    start, rows = hashlib.sha256(tokenizer.encode()).digest(), ids.cpu().numpy().astype("<i8")
    lengths = seen.sum(1).tolist()
    return [hashlib.sha256(start + row[:length].tobytes()).digest() for row, length in zip(rows, lengths, strict=True)]


class TeacherCache:
    """Logits of one teacher by example, on the device that the teacher answers on.

    `served` counts rows that were wanted, `taught` those that the teacher was asked for. Of a step's distinct rows at least
    `share` (0 to 1, rounded up to whole rows) are asked, misses among them: every step then does the same work.
    """

    def __init__(self, origin: Origin, *, share: float = 0.0) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"a share of {share}: rows of a step are regenerated from none (0) to all (1)")
        self.origin, self.share = origin, share
        self.served = self.taught = 0
        self._step = 0
        self._place: dict[bytes, int] = {}
        self._born: list[int] = []
        self._logits = torch.empty(0, 0)

    def __len__(self) -> int:
        return len(self._place)

    def logits(self, ids: torch.Tensor, mask: torch.Tensor, teach: Teach) -> torch.Tensor:
        """The teacher's logits for a batch (`ids` and `mask`, batch x length): batch x classes, fp32, a copy.

        `ids` and `mask` decide the keys, on the CPU: give them from there, or a GPU is waited for. Rows that are missing or
        due are asked in one call of `teach`, as they lie in the batch: a pass over all of it is the online teacher's, to the
        bit. An example that is twice in the batch is asked once.

        Raises:
            DataError: padding is not at the end.
            ValueError: `teach` answers another shape than its rows by the classes known.
        """
        keys = keys_of(ids, mask, self.origin.tokenizer)
        asked = self._due(keys)
        if asked:
            self._keep([keys[position] for position in asked], teach(torch.tensor(asked)))
        self._step += 1
        self.served, self.taught = self.served + len(keys), self.taught + len(asked)
        return self._logits[[self._place[key] for key in keys]]

    def _due(self, keys: Sequence[bytes]) -> list[int]:
        """Positions to ask for: every key that is missing, then the oldest until the share is reached."""
        first: dict[bytes, int] = {}
        for position, key in enumerate(keys):
            first.setdefault(key, position)
        missing = [position for key, position in first.items() if key not in self._place]
        kept = sorted((key for key in first if key in self._place), key=lambda key: self._born[self._place[key]])
        wanted = math.ceil(round(self.share * len(first), 9))  # 0.1 * 30 is a little more than 3
        return sorted([*missing, *(first[key] for key in kept[: max(0, wanted - len(missing))])])

    def _keep(self, keys: Sequence[bytes], logits: torch.Tensor) -> None:
        rows = logits.detach().float()
        classes = self._logits.shape[1] if self._place else rows.shape[-1]
        if rows.shape != (len(keys), classes):
            raise ValueError(f"the teacher answered {tuple(rows.shape)} for {len(keys)} rows of {classes} classes")
        places = [self._place.setdefault(key, len(self._place)) for key in keys]
        if len(self._place) > len(self._logits):
            grown = torch.empty(2 * len(self._place), classes, device=rows.device)
            if self._born:
                grown[: len(self._born)] = self._logits[: len(self._born)]
            self._logits = grown
        self._born += [self._step] * (len(self._place) - len(self._born))
        for place in places:
            self._born[place] = self._step
        self._logits[places] = rows

    def save(self, path: Path) -> None:
        """Write all entries into one file, whole or not at all: 40 bytes an entry, and 4 a class.

        Raises:
            DataError: a logit is not finite; it would outlive the run that it spoilt.
        """
        count, rows = len(self), self._logits[: len(self)].cpu()
        if not bool(torch.isfinite(rows).all()):
            raise DataError(
                "the teacher's logits are not all finite, and are not written",
                remedy="look for overflow in the teacher (its precision, its weights), and begin with an empty cache",
            )
        head = _Header(
            teacher=self.origin.teacher,
            precision=self.origin.precision,
            classes=rows.shape[1],
            entries=count,
            step=self._step,
        )
        parts = [head.model_dump_json().encode(), b"\n", b"".join(self._place)]
        body = b"".join([*parts, np.array(self._born, "<i8").tobytes(), rows.numpy().astype("<f4").tobytes()])
        whole.write(path, f"{_FORMAT} {hashlib.sha256(body).hexdigest()}\n".encode() + body)

    @classmethod
    def read(cls, path: Path, origin: Origin, *, share: float = 0.0, device: str = "cpu") -> TeacherCache:
        """The cache that `save` wrote to `path`, with its logits on `device`; the file is only read.

        Entries of another tokenizer are kept too: its keys never meet this one's.

        Raises:
            DataError: no file is there, it is damaged, or it holds another teacher's logits or another precision's.
        """
        head, body = _opened(path)
        told, asked = (head.teacher, head.precision), (origin.teacher, origin.precision)
        if told != asked:
            raise DataError(
                f"{path} holds the logits of another teacher: {told[0]} in {told[1]}",
                remedy=f"the one asked for is {asked[0]} in {asked[1]}; begin with an empty cache, and save it elsewhere",
            )
        made, count = cls(origin, share=share), head.entries
        keys = body.read(_KEY_BYTES * count)
        made._place = {keys[at * _KEY_BYTES : (at + 1) * _KEY_BYTES]: at for at in range(count)}
        made._born = np.frombuffer(body.read(8 * count), "<i8").tolist()
        rows = np.frombuffer(body.read(), "<f4").reshape(count, head.classes)
        made._logits, made._step = torch.tensor(rows.astype(np.float32)).to(device), head.step
        return made


def _opened(path: Path) -> tuple[_Header, io.BytesIO]:
    """A file's header, and what follows it: the digest is right, and so are the sizes."""
    try:
        first, _, body = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        raise DataError(f"no teacher cache is at {path}", remedy="begin with an empty one, and save it there") from None
    if first != f"{_FORMAT} {hashlib.sha256(body).hexdigest()}".encode():
        raise DataError(
            f"{path} is no teacher cache of this version, or is damaged: its digest is not that of what it holds",
            remedy="move it away and begin with an empty cache: the teacher regenerates what it held",
        )
    line, _, rest = body.partition(b"\n")
    head = parse_json(_Header, line, str(path))
    if len(rest) != head.entries * (_KEY_BYTES + 8 + 4 * head.classes):
        raise DataError(
            f"{path} holds {len(rest)} bytes for {head.entries} entries of {head.classes} classes",
            remedy="it was not written by this program: move it away and begin with an empty cache",
        )
    return head, io.BytesIO(rest)
