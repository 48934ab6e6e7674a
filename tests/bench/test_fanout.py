"""The benchmark of fan-out: what its rate is of, what is judged, and a small run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import fanout
from bench.fanout import Run
from bench.harness import exit_code
from bench.watching import Heard


def turn(seconds: float, missed: int = 0) -> Run:
    """Two processes full of watchers, with 300 000 events in each."""
    heard = [Heard(300_000, 3_000, missed, 0, 0, 1.5, [0.01, 0.02]) for _ in range(2)]
    return Run(0.5, seconds, 0.25, 600, heard)


@pytest.mark.parametrize(("seconds", "missed", "code"), [(2.0, 0, 0), (2.01, 0, 1), (1.0, 1, 1)])
def test_all_events_count_until_the_last_watcher_has_all(seconds: float, missed: int, code: int) -> None:
    rows = fanout.rows_of([turn(9.0), turn(seconds, missed), turn(1.0)])
    assert exit_code(rows) == code
    found = {each.name: each.value for each in rows}
    assert found["fanout deliveries"] == pytest.approx(600_000 / max(seconds, 1.0), abs=0.001)
    assert (found["fanout put"], found["fanout events a message"]) == (1200.0, 100.0)
    assert (found["fanout delay p99"], found["fanout events missed"]) == (20.0, 2 * missed)


def test_a_small_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "rows.json"
    monkeypatch.setattr(fanout, "machine", lambda directory: "a machine")
    options = ["--watchers", "6", "--processes", "2", "--changes", "50", "--in-flight", "8", "--rounds", "1"]
    assert fanout.main([*options, "--directory", str(tmp_path), "--output", str(output)]) == 1  # six are few
    rows = {each["name"]: each["value"] for each in json.loads(output.read_text())}
    assert rows["fanout events missed"] == rows["fanout out of order"] == 0
    assert rows["fanout deliveries"] > 0 and rows["fanout put"] > 0
    assert "6 watchers, 50 changes" in capsys.readouterr().out
