"""The points of bench.curves: their file, and the figures that are drawn from them. Measures nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import svg


@dataclass(frozen=True, slots=True)
class Point:
    """What was measured at a place; medians of the rounds, each figure by itself."""

    figure: str
    side: str
    x: float
    ops_per_second: float
    p50_ms: float
    p99_ms: float


def write_points(points: Sequence[Point], facts: str, path: Path) -> None:
    """Replaces the figures that were measured, and keeps the others, with the machine of each."""
    kept = [point for point in _read(path) if point["figure"] not in {each.figure for each in points}]
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_suffix(".new")
    lines = [*kept, *({**asdict(each), "machine": facts} for each in points)]
    written.write_text(json.dumps(lines, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(written, path)


def read_points(path: Path) -> list[Point]:
    """All that any run has written there."""
    return [Point(**{name: each[name] for name in Point.__slots__}) for each in _read(path)]


def _read(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []


# ---------------------------------------------------------------- drawing


def _lines(points: Sequence[Point]) -> Iterator[tuple[str, str, list[Point]]]:
    """Of each side its name, its colour and its points, from left to right."""
    sides = list(dict.fromkeys(each.side for each in points))
    for side, colour in zip(sides, (svg.COLOURS[5], svg.COLOURS[1], svg.COLOURS[3])):
        yield side, colour, sorted((each for each in points if each.side == side), key=lambda each: each.x)


def _drawn_load(points: Sequence[Point]) -> str:
    """Each mark is one load; to the right and flat is good, and where a line turns up is the limit."""
    lines = []
    for side, colour, some in _lines(points):
        half = [(each.ops_per_second, each.p50_ms) for each in some]
        nearly_all = [(each.ops_per_second, each.p99_ms) for each in some]
        lines.append(svg.Line(f"{side} p50", half, colour, has_marks=True))
        lines.append(svg.Line(f"{side} p99", nearly_all, colour, is_dashed=True, has_marks=True))
    return svg.figure(
        svg.from_zero([each.ops_per_second for each in points], "puts/s"),
        svg.decades([latency for each in points for latency in (each.p50_ms, each.p99_ms)], "ms"),
        lines,
        svg.NAMES_LEFT_ABOVE,
    )


def _drawn_throughput(points: Sequence[Point], x: svg.Axis, names_at: tuple[int, int]) -> str:
    lines = [
        svg.Line(side, [(each.x, each.ops_per_second) for each in some], colour, has_marks=True)
        for side, colour, some in _lines(points)
    ]
    return svg.figure(x, svg.from_zero([each.ops_per_second for each in points], "puts/s"), lines, names_at)


def _ticks(points: Sequence[Point]) -> list[tuple[float, str]]:
    return [(x, svg.spaced(x)) for x in sorted({each.x for each in points})]


def draw(points: Sequence[Point]) -> dict[str, str]:
    """By name of the file; of the figures that there are points of."""
    by_figure = {
        name: [each for each in points if each.figure == name]
        for name in dict.fromkeys(each.figure for each in points)
    }
    drawn = {}
    for name, some in by_figure.items():
        ticks = _ticks(some)
        if name == "load":
            drawn["put-load.svg"] = _drawn_load(some)
        elif name == "values":
            axis = svg.at_each(ticks, "bytes of a value")
            drawn["put-values.svg"] = _drawn_throughput(some, axis, svg.NAMES_RIGHT_ABOVE)
        elif name == "nodes":
            axis = svg.Axis(0.0, ticks[-1][0] + 1, ticks, label="nodes")
            drawn["put-nodes.svg"] = _drawn_throughput(some, axis, svg.NAMES_RIGHT_ABOVE)
        else:
            axis = svg.at_each(ticks, "keys in the store")
            drawn["put-keys.svg"] = _drawn_throughput(some, axis, svg.NAMES_RIGHT_BELOW)
    return drawn


def table(points: Sequence[Point]) -> str:
    lines = [f"{'figure':8}{'':14}{'x':>10}{'puts/s':>12}{'p50 ms':>10}{'p99 ms':>10}"]
    for each in points:
        latencies = f"{each.p50_ms:>10.2f}{each.p99_ms:>10.2f}"
        lines.append(f"{each.figure:8}{each.side:14}{each.x:>10,}{each.ops_per_second:>12,.0f}{latencies}")
    return "\n".join(lines)
