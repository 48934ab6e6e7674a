"""Dissertation 3.10: handing leadership over."""

from __future__ import annotations

import pytest

from raft.core import Core
from raft.errors import ConfigurationRefused, NotLeader, TransferReason, TransferRefused, Transferring
from raft.messages import AppendResponse, RequestPreVote, RequestVote, TimeoutNow, VoteResponse
from raft.ready import Role
from tests.raft.cores import core_in, settled_leader
from tests.raft.network import Network, change, drain, outgoing


def led(network: Network) -> list[str]:
    return [name for name, core in network.cores.items() if core.role is Role.LEADER]


def transferring(target: str = "b") -> Core:
    """a leads, and has told b, which has everything, to campaign."""
    core = settled_leader()
    core.transfer_leadership(target)
    assert outgoing(drain(core), TimeoutNow, to=target) == [TimeoutNow(1)]
    return core


def test_the_target_has_everything_and_wins_at_once() -> None:
    """Dissertation 3.10: TimeoutNow makes the target campaign without waiting, and it wins as a rule."""
    network = Network("abc")
    leader = network.elect("a")
    leader.propose([b"x"])
    network.settle()
    leader.transfer_leadership("c")
    network.settle()
    assert led(network) == ["c"] and network["c"].term == 2
    # Nobody asked first, and nobody had to wait for a silent leader: the request says that it is a transfer.
    assert not network.sent(RequestPreVote, "c")
    assert {request.transfer for request in network.sent(RequestVote, "c")} == {True}


def test_a_target_that_is_behind_gets_the_log_first() -> None:
    """Dissertation 3.10: the leader brings the target's log up to its own before it tells it."""
    network = Network("abc")
    leader = network.elect("a")
    network.isolate("c")
    leader.propose([b"x"] * 9)
    network.settle()
    network.heal()
    leader.transfer_leadership("c")
    network.settle()
    assert not network.sent(TimeoutNow)
    leader.heartbeat()  # finds out what c lacks
    network.settle()
    assert led(network) == ["c"] and network["c"].last_index == 11


def test_meanwhile_the_leader_takes_no_proposals() -> None:
    """Dissertation 3.10: else the target would never have everything."""
    core = transferring()
    with pytest.raises(Transferring) as refusal:
        core.propose([b"x"])
    assert refusal.value.target == "b"
    assert core.role is Role.LEADER and core.transfer_target == "b"


def test_if_the_target_does_not_take_over_the_leader_goes_on_after_an_election_timeout() -> None:
    """Dissertation 3.10: a transfer that did not happen is given up, and clients are served again."""
    core = transferring()
    core.heartbeat()
    assert outgoing(drain(core), TimeoutNow, to="b")  # told again meanwhile: the first may be lost
    core.abort_transfer()
    assert core.propose([b"x"]) == 2 and core.transfer_target is None
    core.heartbeat()
    assert not outgoing(drain(core), TimeoutNow)


def test_the_old_leader_follows_the_new_one() -> None:
    """Dissertation 3.10: it votes for its successor, although it was a leader a moment ago."""
    core = transferring()
    core.step("b", RequestVote(2, 1, 1, transfer=True))
    assert (core.role, core.term, core.voted_for, core.transfer_target) == (Role.FOLLOWER, 2, "b", None)
    assert outgoing(drain(core), VoteResponse) == [VoteResponse(2, True)]


def test_a_second_transfer_replaces_the_first_and_the_same_one_changes_nothing() -> None:
    """Dissertation 3.10: an operator may change his mind as long as nobody has campaigned."""
    core = transferring("b")
    core.transfer_leadership("b")
    assert core.transfer_target == "b"
    core.transfer_leadership("c")
    assert core.transfer_target == "c"
    core.step("b", AppendResponse(1, 1))
    ready = drain(core)
    assert outgoing(ready, TimeoutNow, to="c")
    core.heartbeat()
    assert [to for to, message in drain(core).messages if isinstance(message, TimeoutNow)] == ["c"]


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("a", TransferReason.LEADS_ALREADY),
        ("l", TransferReason.NOT_A_VOTER),
        ("x", TransferReason.NOT_A_VOTER),
    ],
)
def test_who_cannot_lead_is_refused_at_once(target: str, reason: TransferReason) -> None:
    """Dissertation 3.10: itself, a learner, a stranger."""
    core = settled_leader(learners="l")
    with pytest.raises(TransferRefused) as refusal:
        core.transfer_leadership(target)
    assert refusal.value.reason is reason
    assert core.propose([b"x"]) == 2


def test_only_a_leader_hands_over() -> None:
    """Dissertation 3.10: a follower names the leader, as for any request."""
    core = core_in(Role.FOLLOWER)
    with pytest.raises(NotLeader) as refusal:
        core.transfer_leadership("c")
    assert refusal.value.leader_id == "b"


@pytest.mark.parametrize("verb", ["remove", "demote"])
def test_a_target_that_loses_its_vote_is_none_any_more(verb: str) -> None:
    """Dissertation 3.10: no change while a transfer is on, so the target keeps its vote."""
    core = transferring("b")
    with pytest.raises(ConfigurationRefused, match="transferring"):
        change(core, verb, "b")
    core.abort_transfer()
    change(core, verb, "b")
    with pytest.raises(TransferRefused):
        core.transfer_leadership("b")


def test_without_a_target_it_is_the_live_voter_with_most_of_the_log() -> None:
    """Dissertation 3.10: for a restart it does not matter who leads, as long as somebody does soon."""
    network = Network("abcd", learners="l")
    leader = network.elect("a")
    network.isolate("b")
    leader.propose([b"x"])
    network.settle()
    for _ in range(2):
        leader.heartbeat()
        network.settle()
        leader.check_quorum()
    leader.transfer_leadership(None)
    assert leader.transfer_target in ("c", "d")
    network.settle()
    assert led(network)[-1] in ("c", "d")


def test_a_word_that_comes_late_costs_an_election_at_most() -> None:
    """Dissertation 3.10: TimeoutNow is of a term, and a campaign is allowed at any time; the votes decide."""
    network = Network("abc")
    leader = network.elect("a")
    leader.transfer_leadership("b")
    network.turn("a")
    late = network.mail.pop()
    assert isinstance(late[2], TimeoutNow)
    leader.abort_transfer()
    network.isolate("b")
    leader.propose([b"x"])
    network.settle()
    network.heal()
    network.deliver(late)
    network.settle()
    assert led(network) == []  # b lacks x, so it did not win; a has heard its term
    assert network.elect("c").term == 3
    network.deliver(late)  # of term 1: nobody listens
    network.settle()
    assert led(network) == ["c"]
