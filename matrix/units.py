"""The one formatter: SI inside, units outside, and a dash where there is no number.

Refuses to print a number that is not there: `None` is a dash, and NaN says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

DASH: Final = "—"

_TIME: Final = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_BYTES: Final = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
_ENERGY: Final = ((1e6, "MJ"), (1e3, "kJ"), (1.0, "J"))
_COUNT: Final = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def significant(value: float, digits: int = 3) -> str:
    """`value` with `digits` significant digits and no exponent: 12.34 -> '12.3', 1234 -> '1234'."""
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}"


def _scaled(value: float, steps: tuple[tuple[float, str], ...]) -> str:
    scale, name = next(((s, n) for s, n in steps if abs(value) >= s), steps[-1])
    return f"{significant(value / scale)} {name}".rstrip()


def _time(value: float) -> str:
    return _scaled(value, _TIME)


def _bytes(value: float) -> str:
    return _scaled(value, _BYTES)


def _energy(value: float) -> str:
    return _scaled(value, _ENERGY)


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _points(value: float) -> str:
    return f"{100 * value:+.2f} points"


def _ratio(value: float) -> str:
    return f"{value:.3f}×"  # noqa: RUF001 - the multiplication sign is what is meant


def _rate(value: float) -> str:
    return f"{significant(value)} /s"


def _flop(value: float) -> str:
    return f"{_scaled(value, _COUNT)}FLOP"


def _flop_rate(value: float) -> str:
    return f"{_scaled(value, _COUNT)}FLOP/s"


def _plain(value: float) -> str:
    return f"{value:.2g}" if abs(value) < 1 else significant(value)


_FORMATS: Final[dict[str, Callable[[float], str]]] = {
    "s": _time,
    "bytes": _bytes,
    "J": _energy,
    "share": _percent,
    "points": _points,
    "ratio": _ratio,
    "per_s": _rate,
    "flop": _flop,
    "flop_per_s": _flop_rate,
    "": _plain,
}


def show(value: float | None, unit: str) -> str:
    """`value` (SI: seconds, bytes, a fraction of one) as people read it in `unit`; a dash for None.

    Raises:
        KeyError: `unit` is not one of the units that the matrix knows.
    """
    render = _FORMATS[unit]
    if value is None:
        return DASH
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "unbounded"
    return render(value)


def show_interval(low: float | None, high: float | None, unit: str) -> str:
    """`[low, high]` with the unit once where both ends share it; a dash where there is no interval."""
    if low is None or high is None:
        return DASH
    left, right = show(low, unit), show(high, unit)
    shared = left.partition(" ")[2]
    if shared and shared == right.partition(" ")[2]:
        return f"[{left.partition(' ')[0]}, {right.partition(' ')[0]}] {shared}"
    return f"[{left}, {right}]"
