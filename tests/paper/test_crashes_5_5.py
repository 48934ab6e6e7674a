"""Raft §5.5: crashed followers and candidates; every request may be repeated without harm."""

from __future__ import annotations

from raft.messages import AppendResponse
from tests.raft.cores import append_of
from tests.raft.network import (
    Network,
    drain,
    make_core,
    outgoing,
)


def test_appends_repeated_and_reordered_have_one_effect() -> None:
    """Raft §5.5: requests are idempotent; a follower ignores entries that it has."""
    core = make_core()
    messages = [append_of(1, 0, 0, [1, 1]), append_of(1, 2, 1, [1, 1]), append_of(1, 4, 1, [1])]
    for index in (1, 0, 0, 2, 1, 1, 0, 2):
        core.step("b", messages[index])
    ready = drain(core)
    assert core.last_index == 5
    assert ready.batch is not None and len(ready.batch) == 5
    assert outgoing(ready, AppendResponse) == [AppendResponse(1, 5)]


def test_a_follower_that_crashes_in_the_middle_catches_up() -> None:
    """Raft §5.5: the leader tries without end, so that who comes back gets all that it missed."""
    network = Network("abc")
    leader = network.elect("a")
    for number in range(5):
        leader.propose([b"%d" % number])
        network.settle()
    network.restart("b")
    network.isolate("b")
    for number in range(5, 20):
        leader.propose([b"%d" % number])
        network.settle()
    network.heal()
    leader.heartbeat()
    network.settle()
    assert network.applied["b"] == network.applied["a"] and len(network.applied["b"]) == 21


def test_a_follower_that_loses_what_it_had_not_acknowledged_gets_it_again() -> None:
    """Raft §5.5: a crash before the answer is, to the leader, a request that was lost: it comes again."""
    network = Network("abc")
    leader = network.elect("a")
    leader.propose([b"x"])
    network.turn("a")
    for mail in network.mail:
        network.deliver(mail)
    network.mail.clear()
    network["b"].ready()  # given to the disk, which crashes before it is written
    network.restart("b")
    leader.heartbeat()
    network.settle()
    leader.heartbeat()
    network.settle()
    assert network["b"].last_index == 2 and network["b"].commit_index == 2
