"""The machine: same log, same bytes; and a retry is never a second write."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path

import msgpack
import pytest

from kvstore import protocol, state_machine
from kvstore.protocol import MAX_DELETE_KEYS, MAX_KEY_BYTES
from kvstore.query_batch import MAX_QUERY_BYTES
from kvstore.state_machine import StoreMachine
from kvstore.watch_frames import stream_topic
from kvstore.watch_plane import WatchPlane
from tests.kvstore.machine_log import NONCE, Log

ROOT = Path(__file__).parents[2]


# ---------------------------------------------------------------- results


def test_results_of_put_and_delete() -> None:
    log = Log()
    assert log.put(b"a", b"1") == [0, 2, None]
    assert log.put(b"a", b"2") == [0, 3, None]
    assert log.put(b"a", b"3", flags=protocol.PREV_KV) == [0, 4, [b"a", b"2", 2, 3, 2, 0]]
    assert log.put(b"b", b"1", flags=protocol.PREV_KV) == [0, 5, None]
    assert log.delete(b"x") == [0, 5, 0, []]
    assert log.delete(b"b") == [0, 6, 1, []]
    assert log.delete(b"a", b"b", flags=protocol.PREV_KV) == [0, 7, 1, [[b"a", b"3", 2, 4, 3, 0]]]


def test_an_entry_without_a_command_has_no_result_and_no_revision() -> None:
    log = Log()
    assert log.apply(None, protocol.put_body(0, 0, 0, b"a", b"1"), None) == [None, [0, 2, None], None]
    assert log.machine.applied_index == 3


def test_entries_must_follow_one_another() -> None:
    log = Log()
    log.put(b"a")
    for index in (1, 3):
        with pytest.raises(AssertionError, match=f"entry {index} after 1"):
            log.machine.apply(index, [None])


def test_results_of_range() -> None:
    log = Log()
    for key in (b"c", b"a", b"b"):
        log.put(key, key.upper())
    everything = [[b"a", b"A", 3, 3, 1, 0], [b"b", b"B", 4, 4, 1, 0], [b"c", b"C", 2, 2, 1, 0]]
    body = protocol.range_body
    assert log.ask(body(b"b")) == [0, 4, 1, False, everything[1:2]]
    assert log.ask(body(b"x")) == [0, 4, 0, False, []]
    assert log.ask(body(b"\x00", b"\x00")) == [0, 4, 3, False, everything]
    assert log.ask(body(b"b", b"\x00")) == [0, 4, 2, False, everything[1:]]
    assert log.ask(body(b"a", b"c", limit=1)) == [0, 4, 2, True, everything[:1]]
    assert log.ask(body(b"c", b"a")) == [0, 4, 0, False, []]
    assert log.ask(body(b"a", b"c", flags=protocol.COUNT_ONLY)) == [0, 4, 2, False, []]
    assert log.ask(body(b"b", flags=protocol.COUNT_ONLY)) == [0, 4, 1, False, []]
    keys_only = log.ask(body(b"a", b"c", flags=protocol.KEYS_ONLY))
    assert keys_only == [0, 4, 2, False, [[b"a", b"", 3, 3, 1, 0], [b"b", b"", 4, 4, 1, 0]]]
    assert log.ask(body(b"a", b"c", limit=1, flags=protocol.KEYS_ONLY))[2:4] == [2, True]
    assert log.ask(body(b"b", flags=protocol.KEYS_ONLY))[4] == [[b"b", b"", 4, 4, 1, 0]]


def test_a_range_can_be_read_at_each_revision_that_is_kept() -> None:
    log = Log()
    for key, value in ((b"a", b"1"), (b"b", b"1"), (b"a", b"2")):
        log.put(key, value)
    log.delete(b"b")
    body, everything = protocol.range_body, (b"\0", b"\0")
    assert log.ask(body(b"a", revision=3)) == [0, 5, 1, False, [[b"a", b"1", 2, 2, 1, 0]]]
    assert log.ask(body(b"b", revision=3))[4] == [[b"b", b"1", 3, 3, 1, 0]]
    assert log.ask(body(*everything, revision=2)) == [0, 5, 1, False, [[b"a", b"1", 2, 2, 1, 0]]]
    assert log.ask(body(*everything, revision=4, flags=protocol.COUNT_ONLY)) == [0, 5, 2, False, []]
    keys_only = log.ask(body(*everything, revision=4, limit=1, flags=protocol.KEYS_ONLY))
    assert keys_only == [0, 5, 2, True, [[b"a", b"", 2, 4, 2, 0]]]
    assert log.ask(body(b"b", revision=5))[:3] == log.ask(body(b"b"))[:3] == [0, 5, 0]
    assert log.ask(body(b"a", revision=1))[2] == 0
    log.machine._store.compact(4)
    assert log.ask(body(*everything, revision=4))[2] == 2
    past = log.ask(body(b"a", revision=3))
    assert past == [protocol.COMPACTED, "required revision has been compacted", 4]
    future = log.ask(body(b"a", revision=6))
    assert future == [protocol.FUTURE_REVISION, "required revision is a future revision", 5]


def test_a_very_long_range_is_cut_and_says_so() -> None:
    log = Log()
    for number in range(20):
        log.put(b"k%02d" % number, bytes(1 << 20))
    code, _, total, more, records = log.ask(protocol.range_body(b"k", b"l"))
    assert (code, total, more, len(records)) == (0, 20, True, 15)


def test_a_very_long_range_of_keys_alone_is_cut_and_says_so() -> None:
    """Now and in the past; the values do not count, all else does, and a client that goes on finds all."""
    log = Log()
    # One byte less than the longest: else a client could not name what comes next.
    keys = [b"k%04d" % number + bytes(MAX_KEY_BYTES - 6) for number in range(5000)]
    log.apply(*(protocol.put_body(0, 0, 0, key, bytes(5000)) for key in keys))
    at_first = log.machine.revision
    for revision in (0, at_first):
        begin, found = b"k", []
        for total, count, is_cut in ((5000, 4083, True), (917, 917, False)):
            body = protocol.range_body(begin, b"l", revision=revision, flags=protocol.KEYS_ONLY)
            _, _, *counted, records = log.ask(body)
            assert (*counted, len(records)) == (total, is_cut, count)
            assert not any(record[1] for record in records)
            found += [record[0] for record in records]
            begin = found[-1] + b"\0"
        assert found == keys
        log.put(b"m")  # the next time it is the past


def test_many_large_reads_at_once_do_not_become_gigabytes() -> None:
    """Small reads beside them are answered as ever."""
    log = Log()
    log.put(b"large", bytes(1 << 20))
    log.put(b"small")
    bodies = [protocol.range_body(b"large")] * 200 + [protocol.range_body(b"small")]
    results = log.machine.query(bodies)
    assert sum(map(len, results)) < MAX_QUERY_BYTES + 65_536
    codes = [msgpack.unpackb(result)[0] for result in results]
    assert codes == [0] * 63 + [protocol.TOO_LARGE] * 137 + [0]


def test_large_values_are_not_all_given_in_one_turn() -> None:
    """Each was encoded before it was refused: the reads of one frame took seconds."""
    log = Log()
    log.put(b"large", bytes(1 << 20))
    for body in (protocol.range_body(b"large"), protocol.range_body(b"l", b"m", limit=5)):
        small = [protocol.range_body(b"none"), protocol.range_body(b"m", b"n")]
        answers = log.machine.begin_query([body] * 5000 + small)
        at_once = [answer for answer in answers if isinstance(answer, bytes)]
        assert sum(map(len, at_once)) < 18 << 20
        assert isinstance(answers[-2], bytes)
        late = answers[-3]
        assert not isinstance(late, bytes)
        assert msgpack.unpackb(next(late) or b"")[0] == protocol.OK


def test_a_delete_that_would_answer_too_much_deletes_nothing() -> None:
    """Its result would have to be remembered by every node."""
    log = Log()
    for number in range(3):
        log.put(b"k%d" % number, bytes(400_000))
    assert log.delete(b"k", b"l", flags=protocol.PREV_KV)[0] == protocol.TOO_LARGE
    assert log.ask(protocol.range_body(b"k", b"l", flags=protocol.COUNT_ONLY)) == [0, 4, 3, False, []]
    assert log.delete(b"k", b"l") == [0, 5, 3, []]


def test_a_delete_of_more_keys_than_one_turn_should_take_deletes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It cannot be interrupted, for it is of one revision. The result is the same on all nodes and later."""
    assert MAX_DELETE_KEYS == 100_000
    monkeypatch.setattr(state_machine, "MAX_DELETE_KEYS", 3)
    log = Log()
    session_id = log.open_session()
    for number in range(4):
        log.put(b"k%d" % number)
    body = protocol.delete_body(session_id, 1, 1, b"k", b"l")
    [refused] = log.apply(body)
    assert refused[0] == protocol.TOO_LARGE and "in pieces" in refused[1]
    assert log.delete(b"\0", b"\0", flags=protocol.PREV_KV)[0] == protocol.TOO_LARGE
    assert log.delete(b"k0") == [0, 6, 1, []]
    assert log.apply(body) == [refused]  # it was answered so once
    assert log.delete(b"k", b"l") == [0, 7, 3, []]


