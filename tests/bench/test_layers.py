"""The benchmark of layers: what a cost is divided by, and one small lap of every layer."""

from __future__ import annotations

import gc
import json
from collections import Counter
from pathlib import Path

import pytest

from bench.layers import __main__ as program
from bench.layers.timing import Cost, Laps, Layer, cost


def test_a_cost_is_of_one_operation_and_the_first_lap_does_not_count(tmp_path: Path) -> None:
    happened: Counter[str] = Counter()

    def laps(directory: Path, calls: int) -> Laps:
        assert directory.is_dir() and calls == 5
        try:
            while True:
                happened["laps made"] += 1

                def lap() -> None:
                    happened["calls"] += calls

                yield lap
        finally:
            happened["closed"] += 1

    found = cost(Layer("a", 1000, laps, 100), tmp_path / "a", repeat=3, scale=0.5)
    assert happened == {"laps made": 4, "calls": 20, "closed": 1}
    assert len(found.microseconds) == 3 and gc.get_freeze_count() == 0
    assert Layer("a", 1000, laps, 256).calls(0.001) == 1


@pytest.fixture(autouse=True)
def no_look_at_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes longer than all the rest."""
    monkeypatch.setattr(program, "machine", lambda directory: "a machine")


def test_each_layer_has_a_median_and_its_least() -> None:
    rows = program.rows_of([Cost("log append", [9.0, 1.0, 2.0])])
    assert [(each.name, each.value, each.unit) for each in rows] == [
        ("layer log append", 2.0, "µs"),
        ("layer log append, least", 1.0, "µs"),
    ]
    assert "log append" in program.table([Cost("log append", [9.0, 1.0, 2.0])])


def test_a_small_lap_of_every_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each layer asserts by itself that what it timed was done."""
    output = tmp_path / "rows.json"
    words = ["--scale", "0.001", "--repeat", "2", "--directory", str(tmp_path), "--output", str(output)]
    assert program.main(words) == 0
    rows = json.loads(output.read_text())
    assert len(rows) == 2 * len({layer.name for layer in program.LAYERS}) == 2 * len(program.LAYERS)
    assert all(each["value"] > 0 for each in rows if "results of 32, encode" not in each["name"])
    assert capsys.readouterr().out.count("\n") == len(program.LAYERS) + 2


def test_layers_are_chosen_by_how_their_names_begin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--scale", "0.001", "--repeat", "1", "--output", str(tmp_path / "rows.json")]
    program.main(["--only", "apply new", *words])
    assert capsys.readouterr().out.count("apply") == 1
    with pytest.raises(SystemExit):
        program.main(["--only", "no such layer", *words])
