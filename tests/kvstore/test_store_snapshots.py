"""Snapshots of the store: of one moment while writes go on, the same everywhere, with all that decides."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from io import BytesIO
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

import msgpack
import pytest

from kvstore import dismantling, protocol
from kvstore.frozen import SLICE_KEYS
from kvstore.sessions import RESULT_OVERHEAD_BYTES
from kvstore.snapshots import MAX_IDLE_SLICES, CorruptState
from kvstore.state_machine import StoreMachine
from kvstore.watch_frames import stream_topic
from kvstore.watch_plane import WatchPlane
from raft.errors import StateDamaged
from raft.slices import Slices
from raft.state_machine import restore_all
from tests.kvstore.counted_calls import calls_of
from tests.kvstore.machine_log import Log

ROOT = Path(__file__).parents[2]


def random_body(chance: Random, sessions: int) -> bytes | None:
    key = b"/%d" % chance.randrange(60)
    session_id = chance.randrange(1, sessions + 2)
    sequence = chance.randrange(1, 40)
    acknowledged = chance.randrange(sequence)
    kind = chance.randrange(10)
    if kind == 0:
        return None
    if kind == 1:
        return protocol.open_session_body(b"%016d" % chance.randrange(sessions))
    if kind == 2:
        return protocol.close_session_body(session_id, 1, 0) if chance.random() < 0.1 else b"junk"
    if kind == 3:
        return protocol.delete_body(session_id, sequence, acknowledged, key, b"/9", flags=protocol.PREV_KV)
    if kind < 6:
        return protocol.put_body(0, 0, 0, key, chance.randbytes(chance.randrange(3000)))
    return protocol.put_body(session_id, sequence, acknowledged, key, b"v" * chance.randrange(20))


def fresh() -> StoreMachine:
    return StoreMachine(WatchPlane(1))


def restored(content: list[bytes]) -> StoreMachine:
    machine = fresh()
    restore_all(machine, content)
    return machine


@pytest.mark.parametrize("seed", range(12))
def test_a_snapshot_is_of_the_moment_it_was_taken_though_writes_go_on(seed: int) -> None:
    """It equals a replay of the log up to there, in state, in bytes and in all that is answered later."""
    chance = Random(seed)
    bodies = [random_body(chance, 8) for _ in range(600)]
    cut = chance.randrange(1, 500)
    machine = fresh()
    machine.apply(1, bodies[:cut])
    pieces = machine.snapshot()
    content, index = [], cut
    for piece in pieces:
        content.append(piece)
        step = min(index + chance.randrange(60), 600)
        machine.apply(index + 1, bodies[index:step])
        index = step
    replayed, other = fresh(), restored(content)
    replayed.apply(1, bodies[:cut])
    assert other.applied_index == cut and other.revision == replayed.revision
    assert other.digest() == replayed.digest()
    assert b"".join(other.snapshot()) == b"".join(content) == b"".join(replayed.snapshot())
    rest = bodies[cut:]
    assert other.apply(cut + 1, rest) == replayed.apply(cut + 1, rest)
    assert other.digest() == replayed.digest()


def test_the_same_log_gives_the_same_bytes_in_another_process() -> None:
    """Whatever the hash of a string is there."""
    script = (
        "from tests.kvstore.test_store_snapshots import *\n"
        "chance = Random(3); machine = fresh()\n"
        "machine.apply(1, [random_body(chance, 8) for _ in range(500)])\n"
        "print(hashlib.sha256(b''.join(machine.snapshot())).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    chance, machine = Random(3), fresh()
    machine.apply(1, [random_body(chance, 8) for _ in range(500)])
    assert digests == {hashlib.sha256(b"".join(machine.snapshot())).hexdigest() + "\n"}


def test_e12_the_same_state_gives_the_same_bytes_whether_or_not_its_memory_was_given_back() -> None:
    """When that is done depends on batches, reads and readers, which are others on each node."""
    chance = Random(8)
    bodies = [random_body(chance, 8) for _ in range(500)]
    plain, busy, held = fresh(), fresh(), fresh()
    reader = None
    for machine in (plain, busy, held):
        machine.apply(1, bodies)
        if machine is held:
            reader = machine.snapshot()
            next(reader)
        machine._store.compact(machine.revision - 100)
        if machine is plain:
            machine._store.is_sweeping = False  # it never gets to it
        for index in range(500, 520):
            machine.apply(index + 1, [protocol.put_body(0, 0, 0, b"k", b"v")])
    assert busy._store.history_bytes < plain._store.history_bytes == held._store.history_bytes
    contents = {b"".join(machine.snapshot()) for machine in (plain, busy, held)}
    assert len(contents) == len({machine.fingerprint() for machine in (plain, busy, held)}) == 1
    assert restored(list(contents)).fingerprint() == plain.fingerprint()


def test_a_snapshot_of_another_state_than_it_says_is_refused() -> None:
    log = Log()
    log.open_session()
    log.put(b"a", b"1")
    items = list(msgpack.Unpacker(BytesIO(b"".join(log.machine.snapshot()))))
    assert restored([msgpack.packb(item) for item in items]).digest() == log.machine.digest()
    items[1][0][1] = b"2"
    with pytest.raises(CorruptState, match="fingerprint"):
        restored([msgpack.packb(item) for item in items])


def test_a_snapshot_of_damaged_memory_ends_before_its_last_piece() -> None:
    log = Log()
    for number in range(300):
        log.put(b"/%03d" % number, bytes(1000))
    key, value, *numbers = log.machine._store._records[b"/150"]
    log.machine._store._records[b"/150"] = (key, b"\1" + value[1:], *numbers)  # type: ignore[assignment]
    pieces: list[bytes] = []
    with pytest.raises(StateDamaged, match="revision 301"):
        pieces.extend(log.machine.snapshot())
    with pytest.raises(CorruptState):
        restored(pieces)


def test_the_fingerprint_is_of_the_log_that_was_applied_and_outlives_a_snapshot() -> None:
    """Each command that leaves another state leaves another fingerprint, those of sessions included."""
    log = Log()
    seen = [log.machine.fingerprint()]
    session_id = log.open_session()
    for body in (
        protocol.put_body(session_id, 1, 0, b"a", b"1"),
        protocol.put_body(session_id, 2, 2, b"a", b"1"),
        protocol.delete_body(session_id, 3, 2, b"x"),
        protocol.delete_body(session_id, 4, 2, b"a"),
        None,
        protocol.close_session_body(session_id, 5, 5),
    ):
        seen.append(log.machine.fingerprint())
        log.apply(body)
        again = restored(list(log.machine.snapshot()))
        assert again.fingerprint() == log.machine.fingerprint()
    assert len({*seen, log.machine.fingerprint()}) == len(seen) + 1
    one, other = Log(), Log()
    for each, value in ((one, b"1"), (other, b"2")):
        each.put(b"a", value)
    assert one.machine.fingerprint() != other.machine.fingerprint()


def test_what_was_compacted_is_given_back_by_commands_and_by_reads() -> None:
    for reads in (False, True):
        log = Log()
        log.apply(*[protocol.put_body(0, 0, 0, b"a", b"v")] * 5000)
        before = log.machine._store.history_bytes
        log.machine._store.compact(5001)
        steps = 0
        while log.machine._store.is_sweeping:
            if reads:
                log.ask(protocol.range_body(b"a"))
            else:
                log.apply(None)
            steps += 1
        assert 3 < steps < 20 and log.machine._store.history_bytes < before // 1000


def test_a_retry_across_a_restored_snapshot_is_no_second_write() -> None:
    log = Log()
    session_id = log.open_session()
    body = protocol.put_body(session_id, 1, 0, b"a", b"1")
    [first] = log.apply(body)
    other = Log()
    restore_all(other.machine, log.machine.snapshot())
    assert other.apply(body) == [first] and other.machine.revision == 2
    assert other.open_session() == session_id
    [other_result] = other.apply(protocol.put_body(session_id, 2, 2, b"a", b"2"))
    assert other_result[:2] == [0, 3]
    assert (
        other.machine._sessions._remembered_bytes == len(msgpack.packb(other_result)) + RESULT_OVERHEAD_BYTES
    )


def test_a_snapshot_has_the_results_of_its_moment_though_it_is_read_later() -> None:
    """Those of sessions are gone through when all else has been read; they come and go meanwhile."""
    log = Log()
    session_id = log.open_session()
    first = log.apply(*(protocol.put_body(session_id, number, 1, b"k", b"v") for number in (1, 2, 3)))
    digest, pieces = log.machine.digest(), log.machine.snapshot()
    begun = next(pieces)
    log.apply(protocol.put_body(session_id, 4, 4, b"k", b"v"), protocol.close_session_body(session_id, 5, 4))
    other = Log()
    restore_all(other.machine, [begun, *pieces])
    assert other.machine.digest() == digest
    again = other.apply(*(protocol.put_body(session_id, number, 1, b"k", b"v") for number in (1, 2, 3)))
    assert again == first


def test_a_large_store_comes_in_pieces_that_are_made_when_they_are_asked_for() -> None:
    log = Log()
    for number in range(300):
        log.put(b"/%03d" % number, bytes(1000))
    pieces = list(log.machine.snapshot())
    assert len(pieces) > 4 and max(map(len, pieces)) < 80_000
    assert restored(pieces).digest() == log.machine.digest()
    together = b"".join(pieces)
    cut = [together[at : at + 777] for at in range(0, len(together), 777)]
    assert restored(cut).digest() == log.machine.digest()


def test_what_came_after_a_snapshot_began_is_passed_over_in_pieces_too() -> None:
    """A slice looked through all keys that were made since: a second of one turn where they are many."""
    log = Log()
    log.put(b"a", b"first")
    log.put(b"z", b"last")
    expected = b"".join(log.machine.snapshot())
    pieces = iter(log.machine.snapshot())
    first = next(pieces)
    count = 2 * MAX_IDLE_SLICES * SLICE_KEYS
    for number in range(count):
        log.put(b"k%05d" % number)
    rest = list(pieces)
    assert rest.count(b"") == 2
    assert first + b"".join(rest) == expected
    slices = Slices(chain([first], rest))
    assert [slices.next_slice()[1] for _ in range(3)] == [False, False, True]


def test_h9_history_before_a_restored_snapshot_is_there_and_goes_on_after_it() -> None:
    """From each revision on from which the other node has it, and from no earlier one."""
    log = Log()
    for number in range(20):
        log.put(b"%d" % (number % 3), b"%d" % number)
        log.delete(b"%d" % (number % 7), b"2")
    log.machine._store.compact(9)
    other = Log()
    restore_all(other.machine, log.machine.snapshot())
    for one in (log, other):
        one.put(b"1", b"new")
    for start in range(1, log.machine.revision + 2):
        body = protocol.watch_history_body(b"\0", b"\0", start_revision=start)
        assert (there := log.ask(body)) == other.ask(body)
        assert there[0] == (protocol.COMPACTED if start < 9 else protocol.OK)


def test_history_before_a_snapshot_of_version_1_is_not_known() -> None:
    """Nor is it compacted: that is for all nodes alike to say, and such a snapshot was another on each."""
    log, other = Log(), Log()
    for number in range(5):
        log.put(b"a", b"%d" % number)
    [record] = log.machine._store.range(b"a", b"").records
    restore_all(other.machine, [msgpack.packb([1, 5, 6, 1, 0]), msgpack.packb([record])])
    assert other.machine.fingerprint() == log.machine.fingerprint()
    assert other.ask(protocol.range_body(b"a", revision=6))[4] == [list(record)]
    assert other.ask(protocol.range_body(b"a", revision=5))[0] == protocol.COMPACTED
    code, message, compacted = other.ask(protocol.watch_history_body(b"a", start_revision=6))
    assert (code, compacted) == (protocol.COMPACTED, 7) and "compacted" in message
    assert other.ask(protocol.watch_history_body(b"a", start_revision=7))[5] == []
    other.put(b"a", b"new")
    assert other.ask(protocol.watch_history_body(b"a", start_revision=7))[5][0][0] == 7
    again = restored(list(other.machine.snapshot()))
    assert again.digest() == other.machine.digest() != log.machine.digest()
    log.put(b"a", b"new")
    for one in (log.machine, other.machine, again):
        one._store.compact(6)
    assert again.digest() == other.machine.digest() == log.machine.digest()


def test_a_refused_compaction_has_the_same_result_after_a_snapshot_of_version_1() -> None:
    """It is remembered by the session, so what is known on one node alone must not be in it."""
    log, other = Log(), Log()
    for number in range(5):
        log.put(b"a", b"%d" % number)
    [record] = log.machine._store.range(b"a", b"").records
    restore_all(other.machine, [msgpack.packb([1, 5, 6, 1, 0]), msgpack.packb([record])])
    session = log.open_session()
    assert other.open_session() == session
    refused = protocol.compact_body(session, 1, 1, 0)
    for one in (log, other):
        [[code, _, last_compaction]] = one.apply(refused)
        assert (code, last_compaction) == (protocol.COMPACTED, 0)
    assert other.machine.fingerprint() == log.machine.fingerprint()
    for one in (log, other):
        assert one.apply(protocol.compact_body(0, 0, 0, 6)) == [[protocol.OK, 6]]
        assert one.apply(refused)[0][2] == 0, "the first result"
    assert other.machine.digest() == log.machine.digest()


def test_streams_begin_a_new_epoch_and_say_so_at_once() -> None:
    """A watcher must not take the silence over a restored snapshot for "nothing happened"."""
    log = Log()
    log.put(b"a", b"1")
    other = Log()
    plane = other.machine.watch_plane
    topic = stream_topic(b"a", b"")
    plane.subscribed([b"\x01" + topic])
    before = plane.position(b"a", b"")
    restore_all(other.machine, log.machine.snapshot())
    epoch, sequence = plane.position(b"a", b"")
    assert epoch > before[0] and sequence == 0
    [[named, header, _]] = plane.announcements()
    assert named == topic and msgpack.unpackb(header)[1:] == [epoch, 0, 2]
    other.put(b"a", b"2")
    [[_, header, _]] = plane.announcements()
    assert msgpack.unpackb(header)[1:] == [epoch, 1, 3]


@pytest.mark.parametrize(
    "content",
    [
        [],
        [msgpack.packb([3, 1, 1, 0, 0, 0, 0, 0])],
        [msgpack.packb([2, 1, 1, 0, 0])],
        [msgpack.packb([2, 0, 1, 0, 0, 0, 0, 0])],
        [msgpack.packb([2, 0, 1, 0, 0, 0, 0, 0]), msgpack.packb([])],
        [msgpack.packb(7)],
        [msgpack.packb([1, 5, 5, 1, 0])],
        [msgpack.packb([1, 5, 5, 0, 1])],
        [msgpack.packb([1, 5, 5, 0, 0]), b"\x01"],
        [msgpack.packb([1, 5, 5, 1, 0]), msgpack.packb([(b"a", b"", 2, 2, 1, 0), (b"b", b"", 3, 3, 1, 0)])],
        [msgpack.packb([1, 5, 5, 1, 0]), b"\xc1"],
        [msgpack.packb([1, 5, 5, 1, 0]), msgpack.packb([7])],
        [msgpack.packb([1, 5, 5, 0, 1]), msgpack.packb([1, b"nonce"])],
        [msgpack.packb([1, 5, 5, 0, 2]), *(msgpack.packb([1, nonce, b"", 1, []]) for nonce in (b"m", b"n"))],
        [msgpack.packb([1, 5, 5, 0, 2]), *(msgpack.packb([each, b"m", b"", 1, []]) for each in (1, 2))],
    ],
)
def test_what_is_no_snapshot_of_a_store_is_refused(content: list[bytes]) -> None:
    with pytest.raises(CorruptState):
        restored(content)


def test_the_old_state_is_in_force_until_all_of_the_new_one_has_come() -> None:
    """Reads and even writes go on meanwhile; a restorer that is given up leaves no trace."""
    log = Log()
    for number in range(300):
        log.put(b"/%03d" % number, bytes(1000))
    pieces = list(log.machine.snapshot())
    other = Log()
    other.put(b"old", b"1")
    before = other.machine.digest()
    given_up = other.machine.restorer()
    given_up.feed(pieces[0] + pieces[1])
    restorer = other.machine.restorer()
    for piece in pieces:
        restorer.feed(piece)
        assert other.machine.digest() == before and other.machine.revision == 2
    other.put(b"old", b"2")
    restorer.finish()
    assert other.machine.digest() == log.machine.digest()
    assert other.machine.applied_index == log.machine.applied_index


def test_what_is_cut_off_is_found_at_the_end_and_changes_nothing() -> None:
    log = Log()
    log.put(b"a", b"1")
    session_id = log.open_session()
    log.apply(protocol.put_body(session_id, 1, 0, b"b", b"1"))
    content = b"".join(log.machine.snapshot())
    other = fresh()
    for end in range(len(content)):
        restorer = other.restorer()
        restorer.feed(content[:end])
        with pytest.raises(CorruptState):
            restorer.finish()
    assert other.digest() == fresh().digest() and other.applied_index == 0


def test_a_piece_costs_no_more_than_itself_however_much_is_there_already() -> None:
    """Calls are counted, not seconds: a piece late in a large snapshot does no more than an early one."""
    log = Log()
    for number in range(4000):
        log.put(b"/%05d" % number, bytes(400))
    pieces = list(log.machine.snapshot())
    restorer = fresh().restorer()
    restorer.feed(pieces[0])
    costs = [calls_of(lambda piece=piece: restorer.feed(piece)) for piece in pieces[1:]]  # type: ignore[misc]
    assert len(costs) > 20 and max(costs) < 2 * min(costs[:-2])  # what is last is small
    assert calls_of(restorer.finish) < 100


def test_the_state_before_a_restored_one_is_given_up_bit_by_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is done: commands or reads. Nothing of it is left in the end, and the new state is whole."""
    monkeypatch.setattr(dismantling, "STEP_ITEMS", 50)
    log, other = Log(), Log()
    log.put(b"new", b"1")
    for number in range(400):
        other.put(b"/%03d" % (number % 200), b"old")
    other.apply(protocol.delete_body(0, 0, 0, b"/0", b"/1"))
    old = other.machine._store
    tables: list[Any] = [
        old._records,
        old._older,
        old._changes,
        *old._keys._lists,
        *old._versions.gone._lists,
    ]
    tables += [*old._older.values(), *[change[1] for change in old._changes if len(change) == 2]]
    del old
    sizes = [sum(map(len, tables))]
    restore_all(other.machine, log.machine.snapshot())
    while other.machine._leaving is not None:
        if len(sizes) % 2:
            other.apply(b"junk")
        else:
            other.machine.query([protocol.range_body(b"new")])
        sizes.append(sum(map(len, tables)))
        assert 0 < sizes[-2] - sizes[-1] <= 50
    assert sizes[0] > 500 and sizes[-1] == 0
    assert other.machine.digest() == log.machine.digest()
