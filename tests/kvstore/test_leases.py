"""Leases: granted, renewed and ended by the log alone; never early, and the same on every node."""

from __future__ import annotations

import random
from typing import Any

import msgpack
import pytest

from kvstore import lease_commands, protocol
from kvstore import protocol_lease as bodies
from kvstore.leases import Leases
from kvstore.snapshots import CorruptState
from raft.state_machine import restore_all
from tests.kvstore.machine_log import Log


class LeaseLog(Log):
    """A log with leases, and the leader's ticks in it."""

    def grant(self, ttl_seconds: int, lease: int = 0) -> list[Any]:
        return self.one(bodies.grant_body(0, 0, 0, ttl_seconds, lease))

    def revoke(self, lease: int) -> list[Any]:
        return self.one(bodies.revoke_body(0, 0, 0, lease))

    def keep_alive(self, *leases: int) -> list[int]:
        code, _, ttls = self.one(bodies.keepalive_body(leases))
        assert code == protocol.OK
        return list(ttls)

    def tick(self, time_ms: int, seen_index: int | None = None) -> None:
        seen = self.machine.applied_index if seen_index is None else seen_index
        assert self.one(bodies.tick_body(time_ms, seen))[0] == protocol.OK

    def expire(self, time_ms: int, *leases: int) -> None:
        assert self.one(bodies.expire_body(time_ms, leases))[0] == protocol.OK

    def time_to_live(self, lease: int) -> list[Any]:
        """Remaining seconds, those granted, the number of keys, the keys."""
        code, _, *answer = self.ask(bodies.time_to_live_body(lease, protocol.LEASE_KEYS))
        assert code == protocol.OK
        return answer

    def ids(self) -> list[int]:
        return list(self.ask(bodies.list_body())[2])

    def one(self, body: bytes) -> list[Any]:
        [result] = self.apply(body)
        return list(result)

    def restored(self) -> LeaseLog:
        other = LeaseLog()
        restore_all(other.machine, self.machine.snapshot())
        assert other.machine.digest() == self.machine.digest()
        assert other.machine.fingerprint() == self.machine.fingerprint()
        return other


# ---------------------------------------------------------------- grant, revoke, list


def test_a_grant_answers_with_the_id_and_the_ttl_and_changes_no_revision() -> None:
    log = LeaseLog()
    assert log.grant(60, 77) == [0, 1, 77, 60]
    assert log.time_to_live(77) == [60, 60, 0, []]
    assert log.ids() == [77]


def test_without_an_id_of_its_own_a_lease_gets_a_free_one() -> None:
    """The position of the entry, or the next that nobody has: the same on every node."""
    log = LeaseLog()
    assert log.grant(60)[2] == 1
    assert log.grant(60, 3)[2] == 3
    assert log.grant(60)[2] == 4  # the third entry; 3 is taken
    assert log.grant(60)[2] == 5  # the fourth
    assert log.ids() == [1, 3, 4, 5]


def test_a_duplicate_id_fails() -> None:
    log = LeaseLog()
    log.grant(60, 7)
    before = log.machine.digest()
    assert log.grant(30, 7) == [protocol.LEASE_EXISTS, "lease already exists"]
    assert log.machine.digest() == before


def test_the_least_ttl_is_granted_silently_and_too_large_a_one_is_refused() -> None:
    log = LeaseLog()
    assert log.grant(1, 7)[3] == 2
    assert log.grant(0, 8)[3] == 2
    assert log.grant(9_000_000_000, 9)[3] == 9_000_000_000
    assert log.grant(9_000_000_001, 10) == [protocol.LEASE_TTL_TOO_LARGE, "too large lease TTL"]


def test_keepalive_of_an_unknown_lease_answers_0_and_is_no_error() -> None:
    log = LeaseLog()
    log.grant(60, 7)
    assert log.keep_alive(5, 7, 9) == [0, 60, 0]


def test_time_to_live_of_an_unknown_lease_is_minus_1_and_is_no_error() -> None:
    assert LeaseLog().time_to_live(5) == [-1, 0, 0, []]


