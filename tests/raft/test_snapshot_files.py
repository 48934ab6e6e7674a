"""Snapshot files on a real file system: written in slices, read in any part, nothing believed unchecked."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raft.directory import DataDirectory
from raft.entries import EntryBatch, HardState, SnapshotMeta
from raft.files import FailStop, OsFiles
from raft.segment import Identity, segment_name
from raft.snapshot import DRAFT_NAME, SnapshotReader, SnapshotWriter, place_of, snapshot_name
from raft.storage import (
    CorruptLog,
    CorruptSnapshot,
    MemoryStorage,
    Recovered,
    Storage,
    snapshot_content,
)
from raft.wal import WriteAheadLog
from tests.raft.disk import compact_wholly

WHO = Identity("cluster", "n1")


def write_file(directory: Path, slices: list[bytes], chunk_bytes: int = 64) -> SnapshotMeta:
    writer = SnapshotWriter(directory, FailStop(OsFiles()), "cluster", 7, 3, b"who", chunk_bytes)
    for data in slices:
        writer.append(data)
    return writer.commit()


def open_file(directory: Path, cluster_id: str = "cluster") -> SnapshotReader:
    return SnapshotReader(directory / snapshot_name(7, 3), FailStop(OsFiles()), cluster_id)


@given(st.lists(st.binary(max_size=200), max_size=8), st.integers(0, 400), st.integers(0, 400))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_part_of_what_was_appended_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, slices: list[bytes], offset: int, size_bytes: int
) -> None:
    directory = tmp_path_factory.mktemp("snapshots")
    meta = write_file(directory, slices)
    content = b"".join(slices)
    assert meta == (7, 3, b"who", len(content), meta.checksum)
    reader = open_file(directory)
    assert reader.meta == meta
    reader.verify()
    assert reader.read(offset, size_bytes) == content[offset : offset + size_bytes]
    reader.close()


def test_every_flipped_bit_and_every_cut_is_found(tmp_path: Path) -> None:
    """Header, names, chunks and their order: a snapshot is exactly as it was written, or it is refused."""
    write_file(tmp_path, [bytes(range(150))])
    path = tmp_path / snapshot_name(7, 3)
    good = path.read_bytes()
    damaged = [good[:cut] for cut in range(len(good))]
    damaged += [
        good[:at] + bytes([good[at] ^ 1 << bit]) + good[at + 1 :] for at in range(len(good)) for bit in (0, 7)
    ]
    damaged.append(good + b"\0")
    first = len(good) - 150 - 3 * 8
    swapped = good[first + 72 : first + 144] + good[first : first + 72]
    damaged.append(good[:first] + swapped + good[first + 144 :])
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(CorruptSnapshot, match="damaged"):
            open_file(tmp_path).verify()
    path.write_bytes(good)
    open_file(tmp_path).verify()


def test_slices_of_the_size_of_a_chunk_become_chunks(tmp_path: Path) -> None:
    """As a leader sends them, so that nothing is copied; and after a shorter one nothing is lost either."""
    slices = [bytes([number]) * 64 for number in range(4)]
    write_file(tmp_path, [*slices[:2], b"short", *slices[2:]])
    reader = open_file(tmp_path)
    reader.verify()
    assert reader.read(0, 1000) == b"".join([*slices[:2], b"short", *slices[2:]])
    reader.close()


def test_a_chunk_in_another_ones_place_is_found(tmp_path: Path) -> None:
    """Also by who reads no more than that part, as a leader does that sends it to a follower."""
    write_file(tmp_path, [bytes(range(150))])
    path = tmp_path / snapshot_name(7, 3)
    good = path.read_bytes()
    first = len(good) - 150 - 3 * 8
    path.write_bytes(
        good[:first] + good[first + 72 : first + 144] + good[first : first + 72] + good[first + 144 :]
    )
    with pytest.raises(CorruptSnapshot, match="chunk"):
        open_file(tmp_path).read(0, 64)


def test_another_clusters_and_a_renamed_snapshot_are_refused(tmp_path: Path) -> None:
    write_file(tmp_path, [b"x"])
    with pytest.raises(CorruptSnapshot, match="of cluster cluster, not other"):
        open_file(tmp_path, "other")
    (tmp_path / snapshot_name(7, 3)).rename(tmp_path / snapshot_name(8, 3))
    with pytest.raises(CorruptSnapshot, match="it holds 7"):
        SnapshotReader(tmp_path / snapshot_name(8, 3), FailStop(OsFiles()), "cluster")


def test_names_say_index_and_term() -> None:
    assert place_of(snapshot_name(12, 3)) == (12, 3)
    for name in ("snapshot-1-2", "snapshot.tmp", snapshot_name(1, 2) + "x", segment_name(1), "x"):
        assert place_of(name) is None


# -- the log and its snapshots --------------------------------------------------------------------------


def batch(first_index: int, last_index: int, term: int = 1) -> EntryBatch:
    return EntryBatch(
        first_index, [(term, 1, b"%04d" % index * 100) for index in range(first_index, last_index + 1)]
    )


def new_log(directory: Path) -> tuple[WriteAheadLog, Recovered]:
    if not directory.exists():
        WriteAheadLog.create(directory, OsFiles(), WHO)
    log = WriteAheadLog(directory, OsFiles(), WHO, segment_bytes=4096)
    return log, log.load()


def write(log: Storage, state: HardState | None, entries: EntryBatch | None) -> None:
    log.append(state, entries)
    log.sync()


def take(
    log: Storage, index: int, term: int = 1, content: bytes = b"", *, replaces_log: bool = False
) -> None:
    log.begin_snapshot(index, term, b"configuration %d" % index)
    log.append_snapshot(content or b"content %d" % index)
    log.commit_snapshot(replaces_log=replaces_log)


def filled(directory: Path, count: int = 60) -> WriteAheadLog:
    """A log of several segments."""
    log, _ = new_log(directory)
    for index in range(1, count + 1):
        write(log, HardState(1, "n1", index - 1), batch(index, index))
    return log


def segments(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.suffix == ".wal")


def test_compaction_releases_whole_segments_and_forgets_neither_term_nor_vote(tmp_path: Path) -> None:
    """Each segment begins with the hard state, so those before it may go."""
    log = filled(tmp_path / "wal")
    before = segments(tmp_path / "wal")
    take(log, 50)
    compact_wholly(log, 40)
    after = segments(tmp_path / "wal")
    assert len(after) < len(before) and after == before[-len(after) :] and len(after) > 1
    log.close()
    log, recovered = new_log(tmp_path / "wal")
    assert recovered.hard_state[:2] == (1, "n1")
    assert recovered.snapshot is not None and recovered.snapshot.index == 50
    assert recovered.snapshot.configuration == b"configuration 50"
    assert b"".join(snapshot_content(log, recovered.snapshot, 3)) == b"content 50"
    assert recovered.first_index <= 41 and recovered.last_index == 60 and recovered.previous_term == 1
    assert recovered.entries == batch(recovered.first_index, 60).entries
    log.close()


def test_copies_of_what_was_cut_off_go_with_their_segment(tmp_path: Path) -> None:
    """Or a node that loses its power again and again would fill its disk."""
    log = filled(tmp_path / "wal")
    names = segments(tmp_path / "wal")
    copies = [f"{name}.512.broken" for name in (names[0], names[-1])]
    for name in (*copies, "mine.broken"):
        (tmp_path / "wal" / name).write_bytes(b"rest")
    take(log, 50, 1, b"state")
    compact_wholly(log, 40)
    assert names[0] not in segments(tmp_path / "wal")
    left = {path.name for path in (tmp_path / "wal").iterdir() if path.name.endswith(".broken")}
    assert left == {copies[1], "mine.broken"}
    log.close()


def test_what_overlaps_with_the_snapshot_is_kept_and_what_comes_later_than_it_is_refused(
    tmp_path: Path,
) -> None:
    """A log that begins later than the entry after the snapshot has a gap."""
    log = filled(tmp_path / "wal")
    take(log, 30)
    take(log, 50)
    compact_wholly(log, 50, keep_snapshots=frozenset({30}))
    log.close()
    (tmp_path / "wal" / snapshot_name(50, 1)).unlink()
    with pytest.raises(CorruptLog, match="the snapshot ends at 30") as caught:
        new_log(tmp_path / "wal")
    assert caught.value.index == 31 and "add a new member" in str(caught.value)
    (tmp_path / "wal" / snapshot_name(30, 1)).unlink()
    with pytest.raises(CorruptLog, match="no good snapshot"):
        new_log(tmp_path / "wal")


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_a_damaged_snapshot_is_made_up_for_only_if_the_log_reaches_back_to_an_older_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = filled(tmp_path / "wal")
    take(log, 30)
    compact_wholly(log, 20)
    take(log, 50)
    log.close()
    damage(tmp_path / "wal" / snapshot_name(50, 1))
    log, recovered = new_log(tmp_path / "wal")
    assert recovered.snapshot is not None and recovered.snapshot.index == 30 and recovered.last_index == 60
    assert "make up for" in caplog.text and snapshot_name(50, 1) in caplog.text
    log.close()
    damage(tmp_path / "wal" / snapshot_name(30, 1))
    with pytest.raises(CorruptSnapshot, match=r"checksum|chunk") as caught:
        new_log(tmp_path / "wal")
    assert caught.value.file.name == snapshot_name(50, 1) and "add a new member" in str(caught.value)


def test_a_damaged_installed_snapshot_is_refused_even_with_an_older_one(tmp_path: Path) -> None:
    """What it stood for was acknowledged, and is nowhere else here."""
    log = filled(tmp_path / "wal")
    take(log, 30)
    write(log, HardState(2, None, 0), None)
    take(log, 90, 2, replaces_log=True)
    write(log, None, batch(91, 92, 2))
    log.close()
    damage(tmp_path / "wal" / snapshot_name(90, 2))
    with pytest.raises(CorruptSnapshot, match=r"snapshot-0+90-"):
        new_log(tmp_path / "wal")


def test_an_installed_snapshot_replaces_the_log(tmp_path: Path) -> None:
    """Raft figure 13, rule 7; and later compaction releases what it made void."""
    log = filled(tmp_path / "wal", 40)
    write(log, HardState(2, None, 0), None)
    take(log, 90, 2, replaces_log=True)
    write(log, None, batch(91, 92, 2))
    compact_wholly(log, 90)
    assert len(segments(tmp_path / "wal")) == 1
    log.close()
    log, recovered = new_log(tmp_path / "wal")
    assert (recovered.first_index, recovered.previous_term) == (91, 2)
    assert recovered.entries == batch(91, 92, 2).entries
    log.close()


def test_entries_that_replaced_some_of_released_segments(tmp_path: Path) -> None:
    """A new leader overwrote entries before they were committed; later the segments of both are compacted."""
    log = filled(tmp_path / "wal", 40)
    write(log, HardState(2, None, 0), batch(3, 50, 2))
    assert len(segments(tmp_path / "wal")) > 4
    take(log, 50, 2)
    compact_wholly(log, 50)
    log.close()
    log, recovered = new_log(tmp_path / "wal")
    assert recovered.snapshot is not None and recovered.last_index == 50
    assert {term for term, _, _ in recovered.entries} <= {2}
    log.close()


def test_drafts_are_thrown_away(tmp_path: Path) -> None:
    """A snapshot that was being written or received when the process ended is begun anew."""
    log = filled(tmp_path / "wal", 5)
    log.begin_snapshot(3, 1, b"")
    log.append_snapshot(bytes(1 << 20))
    assert (tmp_path / "wal" / DRAFT_NAME).stat().st_size >= 1 << 20
    again, recovered = new_log(tmp_path / "wal")
    assert recovered.snapshot is None and not (tmp_path / "wal" / DRAFT_NAME).exists()
    again.begin_snapshot(3, 1, b"")
    again.begin_snapshot(4, 1, b"")
    again.abandon_snapshot()
    again.abandon_snapshot()
    assert not (tmp_path / "wal" / DRAFT_NAME).exists()
    again.close()


def test_a_snapshot_of_a_term_that_the_log_never_saw_is_refused(tmp_path: Path) -> None:
    log = filled(tmp_path / "wal", 5)
    take(log, 5, 1)
    log.close()
    writer = SnapshotWriter(tmp_path / "wal", FailStop(OsFiles()), "cluster", 9, 4, b"", 64)
    writer.commit()
    with pytest.raises(CorruptLog, match="a snapshot is of term 4, in a log of term 1"):
        new_log(tmp_path / "wal")


def test_a_later_snapshot_takes_the_place_of_older_ones_but_for_those_in_use(tmp_path: Path) -> None:
    log = filled(tmp_path / "wal", 20)
    for index in (5, 10, 15):
        take(log, index)
    compact_wholly(log, 15, keep_snapshots=frozenset({10}))
    assert log.read_snapshot(10, 0, 100) == b"content 10"
    assert not (tmp_path / "wal" / snapshot_name(5, 1)).exists()
    compact_wholly(log, 15)
    assert not (tmp_path / "wal" / snapshot_name(10, 1)).exists()
    with pytest.raises(AssertionError, match="no snapshot covers 16"):
        compact_wholly(log, 16)
    log.close()


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 6), st.integers(0, 3)),
        st.tuples(st.just("snapshot"), st.integers(0, 3), st.integers(0, 3)),
        st.tuples(st.just("install"), st.integers(1, 5), st.just(0)),
        st.tuples(st.just("term"), st.integers(1, 2), st.just(0)),
        st.tuples(st.just("restart"), st.just(0), st.just(0)),
    ),
    max_size=25,
)


@given(steps)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_log_and_the_storage_in_memory_agree(
    tmp_path_factory: pytest.TempPathFactory, script: list[tuple[str, int, int]]
) -> None:
    """Appends, truncations, snapshots, installations, compactions and restarts, in any order."""
    directory = tmp_path_factory.mktemp("log") / "wal"
    memory = MemoryStorage()
    log, _ = new_log(directory)
    storages: list[Storage] = [memory, log]
    term, committed = 1, 0
    for step, first, second in script:
        known = memory.load()
        last = known.last_index
        for storage in storages:
            if step == "append":
                begin = max(committed + 1, last + 1 - second)
                write(storage, HardState(term, None, 0), batch(begin, begin + first - 1, term))
            elif step == "term":
                write(storage, HardState(term + first, None, 0), None)
            elif step == "snapshot" and last - first > committed:
                index = last - first
                take(storage, index, known.entries[index - known.first_index][0])
                storage.compact(max(0, index - second))
            elif step == "install":
                write(storage, HardState(term, None, 0), None)
                take(storage, last + first, term, replaces_log=True)
        if step == "term":
            term += first
        elif step == "snapshot" and last - first > committed:
            committed = last - first
        elif step == "install":
            committed = last + first
        elif step == "restart":
            log.close()
            log, recovered = new_log(directory)
            storages[1] = log
            assert_agree(recovered, memory, log)
    log.close()
    log, recovered = new_log(directory)
    assert_agree(recovered, memory, log)
    log.close()


def assert_agree(recovered: Recovered, memory: MemoryStorage, log: WriteAheadLog) -> None:
    """The disk may keep more of the past than memory does, or one entry less, for its term."""
    expected = memory.load()
    assert recovered.hard_state[:2] == expected.hard_state[:2]
    assert recovered.last_index == expected.last_index
    assert recovered.snapshot == expected.snapshot
    shared = max(recovered.first_index, expected.first_index)
    assert (
        recovered.entries[shared - recovered.first_index :]
        == (expected.entries[shared - expected.first_index :])
    )
    if expected.snapshot is not None:
        assert recovered.first_index <= expected.snapshot.index + 1
        assert [*snapshot_content(log, expected.snapshot)] == [*snapshot_content(memory, expected.snapshot)]


def test_the_data_directory_opens_the_same_log(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "data", "cluster", "n1")
    log = directory.open_log()
    log.load()
    write(log, HardState(1, None, 0), batch(1, 3))
    take(log, 2)
    log.close()
    directory.close()
    directory = DataDirectory(tmp_path / "data", "cluster", "n1")
    log = directory.open_log()
    snapshot = log.load().snapshot
    assert snapshot is not None and snapshot.index == 2
    log.close()
    directory.close()