# ---------------------------------------------------------------- sessions


def test_g1_a_repeated_command_is_answered_and_not_applied() -> None:
    log = Log()
    session_id = log.open_session()
    body = protocol.put_body(session_id, 1, 1, b"counter", b"1", flags=protocol.PREV_KV)
    first = log.apply(body)
    log.put(b"counter", b"2")
    assert log.apply(body, body) == first * 2
    assert log.get(b"counter") == b"2"
    delete = protocol.delete_body(session_id, 2, 1, b"counter")
    assert log.apply(delete, protocol.put_body(0, 0, 0, b"counter", b"3"), delete) == [
        [0, 4, 1, []],
        [0, 5, None],
        [0, 4, 1, []],
    ]
    assert log.get(b"counter") == b"3"


def test_the_repeated_result_is_the_same_bytes() -> None:
    log = Log()
    session_id = log.open_session()
    body = protocol.put_body(session_id, 1, 1, b"k", b"v", flags=protocol.PREV_KV)
    results = log.machine.apply(log.machine.applied_index + 1, [body, body])
    assert results[0] == results[1]


def test_g4_a_command_of_an_expired_session_is_refused_loudly() -> None:
    log = Log()
    session_id = log.open_session()
    assert log.apply(protocol.close_session_body(session_id, 1, 1)) == [[0, 1]]
    for body in (
        protocol.put_body(session_id, 2, 1, b"k", b"v"),
        protocol.delete_body(session_id, 2, 1, b"k"),
        protocol.close_session_body(session_id, 2, 1),
        protocol.put_body(12345, 1, 1, b"k", b"v"),
    ):
        assert log.apply(body)[0][0] == protocol.SESSION_EXPIRED
    assert log.machine.revision == 1


