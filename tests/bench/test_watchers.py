"""The benchmark of many watchers: what counts as missed, and a small run of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import harness, watchers
from bench.harness import exit_code
from bench.watchers import Run
from bench.watching import Heard


def test_an_event_that_one_watcher_missed_and_slow_puts_are_judged() -> None:
    def turn(speed: float, memory_mib: int, heard: list[Heard]) -> Run:
        return Run(speed, [100 << 20, memory_mib << 20], 1.5, 100, 10.0, heard)

    without = [turn(10_000.0, 100, []) for _ in range(3)]
    heard = [Heard(500, 100, 0, 0, 2, 1.0, [0.001, 0.002]), Heard(500, 100, 0, 0, 0, 1.0, [0.003, 0.004])]
    having = [turn(speed, memory, heard) for speed, memory in ((7_100.0, 102), (9_999.0, 105), (1.0, 104))]
    rows = {each.name: each for each in watchers.rows_of(without, having)}
    assert exit_code(list(rows.values())) == 0
    assert rows["watchers node memory"].value == 5.0 and rows["watchers gaps"].value == 6
    assert rows["watchers delay p99"].value == 4.0 and rows["put beside watchers"].ratio == 0.71
    assert rows["watchers events a message"].value == 5.0 and rows["watchers deliveries"].value == 100.0
    for missed, speed in ((1, 7_100.0), (0, 6_900.0)):
        heard[0].missed = missed
        assert exit_code(watchers.rows_of(without[:1], [turn(speed, 100, heard)])) == 1


@pytest.mark.parametrize("kind", ["bare", "clients"])
def test_a_small_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    latest = tmp_path / "latest.json"
    monkeypatch.setattr(watchers, "write_rows", lambda rows: harness.write_rows(rows, latest))
    options = ["--watchers", "6", "--processes", "2", "--seconds", "1", "--puts", "200", "--rate", "50"]
    options += ["--rounds", "1", *(["--clients"] if kind == "clients" else [])]
    watchers.main([*options, "--directory", str(tmp_path)])
    rows = {each["name"]: each["value"] for each in json.loads(latest.read_text())}
    assert rows["watchers events missed"] == rows["watchers out of order"] == 0
    assert rows["put beside watchers"] > 0
    assert f"6 {kind}" in capsys.readouterr().out
