"""Every scenario says what happens, and a scenario that does not would be seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interaction.__main__ import main
from tests.interaction.runner import SCENARIOS, difference, play, rewrite
from tests.interaction.script import parse
from tests.interaction.stage import COMMANDS, ScenarioError
from tests.interaction.words import body_of, body_text

FILES = sorted(SCENARIOS.glob("*.txt"))

EXAMPLE = """# An example

It says what one learns.

> cluster n1
> elect n1
    n1 leads term 1, followed by nobody
"""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_scenario_is_what_happens(path: Path) -> None:
    found = difference(path)
    assert not found, f"{found}\nTo take this over: python -m tests.interaction --rewrite {path}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_scenario_can_be_read(path: Path) -> None:
    script = parse(path.read_text(encoding="utf-8"))
    assert script.heading.startswith("# ")
    assert script.prose[0].startswith("The reader learns "), "say first what one learns"
    assert len(script.steps) >= 4 and len(script.prose) >= 4
    assert all(len(line) <= 110 for line in script.prose)
    # A command that finds nothing is a scenario that went another way than it was meant to.
    assert not any(line == "there is no such mail" for step in script.steps for line in step.output)


def test_there_are_enough_scenarios_and_every_command_is_used() -> None:
    assert len(FILES) >= 25
    used = {
        step.command.split()[0] for path in FILES for step in parse(path.read_text(encoding="utf-8")).steps
    }
    assert used == set(COMMANDS)


def test_a_file_is_itself_again_after_parsing() -> None:
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert parse(text).text() == text


def test_what_differs_is_shown_and_can_be_taken_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "example.txt"
    path.write_text(EXAMPLE.replace("term 1", "term 2"), encoding="utf-8")
    assert main([str(path)]) == 1
    shown = capsys.readouterr().out
    assert "-    n1 leads term 2, followed by nobody" in shown
    assert "+    n1 leads term 1, followed by nobody" in shown
    assert main(["--rewrite", str(path)]) == 0
    assert path.read_text(encoding="utf-8") == EXAMPLE
    assert main([str(path)]) == 0 and not rewrite(path)


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("dance n1", "there is no command dance"),
        ("campaign n7", "no node n7"),
        ("deliver Telegram", "there is no message Telegram"),
        ("send n1->n2 Telegram 1", "there is no message Telegram"),
        ("cluster n1 with patience=1", "no option patience"),
        ("disk n1 round", "not round"),
        ("elect", "not enough values"),
    ],
)
def test_a_scenario_that_makes_no_sense_is_refused_with_its_line(command: str, complaint: str) -> None:
    with pytest.raises(ScenarioError, match=complaint) as refusal:
        play(parse(EXAMPLE + f"> {command}\n"))
    assert str(refusal.value).startswith("line 8: ")


def test_nothing_can_happen_without_a_cluster() -> None:
    with pytest.raises(ScenarioError, match="no cluster"):
        play(parse("> state\n"))


def test_the_commands_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--commands"]) == 0
    shown = capsys.readouterr().out
    assert all(command.usage in shown and command.explanation in shown for command in COMMANDS.values())
    assert all(command.explanation for command in COMMANDS.values())


@pytest.mark.parametrize(("text", "body"), [("x=1", b"x=1"), ("3B", bytes(3)), ("B", b"B")])
def test_bodies_are_written_as_text_or_as_a_number_of_bytes(text: str, body: bytes) -> None:
    assert body_of(text) == body and body_text(body) == text
