"""Who says when a lease has ended: never too early, whoever leads, and late by a bounded time."""

from __future__ import annotations

import random

import pytest

from kvstore import lease_keeper, protocol
from kvstore import protocol_lease as bodies
from kvstore.lease_keeper import PATIENCE_SECONDS, TICK_SECONDS, Household, LeaseKeeper
from raft.housekeeping import Housekeeping
from raft.state_machine import Housekeeper
from tests.kvstore.memory_cluster import MemoryCluster
from tests.kvstore.test_leases import LeaseLog

LOOK_SECONDS = 0.25  # as the applier's tick
SLACK_SECONDS = TICK_SECONDS + 2 * LOOK_SECONDS


class Cluster:
    """A log and the keepers of its nodes, with clocks that have nothing in common."""

    def __init__(self, nodes: int = 2, seed: int = 0) -> None:
        self.log = LeaseLog()
        chance = random.Random(seed)
        self.keepers = [LeaseKeeper(self.log.machine.leases_seen) for _ in range(nodes)]
        self.offsets = [chance.uniform(-1e5, 1e5) for _ in range(nodes)]
        self.seconds = 0.0
        self.leader: int | None = None

    def lead(self, node: int | None) -> None:
        self.leader = node
        if node is not None:
            self.keepers[node].begin_leading()

    def wanted(self) -> list[bytes]:
        if self.leader is None:
            return []
        return self.keepers[self.leader].due_commands(self.seconds + self.offsets[self.leader])

    def run(self, seconds: float) -> None:
        """Whatever is wanted is applied at once."""
        until = self.seconds + seconds
        while self.seconds < until:
            self.log.apply(*self.wanted())
            self.seconds += LOOK_SECONDS

    def run_until_ended(self, lease: int, most_seconds: float = 100.0) -> float:
        until = self.seconds + most_seconds
        while lease in self.log.ids():
            assert self.seconds < until, "it has not ended"
            self.run(LOOK_SECONDS)
        return self.seconds


def expiries(commands: list[bytes]) -> list[bytes]:
    tick = protocol.INTERNAL_BYTE + b"\x93" + bytes([protocol.LEASE_TICK])
    return [body for body in commands if not body.startswith(tick)]


def test_without_leases_nothing_is_wanted_and_ticks_end_with_the_last() -> None:
    cluster = Cluster()
    cluster.lead(0)
    cluster.run(10)
    assert cluster.log.machine.applied_index == 0
    cluster.log.grant(100, 7)
    cluster.run(10)
    ticks = cluster.log.machine.applied_index - 1
    assert ticks == pytest.approx(10 / TICK_SECONDS, abs=1)
    cluster.log.revoke(7)
    cluster.run(10)
    assert cluster.log.machine.applied_index == ticks + 2


@pytest.mark.parametrize("phase", [0.0, 0.1, 0.2])
def test_a_lease_that_nobody_renews_ends_after_its_ttl(phase: float) -> None:
    cluster = Cluster()
    cluster.lead(0)
    cluster.run(3)
    cluster.seconds += phase
    granted_at = cluster.seconds
    cluster.log.grant(5, 7)
    cluster.log.put(b"a", lease=7)
    lasted = cluster.run_until_ended(7) - granted_at
    assert 5 <= lasted <= 5 + SLACK_SECONDS
    assert cluster.log.get(b"a") is None


def test_a_lease_that_is_renewed_does_not_end() -> None:
    cluster = Cluster()
    cluster.lead(0)
    cluster.log.grant(3, 7)
    for _ in range(20):
        cluster.run(2.75)
        assert cluster.log.keep_alive(7) == [3]


def test_g9_a_new_leader_goes_on_from_the_time_of_the_state() -> None:
    """Not all over from the full TTL, and none too early: later by the time without a leader."""
    cluster = Cluster()
    cluster.lead(0)
    cluster.log.grant(10, 7)
    granted_at = cluster.seconds
    cluster.run(6)
    cluster.lead(None)
    cluster.run(2)
    cluster.lead(1)
    lasted = cluster.run_until_ended(7) - granted_at
    assert 10 <= lasted <= 10 + 2 + SLACK_SECONDS + TICK_SECONDS


