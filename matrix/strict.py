"""Strict, frozen types, and parsing at the border.

Refuses unknown keys, wrong types and NaN. A fault in a file is told with the path to the fault and the nearest known key.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from matrix.errors import DataError


class Strict(BaseModel):
    """A frozen value that knows all its keys; the base of every type that crosses a border."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, ser_json_inf_nan="null")


S = TypeVar("S", bound=Strict)


def _known_keys(model: type[BaseModel], path: Iterable[int | str]) -> list[str]:
    """Keys of the innermost model on `path`, as far as plain nesting tells."""
    fields = model.model_fields
    for step in path:
        field = fields.get(str(step))
        inner = getattr(field, "annotation", None)
        candidates = [inner, *getattr(inner, "__args__", ())]
        nested = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
        if nested is not None:
            fields = nested.model_fields
    return list(fields)


def _sentence(model: type[BaseModel], fault: Any) -> str:  # noqa: ANN401 - pydantic's own error record
    path = ".".join(str(step) for step in fault["loc"]) or "the top level"
    if fault["type"] != "extra_forbidden":
        return f"{path}: {fault['msg']}"
    near = difflib.get_close_matches(str(fault["loc"][-1]), _known_keys(model, fault["loc"][:-1]), n=1)
    return f"{path}: unknown key" + (f", did you mean {near[0]!r}?" if near else "")


def parse(model: type[S], data: object, where: str) -> S:
    """`data` as a `model`.

    Raises:
        DataError: with every fault, its path, and the nearest known key where one is misspelt.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        faults = "; ".join(_sentence(model, fault) for fault in error.errors())
        raise DataError(f"{where} is not valid", remedy=faults) from None


def parse_json(model: type[S], text: str | bytes, where: str) -> S:
    """JSON `text` as a `model`; JSON has no tuples or sets, so lists are taken for them.

    Raises:
        DataError: the text is no JSON or does not describe a `model`.
    """
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        faults = "; ".join(_sentence(model, fault) for fault in error.errors())
        raise DataError(f"{where} is not valid", remedy=faults) from None


def parse_toml(model: type[S], text: str, where: str) -> S:
    """TOML `text` as a `model`.

    Raises:
        DataError: the text is no TOML (with line and column) or does not describe a `model`.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DataError(
            f"{where} is not TOML", remedy=f"mend it {str(error).partition('(')[2].rstrip(')') or error}"
        ) from None
    return parse(model, data, where)
