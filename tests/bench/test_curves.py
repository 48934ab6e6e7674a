"""The benchmark of curves: which points there are, their file, what is drawn of them, and a small run."""

from __future__ import annotations

import contextlib
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import curve_figures, curves
from bench.curve_figures import Point
from bench.peers.etcd_load import EtcdLoadResult
from bench.processes import ClusterFailed
from bench.run import Measure, Measured, Side, Workload

# Nothing that was ever measured.
POINTS = [
    Point("load", side, x, 100.0 * x * (2 if side == "Assent" else 1), 1.0 + x, 2.0 + x)
    for side in ("Assent", "other")
    for x in (16, 1, 4)
]
POINTS += [Point(figure, "Assent", x, 1000.0, 1.0, 2.0) for figure in ("values", "keys") for x in (16, 1024)]
POINTS += [Point("nodes", "Assent", x, 3000.0 / x, 1.0, 2.0) for x in (1, 3, 5)]


def measured(rate: float, errors: int = 0) -> Measured:
    return EtcdLoadResult(rate, 2.0, 3.0, 4.0, 5.0, 100, errors)


def test_places_have_the_load_the_size_and_the_nodes_that_their_curve_is_about() -> None:
    found = curves.places(1.0)
    loads = [place for place in found if place.figure == "load"]
    assert [place.x for place in loads] == [1, 4, 16, 64, 256, 1024]
    assert all(place.x == place.work.connections * place.work.in_flight for place in loads)
    sizes = [place for place in found if place.figure == "values"]
    assert all(place.x == place.work.value_bytes for place in sizes) and sizes[-1].x == 16_384
    assert max(place.work.total * place.work.value_bytes for place in sizes) <= curves.MOST_VALUE_BYTES
    assert [(place.x, place.nodes) for place in found if place.figure == "nodes"] == [(1, 1), (3, 3), (5, 5)]
    assert {place.work.total for place in curves.places(0.0)} == {curves.LEAST_PUTS}


def test_one_cluster_at_a_time_lives_for_each_curve_and_number_of_nodes(tmp_path: Path) -> None:
    happened: list[str] = []

    def side_of(name: str, nodes: int) -> Side:
        @contextlib.contextmanager
        def side(directory: Path) -> Iterator[Measure]:
            def measure(work: Workload) -> Measured:
                happened.append("put")
                return measured(100.0 * nodes)

            happened.append(f"{name} of {nodes}")
            yield measure
            happened.append("end")

        return side

    sides: dict[str, curves.SideOf] = {
        "a": lambda nodes: side_of("a", nodes),
        "b": lambda nodes: side_of("b", nodes),
    }
    wanted = [place for place in curves.places(0.01) if place.figure != "values"]
    results = dict(curves.measure_places(sides, wanted, 0.01, tmp_path))
    load = ["put"] * 7  # the first is to warm up
    expected = ["a of 3", *load, "end", "b of 3", *load, "end"]
    for nodes in (1, 3, 5):
        expected += [f"a of {nodes}", "put", "put", "end", f"b of {nodes}", "put", "put", "end"]
    assert happened == expected
    found = {key: result.ops_per_second for key, result in results.items() if key[0] == "nodes"}
    assert found == {("nodes", side, x): 100.0 * x for side in ("a", "b") for x in (1, 3, 5)}


def test_a_point_has_the_medians_of_its_rounds() -> None:
    rounds = [measured(rate) for rate in (30.0, 10.0, 20.0)]
    assert curves.points_of({("load", "Assent", 4): rounds}) == [Point("load", "Assent", 4, 20.0, 2.0, 3.0)]


def test_a_failed_operation_is_no_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "measure_places", lambda *_: iter([(("load", "a", 1), measured(9.0, 1))]))
    chosen = curves._arguments(["--only", "load", "--output", str(tmp_path / "curves.json")])
    with pytest.raises(ClusterFailed, match="load 1 of a: 1 operations failed"):
        curves.measure({}, chosen)


def test_a_figure_that_is_measured_again_replaces_its_points_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "results" / "curves.json"
    curve_figures.write_points(POINTS, "a machine", path)
    assert curve_figures.read_points(path) == POINTS
    again = [Point("nodes", "Assent", 1, 5.0, 1.0, 2.0)]
    curve_figures.write_points(again, "another machine", path)
    assert curve_figures.read_points(path) == [each for each in POINTS if each.figure != "nodes"] + again
    assert json.loads(path.read_text())[-1]["machine"] == "another machine"
    assert curve_figures.read_points(tmp_path / "none.json") == []


def test_each_curve_is_a_figure_with_its_lines_from_left_to_right() -> None:
    drawn = curve_figures.draw(POINTS)
    assert set(drawn) == {"put-load.svg", "put-values.svg", "put-nodes.svg", "put-keys.svg"}
    lines = {
        name: [
            [tuple(map(float, point.split(","))) for point in str(line.get("points")).split()]
            for line in ElementTree.fromstring(text).iter("{http://www.w3.org/2000/svg}polyline")
        ]
        for name, text in drawn.items()
    }
    assert {name: len(some) for name, some in lines.items()} == {
        "put-load.svg": 4, "put-values.svg": 1, "put-nodes.svg": 1, "put-keys.svg": 1,
    }  # fmt: skip
    for some in lines.values():
        assert all(line == sorted(line) for line in some)
    for words in ("Assent p50", "other p99", "puts/s", ">ms<"):
        assert words in drawn["put-load.svg"]
    assert "1 024" in drawn["put-values.svg"] and "keys in the store" in drawn["put-keys.svg"]


def test_a_small_run_and_the_same_figure_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(curves, "machine", lambda directory: "a machine")
    output, figures = tmp_path / "curves.json", tmp_path / "figures"
    places = ["--output", str(output), "--figures", str(figures), "--directory", str(tmp_path)]
    assert (
        curves.main(["--only", "load", "--rounds", "1", "--scale", "0.001", "--without-etcd", *places]) == 0
    )
    assert [point.x for point in curve_figures.read_points(output)] == [1, 4, 16, 64, 256, 1024]
    assert capsys.readouterr().out.count("\nload ") == 6
    drawn = (figures / "put-load.svg").read_text()
    (figures / "put-load.svg").unlink()
    assert curves.main(["--draw", *places]) == 0
    assert (figures / "put-load.svg").read_text() == drawn and len(list(figures.iterdir())) == 1
