"""The benchmarks of large states: which puts count, what growth is, and small runs of all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import filling, harness, overwrite, restart, snapshots
from bench.harness import exit_code
from bench.open_loop import LoadBroken, OpenLoop, Timeline
from bench.overwrite import Look
from bench.processes import ProcessCluster
from bench.snapshots import Run


def test_only_puts_near_a_busy_moment_count_as_disturbed() -> None:
    timeline = Timeline([(float(second), second / 10) for second in range(10)], [2.6, 3.2, 8.0])
    assert timeline.busy_latencies(0.5) == pytest.approx([0.3, 0.8])
    assert timeline.busy_latencies(1.0) == pytest.approx([0.2, 0.3, 0.4, 0.7, 0.8, 0.9])
    assert len(timeline.latencies()) == 10
    assert Timeline(timeline.puts, []).busy_latencies(5.0) == []


def test_the_ratio_is_that_of_the_medians_of_all_rounds() -> None:
    without = [Run(9, 1.0, p99, 9.0, 0) for p99 in (2.0, 4.0, 90.0)]
    with_snapshots = [Run(9, 1.0, p99, 9.0, 3, 5, p99 + 4.0) for p99 in (7.0, 12.0, 13.0)]
    rows = snapshots.rows_of(without, with_snapshots)
    assert (rows[-1].value, rows[-1].verdict) == (3.0, "reached")
    assert (rows[-2].value, rows[-2].verdict) == (4.0, "missed"), "those of the leader by themselves"
    assert snapshots.rows_of(without[:1], with_snapshots[:1])[-1].verdict == "missed"
    run = snapshots.run_of([0.001 * number for number in range(1, 101)], 3)
    assert (run.puts, run.snapshots, run.leader_puts) == (100, 3, 0)
    assert snapshots.run_of([0.001], 3, [0.001, 0.002]).leader_p99 == pytest.approx(2)
    assert [run.p50, run.p99, run.longest] == pytest.approx([51, 100, 100])


def test_growth_is_of_the_node_that_grew_most_between_the_largest_looks() -> None:
    looks = [Look([10, 10], [5, 5])] * 3 + [Look([12, 10], [5, 6]), Look([10, 10], [5, 5])]
    looks += [Look([90, 90], [90, 90])] * 42 + [Look([10, 10], [9, 5]), Look([11, 16], [8, 7]), looks[0]]
    tenth, end = overwrite.figures(looks)
    assert tenth == Look([12, 10], [5, 6]) and end == Look([11, 16], [9, 7])
    rows = {row.name: row for row in overwrite.rows_of(tenth, end)}
    assert rows["overwrite disk growth"].value == 1.6
    assert rows["overwrite memory growth"].value == 1.8 and exit_code(list(rows.values())) == 1


def test_memory_of_a_key_leaves_out_what_an_empty_node_takes() -> None:
    put, restored = restart.rows_of([3.0, 9.0, 11.0], 1000, [1000 + 700 * 50, 1000 + 701 * 50], 50)[1:]
    assert (put.value, put.verdict, restored.verdict) == (700.0, "reached", "missed")
    assert restart.rows_of([10.5], 0, [1, 1], 1)[0].verdict == "missed"


def test_steps_are_told_with_the_longest_first() -> None:
    text = restart.told({"read": 0.5, "build": 2.25, "snapshot_mib": 130.0, "entries": 1234.0})
    assert text.splitlines()[1:] == ["    2.25 s  build", "    0.50 s  read"]
    assert "130 MiB" in text and "1,234 entries" in text


def test_disk_use_counts_blocks_and_not_holes(tmp_path: Path) -> None:
    (tmp_path / "wal").mkdir()
    with (tmp_path / "wal" / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 20)
        sparse.write(b"x" * 8192)
        sparse.flush()
    assert 8192 <= filling.disk_bytes(tmp_path) < 1 << 19


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> object:
    with ProcessCluster(tmp_path_factory.mktemp("bench") / "nodes", 1) as started:
        yield started


def test_every_key_is_written_once_and_puts_come_at_their_rate(cluster: ProcessCluster) -> None:
    filling.fill(cluster.endpoints, 300, 100)
    status = cluster.status("n1")
    assert status is not None and (status["keys"], status["revision"]) == (300, 301)
    load = OpenLoop(cluster.endpoints, 300, 100)
    try:
        timeline = load.run(200.0, 0.5, lambda: True)
    finally:
        load.close()
    assert len(timeline.puts) == 100 and len(timeline.busy) > 10
    dues = [due for due, _ in timeline.puts]
    assert max(dues) - min(dues) == pytest.approx(0.495, abs=1e-6)
    status = cluster.status("n1")
    assert status is not None and (status["keys"], status["revision"]) == (300, 401)


def test_the_steps_of_a_restart_are_those_of_the_nodes_own_directory(cluster: ProcessCluster) -> None:
    filling.fill(cluster.endpoints, 300, 100)
    assert 0 < restart.seconds_until_it_serves(cluster, "n1", filling.key_of(299, 300)) < 20
    cluster.kill("n1")
    steps = json.loads(json.dumps(restart.look(cluster.data_directory("n1"), "n1")))
    assert steps["entries"] >= 300 and steps["apply the log"] > 0
    with pytest.raises(LoadBroken):
        OpenLoop(cluster.endpoints, 300, 100)


def test_overwriting_is_looked_at_from_the_first_to_the_last_put(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(overwrite, "LOOKS", 10)
    monkeypatch.setattr(overwrite, "write_rows", lambda rows: harness.write_rows(rows, tmp_path / "rows"))
    code = overwrite.main(["--puts", "500", "--keys", "10", "--directory", str(tmp_path)])
    told = capsys.readouterr()
    assert "100 %" in told.err and "at one tenth: disk" in told.out
    growth = [row["value"] for row in json.loads((tmp_path / "rows").read_text()) if row["unit"] == "times"]
    assert len(growth) == 2 and code == int(max(growth) > overwrite.GROWTH_LIMIT)
