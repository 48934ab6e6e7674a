"""What an idle cluster and one call of the command line cost: what is judged, and a small run of each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import command_line, idle_cluster
from bench.harness import exit_code


@pytest.mark.parametrize(
    ("used", "code"), [([1.5, 0.1, 1.5], 0), ([1.6, 0.1, 0.1], 1), ([0.1, 0.1, 1.6], 1)], ids=str
)
def test_no_node_may_take_more_than_the_limit(used: list[float], code: int) -> None:
    rows = idle_cluster.rows_of(dict(zip(("n1", "n2", "n3"), used, strict=True)), "n1")
    assert exit_code(rows) == code
    assert [each.value for each in rows] == [used[0], max(used[1:])]


@pytest.mark.parametrize(("seconds", "code"), [(0.1, 0), (0.101, 1)])
def test_only_the_get_itself_is_judged(seconds: float, code: int) -> None:
    found = {name: [9.0, 0.02, 0.03] for name in command_line.steps(["tcp://127.0.0.1:1"])}
    found[command_line.GET] = [9.0, seconds, 0.001]
    rows = command_line.rows_of(found)
    assert exit_code(rows) == code
    assert [each.verdict for each in rows] == ["", "", "", "missed" if code else "reached"]
    assert rows[0].value == 30.0


def test_a_command_that_fails_is_no_figure() -> None:
    with pytest.raises(command_line.CommandFailed, match="No such command"):
        command_line.seconds_of(command_line.command(["tcp://127.0.0.1:1"], "fetch"))


def rows_in(output: Path) -> dict[str, float]:
    return {each["name"]: each["value"] for each in json.loads(output.read_text())}


def test_a_small_run_of_an_idle_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "rows.json"
    monkeypatch.setattr(idle_cluster, "machine", lambda directory: "a machine")
    idle_cluster.main(["--seconds", "0.2", "--directory", str(tmp_path), "--output", str(output)])
    assert min(rows_in(output).values()) >= 0 and len(rows_in(output)) == 2
    assert "% of a core" in capsys.readouterr().out


def test_a_small_run_of_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "rows.json"
    monkeypatch.setattr(command_line, "machine", lambda directory: "a machine")
    command_line.main(["--calls", "1", "--directory", str(tmp_path), "--output", str(output)])
    rows = rows_in(output)
    assert rows["command line, assent get"] > rows["command line, python alone"] > 0
    assert capsys.readouterr().out.count("command line, ") == len(rows) == 4
