"""Commands for operators: who takes part, and who leads."""

from __future__ import annotations

from tests.interaction.stage import Stage, command
from tests.interaction.words import configuration_text
from tests.raft.network import change as change_membership


@command("join NODE...")
def join(stage: Stage, words: list[str]) -> None:
    """Start these nodes with empty disks and without a cluster: they wait to be added to one."""
    stage.cluster.join(*words)


@command("change NODE VERB NODE... [by force]")
def change(stage: Stage, words: list[str]) -> None:
    """Ask this leader for a change of membership. The verbs are those of raft/changes.py."""
    by_force = words[-2:] == ["by", "force"]
    name, verb, *nodes = words[:-2] if by_force else words
    core = stage.core(name)
    change_membership(core, verb, *nodes, force=by_force)


@command("members [NODE...]")
def members(stage: Stage, words: list[str]) -> None:
    """The configuration that each of these nodes works with, and whether it knows it to be committed."""
    for name in stage.names(words):
        core = stage.core(name)
        state = "committed"
        if core.configurations.last_index > core.commit_index:
            state = f"not committed; that is {configuration_text(core.committed_configuration)}"
        stage.cluster.note(f"{name} {configuration_text(core.configuration)}, {state}")


@command("transfer NODE [NODE]")
def transfer(stage: Stage, words: list[str]) -> None:
    """Ask this leader to hand over: to that node, or to whom it finds fittest."""
    name, *target = words
    stage.core(name).transfer_leadership(target[0] if target else None)


@command("abort-transfer NODE")
def abort_transfer(stage: Stage, words: list[str]) -> None:
    """An election timeout has passed since this leader began to hand over."""
    for name in stage.names(words):
        stage.core(name).abort_transfer()