def test_an_acknowledged_sequence_is_forgotten_not_applied() -> None:
    log = Log()
    session_id = log.open_session()
    first = protocol.put_body(session_id, 1, 1, b"k", b"1")
    log.apply(first, protocol.put_body(session_id, 2, 2, b"k", b"2"))
    assert log.apply(first)[0][0] == protocol.SEQUENCE_FORGOTTEN
    assert log.get(b"k") == b"2"


def test_opening_again_with_the_same_nonce_gives_the_same_session() -> None:
    log = Log()
    first = log.apply(protocol.open_session_body(NONCE))
    log.put(b"a")
    assert log.apply(protocol.open_session_body(NONCE)) == first
    assert log.open_session(b"f" * 16) == log.machine.applied_index


def test_without_a_session_a_repeated_command_is_applied_again() -> None:
    log = Log()
    body = protocol.put_body(0, 0, 0, b"k", b"v")
    assert log.apply(body, body) == [[0, 2, None], [0, 3, None]]


def test_a_refused_command_does_not_use_up_its_sequence() -> None:
    """The same bytes are refused again; what was never applied leaves no trace in the session."""
    log = Log()
    session_id = log.open_session()
    before = log.machine.digest()
    assert log.apply(protocol.put_body(session_id, 1, 1, b"", b"v"))[0][0] == protocol.EMPTY_KEY
    assert log.machine.digest() == before
    assert log.apply(protocol.put_body(session_id, 1, 1, b"k", b"v")) == [[0, 2, None]]


def test_a_refusal_that_depends_on_the_state_is_remembered() -> None:
    log = Log()
    session_id = log.open_session()
    for number in range(2):
        log.put(b"k%d" % number, bytes(600_000))
    body = protocol.delete_body(session_id, 1, 1, b"k", b"l", flags=protocol.PREV_KV)
    first = log.apply(body)
    assert first[0][0] == protocol.TOO_LARGE
    log.delete(b"k0")
    assert log.apply(body) == first
    assert log.get(b"k1") is not None


# ---------------------------------------------------------------- determinism


