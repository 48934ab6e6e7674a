"""What operators ask, on its way through replication and election: answers, news, and time limits."""

from __future__ import annotations

import random

from actors import Actor, Address, Codec, ManualClock, MemoryNetwork, System
from raft import Configuration, Core
from raft.actor_messages import (
    Abandoned,
    ChangeConfiguration,
    ChangeRefused,
    ConfigurationChanged,
    HeartbeatDue,
    LeadershipTransferred,
    MembershipChanged,
    Propose,
    Reason,
    Refused,
    RoleChanged,
    TransferBegun,
    TransferLeadership,
    TransferOverdue,
)
from raft.election_actor import ElectionActor
from raft.errors import ConfigurationReason, TransferReason
from raft.membership import Configuration as Members
from raft.messages import (
    AppendEntries,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    PreVoteResponse,
    Removed,
    TimeoutNow,
    VoteResponse,
)
from raft.replication_actor import ReplicationActor
from raft.storage import MemoryStorage
from raft.wire import register_messages
from tests.raft.network import batch
from tests.raft.test_replication_actor import Listener

TIMEOUT = 1.0


class Bench:
    """Replication and election of a, of a, b and c; the peers, the gateway and the applier are played."""

    def __init__(self, *, leads: bool = True, priority: int = 1) -> None:
        codec = Codec()
        register_messages(codec)
        storage = MemoryStorage()
        self.core = Core("a", Configuration("abc"), storage.load())
        self.replication = ReplicationActor(self.core, storage)
        self.election = ElectionActor(
            election_timeout_seconds=TIMEOUT,
            heartbeat_interval_seconds=0.1,
            rng=random.Random(1),
            priority=priority,
        )
        self.gateway, self.applier = Listener("gateway"), Listener("applier")
        self.clock = ManualClock()
        network = MemoryNetwork()
        self.peers = {name: network.transport() for name in "bc"}
        self.system = System("a", network.transport(), self.clock, codec, incarnation=1)
        actors: list[Actor] = [self.gateway, self.replication, self.applier, self.election]
        for actor in actors:
            self.system.add(actor)
        self.system.start()
        self.system.turn()
        if leads:
            self.lead()

    def lead(self) -> None:
        while self.core.term == 0:
            self.pass_time(0.1)
            self.hear("b", PreVoteResponse(1, True))
        self.hear("b", VoteResponse(1, True))
        self.hear("b", AppendResponse(1, 1))

    def hear(self, node: str, message: object) -> None:
        self.replication.receive([(Address(node, "replication"), message)])
        self.replication.flush()
        self.system.turn()

    def ask(self, message: object) -> None:
        self.hear("a", message)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        for _ in range(2):
            self.system.turn()

    def told(self, kind: type) -> list[object]:
        """To the gateway, since the last question."""
        told = self.gateway.told(kind)
        self.gateway.heard = [message for message in self.gateway.heard if type(message) is not kind]
        return told


def members(message: object) -> Members:
    assert isinstance(message, (MembershipChanged, ConfigurationChanged))
    return Members.decode(message.configuration)


def test_the_members_are_told_at_the_start_when_they_change_and_when_that_is_committed() -> None:
    bench = Bench(leads=False)
    (first,) = bench.told(MembershipChanged)
    assert first == MembershipChanged(0, Members("abc").encode(), True, False)
    bench.lead()
    assert [message.index for message in bench.told(MembershipChanged)] == [1, 1]  # type: ignore[attr-defined]
    bench.ask(ChangeConfiguration(7, "remove", ["c"], {}, False))
    (appended,) = bench.told(MembershipChanged)
    left = Members("ab", removed="c")
    assert appended == MembershipChanged(2, left.encode(), False, False)
    bench.hear("b", AppendResponse(1, 2))
    (committed,) = bench.told(MembershipChanged)
    assert committed == MembershipChanged(2, left.encode(), True, False)
    assert bench.applier.told(MembershipChanged)[-1] == committed
    assert bench.told(ConfigurationChanged) == [ConfigurationChanged(7, 2, left.encode(), True)]


