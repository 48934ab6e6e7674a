"""Who says when a lease has ended: never too early, whoever leads, and late by a bounded time."""

from __future__ import annotations

import random
from math import inf

import msgpack
import pytest

from kvstore import lease_keeper, protocol
from kvstore import protocol_lease as bodies
from kvstore.lease_keeper import (
    GRAIN_SECONDS,
    LOOK_SECONDS,
    MOST_ARRIVALS,
    PATIENCE_SECONDS,
    TICK_SECONDS,
    Household,
    LeaseKeeper,
)
from raft.arrivals import Moment
from raft.housekeeping import Housekeeping
from raft.state_machine import Housekeeper
from tests.kvstore.memory_cluster import MemoryCluster
from tests.kvstore.test_leases import LeaseLog

ASK_SECONDS = 0.25  # as the applier's tick
LATE_SECONDS = LOOK_SECONDS + GRAIN_SECONDS + 0.005
ELECTION_TIMEOUT_SECONDS = 0.2  # the default


class Cluster:
    """A log and the keepers of its nodes, with clocks that have nothing in common."""

    def __init__(self, nodes: int = 2, seed: int = 0, drift: float = 0.0) -> None:
        self.log = LeaseLog()
        self.chance = random.Random(seed)
        self.keepers = [LeaseKeeper(self.log.machine.leases_seen) for _ in range(nodes)]
        self.offsets = [self.chance.uniform(-1e5, 1e5) for _ in range(nodes)]
        self.rates = [self.chance.uniform(1.0 - drift, 1.0 + drift) for _ in range(nodes)]
        self.seconds = 0.0
        self.leader: int | None = None
        self._ask_at = 0.0

    def clock(self, node: int) -> float:
        return self.offsets[node] + self.rates[node] * self.seconds

    def came(self, node: int) -> list[Moment]:
        """All that there is came just now."""
        return [(self.log.machine.applied_index, self.clock(node))]

    def lead(self, node: int | None) -> None:
        self.leader = node
        if node is not None:
            self.keepers[node].begin_leading()

    def restart(self, node: int) -> None:
        self.keepers[node] = LeaseKeeper(self.log.machine.leases_seen)
        self.keepers[node].was_applied(self.came(node))

    def apply(self, *bodies: bytes) -> None:
        """On all nodes at once."""
        if bodies:
            self.log.apply(*bodies)
            for node, keeper in enumerate(self.keepers):
                keeper.was_applied(self.came(node))

    def grant(self, ttl_seconds: int, lease: int) -> None:
        self.apply(bodies.grant_body(0, 0, 0, ttl_seconds, lease))

    def keep_alive(self, lease: int) -> bool:
        is_there = self.log.keep_alive(lease) != [0]
        self.apply(bodies.keepalive_body([lease]))
        return is_there

    def wanted(self) -> list[bytes]:
        if self.leader is None:
            return []
        return self.keepers[self.leader].due_commands(self.clock(self.leader))

    def due_at(self) -> float:
        """When the leader's keeper wants to be asked, by the true time."""
        at = self.keepers[self.leader].due_at() if self.leader is not None else None
        if at is None or self.leader is None:
            return inf
        return (at - self.offsets[self.leader]) / self.rates[self.leader]

    def run(self, seconds: float) -> None:
        """Whatever is wanted is applied at once."""
        until = self.seconds + seconds
        while self.seconds < until:
            if self.seconds >= min(self._ask_at, self.due_at()):
                if self.seconds >= self._ask_at:
                    self._ask_at = self.seconds + ASK_SECONDS
                self.apply(*self.wanted())
            self.seconds = max(self.seconds, min(until, self._ask_at, self.due_at() + 1e-6))

    def run_until_ended(self, lease: int, most_seconds: float = 100.0) -> float:
        until = self.seconds + most_seconds
        while lease in self.log.ids():
            assert self.seconds < until, "it has not ended"
            self.run(0.01)
        return self.seconds


def expiries(commands: list[bytes]) -> list[bytes]:
    return [body for body in commands if body[2] != protocol.LEASE_TICK]


def test_without_leases_nothing_is_wanted_and_ticks_end_with_the_last() -> None:
    """And while no end is near, there is a tick each half second and nothing more."""
    cluster = Cluster()
    cluster.lead(0)
    cluster.run(10)
    assert cluster.log.machine.applied_index == 0
    cluster.grant(100, 7)
    cluster.run(10)
    ticks = cluster.log.machine.applied_index - 1
    assert ticks == pytest.approx(10 / TICK_SECONDS, abs=1)
    cluster.log.revoke(7)
    cluster.run(10)
    assert cluster.log.machine.applied_index == ticks + 2


@pytest.mark.parametrize("phase", [0.0, 0.1, 0.2, 0.3, 0.4])
def test_a_lease_that_nobody_renews_ends_after_its_ttl_and_hardly_later(phase: float) -> None:
    """Whenever it was renewed between two ticks, and whenever the applier would look without it."""
    cluster = Cluster()
    cluster.lead(0)
    cluster.grant(100, 6)
    cluster.run(3 + phase)
    cluster.grant(5, 7)
    cluster.log.put(b"a", lease=7)
    cluster.run(2)
    cluster.keep_alive(7)
    renewed_at = cluster.seconds
    lasted = cluster.run_until_ended(7) - renewed_at
    assert 5 <= lasted <= 5 + LATE_SECONDS < 5 + ELECTION_TIMEOUT_SECONDS
    assert cluster.log.get(b"a") is None


