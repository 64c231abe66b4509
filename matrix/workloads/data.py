"""The intent workload's examples: embedded, from a file, or from a hub; always three disjoint splits with a digest.

Refuses what would make an accuracy meaningless: an empty split, a label that training never saw, an unknown file format. A
text in two splits stays in the one that claims more (evaluation, then validation), and what is dropped is counted.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matrix.canonical import digest
from matrix.errors import DataError
from matrix.profile import Recipe
from matrix.workloads.mangaassist import Utterance, generate, load_grammar

EMBEDDED = "embedded"


@dataclass(frozen=True)
class Split:
    """Ordered examples: `texts[i]` has the class `labels[i]`."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def sha256(self) -> str:
        """Digest of the ordered examples."""
        return digest([list(self.texts), list(self.labels)])


@dataclass(frozen=True)
class Splits:
    """What is trained on, what training is watched with, and what is claimed on."""

    source: str
    names: tuple[str, ...]
    train: Split
    validation: Split
    evaluation: Split
    dropped: int = 0


Rows = Sequence[tuple[str, str]]


def load_splits(source: str, recipe: Recipe) -> Splits:
    """The splits of `source`: "embedded", a path (CLINC150 JSON, CSV or JSONL of text,label) or a hub id.

    Raises:
        DataError: the source cannot be read or cannot carry a claim.
    """
    if source == EMBEDDED:
        return _embedded(recipe)
    path = Path(source).expanduser()
    if path.exists():
        train, validation, evaluation = _from_file(path, recipe)
        label = path.name
    elif path.suffix in _READERS or source.startswith((".", "/", "~")):
        raise DataError(f"no file is at {source}", remedy="give the path of a .json, .csv or .jsonl file, or a hub id")
    else:
        train, validation, evaluation = _from_hub(source)
        label = source
    return _splits(label, train, validation, evaluation, recipe)


def _embedded(recipe: Recipe) -> Splits:
    counts = (recipe.evaluation_examples, recipe.validation_examples, recipe.train_examples)
    taken: set[str] = set()
    made: list[Split] = []
    for offset, count in enumerate(counts):  # evaluation first: it stays the same when more is trained on
        rows = generate(count, recipe.data_seed + offset, taken=taken)
        taken |= {row.text for row in rows}
        made.append(_split(rows))
    return Splits(EMBEDDED, load_grammar().labels, train=made[2], validation=made[1], evaluation=made[0])


def _split(rows: Iterable[Utterance]) -> Split:
    rows = tuple(rows)
    return Split(tuple(row.text for row in rows), tuple(row.label for row in rows))


def _clinc(path: Path) -> tuple[Rows, Rows, Rows]:
    data = json.loads(path.read_text(encoding="utf-8"))
    if not (isinstance(data, dict) and {"train", "val", "test"} <= set(data)):
        raise DataError(
            f"{path} is not CLINC150", remedy="a .json file needs the keys train, val and test, as data_full.json has"
        )
    beside = path.with_name("domains.json")
    domains = json.loads(beside.read_text(encoding="utf-8")) if beside.exists() else {}
    domain_of = {intent: domain for domain, intents in domains.items() for intent in intents}
    train, validation, test = (
        [(text, domain_of.get(label, label)) for text, label in data[key]] for key in ("train", "val", "test")
    )
    return train, validation, test


def _checked(row: dict[str, Any], where: str) -> tuple[str, str]:
    text, label = row.get("text"), row.get("label")
    if not isinstance(text, str) or not text.strip() or label in (None, ""):
        raise DataError(f"{where} has no text or no label", remedy='each row needs "text" and "label"')
    return text, str(label)


def _csv(path: Path) -> Rows:
    with path.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        return [_checked(row, f"{path}:{reader.line_num}") for row in reader]


def _jsonl(path: Path) -> Rows:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number} is not JSON", remedy=f"mend the line ({error.msg})") from None
        rows.append(_checked(row if isinstance(row, dict) else {}, f"{path}:{number}"))
    return rows


_READERS = {".json": None, ".csv": _csv, ".jsonl": _jsonl}


def _from_file(path: Path, recipe: Recipe) -> tuple[Rows, Rows, Rows]:
    if path.suffix not in _READERS:
        raise DataError(
            f"{path} has no format that is known here", remedy="name a .json (CLINC150), .csv or .jsonl file"
        )
    reader = _READERS[path.suffix]
    try:
        return _clinc(path) if reader is None else _cut(list(reader(path)), recipe)
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read", remedy=f"mend it ({error})") from None


def _cut(rows: list[tuple[str, str]], recipe: Recipe) -> tuple[Rows, Rows, Rows]:
    """One file into three seeded parts: 60 % to train, 10 % to watch, 30 % to claim on."""
    random.Random(recipe.data_seed).shuffle(rows)  # noqa: S311 - a split, not a secret
    first, second = len(rows) * 6 // 10, len(rows) * 7 // 10
    return rows[:first], rows[first:second], rows[second:]


def _from_hub(name: str) -> tuple[Rows, Rows, Rows]:
    from datasets import load_dataset  # noqa: PLC0415 - needed for hub data only

    try:
        data = load_dataset(name)
    except Exception as error:  # the hub client has no common error type
        raise DataError(
            f"the hub does not give {name!r}", remedy=f"check the id and the network, or give a path ({error})"
        ) from error
    parts = [data.get(key) for key in ("train", "validation", "test")]
    if any(part is None or not {"text", "label"} <= set(part.column_names) for part in parts):
        raise DataError(
            f"{name!r} lacks a split or a column", remedy="it needs train, validation and test with text and label"
        )
    train, validation, test = ([(row["text"], str(row["label"])) for row in part] for part in parts)
    return train, validation, test


def _splits(source: str, train: Rows, validation: Rows, evaluation: Rows, recipe: Recipe) -> Splits:
    claimed = {text for text, _ in evaluation}
    watched = [row for row in validation if row[0] not in claimed]
    held_out = claimed | {text for text, _ in watched}
    kept = [row for row in train if row[0] not in held_out]
    sampled = random.Random(recipe.data_seed).sample(kept, min(recipe.train_examples, len(kept)))  # noqa: S311 - data
    labels = {label for _, label in kept}
    names = tuple(sorted(labels, key=int if all(label.isdecimal() for label in labels) else None))
    index = {name: position for position, name in enumerate(names)}
    parts = {"train": sampled, "validation": watched, "evaluation": evaluation}
    for part, rows in parts.items():
        unknown = {label for _, label in rows} - set(index)
        if not rows or unknown or len(names) < 2:  # noqa: PLR2004 - one class needs no classifier
            raise DataError(
                f"{source}: the {part} split cannot carry a claim",
                remedy=f"it has {len(rows)} rows; labels that training never saw: {sorted(unknown)[:5]}; classes: {len(names)}",
            )
    made = {part: _split(Utterance(text, index[label]) for text, label in rows) for part, rows in parts.items()}
    return Splits(source, names, **made, dropped=len(train) - len(kept) + len(validation) - len(watched))