def test_g9_who_leads_again_does_not_count_the_time_of_others_with_its_own_clock() -> None:
    """Between the two the time stood still, or was the other's; what was granted then would end early."""
    cluster = Cluster()
    cluster.lead(0)
    cluster.log.grant(1000, 1)
    cluster.run(5)
    cluster.lead(None)
    cluster.run(30)
    cluster.lead(1)
    cluster.run(5)
    cluster.log.grant(10, 7)
    granted_at = cluster.seconds
    cluster.run(2)
    cluster.lead(0)
    assert cluster.run_until_ended(7) - granted_at >= 10


def test_g9_many_changes_of_leader_end_no_lease_early() -> None:
    for seed in range(10):
        chance = random.Random(seed)
        cluster = Cluster(3, seed)
        renewed_at: dict[int, float] = {}
        leaderless = 0.0
        for step in range(400):
            if chance.random() < 0.05:
                cluster.lead(chance.choice([None, 0, 1, 2]))
            if cluster.leader is not None:
                if chance.random() < 0.2:
                    cluster.log.grant(chance.randrange(2, 15), 100 + step)
                    renewed_at[100 + step] = cluster.seconds
                for lease in list(renewed_at):
                    if chance.random() < 0.02 and cluster.log.keep_alive(lease) != [0]:
                        renewed_at[lease] = cluster.seconds
            else:
                leaderless += LOOK_SECONDS
            before = {lease: cluster.log.time_to_live(lease)[1] for lease in renewed_at}
            cluster.log.apply(*cluster.wanted())
            there = set(cluster.log.ids())
            for lease in set(renewed_at) - there:
                assert cluster.seconds - renewed_at.pop(lease) >= before[lease], "it ended early"
            cluster.seconds += LOOK_SECONDS * chance.uniform(0.5, 1.5)
        cluster.lead(0)
        cluster.run(20)
        assert cluster.log.ids() == []


def test_g11_a_keepalive_that_overtakes_a_tick_has_its_full_ttl() -> None:
    """The node stood still for four seconds between reading its clock and proposing."""
    cluster = Cluster()
    cluster.lead(0)
    cluster.log.grant(5, 7)
    cluster.run(4)
    delayed = cluster.wanted()
    cluster.seconds += 4
    cluster.log.keep_alive(7)
    renewed_at = cluster.seconds
    cluster.log.apply(*delayed)
    assert cluster.run_until_ended(7) - renewed_at >= 5


def test_what_earlier_leaders_knew_and_is_applied_late_moves_the_time_on() -> None:
    cluster = Cluster()
    cluster.log.grant(10, 7)
    cluster.lead(0)
    cluster.wanted()
    cluster.log.tick(60_000, 1)  # of a leader before
    cluster.run(1)
    assert cluster.log.machine.lease_time_ms >= 60_000
    assert 9 <= cluster.run_until_ended(7) <= 11 + SLACK_SECONDS


def test_an_expiry_that_was_lost_is_wanted_again_and_not_at_each_look() -> None:
    cluster = Cluster()
    cluster.lead(0)
    cluster.log.grant(2, 7)
    cluster.log.apply(*cluster.wanted())
    asked = 0
    for _ in range(round(10 / LOOK_SECONDS)):
        cluster.seconds += LOOK_SECONDS
        asked += len(expiries(cluster.wanted()))
    assert asked == (10 - 2) / PATIENCE_SECONDS
    cluster.seconds += PATIENCE_SECONDS
    cluster.log.apply(*cluster.wanted())
    assert cluster.log.ids() == []


def test_many_leases_end_in_commands_of_bounded_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_keeper, "MAX_KEYS", 10)
    monkeypatch.setattr(lease_keeper, "MAX_LEASES", 5)
    monkeypatch.setattr(lease_keeper, "MAX_COMMANDS", 3)
    cluster = Cluster()
    cluster.lead(0)
    for lease in range(1, 31):
        cluster.log.grant(2, lease)
    for number in range(25):
        cluster.log.put(b"many %d" % number, lease=3)
    cluster.log.apply(*cluster.wanted())
    cluster.seconds += 3
    commands = expiries(cluster.wanted())
    assert len(commands) == 3
    ends = []
    for command in commands:
        before = len(cluster.log.ids())
        cluster.log.apply(command)
        ends.append(before - len(cluster.log.ids()))
    assert ends == [2, 1, 5], "two without keys, one with many, five without"
    for _ in range(4):
        cluster.seconds += LOOK_SECONDS
        cluster.log.apply(*cluster.wanted())
    assert cluster.log.ids() == []