def test_revoke_of_an_unknown_lease_is_an_error() -> None:
    log = LeaseLog()
    assert log.revoke(5) == [protocol.LEASE_NOT_FOUND, "requested lease not found"]
    log.grant(60, 5)
    assert log.revoke(5) == [0, 1, 0]
    assert log.revoke(5)[0] == protocol.LEASE_NOT_FOUND


def test_a_retried_grant_or_revoke_of_a_session_is_done_once() -> None:
    log = LeaseLog()
    session = log.open_session()
    granting = bodies.grant_body(session, 1, 0, 60)
    revoking = bodies.revoke_body(session, 2, 0, 2)
    assert log.apply(granting, granting, revoking, revoking) == [[0, 1, 2, 60]] * 2 + [[0, 1, 0]] * 2
    assert log.ids() == []


# ---------------------------------------------------------------- keys


def test_g8_a_put_with_an_unknown_lease_is_refused() -> None:
    """Its key would outlive the lease that it asks for; and it may have ended just before."""
    log = LeaseLog()
    assert log.put(b"a", lease=7) == [protocol.LEASE_NOT_FOUND, "requested lease not found"]
    assert log.get(b"a") is None and log.machine.revision == 1
    log.grant(60, 7)
    assert log.put(b"a", lease=7) == [0, 2, None]
    log.revoke(7)
    assert log.put(b"a", lease=7)[0] == protocol.LEASE_NOT_FOUND
    assert log.get(b"a") is None


@pytest.mark.parametrize("ends_by", ["revoke", "expire"])
def test_all_keys_of_a_lease_go_with_it_in_one_revision(ends_by: str) -> None:
    log = LeaseLog()
    log.grant(60, 7)
    for key in (b"c", b"a", b"b"):
        log.put(key, lease=7)
    log.put(b"ab")
    assert log.time_to_live(7)[2:] == [3, [b"a", b"b", b"c"]]
    if ends_by == "revoke":
        assert log.revoke(7) == [0, 6, 3]
    else:
        log.tick(0)
        log.expire(60_000, 7)
    assert log.machine.revision == 6
    [[revision, events]] = log.ask(protocol.watch_history_body(b"\0", b"\0", start_revision=6))[5]
    assert revision == 6
    assert [event[:2] for event in events] == [[1, b"a"], [1, b"b"], [1, b"c"]]
    assert log.get(b"ab") == b"v" and log.ids() == []
    log.restored()


def test_a_lease_without_keys_ends_without_a_revision() -> None:
    log = LeaseLog()
    log.grant(60, 7)
    assert log.revoke(7) == [0, 1, 0]


def test_several_leases_that_end_at_once_have_a_revision_each() -> None:
    log = LeaseLog()
    for lease in (5, 7):
        log.grant(60, lease)
        log.put(b"%d" % lease, lease=lease)
    log.tick(0)
    log.expire(60_000, 5, 6, 7)
    assert log.machine.revision == 5 and log.ids() == []


def test_a_put_without_a_lease_detaches_the_key_and_one_with_another_moves_it() -> None:
    log = LeaseLog()
    log.grant(60, 7)
    log.grant(60, 8)
    for key in (b"left", b"moved", b"kept", b"deleted", b"deleted too"):
        log.put(key, lease=7)
    log.put(b"left")
    log.put(b"moved", lease=8)
    log.put(b"kept", b"again", lease=7)
    log.delete(b"deleted", b"e")
    assert log.time_to_live(7)[2:] == [1, [b"kept"]]
    assert log.time_to_live(8)[2:] == [1, [b"moved"]]
    other = log.restored()
    for one in (log, other):
        assert one.revoke(7)[2] == 1
        assert [one.get(key) for key in (b"left", b"moved", b"kept")] == [b"v", b"v", None]
        assert one.revoke(8)[2] == 1
        assert one.get(b"moved") is None


def test_a_key_that_comes_again_without_a_lease_is_not_the_old_ones() -> None:
    log = LeaseLog()
    log.grant(60, 7)
    log.put(b"a", lease=7)
    log.delete(b"a")
    log.put(b"a")
    assert log.revoke(7)[2] == 0
    assert log.get(b"a") == b"v"


