"""Who takes proposals, and how many bytes of them may be under way."""

from __future__ import annotations

import pytest

from raft.config import RaftConfig
from raft.errors import Overloaded
from raft.log import ENTRY_OVERHEAD_BYTES
from raft.messages import (
    AppendResponse,
    Heartbeat,
    VoteResponse,
)
from tests.raft.network import (
    become_candidate,
    drain,
    make_leader,
)


def test_no_bodies_are_no_proposal() -> None:
    with pytest.raises(AssertionError):
        make_leader().propose([])


def test_b12_uncommitted_bytes_are_bounded_and_released_by_commit() -> None:
    core = make_leader(config=RaftConfig(max_uncommitted_bytes=1000))
    core.propose([bytes(300)])
    core.propose([bytes(300), bytes(300)])
    with pytest.raises(Overloaded) as refusal:
        core.propose([bytes(100)])
    assert refusal.value.limit == 1000 < refusal.value.amount
    assert core.last_index == 4
    drain(core)
    core.step("b", AppendResponse(1, 2))
    assert core.commit_index == 2 and core.uncommitted_bytes == 2 * (300 + ENTRY_OVERHEAD_BYTES)
    core.propose([bytes(300)])
    core.step("b", AppendResponse(1, 4))
    drain(core)
    core.step("b", AppendResponse(1, 5))
    assert (core.commit_index, core.uncommitted_bytes) == (5, 0)


def test_b12_the_bound_itself_may_be_reached() -> None:
    core = make_leader(config=RaftConfig(max_uncommitted_bytes=2 * (100 + ENTRY_OVERHEAD_BYTES)))
    core.propose([bytes(100)])
    core.propose([bytes(100)])
    with pytest.raises(Overloaded):
        core.propose([b""])


def test_b12_a_proposal_larger_than_the_bound_passes_when_nothing_is_under_way() -> None:
    core = make_leader(voters="a", config=RaftConfig(max_uncommitted_bytes=100))
    core.propose([bytes(500)])
    with pytest.raises(Overloaded):
        core.propose([b""])


def test_b12_the_quota_does_not_survive_the_leadership() -> None:
    core = make_leader(config=RaftConfig(max_uncommitted_bytes=1000))
    core.propose([bytes(900)])
    drain(core)
    core.step("b", Heartbeat(2, 0, 0))
    assert core.uncommitted_bytes == 0
    become_candidate(core)
    core.step("b", VoteResponse(3, True))
    drain(core)
    assert core.uncommitted_bytes == 0
    core.propose([bytes(900)])
