"""Commands that show, and change nothing."""

from __future__ import annotations

from raft.core import Core
from tests.interaction.stage import Stage, command
from tests.interaction.words import entries_text, table


@command("state [NODE...]")
def state(stage: Stage, words: list[str]) -> None:
    """A line for each node: what it is, whom it follows and voted for, and its log as a list of terms."""
    rows = [["node", "role", "term", "leader", "vote", "commit", "log"]]
    for name in stage.names(words):
        core = stage.core(name)
        rows.append(
            [
                name,
                core.role.value,
                str(core.term),
                core.leader_id or "-",
                core.voted_for or "-",
                str(core.commit_index),
                _terms_text(core),
            ]
        )
    for line in table(rows):
        stage.cluster.note(line)


@command("log NODE...")
def log(stage: Stage, words: list[str]) -> None:
    """The entries of these nodes, and how far each log is durable."""
    for name in stage.names(words):
        core = stage.core(name)
        entries = core.log.slice(core.log.first_index, core.last_index)
        stage.cluster.note(
            f"{name} {entries_text(core.log.first_index, entries)}; on disk to {core.stable_index}"
        )


@command("progress NODE")
def progress(stage: Stage, words: list[str]) -> None:
    """What this leader knows of the others."""
    for name in stage.names(words):
        rows = [["peer", "state", "match", "next", "in flight"]]
        for peer, view in stage.core(name).progress.items():
            rows.append(
                [
                    peer,
                    view.state.value,
                    str(view.match_index),
                    str(view.next_index),
                    str(len(view.inflights)),
                ]
            )
        for line in table(rows):
            stage.cluster.note(line)


def _terms_text(core: Core) -> str:
    """[4@2] stands for what a snapshot replaces: all up to index 4, whose term is 2."""
    terms = [str(term) for term, _, _ in core.log.slice(core.log.first_index, core.last_index)]
    if core.log.snapshot_index:
        terms.insert(0, f"[{core.log.snapshot_index}@{core.log.snapshot_term}]")
    return " ".join(terms) or "-"
