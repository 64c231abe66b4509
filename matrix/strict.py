"""Strict, frozen types, and parsing at the border.

Refuses unknown keys, wrong types and NaN. A fault in a file is told with the path to the fault and the nearest known key.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator

from matrix.errors import DataError

_LARGEST: Final = 2**53 - 1
"""The largest integer that canonical JSON has (RFC 8785, as in JavaScript): a larger one has no digest."""

_TOLD: Final = 20
"""How many faults of one file are told; its reader mends those, and asks again."""


def _is_too_large(value: Any) -> bool:  # noqa: ANN401 - a field's value, of any type
    """Whether a field holds such an integer, also in its tuples and tables."""
    kind = type(value)  # asked of every field of every value: `isinstance` would take half as long again
    if kind is int:
        return not -_LARGEST <= value <= _LARGEST
    if kind is tuple or kind is dict:
        return any(_is_too_large(one) for one in (value.values() if kind is dict else value))
    return False


class Strict(BaseModel):
    """A frozen value that knows all its keys; the base of every type that crosses a border."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, ser_json_inf_nan="null")

    @model_validator(mode="after")
    def _has_a_digest(self) -> Self:
        for name, value in self.__dict__.items():
            if _is_too_large(value):
                raise ValueError(f"{name} holds an integer beyond 2^53, which has no canonical form")
        return self


def _moment(text: str) -> str:
    """A time in its one spelling, so that times sort as their texts do; of a century in which there were computers."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("is no time: write 2026-11-22T12:00:00+00:00") from None
    if found.utcoffset() != timedelta(0) or found.astimezone(UTC).isoformat() != text:
        raise ValueError("is not in UTC and ISO 8601: write 2026-11-22T12:00:00+00:00")
    if not 2000 <= found.year < 2200:  # noqa: PLR2004 - beyond it, adding a quarter could overflow
        raise ValueError("is no time of these centuries")
    return text


Moment = Annotated[str, AfterValidator(_moment)]
"""A time, as text: ISO 8601 in UTC."""


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


def _refusal(model: type[BaseModel], error: ValidationError, where: str) -> DataError:
    """Every fault with its path; of very many the first."""
    several = error.errors(include_url=False, include_input=False)
    faults = "; ".join(_sentence(model, fault) for fault in several[:_TOLD])
    more = f"; and {len(several) - _TOLD} more faults" if len(several) > _TOLD else ""
    return DataError(f"{where} is not valid", remedy=faults + more)


def parse(model: type[S], data: object, where: str) -> S:
    """`data` as a `model`.

    Raises:
        DataError: with every fault, its path, and the nearest known key where one is misspelt.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _refusal(model, error, where) from None


def parse_json(model: type[S], text: str | bytes, where: str) -> S:
    """JSON `text` as a `model`; JSON has no tuples or sets, so lists are taken for them.

    Raises:
        DataError: the text is no JSON or does not describe a `model`.
    """
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise _refusal(model, error, where) from None


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
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits, brackets in brackets without end
        raise DataError(f"{where} cannot be read", remedy=f"mend it ({error})") from None
    return parse(model, data, where)
