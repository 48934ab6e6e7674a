"""What tests make of a swarm: runs of one kind, whatever their seed would have drawn.

Each has a name here, by which a failure can be run again: `python -m tests.simulator --shape NAME --seed N`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.simulator.swarm import Swarm

Shape = Callable[[Swarm], Swarm]


def plain(swarm: Swarm) -> Swarm:
    """Clients that put, read, and delete one key, and a store without bounds that takes no time: for tests of
    one thing."""
    return replace(
        swarm,
        transactions=False,
        range_deletes=False,
        compacting=False,
        quota_bytes=0,
        few_sessions=False,
        trees=False,
        busy_apply=0.0,
    )


def peaceful(swarm: Swarm) -> Swarm:
    """Three nodes and busy clients whom nothing befalls but a partition now and then: for tests that need a
    run with much in it, whatever the seed would have drawn."""
    return replace(
        plain(swarm),
        size=3,
        loss=0.0,
        delay_seconds=0.002,
        slow_sync=0.0,
        partitions=True,
        pauses=False,
        kills=False,
        power=False,
        blackouts=False,
        crash_points=False,
        disk_errors=False,
        transfers=False,
        changes=False,
        clients=4,
        keys=3,
        think_seconds=0.05,
    )


def bent(swarm: Swarm) -> Swarm:
    """One node's memory goes bad, among three or more; and nothing that would make its state anew."""
    return replace(
        plain(swarm),
        size=max(3, swarm.size),
        kills=False,
        power=False,
        blackouts=False,
        crash_points=False,
        disk_errors=False,
        changes=False,
        think_seconds=0.05,
        watchers=0,
        lessees=0,
        bends=True,
    )


def forgetful(swarm: Swarm) -> Swarm:
    """An old copy of one node's disk is put back, among three or more, and nothing else befalls anybody that
    might make another leader: what is promised then is another matter."""
    return replace(
        peaceful(swarm),
        size=max(3, swarm.size),
        loss=0.0,
        partitions=False,
        clogs=False,
        drift=0.0,
        jumps=False,
        tiny_queues=False,
        impatient=0.0,
        calm=4.0,
        old_copies=True,
    )


def all_together(swarm: Swarm) -> Swarm:
    """All that concerns the store at once, whatever the seed would have drawn."""
    return replace(
        swarm,
        keys=6,
        history_revisions=5,
        snapshot_interval=20,
        changes=True,
        watchers=3,
        lessees=3,
        transactions=True,
        range_deletes=True,
        compacting=True,
        quota_bytes=5000,
        few_sessions=True,
        trees=True,
    )


def calm(swarm: Swarm) -> Swarm:
    """All together, with little trouble, so that there is much of it. Without leases, whose ends have more
    than one key to a revision, too."""
    return replace(all_together(peaceful(swarm)), watchers=8, lessees=0, changes=False, history_revisions=0)


def transacting(swarm: Swarm) -> Swarm:
    """Peace, and transactions of all kinds."""
    return replace(peaceful(swarm), transactions=True, range_deletes=True, trees=True)


def attentive(swarm: Swarm) -> Swarm:
    """Many who watch, much that is lost on the way, and members that come and go."""
    return replace(
        plain(swarm), watchers=12, loss=0.1, clients=4, think_seconds=0.05, impatient=0.0, changes=True
    )


def busy(swarm: Swarm) -> Swarm:
    """Three milliseconds for each command, and nodes that were away and have much to apply at once."""
    return replace(
        plain(swarm),
        size=3,
        clients=6,
        think_seconds=0.05,
        kills=True,
        tiny_windows=False,
        snapshot_interval=0,
        calm=4.0,
        busy_apply=0.003,
    )


def coming_and_going(swarm: Swarm) -> Swarm:
    """Members come and go all the time, their nodes stay alive, and little else happens."""
    changing = replace(peaceful(swarm), size=5, partitions=False, changes=True, calm=1.0)
    return replace(changing, watchers=12, clients=2, think_seconds=0.4)


def crowded(swarm: Swarm) -> Swarm:
    """Streams that hold for a moment what they have to say, as for many who hear it."""
    return replace(plain(swarm), watchers=8, clients=4, think_seconds=0.02, impatient=0.0, crowds=True)


def leasing(swarm: Swarm) -> Swarm:
    """Many leases, by clocks that can be relied on."""
    return replace(plain(swarm), lessees=4, watchers=0, jumps=False, drift=0.0)


def restless(swarm: Swarm) -> Swarm:
    """Much of what makes reads stale: partitions, lagging followers, and clients who ask everybody."""
    return replace(
        plain(swarm),
        size=max(3, swarm.size),
        partitions=True,
        tiny_windows=True,
        clients=6,
        keys=1,
        think_seconds=0.05,
        calm=4.0,
        changes=False,
    )


DRAWN = "drawn"  # as the seed has it

SHAPES: dict[str, Shape] = {
    DRAWN: lambda swarm: swarm,
    "attentive": attentive,
    "bent": bent,
    "busy": busy,
    "calm": calm,
    "coming-and-going": coming_and_going,
    "crowded": crowded,
    "forgetful": forgetful,
    "leasing": leasing,
    "peaceful": peaceful,
    "plain": plain,
    "restless": restless,
    "together": all_together,
    "transacting": transacting,
}
