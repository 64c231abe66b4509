"""Interval plots as SVG text: a row an item, a dot a launch, a bar for the interval, a tick for the bound. Deterministic.

Colours are classes of the page's style sheet, so that dark mode and print need no second picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

_LABEL, _WIDTH, _ROW, _TOP, _BOTTOM, _RIGHT = 230, 760, 22, 12, 34, 24


@dataclass(frozen=True)
class Row:
    """One item: its launches' values, its interval, and a bound where there is one; a heading when it has no value."""

    label: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    points: tuple[float, ...] = ()
    bound: float | None = None
    tone: str = "good"


@dataclass(frozen=True)
class Axis:
    """The horizontal axis; `lines` are values to draw through all rows, each with its name."""

    title: str
    label: Callable[[float], str]
    log: bool = False
    lines: tuple[tuple[float, str], ...] = ()


def _values(rows: Sequence[Row], axis: Axis) -> list[float]:
    found = [
        value for row in rows for value in (row.value, row.low, row.high, row.bound, *row.points) if value is not None
    ]
    return [
        value
        for value in (*found, *(line for line, _ in axis.lines))
        if math.isfinite(value) and (value > 0 or not axis.log)
    ]


def _nice(low: float, high: float) -> list[float]:
    """About five round ticks from `low` to `high`."""
    raw = (high - low) / 5 or 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((factor * power for factor in (1, 2, 5, 10) if factor * power >= raw), 10 * power)
    first = math.ceil(low / step)
    return [round(index * step, 12) for index in range(first, math.floor(high / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Ticks at 1, 2 and 5 of each decade."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [value for power in powers for factor in (1, 2, 5) if low <= (value := factor * 10.0**power) <= high]


class _Scale:
    """From a value to a horizontal position."""

    def __init__(self, values: Sequence[float], *, log: bool) -> None:
        self.log = log
        low, high = min(values), max(values)
        if log:
            self.low, self.high = low / 1.15, high * 1.15
        else:
            margin = (high - low) * 0.06 or abs(high) * 0.06 or 1.0
            self.low, self.high = low - margin, high + margin
        self.ticks = _decades(self.low, self.high) if log else _nice(self.low, self.high)

    def __call__(self, value: float) -> str:
        if self.log:
            share = (math.log(max(value, self.low)) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        else:
            share = (value - self.low) / (self.high - self.low)
        return f"{_LABEL + share * (_WIDTH - _LABEL - _RIGHT):.1f}"


def _row(row: Row, y: float, x: _Scale) -> list[str]:
    if row.value is None:
        return [f'<text class="group" x="0" y="{y + 4:.1f}">{escape(row.label)}</text>']
    found = [
        f'<text x="{_LABEL - 12}" y="{y + 4:.1f}" text-anchor="end">{escape(row.label)}</text>',
        f'<g class="{row.tone}">',
    ]
    found += [f'<circle class="dot" cx="{x(point)}" cy="{y:.1f}" r="2.6"/>' for point in row.points]
    if row.low is not None and row.high is not None:
        found.append(f'<path class="bar" d="M{x(row.low)} {y:.1f}H{x(row.high)}"/>')
    found.append(f'<path class="value" d="M{x(row.value)} {y - 6:.1f}v12"/>')
    if row.bound is not None:
        found.append(f'<path class="bound" d="M{x(row.bound)} {y - 5:.1f}v10m-5 -10h5m-5 10h5"/>')
    return [*found, "</g>"]


def plot(identifier: str, description: str, rows: Sequence[Row], axis: Axis) -> str:
    """The plot as an SVG element with a text alternative; empty text where nothing can be drawn."""
    values = _values(rows, axis)
    if not values:
        return ""
    x, height = _Scale(values, log=axis.log), _TOP + _ROW * len(rows) + _BOTTOM
    base = _TOP + _ROW * len(rows)
    out = [f'<svg id="{identifier}" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(description)}">']
    for tick in x.ticks:
        out.append(f'<path class="grid" d="M{x(tick)} {_TOP}V{base}"/>')
        out.append(
            f'<text class="tick" x="{x(tick)}" y="{base + 14}" text-anchor="middle">{escape(axis.label(tick))}</text>'
        )
    for value, name in axis.lines:
        out.append(f'<path class="line" d="M{x(value)} {_TOP - 6}V{base}"><title>{escape(name)}</title></path>')
    for index, row in enumerate(rows):
        out += _row(row, _TOP + _ROW * (index + 0.5), x)
    middle = f'x="{(_LABEL + _WIDTH - _RIGHT) / 2:.0f}" y="{height - 4}"'
    out.append(f'<text class="tick" {middle} text-anchor="middle">{escape(axis.title)}</text>')
    return "".join([*out, "</svg>"])