def random_log(seed: int, length: int) -> list[bytes | None]:
    """Commands of three sessions and of none: retried, reordered, poisoned and empty."""
    rng = random.Random(seed)
    bodies: list[bytes | None] = [protocol.open_session_body(b"%016d" % number) for number in range(3)]
    sequences = {1: 0, 2: 0, 3: 0}
    for _ in range(length):
        session_id, kind = rng.randint(1, 3), rng.random()
        key = b"/k/%d" % rng.randrange(30)
        sequences[session_id] += 1
        sequence = sequences[session_id]
        below = max(0, sequence - rng.randint(0, 5))
        if kind < 0.5:
            flags = rng.choice([0, protocol.PREV_KV])
            bodies.append(protocol.put_body(session_id, sequence, below, key, rng.randbytes(5), flags=flags))
        elif kind < 0.6:
            bodies.append(protocol.delete_body(session_id, sequence, below, key, b"/k/9", flags=1))
        elif kind < 0.8:
            bodies.append(rng.choice(bodies))
        elif kind < 0.85:
            bodies.append(rng.randbytes(rng.randrange(20)))
        elif kind < 0.9:
            bodies.append(protocol.put_body(0, 0, 0, key, b"none"))
        elif kind < 0.91:
            bodies.append(protocol.close_session_body(session_id, sequence, below))
        elif kind < 0.93:
            bodies.append(protocol.open_session_body(b"%016d" % rng.randrange(5)))
        else:
            bodies.append(None)
    return bodies


def fingerprint(seed: int, length: int, cuts: random.Random) -> str:
    """Results and state of a machine that gets the log in batches of any size."""
    machine, results, log = StoreMachine(WatchPlane(1)), list[bytes | None](), random_log(seed, length)
    while log:
        size = cuts.randint(1, 40)
        results += machine.apply(machine.applied_index + 1, log[:size])
        log = log[size:]
    machine.query([protocol.range_body(b"/k/", b"/k0")])
    everything = protocol.watch_history_body(b"/", b"0", start_revision=2, limit_bytes=1 << 20)
    results += machine.query([everything])
    return f"{machine.digest().hex()} {hash_of(results)} {machine.revision}"


def hash_of(results: list[bytes | None]) -> str:
    packed: bytes = msgpack.packb(results)
    return packed.hex()


@pytest.mark.parametrize("seed", range(5))
def test_g14_replicas_agree_however_the_log_is_cut_into_batches(seed: int) -> None:
    prints = {fingerprint(seed, 400, random.Random(cut)) for cut in range(4)}
    assert len(prints) == 1


def test_g14_replicas_agree_in_processes_with_different_hash_seeds_and_msgpack_builds() -> None:
    """The order of a set or of str hashes, and the compiled or the plain msgpack, must show nowhere."""
    code = (
        "import random, sys; sys.path[:0] = ['tests/kvstore', '.']; "
        "from test_state_machine import fingerprint; print(fingerprint(7, 300, random.Random(1)))"
    )
    prints = set()
    for environment in ({"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "2", "MSGPACK_PUREPYTHON": "1"}):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        prints.add(done.stdout)
    assert len(prints) == 1
    assert len(prints.pop()) > 1000


@pytest.mark.parametrize("seed", range(5))
def test_g1_a_log_in_which_every_command_comes_twice_leaves_the_same_store(seed: int) -> None:
    """At once or long afterwards, as retries do after a failover."""
    log = [body for body in random_log(seed, 300) if body is not None and not is_sessionless(body)]
    plain, at_once, afterwards = Log(), Log(), Log()
    for body in log:
        plain.apply(body)
        at_once.apply(body, *[body] * (at_once.machine.applied_index >= 3))
    afterwards.apply(*log, *log[3:])
    states = {one.machine._store.digest() for one in (plain, at_once, afterwards)}
    assert len(states) == 1
    assert plain.machine.revision > 50


def is_sessionless(body: bytes) -> bool:
    try:
        command = msgpack.unpackb(body)
    except ValueError:
        return False
    return isinstance(command, list) and len(command) > 3 and command[0] == 0 and command[3] in (1, 2)


# ---------------------------------------------------------------- for operators


def test_the_status_says_what_an_operator_asks_for() -> None:
    log = Log()
    log.open_session()
    log.put(b"a")
    log.machine.watch_plane.subscribed([b"\x01" + stream_topic(b"a", b""), b"\x01/app"])
    status = log.machine.status()
    assert msgpack.unpackb(msgpack.packb(status)) == status
    assert {name: status[name] for name in ("revision", "keys", "sessions", "watch_streams")} == {
        "revision": 2,
        "keys": 1,
        "sessions": 1,
        "watch_streams": 1,
    }


def test_a_key_with_a_value_of_100_bytes_costs_at_most_700_bytes() -> None:
    log = Log()
    count = 4000
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(count):
            log.put(b"/app/service/%08d" % number, b"%0100d" % number)
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert used / count < 700