def test_the_lease_of_a_record_is_read_with_it() -> None:
    log = LeaseLog()
    log.grant(60, 7)
    log.put(b"a", lease=7)
    assert log.ask(protocol.range_body(b"a"))[4] == [[b"a", b"v", 2, 2, 1, 7]]


def test_a_lease_has_no_more_keys_than_may_go_in_one_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_commands, "MAX_LEASE_KEYS", 3)
    log = LeaseLog()
    log.grant(60, 7)
    for key in (b"a", b"b", b"c"):
        log.put(key, lease=7)
    assert log.put(b"d", lease=7)[0] == protocol.TOO_LARGE
    assert log.get(b"d") is None
    assert log.put(b"a", b"again", lease=7)[0] == protocol.OK
    log.delete(b"b")
    assert log.put(b"d", lease=7)[0] == protocol.OK


def test_the_number_of_leases_is_bounded_and_the_same_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No quota counts them: a client that grants and grants would fill the memory of every node."""
    monkeypatch.setattr(lease_commands, "MAX_LEASES", 3)
    log = LeaseLog()
    for lease in (7, 8, 9):
        assert log.grant(60, lease)[0] == protocol.OK
    refused = log.grant(60, 10)
    assert refused == [
        protocol.TOO_LARGE,
        "there are 100000 leases, and cannot be more: revoke some, or share one",
    ]
    assert log.restored().grant(60, 10) == log.grant(60) == refused
    assert log.grant(60, 7)[0] == protocol.LEASE_EXISTS
    log.revoke(8)
    assert log.grant(60, 10)[0] == protocol.OK and log.ids() == [7, 9, 10]


def test_reads_that_list_many_leases_or_keys_are_done_in_turns_of_their_own() -> None:
    """A frame of a hundred questions for the 50 000 keys of a lease was answered in one turn, of 5 s."""
    log = LeaseLog()
    log.apply(*(bodies.grant_body(0, 0, 0, 60, lease) for lease in range(1, 3001)))
    log.apply(*(protocol.put_body(0, 0, 0, b"k%05d" % number, b"", lease=7) for number in range(3000)))
    keys, ids = bodies.time_to_live_body(7, protocol.LEASE_KEYS), bodies.list_body()
    for body in (keys, ids):
        answers = log.machine.begin_query([body] * 50)
        assert [isinstance(answer, bytes) for answer in answers] == [True] + [False] * 49
        assert len(set(log.machine.query([body] * 50))) == 1
    small = [bodies.time_to_live_body(lease, protocol.LEASE_KEYS) for lease in (1, 3000, 5000)]
    answers = log.machine.begin_query([ids] * 9 + [*small, bodies.time_to_live_body(7)] * 1000)
    assert all(isinstance(answer, bytes) for answer in answers[9:])


# ---------------------------------------------------------------- time


def test_a_lease_ends_its_ttl_after_the_next_tick_and_not_before() -> None:
    log = LeaseLog()
    log.grant(10, 7)
    log.put(b"a", lease=7)
    log.expire(10**12, 7)  # nobody knows when it began
    assert log.ids() == [7]
    log.tick(4_000)
    log.expire(13_999, 7)
    assert log.ids() == [7]
    log.expire(14_000, 7)
    assert log.ids() == [] and log.get(b"a") is None


def test_g11_a_keepalive_before_the_expiry_in_the_log_wins() -> None:
    """Whoever proposed the expiry had not seen it."""
    log = LeaseLog()
    log.grant(10, 7)
    log.tick(0)
    assert log.keep_alive(7) == [10]
    log.expire(10_000, 7)
    assert log.ids() == [7]
    log.tick(10_500)
    log.expire(20_499, 7)
    assert log.ids() == [7]
    log.expire(20_500, 7)
    assert log.ids() == [] and log.keep_alive(7) == [0]


def test_g8_a_lease_whose_end_has_passed_takes_no_key_and_is_not_renewed() -> None:
    """By the time of the state itself, which the ticks tell; the leader's expiry may come later."""
    log = LeaseLog()
    for lease in (7, 8):
        log.grant(2, lease)
    log.put(b"a", lease=7)
    log.tick(0)
    log.tick(2_000)  # a millisecond is in doubt
    assert log.keep_alive(8) == [2] and log.put(b"b", lease=7)[0] == protocol.OK
    log.tick(2_001)
    for one in (log, log.restored()):
        assert one.put(b"c", lease=7) == [protocol.LEASE_NOT_FOUND, "requested lease not found"]
        assert one.keep_alive(7, 8) == [0, 2]
        assert one.put(b"a")[0] == protocol.OK and one.get(b"c") is None
        one.expire(2_000, 7)
        assert one.ids() == [8] and one.get(b"a") == b"v" and one.get(b"b") is None


