"""The figures' drawing: where a value lies on an axis, what an axis begins and ends with, what a file has."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from bench import svg
from bench.svg import Axis, Line, figure

SPACE = "{http://www.w3.org/2000/svg}"


def test_a_value_lies_on_its_axis_and_what_is_outside_at_its_end() -> None:
    plain, decades = Axis(0.0, 50.0, []), Axis(1.0, 10_000.0, [], is_logarithmic=True)
    assert [plain.share(value) for value in (-1.0, 0.0, 25.0, 50.0, 99.0)] == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert [decades.share(value) for value in (0.0, 1.0, 100.0, 10_000.0, 1e9)] == [0.0, 0.0, 0.5, 1.0, 1.0]


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([1.0, 25_763.0], ["0", "5 000", "10 000", "15 000", "20 000", "25 000", "30 000"]),
        ([60_000.0], ["0", "10 000", "20 000", "30 000", "40 000", "50 000", "60 000"]),
        ([0.7], ["0", "0.2", "0.4", "0.6", "0.8"]),
        ([], ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
    ],
    ids=str,
)
def test_an_axis_from_zero_has_a_few_round_steps(values: list[float], ticks: list[str]) -> None:
    axis = svg.from_zero(values)
    assert [text for _, text in axis.ticks] == ticks
    assert axis.low == 0.0 and axis.high >= max(values, default=0.0) and axis.high == axis.ticks[-1][0]


@pytest.mark.parametrize(
    ("values", "ticks"),
    [([0.6, 18.3], ["0.1", "1", "10", "100"]), ([10.0], ["10", "100"]), ([3.0], ["1", "10"])],
    ids=str,
)
def test_decades_hold_all_values(values: list[float], ticks: list[str]) -> None:
    axis = svg.decades(values)
    assert [text for _, text in axis.ticks] == ticks
    assert all(axis.low <= value <= axis.high for value in values)


def test_a_single_value_is_an_axis_too() -> None:
    axis = svg.at_each([(16.0, "16")])
    assert (axis.share(16.0), axis.high) == (0.0, 160.0)


def test_a_figure_has_a_line_with_its_name_and_a_mark_at_each_point() -> None:
    x, y = Axis(0.0, 10.0, [(0.0, "0"), (10.0, "10")], label="load"), Axis(0.0, 1.0, [], label="a < b")
    lines = [
        Line("first & last", [(0.0, 0.0), (5.0, 1.0)], "#111111", has_marks=True),
        Line("other", [(10.0, 0.5)], "#222222", is_dashed=True),
    ]
    drawn = figure(x, y, lines, svg.NAMES_LEFT_ABOVE)
    root = ElementTree.fromstring(drawn)
    assert [line.get("points") for line in root.iter(f"{SPACE}polyline")] == [
        f"{svg.LEFT}.0,{svg.BOTTOM}.0 {(svg.LEFT + svg.RIGHT) / 2},{svg.TOP}.0",
        f"{svg.RIGHT}.0,{(svg.TOP + svg.BOTTOM) / 2}",
    ]
    assert len(list(root.iter(f"{SPACE}circle"))) == 2 and drawn.count("stroke-dasharray") == 1
    texts = [text.text for text in root.iter(f"{SPACE}text")]
    assert texts == ["0", "10", "load", "a < b", "first & last", "other"]
    assert drawn == figure(x, y, lines, svg.NAMES_LEFT_ABOVE)