def test_a_household_hears_when_it_leads_and_those_hear_of_it_who_count_time() -> None:
    cluster = Cluster()
    cluster.log.grant(6000, 7)

    class Wishing:
        def due_commands(self, now_seconds: float) -> list[bytes]:
            return [b"compact"]

    household = Household(cluster.keepers[0], Wishing())
    assert isinstance(household, Housekeeper)
    housekeeping = Housekeeping(household)
    housekeeping.lead(True)
    first = housekeeping.due(5.0)
    assert first == [bodies.tick_body(0, 1), b"compact"]
    cluster.log.tick(500)
    assert housekeeping.due(1000.0)[0] == bodies.tick_body(995_000, 2)
    housekeeping.lead(True)  # in another term
    assert housekeeping.due(2000.0)[0] == bodies.tick_body(500, 2)


# ---------------------------------------------------------------- whole nodes


def ask(cluster: MemoryCluster, body: bytes, *, is_read: bool = False) -> list[object]:
    caller = cluster.client(cluster.leader())
    [result] = caller.call(protocol.READ if is_read else protocol.WRITE, [body])
    return result


def test_g9_on_whole_nodes_a_lease_ends_by_itself_also_under_another_leader() -> None:
    cluster = MemoryCluster(3)
    cluster.leader()
    assert ask(cluster, bodies.grant_body(0, 0, 0, 3, 7)) == [0, 1, 7, 3]
    granted_at = cluster.clock.now()
    assert ask(cluster, protocol.put_body(0, 0, 0, b"a", b"1", lease=7))[0] == 0
    cluster.run(1.5)
    cluster.crash(cluster.leader())
    ended_at = None
    while ended_at is None and cluster.clock.now() < granted_at + 10:
        cluster.run(0.1)
        if ask(cluster, protocol.range_body(b"a"), is_read=True)[2] == 0:
            ended_at = cluster.clock.now()
    assert ended_at is not None and 3 <= ended_at - granted_at < 7
    assert ask(cluster, bodies.list_body(), is_read=True)[2] == []


def test_g9_on_whole_nodes_a_lease_that_is_renewed_outlives_leader_after_leader() -> None:
    """Each is killed, with what it had not synced, and comes back as a follower; in the end nobody renews."""
    cluster = MemoryCluster(5)
    cluster.leader()
    assert ask(cluster, bodies.grant_body(0, 0, 0, 3, 7))[0] == 0
    assert ask(cluster, protocol.put_body(0, 0, 0, b"a", b"1", lease=7))[0] == 0
    renewed_at = cluster.clock.now()
    for _ in range(4):
        cluster.run(1.0)
        killed = cluster.leader()
        cluster.crash(killed)
        asked_at = cluster.clock.now()
        assert ask(cluster, bodies.keepalive_body([7]))[2] == [3], "it ended though it was renewed"
        renewed_at = asked_at
        cluster.start(killed)
    while ask(cluster, protocol.range_body(b"a"), is_read=True)[2]:
        assert cluster.clock.now() < renewed_at + 6, "it does not end"
        cluster.run(0.1)
    assert cluster.clock.now() - renewed_at >= 3
    cluster.run(0.5)
    assert len({cluster.status(name)["leases"] for name in cluster.names}) == 1


def test_a_node_takes_no_leaders_command_from_a_client() -> None:
    cluster = MemoryCluster(1, size=1)
    cluster.leader()
    ask(cluster, bodies.grant_body(0, 0, 0, 60, 7))
    cluster.run(1.0)
    caller = cluster.client("n1")
    put = protocol.put_body(0, 0, 0, b"a", b"\xc1", lease=7)
    results = caller.call(protocol.WRITE, [put, bodies.expire_body(1 << 60, [7]), put])
    assert [result[0] for result in results] == [protocol.OK, protocol.BAD_REQUEST, protocol.OK]
    assert ask(cluster, bodies.list_body(), is_read=True)[2] == [7]
