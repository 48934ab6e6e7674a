"""What must always be true: facts about one state of a core, and facts about two successive states.

Reads a core and never changes it. The cheap checks run at every ready(), whatever the input was; check_log
is as long as the log and is for tests. A breach raises InvariantBroken with the numbers, and the process
must end.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from raft.entries import Index, NodeId, Term
from raft.errors import InvariantBroken
from raft.ready import Role

if TYPE_CHECKING:
    from raft.core import Core


class Facts(NamedTuple):
    """What is kept of a state, to be compared with the next."""

    role: Role
    term: Term
    voted_for: NodeId | None
    commit_index: Index
    delivered_index: Index
    last_index: Index


def require(condition: bool, broken_fact: str, *numbers: object) -> None:
    if not condition:
        raise InvariantBroken(f"{broken_fact} {', '.join(map(str, numbers))}")


def facts_of(core: Core) -> Facts:
    return Facts(
        core.role, core.term, core.voted_for, core.commit_index, core.delivered_index, core.log.last_index
    )


def check_state(core: Core) -> None:
    """Facts about one state; a dozen comparisons."""
    log = core.log
    require(
        log.snapshot_index <= core.delivered_index <= core.commit_index <= log.last_index,
        "not snapshot <= delivered <= commit <= last:",
        log.snapshot_index,
        core.delivered_index,
        core.commit_index,
        log.last_index,
    )
    require(
        log.stable_index <= log.persisting_index <= log.last_index,
        "not stable <= persisting <= last:",
        log.stable_index,
        log.persisting_index,
        log.last_index,
    )
    require(log.last_term <= core.term, "the log is ahead of the term:", log.last_term, core.term)
    if core.role is Role.LEADER:
        require(core.leader_id == core.node_id, "a leader follows", core.leader_id)
        require(core.voted_for == core.node_id, "a leader voted for", core.voted_for)
        require(log.last_term == core.term, "a leader has no entry of its term:", log.last_term, core.term)
    elif core.role is not Role.FOLLOWER:
        require(core.leader_id is None, "a candidate follows", core.leader_id)


def check_succession(before: Facts, after: Facts) -> None:
    """Facts about two successive states of one node."""
    require(before.term <= after.term, "the term went back:", before.term, after.term)
    require(
        before.commit_index <= after.commit_index,
        "the commit index went back:",
        before.commit_index,
        after.commit_index,
    )
    require(
        before.delivered_index <= after.delivered_index,
        "the delivered index went back:",
        before.delivered_index,
        after.delivered_index,
    )
    if before.term == after.term:
        # Raft §5.2: one vote in a term, whatever happens in it (catalogue A4).
        require(
            before.voted_for is None or before.voted_for == after.voted_for,
            "the vote changed within a term:",
            before.term,
            before.voted_for,
            after.voted_for,
        )
        if before.role is Role.LEADER:
            # Leader Append-Only (Raft figure 3): to truncate takes another leader in the same term.
            require(
                before.last_index <= after.last_index,
                "a leader's log became shorter:",
                before.last_index,
                after.last_index,
            )


def check_log(core: Core) -> None:
    """Costly: terms never decrease along the log, and the leader's table is consistent with it."""
    log = core.log
    terms = [term for term, _, _ in log.slice(log.first_index, log.last_index)]
    require(all(a <= b for a, b in pairwise([log.snapshot_term, *terms])), "terms decrease in", terms)
    require(log.last_term == (terms[-1] if terms else log.snapshot_term), "last term is not", log.last_term)
    for node_id, progress in core.progress.items():
        require(
            0 <= progress.match_index < progress.next_index <= log.last_index + 1,
            f"progress of {node_id} is out of order:",
            progress.match_index,
            progress.next_index,
            log.last_index,
        )
        in_flight = progress.inflights.bytes
        require(in_flight >= 0, f"less than nothing is in flight to {node_id}:", in_flight)
