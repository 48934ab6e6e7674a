"""Plays scenarios: each command against the cluster, and what it says against what the file says."""

from __future__ import annotations

import difflib
from pathlib import Path

from raft.errors import ConfigurationRefused, NotLeader, Overloaded, RaftError, TransferRefused, Transferring
from tests.interaction import (  # noqa: F401 - they register what they define
    commands,
    looking,
    mail_commands,
    membership_commands,
    snapshot_commands,
)
from tests.interaction.script import Script, Step, parse
from tests.interaction.stage import COMMANDS, ScenarioError, Stage

SCENARIOS = Path(__file__).parent / "scenarios"


def play(script: Script) -> Script:
    """The script with the output that its commands really have. Raises ScenarioError with the line."""
    stage = Stage()

    def play_step(step: Step) -> list[str]:
        try:
            return _run(stage, step.command)
        except (ScenarioError, ValueError) as error:
            raise ScenarioError(f"line {step.line_number}: {step.command}: {error}") from error

    return script.played(play_step)


def _run(stage: Stage, line: str) -> list[str]:
    name, *words = line.split()
    command = COMMANDS.get(name)
    if command is None:
        raise ScenarioError(f"there is no command {name}; there are {', '.join(sorted(COMMANDS))}")
    refusal = None
    try:
        command.action(stage, words)
    except RaftError as error:
        refusal = _refusal_text(error)
    cluster = stage.cluster
    cluster.take_turns()
    notes, cluster.notes = cluster.notes, []
    return [*notes, refusal] if refusal is not None else notes


def _refusal_text(error: RaftError) -> str:
    if isinstance(error, NotLeader):
        return f"refused: not the leader; {error.leader_id or 'nobody known'} is"
    if isinstance(error, Overloaded):
        return f"refused: overloaded, {error.amount} would pass {error.limit}"
    if isinstance(error, ConfigurationRefused | TransferRefused):
        return f"refused: {error.reason}, {error.detail}"
    if isinstance(error, Transferring):
        return f"refused: leadership goes to {error.target}"
    return f"refused: {type(error).__name__} {error}"


def difference(path: Path) -> str:
    """Empty if the file says what happens; else what would have to change in it."""
    text = path.read_text(encoding="utf-8")
    played = play(parse(text)).text()
    before, after = text.splitlines(), played.splitlines()
    lines = difflib.unified_diff(before, after, "the file says", "what happens", lineterm="")
    return "\n".join(lines)


def rewrite(path: Path) -> bool:
    """Write into the file what happens. True if that changed it."""
    text = path.read_text(encoding="utf-8")
    played = play(parse(text)).text()
    if played != text:
        path.write_text(played, encoding="utf-8")
    return played != text
