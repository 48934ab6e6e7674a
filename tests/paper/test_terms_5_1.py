"""Raft §5.1: terms are a logical clock; who hears a higher one follows, and who names an old one is told."""

from __future__ import annotations

from typing import Any

import pytest

from raft.messages import (
    AppendEntries,
    AppendRejected,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    PreVoteResponse,
    ReadIndexRefused,
    ReadIndexRequest,
    RequestPreVote,
    RequestVote,
    VoteResponse,
)
from raft.ready import Role
from tests.raft.cores import core_in
from tests.raft.network import batch, drain, outgoing


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize(
    "message",
    [
        AppendEntries(9, 0, 0, 0, batch(1)),
        Heartbeat(9, 0, 0),
        VoteResponse(9, False),
        AppendResponse(9, 0),
        AppendRejected(9, 5, 1, 0),
        HeartbeatResponse(9, 1),
        ReadIndexRequest(9, 1),
        ReadIndexRefused(9, 1),
        PreVoteResponse(9, False),
        RequestVote(9, 0, 0, transfer=True),
    ],
    ids=lambda message: type(message).__name__,
)
def test_every_role_follows_a_higher_term(role: Role, message: object) -> None:
    """Raft §5.1: a server of any role that hears of a higher term adopts it and becomes a follower."""
    core = core_in(role)
    core.step("b", message)
    assert (core.role, core.term) == (Role.FOLLOWER, 9)
    assert core.leader_id == ("b" if isinstance(message, AppendEntries | Heartbeat) else None)
    ready = drain(core)
    assert ready.hard_state is not None and ready.hard_state.term == 9 and ready.must_sync


@pytest.mark.parametrize("role", list(Role))
def test_requests_of_an_old_term_are_refused_with_the_own_term(role: Role) -> None:
    """Raft §5.1: a request with an old term is rejected, and the answer names the current one."""
    core = core_in(role, term=5)
    requests: dict[type, object] = {
        AppendRejected: AppendEntries(4, 0, 0, 0, batch(1, [4])),
        HeartbeatResponse: Heartbeat(4, 0, 3),
        VoteResponse: RequestVote(4, 9, 9),
        PreVoteResponse: RequestPreVote(4, 9, 9),
        ReadIndexRefused: ReadIndexRequest(4, 1),
    }
    before = (core.role, core.leader_id, core.last_index, core.voted_for)
    for answer_kind, request in requests.items():
        core.step("c", request)
        answer: Any
        (answer,) = outgoing(drain(core), answer_kind, to="c")
        assert answer.term == 5
        assert not getattr(answer, "granted", False)
    assert (core.role, core.leader_id, core.last_index, core.voted_for) == before


@pytest.mark.parametrize("role", list(Role))
def test_answers_of_an_old_term_are_dropped(role: Role) -> None:
    """Raft §5.1: an answer to a question of an old term changes nothing."""
    core = core_in(role, term=5)
    for answer in (
        VoteResponse(4, True),
        PreVoteResponse(4, True),
        AppendResponse(4, 9),
        AppendRejected(4, 0, 0, 0),
        HeartbeatResponse(4, 9),
    ):
        core.step("b", answer)
        core.step("c", answer)
    assert (core.role, core.term) == (role, 5) and core.commit_index == 0
    assert not outgoing(drain(core), AppendEntries)