def test_g11_a_tick_of_a_moment_before_the_keepalive_does_not_shorten_it() -> None:
    """It was made, and was on its way, when the keepalive came and was faster."""
    log = LeaseLog()
    log.grant(10, 7)
    log.tick(1_000)
    seen = log.machine.applied_index
    log.keep_alive(7)  # came at 8 s, while the node stood still
    log.tick(2_000, seen)
    log.expire(12_000, 7)
    assert log.ids() == [7]
    log.tick(8_000)
    log.expire(17_999, 7)
    assert log.ids() == [7]
    log.expire(18_000, 7)
    assert log.ids() == []


def test_time_does_not_go_back_with_a_stale_tick() -> None:
    log = LeaseLog()
    log.grant(10, 6)
    log.tick(50_000)
    log.grant(10, 7)
    log.tick(20_000)
    assert log.machine.lease_time_ms == 50_000
    log.expire(59_999, 6, 7)
    assert log.ids() == [6, 7]
    log.expire(60_000, 6, 7)
    assert log.ids() == []


def test_the_remaining_time_is_in_whole_seconds_as_of_the_last_tick() -> None:
    log = LeaseLog()
    log.grant(10, 7)
    assert log.time_to_live(7)[:2] == [10, 10]
    for time_ms, remaining in ((1_000, 10), (1_001, 9), (10_000, 1), (10_001, 0), (11_000, 0)):
        log.tick(time_ms)
        assert log.time_to_live(7)[:2] == [remaining, 10]
    log.keep_alive(7)
    assert log.time_to_live(7)[:2] == [10, 10]
    log.tick(50_000, 0)
    assert log.time_to_live(7)[:2] == [10, 10], "as it was granted: when it was renewed no tick has told"


def test_g10_the_expiry_of_a_leader_that_is_none_any_more_does_no_harm() -> None:
    """It comes late, when the lease was renewed, ended, or granted anew under the same id."""
    log = LeaseLog()
    log.grant(10, 7)
    log.tick(0)
    late = bodies.expire_body(10_000, [7])
    log.revoke(7)
    log.grant(10, 7)
    log.tick(9_000)
    log.apply(late)
    assert log.ids() == [7]


# ---------------------------------------------------------------- as a whole


def random_body(chance: random.Random, index: int) -> bytes | None:
    lease, kind = chance.randrange(1, 30), chance.randrange(12)
    key = b"/%d" % chance.randrange(40)
    if kind == 0:
        return bodies.grant_body(0, 0, 0, chance.randrange(1, 20), chance.choice([0, lease]))
    if kind == 1:
        return bodies.revoke_body(0, 0, 0, lease)
    if kind == 2:
        return bodies.keepalive_body([chance.randrange(1, 30) for _ in range(5)])
    if kind in (3, 4):
        return bodies.tick_body(index * 50 + chance.randrange(-200, 200), max(0, index - chance.randrange(9)))
    if kind == 5:
        return bodies.expire_body(index * 50, [chance.randrange(1, 30) for _ in range(5)])
    if kind == 6:
        return protocol.delete_body(0, 0, 0, key, chance.choice([b"", key + b"0"]))
    if kind == 7:
        return bodies.grant_body(0, 0, 0, 10)
    return protocol.put_body(0, 0, 0, key, b"v", lease=chance.choice([0, lease]))