def test_a_lease_that_is_renewed_does_not_end() -> None:
    cluster = Cluster()
    cluster.lead(0)
    cluster.grant(3, 7)
    for _ in range(20):
        cluster.run(2.75)
        assert cluster.keep_alive(7)


def test_many_leases_that_end_one_by_one_cost_a_bounded_number_of_looks() -> None:
    cluster = Cluster()
    cluster.lead(0)
    for number in range(1, 1001):
        cluster.grant(5, number)
        cluster.seconds += 0.002
    before = cluster.log.machine.applied_index
    cluster.run(10)
    assert cluster.log.ids() == []
    entries = cluster.log.machine.applied_index - before
    assert entries <= 2 / LOOK_SECONDS + 8 / TICK_SECONDS


def test_renewals_of_a_moment_are_told_together_and_there_is_a_most_of_them() -> None:
    """A tick tells when each came, as exactly as it matters, also if the last tick was long ago."""
    cluster = Cluster()
    cluster.lead(0)
    cluster.grant(100, 7)
    cluster.apply(*cluster.wanted())
    for _ in range(100):
        cluster.keep_alive(7)
        cluster.seconds += 0.004
    cluster.seconds += 0.1
    [tick] = cluster.wanted()
    assert 0.4 / GRAIN_SECONDS <= len(msgpack.unpackb(tick[1:])) / 2 <= 0.4 / GRAIN_SECONDS + 2
    for _ in range(2 * MOST_ARRIVALS):
        cluster.keep_alive(7)
        cluster.seconds += GRAIN_SECONDS
    [tick] = cluster.wanted()
    assert len(msgpack.unpackb(tick[1:])) == 1 + 2 * (MOST_ARRIVALS + 1)


# ---------------------------------------------------------------- changes of leader


def test_g9_a_new_leader_goes_on_from_the_time_of_the_state_and_counts_the_time_without_a_leader() -> None:
    """Not all over from the full TTL, and none too early; nor later by the time without a leader."""
    cluster = Cluster()
    cluster.lead(0)
    cluster.grant(10, 7)
    granted_at = cluster.seconds
    cluster.run(6)
    cluster.lead(None)
    cluster.run(2)
    cluster.lead(1)
    assert 10 <= cluster.run_until_ended(7) - granted_at <= 10 + LATE_SECONDS


def test_g9_a_lease_that_would_have_ended_while_nobody_led_ends_with_the_next_leaders_first_look() -> None:
    """Also one that was renewed a moment before the leader fell, and that no tick had seen."""
    cluster = Cluster()
    cluster.lead(0)
    cluster.grant(3, 7)
    cluster.run(1.1)
    cluster.grant(3, 8)
    cluster.lead(None)
    cluster.run(2.5)
    cluster.lead(1)
    assert cluster.run_until_ended(7) == pytest.approx(3.6, abs=0.02)
    assert 4.1 <= cluster.run_until_ended(8) <= 4.1 + LATE_SECONDS


def test_g9_a_tick_and_a_renewal_count_from_when_they_came_though_they_are_applied_later() -> None:
    """Their leader fell before anybody knew that they were committed; they are, with the next one's first."""
    cluster = Cluster()
    cluster.lead(0)
    for lease in (7, 8, 9):
        cluster.grant(10, lease)
    cluster.run(2)
    first_index, came_at = cluster.log.machine.applied_index + 1, cluster.clock(1)
    tick = cluster.keepers[0].due_commands(cluster.clock(0) + 0.4)
    renewals = [bodies.keepalive_body([lease]) for lease in (8, 9)]
    cluster.lead(None)
    cluster.run(3)
    cluster.log.apply(*renewals[:1], *tick, *renewals[1:], bodies.keepalive_body([10]))
    moments = [(first_index, 0.2), (first_index + 1, 0.4), (first_index + 2, 1.0), (first_index + 3, 3.0)]
    cluster.keepers[1].was_applied([(index, came_at + after) for index, after in moments])
    cluster.lead(1)
    for lease, end in ((7, 10.0), (8, 12.2), (9, 13.0)):
        assert end <= cluster.run_until_ended(lease) <= end + LATE_SECONDS


def test_g9_a_leader_that_was_started_anew_does_not_count_what_it_did_not_see() -> None:
    """Nobody else was there: the lease lives longer, by as long as that was."""
    cluster = Cluster()
    cluster.lead(0)
    cluster.grant(10, 7)
    granted_at = cluster.seconds
    cluster.run(6)
    cluster.lead(None)
    cluster.run(20)
    cluster.restart(1)
    cluster.run(1)
    cluster.lead(1)
    lasted = cluster.run_until_ended(7) - granted_at
    assert 10 + 20 <= lasted <= 10 + 20 + TICK_SECONDS + LATE_SECONDS


