"""Growth of a cluster: what is compared with what, how many connections are possible, and small runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import filling, growth, idle
from bench.growth import BASE, Shape
from bench.harness import exit_code
from bench.ports import free_ports
from bench.processes import ProcessCluster


def test_each_growth_is_of_one_figure_alone() -> None:
    shapes = growth.shapes_of(growth._arguments(["--keys", "7", "--connections", "9"]))
    assert shapes == {
        "keys": Shape(keys=7),
        "nodes": Shape(nodes=5),
        "connections": Shape(connections=9),
    }
    assert list(growth.shapes_of(growth._arguments(["--only", "nodes"]))) == ["nodes"]


@pytest.mark.parametrize(("large", "code"), [(85.0, 0), (84.9, 1)])
def test_throughput_is_judged_by_the_medians_beside_the_base(large: float, code: int) -> None:
    shapes = {"keys": Shape(keys=1_000_000)}
    [row] = growth.rows_of([90.0, 100.0, 900.0], {"keys": [1.0, large, 900.0]}, shapes)
    assert (row.name, row.peer) == ("put 16x16 with 1,000,000 keys", "with 1,000 keys")
    assert exit_code([row]) == code
    assert row.goal.startswith("at least 0.85")


def test_connections_keep_within_open_files_and_within_what_a_node_takes() -> None:
    assert idle.most_connections(1024, 3) == 3 * 256
    assert 10_000 < idle.most_connections(1 << 20, 3) < 3 * 4096
    assert idle.most_connections(100, 3) == 0
    assert idle.shares_of(10_000, 3) == [3334, 3333, 3333]


def test_connections_that_nobody_greets_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(idle, "_GREETING_SECONDS", 0.05)
    idle.hold(f"tcp://127.0.0.1:{free_ports(1)[0]}", 2)
    assert "fewer than 2" in capsys.readouterr().out


def test_idle_connections_are_there_as_long_as_the_block_lasts(tmp_path: Path) -> None:
    with ProcessCluster(tmp_path / "nodes", 1) as cluster:
        before = growth.descriptors(cluster)
        with idle.idle_connections(cluster.endpoints, 150):
            held = growth.descriptors(cluster) - before
            assert abs(held - 150) < growth.OTHER_DESCRIPTORS
        cluster.wait_for("the connections to close", lambda: growth.descriptors(cluster) < before + 10)


def test_a_run_has_a_figure_of_the_base_and_of_what_grew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(filling, "QUIET_SECONDS", 0.2)
    monkeypatch.setattr(growth, "BASE", Shape(keys=10, nodes=1))
    monkeypatch.setattr(growth, "WARM_UP_PUTS", 10)
    monkeypatch.setattr(growth, "end_orderly", lambda: None)
    output = tmp_path / "rows"
    words = ["--only", "keys", "--keys", "50", "--puts", "100", "--rounds", "1", "--value-size", "10"]
    code = growth.main([*words, "--directory", str(tmp_path), "--output", str(output)])
    [row] = json.loads(output.read_text())
    assert row["value"] > 0 and row["peer"] == "with 10 keys" and row["target"] == 0.85
    assert code == int(row["ratio"] < 0.85) and "with 50 keys" in capsys.readouterr().out
    assert BASE.keys == 1_000
