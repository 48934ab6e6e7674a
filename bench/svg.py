"""Figures of lines, written as SVG: two axes with a grid, named lines. Knows nothing of what they mean.

Rules: nothing but text comes out, the same for the same input, so a figure can be compared and checked in;
what lies outside an axis is drawn at its end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 60, 700, 20, 320  # of the grid
NAMES_RIGHT_BELOW = (WIDTH - 120, BOTTOM - 100)
NAMES_RIGHT_ABOVE = (WIDTH - 120, TOP + 20)
NAMES_LEFT_ABOVE = (LEFT + 20, TOP + 20)
COLOURS = ("#7f1d1d", "#c2410c", "#ca8a04", "#15803d", "#0e7490", "#1d4ed8")
_NAME_HEIGHT = 15
_MARK_RADIUS = 3
_MOST_STEPS = 6


@dataclass(frozen=True, slots=True)
class Axis:
    low: float  # above 0 if logarithmic
    high: float  # above `low`
    ticks: Sequence[tuple[float, str]]  # where a line of the grid is, and what is written there
    is_logarithmic: bool = False
    label: str = ""

    def share(self, value: float) -> float:
        """How far along the axis: from 0 to 1."""
        inside = min(max(value, self.low), self.high)
        if self.is_logarithmic:
            return math.log10(inside / self.low) / math.log10(self.high / self.low)
        return (inside - self.low) / (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    is_dashed: bool = False
    has_marks: bool = False  # at each point


def spaced(value: float) -> str:
    """25 000, or 0.5."""
    return f"{value:,.10g}".replace(",", " ")


def from_zero(values: Iterable[float], label: str = "") -> Axis:
    """Up to a round number beyond all values, in a few equal steps."""
    most = max(values, default=0.0) or 1.0
    power = 10.0 ** math.floor(math.log10(most / _MOST_STEPS))
    step = next(each for each in (power, 2 * power, 5 * power, 10 * power) if most / each <= _MOST_STEPS)
    count = math.ceil(most / step)
    return Axis(
        0.0, count * step, [(place * step, spaced(place * step)) for place in range(count + 1)], label=label
    )


def decades(values: Sequence[float], label: str = "") -> Axis:
    """Logarithmic, from a power of ten below all values, which are above 0, to one above them."""
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    powers = [10.0**power for power in range(first, max(last, first + 1) + 1)]
    return Axis(powers[0], powers[-1], [(each, spaced(each)) for each in powers], True, label)


def at_each(ticks: Sequence[tuple[float, str]], label: str = "") -> Axis:
    """Logarithmic, from the first of these values to the last, with a tick at each."""
    low, high = ticks[0][0], ticks[-1][0]
    return Axis(low, high if high > low else 10 * low, ticks, True, label)


def figure(x: Axis, y: Axis, lines: Sequence[Line], names_at: tuple[int, int] = NAMES_RIGHT_BELOW) -> str:
    """The whole file. The names of the lines stand below each other from `names_at` on."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"',
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        *_grid(x, y),
    ]
    for number, line in enumerate(lines):
        parts += _drawn(line, x, y)
        left, top = names_at[0], names_at[1] + _NAME_HEIGHT * number
        parts.append(f'<text x="{left}" y="{top}" fill="{line.colour}">{escape(line.name)}</text>')
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _across(axis: Axis, value: float) -> float:
    return LEFT + (RIGHT - LEFT) * axis.share(value)


def _upwards(axis: Axis, value: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * axis.share(value)


def _grid(x: Axis, y: Axis) -> list[str]:
    parts = []
    for value, text in x.ticks:
        at = f"{_across(x, value):.0f}"
        parts.append(f'<line x1="{at}" y1="{TOP}" x2="{at}" y2="{BOTTOM}" stroke="#ddd"/>')
        parts.append(f'<text x="{at}" y="{BOTTOM + 16}" text-anchor="middle">{escape(text)}</text>')
    for value, text in y.ticks:
        height = _upwards(y, value)
        parts.append(f'<line x1="{LEFT}" y1="{height:.0f}" x2="{RIGHT}" y2="{height:.0f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{height + 4:.0f}" text-anchor="end">{escape(text)}</text>')
    if x.label:
        middle = (LEFT + RIGHT) // 2
        parts.append(f'<text x="{middle}" y="{BOTTOM + 34}" text-anchor="middle">{escape(x.label)}</text>')
    if y.label:
        parts.append(f'<text x="{LEFT - 48}" y="{TOP - 8}">{escape(y.label)}</text>')
    return parts


def _drawn(line: Line, x: Axis, y: Axis) -> list[str]:
    places = [(_across(x, value), _upwards(y, height)) for value, height in line.points]
    points = " ".join(f"{across:.1f},{upwards:.1f}" for across, upwards in places)
    dashes = ' stroke-dasharray="6 4"' if line.is_dashed else ""
    parts = [f'<polyline points="{points}" fill="none" stroke="{line.colour}" stroke-width="2"{dashes}/>']
    if line.has_marks:
        parts += [
            f'<circle cx="{across:.1f}" cy="{upwards:.1f}" r="{_MARK_RADIUS}" fill="{line.colour}"/>'
            for across, upwards in places
        ]
    return parts