def test_a_change_in_steps_is_told_when_it_has_begun_and_when_it_is_done() -> None:
    bench = Bench()
    bench.ask(ChangeConfiguration(7, "add_voter", ["d"], {"d": "tcp://d:1"}, False))
    assert not bench.told(ConfigurationChanged)
    bench.hear("b", AppendResponse(1, 2))
    (begun,) = bench.told(ConfigurationChanged)
    assert isinstance(begun, ConfigurationChanged) and (begun.ticket, begun.is_complete) == (7, False)
    assert members(begun).incoming == {"d"} and members(begun).addresses == {"d": "tcp://d:1"}
    for _ in range(3):
        bench.hear("d", AppendResponse(1, bench.core.last_index))
        bench.ask(HeartbeatDue(1))
    assert bench.core.configuration.voters == set("abcd")
    assert not bench.told(ConfigurationChanged)
    bench.hear("b", AppendResponse(1, 3))
    bench.hear("c", AppendResponse(1, 3))
    (done,) = bench.told(ConfigurationChanged)
    assert isinstance(done, ConfigurationChanged) and (done.ticket, done.is_complete) == (7, True)
    assert members(done).voters == set("abcd")


def test_a_replacement_that_is_called_off_ends_both_tickets() -> None:
    bench = Bench()
    bench.ask(ChangeConfiguration(7, "replace", ["c", "d"], {}, False))
    bench.hear("b", AppendResponse(1, 2))
    bench.told(ConfigurationChanged)
    bench.ask(ChangeConfiguration(8, "remove", ["d"], {}, False))
    bench.hear("b", AppendResponse(1, 3))
    (called_off,) = bench.told(ChangeRefused)
    assert isinstance(called_off, ChangeRefused)
    assert (called_off.ticket, called_off.reason) == (7, ConfigurationReason.CALLED_OFF)
    (done,) = bench.told(ConfigurationChanged)
    assert isinstance(done, ConfigurationChanged) and (done.ticket, done.is_complete) == (8, True)


def test_a_refusal_says_why() -> None:
    bench = Bench()
    bench.ask(ChangeConfiguration(7, "remove", ["z"], {}, False))
    bench.ask(ChangeConfiguration(8, "add_learner", ["d"], {}, False))
    bench.ask(ChangeConfiguration(9, "remove", ["c"], {}, False))
    reasons = [(m.ticket, m.reason) for m in bench.told(ChangeRefused) if isinstance(m, ChangeRefused)]
    assert reasons == [(7, ConfigurationReason.UNKNOWN_MEMBER), (9, ConfigurationReason.IN_FLIGHT)]
    bench.ask(TransferLeadership(10, "z"))
    (refusal,) = bench.told(ChangeRefused)
    assert isinstance(refusal, ChangeRefused) and refusal.reason == TransferReason.NOT_A_VOTER


def test_who_does_not_lead_names_the_leader() -> None:
    bench = Bench(leads=False)
    bench.ask(ChangeConfiguration(7, "remove", ["c"], {}, False))
    bench.hear("b", Heartbeat(1, 0, 0))
    bench.ask(TransferLeadership(8, None))
    assert bench.told(Refused) == [
        Refused([7], Reason.NO_LEADER, None),
        Refused([8], Reason.NOT_LEADER, "b"),
    ]


def test_a_change_under_way_when_leadership_is_lost_has_an_unknown_outcome() -> None:
    bench = Bench()
    bench.ask(ChangeConfiguration(7, "remove", ["c"], {}, False))
    bench.hear("c", AppendEntries(2, 1, 1, 0, batch(2, [2])))
    assert bench.told(Abandoned) == [Abandoned([7], Reason.OUTCOME_UNKNOWN)]
    assert members(bench.told(MembershipChanged)[-1]) == Members("abc")


