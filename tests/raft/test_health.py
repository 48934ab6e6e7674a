"""Whom a leader does not hear: told to all, after two election timeouts and no sooner."""

from __future__ import annotations

from actors import Address, Codec
from raft.actor_messages import CheckQuorumDue
from raft.applier_actor import WATCH_PORT, ApplierActor
from raft.config import RaftConfig
from raft.health import REPEAT_TIMEOUTS, Health
from raft.messages import HeartbeatResponse, MemberHealth
from raft.progress import Progress
from raft.wire import register_messages
from tests.raft.lone_actor import Surroundings
from tests.raft.test_applier_actor import Counting, Speaking
from tests.raft.test_replication_turns import Node


def peers(active: str) -> dict[str, Progress]:
    return {name: Progress(1, RaftConfig(), is_active=name in active) for name in "bc"}


def test_a_member_is_unhealthy_after_two_timeouts_without_a_word() -> None:
    health = Health()
    told = [health.end_timeout(3, peers(active)) for active in ("bc", "b", "b", "bc", "")]
    assert told == [None, MemberHealth(3, []), MemberHealth(3, ["c"]), MemberHealth(3, []), None]


def test_a_new_leader_says_whom_it_does_not_hear_though_it_is_nobody() -> None:
    """Who was unhealthy in the eyes of the last one may be back."""
    health = Health()
    assert [health.end_timeout(3, peers("b")) for _ in range(2)] == [None, MemberHealth(3, ["c"])]
    assert [health.end_timeout(4, peers("bc")) for _ in range(2)] == [None, MemberHealth(4, [])]


def test_it_is_told_again_now_and_then_since_a_message_may_be_lost() -> None:
    health = Health()
    told = [health.end_timeout(3, peers("b")) for _ in range(2 + 2 * REPEAT_TIMEOUTS)]
    assert [report for report in told if report] == [MemberHealth(3, ["c"])] * 3


def test_a_leader_tells_every_applier() -> None:
    node = Node().lead()
    for round_number in range(2):
        node.hear("b", HeartbeatResponse(1, round_number, 1))
        node.world.happened.clear()
        node.hear("a", CheckQuorumDue(1))
    sent = [(to, message) for to, message in node.world.happened if type(message) is MemberHealth]
    assert sorted(to for to, _ in sent) == [Address(name, "applier") for name in "abc"]
    assert {message.term for _, message in sent} == {1}


def test_an_applier_passes_it_on_to_its_watchers() -> None:
    world = Surroundings(ApplierActor(Counting(), Speaking()))
    world.start()
    world.happened.clear()
    world.tell(MemberHealth(3, ["c"]), node="b")
    assert (WATCH_PORT, [b"silent", b"c"]) in world.happened


def test_it_survives_the_wire() -> None:
    codec = Codec()
    register_messages(codec)
    for message in (MemberHealth(3, []), MemberHealth(2**40, ["n1", "n2"])):
        assert codec.decode_remote(codec.encode([message])) == [message]