def test_g9_who_leads_again_does_not_count_the_time_of_others_with_its_own_clock() -> None:
    """The other had been started anew, and knew of less; what was granted then would end early."""
    cluster = Cluster()
    cluster.lead(0)
    cluster.grant(1000, 1)
    cluster.run(5)
    cluster.lead(None)
    cluster.run(30)
    cluster.restart(1)
    cluster.lead(1)
    cluster.run(5)
    cluster.grant(10, 7)
    granted_at = cluster.seconds
    cluster.run(2)
    cluster.lead(0)
    assert 10 <= cluster.run_until_ended(7) - granted_at <= 10 + LATE_SECONDS


def test_g9_a_tick_that_tells_no_later_time_is_counted_from_all_the_same() -> None:
    """It gave an end to what was renewed a moment before; it is not known when that was but by this tick."""
    cluster = Cluster()
    cluster.apply(bodies.tick_body(50_000, 0))
    cluster.seconds += 20
    cluster.grant(10, 7)
    granted_at = cluster.seconds
    cluster.apply(bodies.tick_body(1_000, 2))
    cluster.lead(1)
    assert 10 <= cluster.run_until_ended(7) - granted_at <= 10 + LATE_SECONDS


@pytest.mark.parametrize("drift", [0.0, 0.2])
def test_g9_many_changes_of_leader_end_no_lease_early_and_none_late(drift: float) -> None:
    """Late is what a leader that was there all the time ends later than it could."""
    for seed in range(10):
        cluster = Cluster(3, seed, drift)
        chance = cluster.chance
        renewed_at: dict[int, tuple[float, int]] = {}
        led_since = 0.0
        for step in range(400):
            if chance.random() < 0.05:
                led_since = cluster.seconds
                cluster.lead(chance.choice([None, 0, 1, 2]))
            if cluster.leader is None:
                led_since = inf
            elif chance.random() < 0.2:
                ttl_seconds = chance.randrange(2, 15)
                cluster.grant(ttl_seconds, 100 + step)
                renewed_at[100 + step] = cluster.seconds, ttl_seconds
            for lease, (_, ttl_seconds) in list(renewed_at.items()):
                if cluster.leader is not None and chance.random() < 0.02 and cluster.keep_alive(lease):
                    renewed_at[lease] = cluster.seconds, ttl_seconds
            cluster.run(chance.uniform(0.01, 0.3))
            there = set(cluster.log.ids())
            for lease, (since, ttl_seconds) in list(renewed_at.items()):
                if lease not in there:
                    assert cluster.seconds - since >= ttl_seconds / (1 + drift), "it ended early"
                    del renewed_at[lease]
                else:
                    due = max(since + ttl_seconds / (1 - drift), led_since)
                    assert cluster.seconds <= due + LATE_SECONDS / (1 - drift), "it ends late"


def test_g9_restarts_end_no_lease_early() -> None:
    for seed in range(10):
        cluster = Cluster(3, seed, 0.1)
        chance = cluster.chance
        granted_at: dict[int, tuple[float, int]] = {}
        for step in range(300):
            if chance.random() < 0.1:
                cluster.restart(chance.randrange(3))
            if chance.random() < 0.1:
                cluster.lead(chance.choice([None, 0, 1, 2]))
            if cluster.leader is not None and chance.random() < 0.3:
                ttl_seconds = chance.randrange(2, 10)
                cluster.grant(ttl_seconds, 100 + step)
                granted_at[100 + step] = cluster.seconds, ttl_seconds
            cluster.run(chance.uniform(0.01, 0.5))
            for lease in set(granted_at) - set(cluster.log.ids()):
                since, ttl_seconds = granted_at.pop(lease)
                assert cluster.seconds - since >= ttl_seconds / 1.1, "it ended early"
        cluster.lead(0)
        cluster.run(30)
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
    assert 9 <= cluster.run_until_ended(7) <= 11 + ASK_SECONDS


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
    assert housekeeping.due_at() == inf, "there is no end yet"
    cluster.log.tick(500)
    housekeeping.was_applied(2, [(2, 900.0)])
    assert housekeeping.due(1000.0)[0] == bodies.tick_body(995_000, 2)
    housekeeping.lead(True, 3)  # in another term
    assert housekeeping.due(1000.25) == [] and housekeeping.due_at() == inf, "it may not know all yet"
    housekeeping.was_applied(3, [(3, 1000.25)])
    assert housekeeping.due_at() == -inf
    assert housekeeping.due(1000.25)[0] == bodies.tick_body(100_750, 2)


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
        cluster.run(0.02)
        if ask(cluster, protocol.range_body(b"a"), is_read=True)[2] == 0:
            ended_at = cluster.clock.now()
    assert ended_at is not None and 3 <= ended_at - granted_at < 3 + ELECTION_TIMEOUT_SECONDS
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
        assert cluster.clock.now() < renewed_at + 3 + 2 * ELECTION_TIMEOUT_SECONDS, "it ends late"
        cluster.run(0.02)
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
