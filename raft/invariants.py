"""What must always be true: facts about one state of a core, and facts about two successive states.

Reads a core and never changes it. The cheap checks run at every ready(), whatever the input was; check_log
is as long as the log and is for tests. A breach raises InvariantBroken with the numbers, and the process
must end.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from raft.configuration_history import configurations_in
from raft.entries import Index, NodeId, Term
from raft.errors import InvariantBroken
from raft.ready import Role

if TYPE_CHECKING:
    from raft.configuration_history import ConfigurationHistory
    from raft.core import Core
    from raft.membership import Configuration


class Facts(NamedTuple):
    """What is kept of a state, to be compared with the next."""

    role: Role
    term: Term
    voted_for: NodeId | None
    commit_index: Index
    delivered_index: Index
    last_index: Index


def broken(fact: str, *numbers: object) -> InvariantBroken:
    """The exception to raise. What is compared is compared in place: that is paid for at every turn."""
    return InvariantBroken(f"{fact} {', '.join(map(str, numbers))}")


def facts_of(core: Core) -> Facts:
    return Facts(
        core.role, core.term, core.voted_for, core.commit_index, core.delivered_index, core.log.last_index
    )


def check_state(core: Core) -> None:
    """Facts about one state; a dozen comparisons."""
    log = core.log
    marks = (log.snapshot_index, core.delivered_index, core.commit_index, log.last_index)
    if not marks[0] <= marks[1] <= marks[2] <= marks[3]:
        raise broken("not snapshot <= delivered <= commit <= last:", *marks)
    if not log.stable_index <= log.persisting_index <= log.last_index:
        raise broken("not stable <= persisting <= last:", log.stable_index, log.persisting_index, *marks)
    if log.snapshot_index > core.snapshots.index:
        raise broken("no snapshot stands for the entries up to", log.snapshot_index, core.snapshots.index)
    if log.last_term > core.term:
        raise broken("the log is ahead of the term:", log.last_term, core.term)
    if core.role is Role.LEADER:
        if core.leader_id != core.node_id or core.voted_for != core.node_id:
            raise broken("a leader follows or voted for another:", core.leader_id, core.voted_for)
        if log.last_term != core.term:
            raise broken("a leader has no entry of its term:", log.last_term, core.term)
    elif core.role is not Role.FOLLOWER and core.leader_id is not None:
        raise broken("a candidate follows", core.leader_id)


def check_succession(before: Facts, after: Facts) -> None:
    """Facts about two successive states of one node."""
    if after.term < before.term:
        raise broken("the term went back:", before.term, after.term)
    if after.commit_index < before.commit_index:
        raise broken("the commit index went back:", before.commit_index, after.commit_index)
    if after.delivered_index < before.delivered_index:
        raise broken("the delivered index went back:", before.delivered_index, after.delivered_index)
    if before.term != after.term:
        return
    # Raft §5.2: one vote in a term, whatever happens in it.
    if before.voted_for is not None and before.voted_for != after.voted_for:
        raise broken("the vote changed within a term:", before.term, before.voted_for, after.voted_for)
    # Leader Append-Only (Raft figure 3): to truncate takes another leader, and there is none in this term.
    if before.role is Role.LEADER and after.last_index < before.last_index:
        raise broken("a leader's log became shorter:", before.last_index, after.last_index)


def check_configurations(history: ConfigurationHistory, following: Configuration) -> None:
    """May this one be appended after that in force? Asked only when one is.

    Any majority that decides under one of them must share a node with any that decides under the next (Raft
    §6): a joint one follows its old voters and is followed by its new ones; else one voter comes or goes.
    """
    before = history.in_force
    if history.last_index == 0:
        return  # what a node was started with says nothing: the log does
    if following.is_joint:
        follows = not before.is_joint and following.outgoing == before.voters
    elif before.is_joint:
        follows = following.voters == before.voters
    else:
        follows = len(before.voters ^ following.voters) <= 1
    if not follows:
        raise broken("majorities need not overlap:", before, following)


def check_log(core: Core) -> None:
    """Costly: terms never decrease along the log; configurations and the leader's table agree with it."""
    log = core.log
    entries = log.slice(log.first_index, log.last_index)
    terms = [term for term, _, _ in entries]
    if not all(a <= b for a, b in pairwise([log.snapshot_term, *terms])):
        raise broken("terms decrease in", terms)
    if log.last_term != (terms[-1] if terms else log.snapshot_term):
        raise broken("last term is not", log.last_term)
    history = core.configurations
    base_index = history.base_index  # the log may begin before it: entries that a slow follower may need
    logged = [each for each in configurations_in(log.first_index, entries) if each[0] > base_index]
    if history.after(base_index) != logged:
        raise broken("the configurations are not those in the log:", history.after(base_index), logged)
    if core.configuration is not history.in_force:
        raise broken("another configuration is in force:", core.configuration, history.in_force)
    if core.role is Role.LEADER:
        if core.progress.keys() != core.configuration.members - {core.node_id}:
            raise broken("the leader's table is of others:", sorted(core.progress), core.configuration)
        # One change at a time (Raft §6): known only once an entry of the own term is committed.
        if log.term_at(core.commit_index) == core.term and len(history.after(core.commit_index)) > 1:
            raise broken("two changes are under way:", history.after(core.commit_index))
    for node_id, progress in core.progress.items():
        marks = (progress.match_index, progress.next_index, log.last_index)
        if not 0 <= marks[0] < marks[1] <= marks[2] + 1:
            raise broken(f"progress of {node_id} is out of order:", *marks)
        if progress.inflights.bytes < 0:
            raise broken(f"less than nothing is in flight to {node_id}:", progress.inflights.bytes)
