"""Commands for snapshots: when one is taken, and how long a state machine takes to take one in."""

from __future__ import annotations

from tests.interaction.stage import ScenarioError, Stage, command


@command("snapshot NODE...")
def snapshot(stage: Stage, words: list[str]) -> None:
    """These nodes take a snapshot of all that they have applied, and compact their logs as they may."""
    for name in stage.names(words):
        meta = stage.cluster.snapshot(name)
        first_index = stage.core(name).log.first_index
        stage.cluster.note(
            f"{name} has a snapshot up to {meta.index}@{meta.term}, and keeps the log from {first_index} on"
        )


@command("restoring NODE slow|done")
def restoring(stage: Stage, words: list[str]) -> None:
    """A slow state machine takes in an installed snapshot only when told that it is done."""
    name, what = words
    stage.core(name)
    if what == "slow":
        stage.cluster.slow_restore.add(name)
    elif what == "done":
        stage.cluster.slow_restore.discard(name)
        stage.cluster.restore(name)
    else:
        raise ScenarioError(f"restoring is slow or done, not {what}")
