"""Single cores in the situations that tests begin with, got there by messages alone."""

from __future__ import annotations

from raft.config import RaftConfig
from raft.core import Core
from raft.entries import HardState
from raft.messages import (
    AppendEntries,
    AppendResponse,
    Heartbeat,
    VoteResponse,
)
from raft.progress import Progress, ProgressState
from raft.ready import Role
from tests.raft.network import (
    Disk,
    batch,
    become_candidate,
    drain,
    entries_of,
    make_core,
    make_leader,
    outgoing,
)


def core_in(role: Role, term: int = 3) -> Core:
    """A core of three voters that got into `role` at `term` in the regular way."""
    core = make_core(term=term - 1)
    if role is Role.FOLLOWER:
        core.step("b", Heartbeat(term, 0, 0))
    elif role is Role.PRE_CANDIDATE:
        core = make_core(term=term)
        core.campaign()
    else:
        become_candidate(core)
        if role is Role.LEADER:
            core.step("b", VoteResponse(term, True))
    drain(core)
    assert (core.role, core.term) == (role, term)
    return core


def disk_of(terms: list[int], term: int, voted_for: str | None = None) -> Disk:
    return Disk(HardState(term, voted_for, 0), entries_of(terms))


def append_of(
    term: int, prev_index: int, prev_term: int, terms: list[int], commit_index: int = 0
) -> AppendEntries:
    return AppendEntries(term, prev_index, prev_term, commit_index, batch(prev_index + 1, terms))


def settled_leader(voters: str = "abc", learners: str = "", config: RaftConfig | None = None) -> Core:
    """A leader whose first entry is committed, and that has told so."""
    core = make_leader(voters=voters, learners=learners, config=config)
    for peer in sorted(core.progress):
        core.step(peer, AppendResponse(1, 1))
    drain(core)
    assert core.commit_index == 1 and not core.has_ready()
    return core


def round_sent(core: Core) -> int:
    """Send what is due; the round that the heartbeats carry."""
    (round_,) = {message.round for message in outgoing(drain(core), Heartbeat)}
    return round_


WINDOW = RaftConfig(max_inflight_messages=3, max_inflight_bytes=1000)


def replicating(match_index: int = 5, next_index: int = 9) -> Progress:
    """Acknowledged up to match_index, and one append for each index after it on its way."""
    progress = Progress(match_index + 1, WINDOW, is_active=False)
    progress.acknowledge(match_index)
    for index in range(match_index + 1, next_index):
        progress.note_sent(index, 10, 0)
    assert (progress.state, progress.next_index) == (ProgressState.REPLICATE, next_index)
    return progress


def leader_with_peer_at(match_index: int, **limits: int) -> Core:
    """A leader of a and b; b has acknowledged all entries so far."""
    core = make_leader(voters="ab", config=RaftConfig(**limits))
    if match_index > 1:
        core.propose([b"x"] * (match_index - 1))
    drain(core)
    core.step("b", AppendResponse(1, 1))
    drain(core)
    core.step("b", AppendResponse(1, match_index))
    drain(core)
    assert core.progress["b"].match_index == core.last_index == match_index
    return core
