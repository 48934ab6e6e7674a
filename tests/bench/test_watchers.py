"""The benchmark of many watchers: what counts as missed, and a small run of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import harness, watchers
from bench.harness import exit_code
from bench.watchers import Heard, Run


def test_an_event_that_one_watcher_missed_and_slow_puts_are_judged() -> None:
    without = Run(10_000.0, [100 << 20, 100 << 20], 100, [])
    heard = [Heard(500, 0, 0, 2, [0.001, 0.002]), Heard(500, 0, 0, 0, [0.003, 0.004])]
    rows = {
        each.name: each
        for each in watchers.rows_of(without, Run(7_100.0, [101 << 20, 105 << 20], 100, heard))
    }
    assert exit_code(list(rows.values())) == 0
    assert rows["watchers node memory"].value == 5.0 and rows["watchers gaps filled"].value == 2
    assert rows["watchers delay p99"].value == 4.0 and rows["put beside watchers"].ratio == 0.71
    for missed, speed in ((1, 7_100.0), (0, 6_900.0)):
        heard[0].missed = missed
        rows_of = watchers.rows_of(without, Run(speed, without.memory, 100, heard))
        assert exit_code(rows_of) == 1


def test_a_small_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    latest = tmp_path / "latest.json"
    monkeypatch.setattr(watchers, "write_rows", lambda rows: harness.write_rows(rows, latest))
    options = ["--watchers", "6", "--processes", "2", "--seconds", "1", "--puts", "200", "--rate", "50"]
    watchers.main([*options, "--directory", str(tmp_path)])
    rows = {each["name"]: each["value"] for each in json.loads(latest.read_text())}
    assert rows["watchers events missed"] == rows["watchers out of order"] == 0
    assert rows["put beside watchers"] > 0
    assert "6 watchers" in capsys.readouterr().out