@pytest.mark.parametrize("seed", range(8))
def test_g3_replicas_agree_whatever_the_batches_and_across_snapshots(seed: int) -> None:
    """Whether a lease has ended is decided by the log alone: here nobody has a clock."""
    chance = random.Random(seed)
    log = [random_body(chance, index) for index in range(1, 800)]
    whole, pieces = LeaseLog(), LeaseLog()
    expected = whole.machine.apply(1, log)
    results: list[bytes | None] = []
    while len(results) < len(log):
        step = log[len(results) : len(results) + chance.randrange(1, 60)]
        results += pieces.machine.apply(len(results) + 1, step)
        if chance.random() < 0.3:
            pieces = pieces.restored()
            assert sorted(pieces.ids()) == pieces.ids()
    assert results == expected
    assert pieces.machine.digest() == whole.machine.digest()
    assert pieces.machine.fingerprint() == whole.machine.fingerprint()
    assert b"".join(pieces.machine.snapshot()) == b"".join(whole.machine.snapshot())
    named = [record[5] for record in whole.ask(protocol.range_body(b"\0", b"\0"))[4] if record[5]]
    assert set(named) <= set(whole.ids()), "a key has outlived its lease"
    assert sum(whole.time_to_live(lease)[2] for lease in whole.ids()) == len(named)


def test_the_fingerprint_tells_leases_that_differ() -> None:
    seen = set()
    for ttl_seconds, lease, time_ms, seen_index in (
        (10, 7, 0, 0),
        (11, 7, 0, 0),
        (10, 8, 0, 0),
        (10, 7, 1, 1),
        (10, 7, 1, 0),
        (10, 7, 2, 1),
    ):
        log = LeaseLog()
        log.grant(ttl_seconds, lease)
        log.tick(time_ms, seen_index)
        seen.add(log.machine.fingerprint())
    assert len(seen) == 6


def test_a_snapshot_holds_what_was_renewed_since_the_last_tick() -> None:
    log = LeaseLog()
    log.grant(10, 7)
    log.grant(10, 8)
    log.tick(5_000)
    log.keep_alive(8)
    for one in (log, log.restored()):
        one.expire(15_000, 7, 8)
        assert one.ids() == [8]
        one.tick(6_000)
        one.expire(15_999, 8)
        assert one.ids() == [8]


def test_a_snapshot_is_of_its_moment_though_leases_come_and_go() -> None:
    log = LeaseLog()
    for lease in range(1, 3000):
        log.grant(10, lease)
    expected = b"".join(log.machine.snapshot())
    pieces = log.machine.snapshot()
    first = next(pieces)
    log.tick(5_000)
    for lease in range(1, 3000, 2):
        log.revoke(lease)
    assert first + b"".join(pieces) == expected


@pytest.mark.parametrize("harm", ["twice", "no lease", "two ends", "cut off", "none left"])
def test_a_snapshot_whose_leases_cannot_be_is_refused(harm: str) -> None:
    log = LeaseLog()
    log.grant(10, 7)
    log.grant(10, 8)
    log.put(b"a", lease=7)
    unpacker = msgpack.Unpacker()
    unpacker.feed(b"".join(log.machine.snapshot()))
    header, leases, *rest = list(unpacker)
    if harm == "twice":
        leases[1] = leases[0]
    elif harm == "no lease":
        leases[0][0] = 9
    elif harm == "two ends":
        leases[0][2] = 5
    elif harm == "cut off":
        rest = []
        leases = leases[:1]
    else:
        header[9] = 0
    with pytest.raises(CorruptState):
        restore_all(LeaseLog().machine, [msgpack.packb(item) for item in (header, leases, *rest)])


def test_who_has_ended_is_found_without_a_look_at_all_each_time() -> None:
    leases = Leases()
    for lease in range(1, 101):
        leases.grant(lease, lease, 1)
    leases.tick([0], [1], 2)
    assert leases.ended(999) == []
    assert leases.ended(2_000) == [1, 2]
    leases.drop(1)
    leases.renew(2, 5)
    assert leases.ended(2_999) == []
    leases.tick([500], [5], 6)
    assert leases.ended(2_999) == [2]
    assert leases.ended(3_000) == [2, 3]
    leases.grant(200, 1, 6)
    leases.tick([600], [6], 7)
    assert leases.ended(1_600) == [200]