def test_a_transfer_is_answered_when_another_leads() -> None:
    bench = Bench()
    bench.ask(TransferLeadership(7, "b"))
    bench.ask(Propose([8], [1], [b"x"]))
    assert bench.told(Refused) == [Refused([8], Reason.TRANSFERRING, None)]
    bench.hear("b", AppendEntries(2, 1, 1, 1, batch(2, [2])))
    assert bench.told(LeadershipTransferred) == [LeadershipTransferred(7, "b")]
    assert bench.told(ChangeRefused) == []


def test_a_transfer_is_given_up_after_one_election_timeout() -> None:
    bench = Bench()
    bench.ask(TransferLeadership(7, "b"))
    passed = 0.0
    while bench.core.transfer_target is not None:
        assert passed < 2 * TIMEOUT
        bench.hear("b", HeartbeatResponse(1, 0))
        bench.pass_time(0.1)
        passed += 0.1
    assert passed >= TIMEOUT * 0.99
    (refusal,) = bench.told(ChangeRefused)
    assert isinstance(refusal, ChangeRefused)
    assert (refusal.ticket, refusal.reason) == (7, TransferReason.TIMED_OUT)
    bench.ask(Propose([8], [1], [b"x"]))
    assert bench.told(Refused) == [] and bench.core.last_index == 2


def test_the_time_limit_of_a_transfer_is_that_of_its_term() -> None:
    bench = Bench()
    bench.ask(TransferLeadership(7, "b"))
    bench.ask(TransferOverdue(0))
    assert bench.core.transfer_target == "b"
    bench.ask(TransferOverdue(1))
    assert bench.core.transfer_target is None


def test_hearing_that_it_was_removed_is_told_to_all() -> None:
    bench = Bench(leads=False)
    bench.hear("b", Heartbeat(1, 0, 0))
    bench.told(MembershipChanged)
    bench.core.note_removed()
    bench.hear("b", Heartbeat(1, 0, 0))
    (news,) = bench.told(MembershipChanged)
    assert isinstance(news, MembershipChanged) and news.is_removed


def test_a_higher_priority_campaigns_sooner_and_never_before_the_timeout() -> None:
    def wait(priority: int, seed: int) -> float:
        actor = ElectionActor(
            election_timeout_seconds=TIMEOUT,
            heartbeat_interval_seconds=0.1,
            rng=random.Random(seed),
            priority=priority,
        )
        codec = Codec()
        register_messages(codec)
        system = System("a", MemoryNetwork().transport(), ManualClock(), codec, incarnation=1)
        system.add(Listener("replication"))
        system.add(actor)
        system.start()
        actor.receive([(Address("a", "replication"), RoleChanged("follower", 1, "b"))])
        return actor._campaign_at

    plain = [wait(1, seed) for seed in range(50)]
    hasty = [wait(4, seed) for seed in range(50)]
    assert min(plain) >= TIMEOUT and min(hasty) >= TIMEOUT
    assert max(plain) > 1.9 * TIMEOUT and max(hasty) <= 1.25 * TIMEOUT
    assert all(sooner <= later for sooner, later in zip(hasty, plain))


def test_election_times_only_transfers_of_its_own_term() -> None:
    bench = Bench()
    bench.election.receive([(Address("a", "replication"), TransferBegun(0))])
    assert bench.election._give_up_transfer_at is None
    bench.election.receive([(Address("a", "replication"), TransferBegun(1))])
    assert bench.election._give_up_transfer_at is not None
    bench.hear("c", AppendEntries(2, 1, 1, 0, batch(2, [2])))
    assert bench.election._give_up_transfer_at is None


def test_the_messages_of_transfer_and_removal_cross_the_wire() -> None:
    codec = Codec()
    register_messages(codec)
    for message in (TimeoutNow(3), Removed(3), HeartbeatResponse(3, 4, 0)):
        assert codec.decode_remote(codec.encode([message])) == [message]
