"""The write-ahead log on a real file system: what is synced is there again, and what it costs."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raft.entries import Entry, EntryBatch, HardState
from raft.files import OsFiles
from raft.record import RecordType, stored_payload
from raft.segment import (
    Identity,
    SegmentReader,
    SegmentWriter,
    decode_hard_state,
    decode_segment_header,
    encode_hard_state,
    segment_name,
)
from raft.spare import FILL_SLICE_BYTES
from raft.storage import CorruptLog, MemoryStorage, Recovered, Storage, WrongDirectory
from raft.wal import MAX_RECORD_BYTES, WriteAheadLog

WHO = Identity("cluster", "n1")


class CountingFiles(OsFiles):
    """Notes what is asked of the disk."""

    __slots__ = ("calls",)

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pwrite(self, descriptor: int, data: bytes, offset: int) -> int:
        self.calls.append(f"write {len(data)}")
        return super().pwrite(descriptor, data, offset)

    def fdatasync(self, descriptor: int) -> None:
        self.calls.append("sync")
        super().fdatasync(descriptor)


def new_log(
    directory: Path, files: OsFiles | None = None, segment_bytes: int = 1 << 20
) -> tuple[WriteAheadLog, Recovered]:
    files = files or OsFiles()
    if not directory.exists():
        WriteAheadLog.create(directory, files, WHO)
    log = WriteAheadLog(directory, files, WHO, segment_bytes=segment_bytes)
    return log, log.load()


def settle(log: WriteAheadLog, files: CountingFiles) -> None:
    """Until the reserve is made, and each turn costs what it costs ever after."""
    while True:
        files.calls.clear()
        log.check_space()
        if not files.calls:
            return


def batch(first_index: int, *bodies: bytes, term: int = 1) -> EntryBatch:
    return EntryBatch(first_index, [(term, 1, body) for body in bodies])


def bodies(recovered: Recovered) -> list[bytes]:
    return [body for _, _, body in recovered.entries]


def write(log: Storage, state: HardState | None, entries: EntryBatch | None) -> None:
    log.append(state, entries)
    log.sync()


def test_a_new_log_is_empty(tmp_path: Path) -> None:
    log, recovered = new_log(tmp_path / "wal")
    assert recovered == Recovered(HardState(0, None, 0), 1, [])
    log.close()


def test_what_is_synced_is_there_after_a_restart(tmp_path: Path) -> None:
    """Dissertation 3.8: term, vote and entries survive."""
    log, _ = new_log(tmp_path / "wal")
    entries: list[Entry] = [(1, 0, b""), (1, 1, b"a" * 1000), (2, 2, b"\0" * 3000)]
    write(log, HardState(2, "n2", 1), EntryBatch(1, entries))
    log.close()
    log, recovered = new_log(tmp_path / "wal")
    assert recovered == Recovered(HardState(2, "n2", 1), 1, entries)
    write(log, HardState(3, None, 3), batch(4, b"more", term=3))
    log.close()
    _, recovered = new_log(tmp_path / "wal")
    assert recovered == Recovered(HardState(3, None, 3), 1, [*entries, (3, 1, b"more")])


def test_what_is_not_synced_is_not_promised(tmp_path: Path) -> None:
    log, _ = new_log(tmp_path / "wal")
    write(log, HardState(1, "n1", 0), batch(1, b"kept"))
    log.append(None, batch(2, b"never synced"))
    _, recovered = new_log(tmp_path / "wal")
    assert bodies(recovered) == [b"kept"]


def test_closing_keeps_what_was_appended(tmp_path: Path) -> None:
    log, _ = new_log(tmp_path / "wal")
    log.append(HardState(1, None, 0), batch(1, b"a"))
    log.close()
    log.close()
    assert bodies(new_log(tmp_path / "wal")[1]) == [b"a"]


def test_a_batch_below_the_last_index_replaces_what_follows(tmp_path: Path) -> None:
    """Raft §5.3: entries that conflict go, with all that follow them."""
    log, _ = new_log(tmp_path / "wal")
    write(log, HardState(1, None, 0), batch(1, b"1", b"2", b"3", b"4"))
    write(log, HardState(2, None, 0), batch(3, b"three", term=2))
    write(log, None, batch(4, b"four", term=2))
    log.close()
    log, recovered = new_log(tmp_path / "wal")
    assert bodies(recovered) == [b"1", b"2", b"three", b"four"]
    write(log, HardState(3, None, 0), batch(1, b"one", term=3))
    log.close()
    assert new_log(tmp_path / "wal")[1].entries == [(3, 1, b"one")]


def test_no_stale_bytes_come_back_after_a_shorter_log(tmp_path: Path) -> None:
    """Write ten, truncate to five, write one, open again."""
    log, _ = new_log(tmp_path / "wal")
    for index in range(1, 11):
        write(log, HardState(1, None, 0), batch(index, b"old %d" % index * 50))
    write(log, HardState(2, None, 0), batch(6, b"new", term=2))
    log.close()
    _, recovered = new_log(tmp_path / "wal")
    assert len(recovered.entries) == 6
    assert recovered.entries[5] == (2, 1, b"new")


def test_a_turn_costs_one_write_and_one_sync(tmp_path: Path) -> None:
    files = CountingFiles()
    log, _ = new_log(tmp_path / "wal", files)
    write(log, HardState(1, "n1", 0), batch(1, b"x"))
    settle(log, files)
    log.append(HardState(2, "n1", 0), batch(2, b"x" * 600))
    log.append(HardState(2, "n1", 1), batch(3, b"y" * 600))
    assert files.calls == []
    log.sync()
    assert [call.split()[0] for call in files.calls] == ["write", "sync"]


def test_a_commit_index_alone_costs_nothing_and_goes_along_with_the_next_record(tmp_path: Path) -> None:
    files = CountingFiles()
    log, _ = new_log(tmp_path / "wal", files)
    write(log, HardState(1, "n1", 0), batch(1, b"x", b"y"))
    settle(log, files)
    write(log, HardState(1, "n1", 1), None)
    write(log, HardState(1, "n1", 2), None)
    assert files.calls == []
    write(log, None, batch(3, b"z"))
    assert len(files.calls) == 2
    _, recovered = new_log(tmp_path / "wal")
    assert recovered.hard_state == HardState(1, "n1", 2)


def test_a_term_or_a_vote_alone_is_written(tmp_path: Path) -> None:
    """Both are on disk, in one record, when sync() returns."""
    for state in (HardState(5, None, 0), HardState(5, "n3", 0)):
        log, _ = new_log(tmp_path / "wal")
        write(log, state, None)
        assert new_log(tmp_path / "wal")[1].hard_state == state


def test_a_node_cannot_go_back_on_its_word(tmp_path: Path) -> None:
    """A lower term, or a second vote in a term, never gets as far as the disk."""
    log, _ = new_log(tmp_path / "wal")
    write(log, HardState(5, "n1", 0), None)
    for state in (HardState(4, "n1", 0), HardState(5, "n2", 0), HardState(5, None, 0)):
        with pytest.raises(AssertionError, match="cannot follow"):
            log.append(state, None)
    with pytest.raises(AssertionError, match="cannot follow"):
        log.append(None, batch(2, b"leaves a gap"))
    with pytest.raises(AssertionError, match="ahead of term"):
        log.append(None, batch(1, b"x", term=6))


def test_a_commit_index_never_leads(tmp_path: Path) -> None:
    """Of a turn the hard state may be on disk without the entries behind it."""
    log, _ = new_log(tmp_path / "wal")
    write(log, HardState(1, None, 0), batch(1, b"a"))
    write(log, HardState(2, None, 9), None)
    assert new_log(tmp_path / "wal")[1].hard_state == HardState(2, None, 1)


def fill_segments(directory: Path, count: int = 40) -> list[bytes]:
    log, _ = new_log(directory, segment_bytes=4096)
    written = [b"%04d" % index * 100 for index in range(1, count + 1)]
    for index, body in enumerate(written, 1):
        term = 1 + index // 10
        write(log, HardState(term, f"n{term}", index - 1), batch(index, body, term=term))
    log.close()
    return written


def test_a_log_of_many_segments_is_read_as_one(tmp_path: Path) -> None:
    written = fill_segments(tmp_path / "wal")
    names = sorted(path.name for path in (tmp_path / "wal").glob("*.wal"))
    assert names == [segment_name(sequence) for sequence in range(1, len(names) + 1)]
    assert len(names) > 3
    _, recovered = new_log(tmp_path / "wal", segment_bytes=4096)
    assert bodies(recovered) == written
    assert recovered.hard_state == HardState(5, "n5", 39)


def test_each_segment_begins_with_the_hard_state_of_its_time(tmp_path: Path) -> None:
    """An earlier segment can go without taking the term and the vote along."""
    fill_segments(tmp_path / "wal")
    for path in sorted((tmp_path / "wal").glob("*.wal"))[1:]:
        data = path.read_bytes()
        header = decode_segment_header(data)
        assert not isinstance(header, str)
        _, kind, payload = next(SegmentReader(data, header).records())
        state = decode_hard_state(payload)
        assert kind == RecordType.HARD_STATE and state is not None
        term = 1 + header.first_index // 10
        assert state[:2] == (term, f"n{term}")


def test_segments_are_filled_before_they_are_written_to(tmp_path: Path) -> None:
    """A sync need not wait for the file system's journal: no file grows by a record."""
    log, _ = new_log(tmp_path / "wal", segment_bytes=1 << 16)
    index = 1
    for _ in range(300):
        newest = max((tmp_path / "wal").glob("*.wal"))
        size_bytes = newest.stat().st_size
        write(log, HardState(1, None, 0), batch(index, b"x" * 700))
        assert newest.stat().st_size == size_bytes
        index += 1
    sizes = [path.stat().st_size for path in sorted((tmp_path / "wal").glob("*.wal"))]
    assert len(sizes) > 3 and set(sizes[1:]) == {1 << 16}
    log.close()
    assert not (tmp_path / "wal" / "next.tmp").exists()


def test_no_turn_waits_for_the_next_segment_to_be_filled(tmp_path: Path) -> None:
    files = CountingFiles()
    log, _ = new_log(tmp_path / "wal", files, segment_bytes=4 << 20)
    write(log, HardState(1, None, 0), None)
    for index in range(1, 61):
        files.calls.clear()
        segments = len(list((tmp_path / "wal").glob("*.wal")))
        log.append(HardState(1, None, 0), batch(index, b"x" * 65_536))
        if len(list((tmp_path / "wal").glob("*.wal"))) > segments:
            # The head of the segment, the seal of the one before, and nothing else.
            assert files.calls == ["write 576", "sync", "write 64", "sync"]
        log.sync()
        assert files.calls.count(f"write {FILL_SLICE_BYTES}") <= 1
    assert len(list((tmp_path / "wal").glob("*.wal"))) == 4
    log.close()


def test_a_record_longer_than_a_segment_has_room(tmp_path: Path) -> None:
    log, _ = new_log(tmp_path / "wal", segment_bytes=4096)
    for index in range(1, 5):
        write(log, HardState(1, None, 0), batch(index, bytes([index]) * 20_000))
    log.close()
    assert bodies(new_log(tmp_path / "wal")[1]) == [bytes([index]) * 20_000 for index in range(1, 5)]


def test_a_batch_longer_than_a_record_is_cut(tmp_path: Path) -> None:
    """Between two syncs no more is written than recovery is prepared to see torn."""
    log, _ = new_log(tmp_path / "wal")
    big = batch(1, *(b"%06d" % index * 100_000 for index in range(40)), b"last")
    assert big.size_bytes > 2 * MAX_RECORD_BYTES
    write(log, HardState(1, None, 0), big)
    log.close()
    assert new_log(tmp_path / "wal")[1].entries == big.entries


def test_an_empty_batch_is_nothing(tmp_path: Path) -> None:
    files = CountingFiles()
    log, _ = new_log(tmp_path / "wal", files)
    files.calls.clear()
    write(log, None, EntryBatch(1, []))
    assert files.calls == []
    log.close()


def test_creating_a_log_again_is_harmless_only_while_it_is_empty(tmp_path: Path) -> None:
    WriteAheadLog.create(tmp_path / "wal", OsFiles(), WHO)
    WriteAheadLog.create(tmp_path / "wal", OsFiles(), WHO)
    log, _ = new_log(tmp_path / "wal")
    write(log, HardState(1, "n1", 0), None)
    log.close()
    with pytest.raises(WrongDirectory):
        WriteAheadLog.create(tmp_path / "wal", OsFiles(), WHO)
    assert new_log(tmp_path / "wal")[1].hard_state == HardState(1, "n1", 0)


def refusal(directory: Path, identity: Identity = WHO) -> CorruptLog:
    with pytest.raises(CorruptLog) as caught:
        WriteAheadLog(directory, OsFiles(), identity).load()
    assert caught.value.remedy in str(caught.value)
    assert f"{caught.value.file} at byte {caught.value.offset}" in str(caught.value)
    return caught.value


def test_a_log_without_segments_is_lost_and_not_new(tmp_path: Path) -> None:
    """A node that forgot its votes must not vote again under its old id."""
    fill_segments(tmp_path / "wal")
    for path in (tmp_path / "wal").iterdir():
        path.unlink()
    assert "no segment" in refusal(tmp_path / "wal").reason


def test_missing_segments_are_missed(tmp_path: Path) -> None:
    """The first one, and one in the middle."""
    fill_segments(tmp_path / "wal")
    second = tmp_path / "wal" / segment_name(2)
    saved = second.read_bytes()
    second.unlink()
    error = refusal(tmp_path / "wal")
    assert (error.file, error.reason) == (second, "this segment is missing")
    header = decode_segment_header(saved)
    assert not isinstance(header, str) and error.index == header.first_index
    second.write_bytes(saved)
    (tmp_path / "wal" / segment_name(1)).unlink()
    error = refusal(tmp_path / "wal")
    assert (error.file, error.index) == (second, 1) and "no good snapshot covers that" in error.reason


def test_segments_under_wrong_names_are_seen(tmp_path: Path) -> None:
    """Two that changed places, and a copy of one."""
    fill_segments(tmp_path / "wal")
    second, third = tmp_path / "wal" / segment_name(2), tmp_path / "wal" / segment_name(3)
    two, three = second.read_bytes(), third.read_bytes()
    second.write_bytes(three)
    third.write_bytes(two)
    assert "sequence" in refusal(tmp_path / "wal").reason
    second.write_bytes(two)
    assert "sequence" in refusal(tmp_path / "wal").reason


def test_a_segment_of_another_history_is_seen(tmp_path: Path) -> None:
    """What one log continues, another does not."""
    fill_segments(tmp_path / "wal")
    fill_segments(tmp_path / "other", 39)
    log, _ = new_log(tmp_path / "third", segment_bytes=4096)
    for index in range(1, 41):
        write(log, HardState(1, "n1", 0), batch(index, b"%04d" % index * 100))
    log.close()
    (tmp_path / "wal" / segment_name(3)).write_bytes((tmp_path / "third" / segment_name(3)).read_bytes())
    error = refusal(tmp_path / "wal")
    assert error.file.name == segment_name(3) and "link" in error.reason


def test_a_segment_that_lost_its_last_records_is_seen(tmp_path: Path) -> None:
    """A gap across segments."""
    fill_segments(tmp_path / "wal")
    first = tmp_path / "wal" / segment_name(1)
    data = first.read_bytes()
    for keep in (576, 1100):
        first.write_bytes(data[:keep])
        assert refusal(tmp_path / "wal").file.name in (segment_name(1), segment_name(2))


@pytest.mark.parametrize("identity", [Identity("other", "n1"), Identity("cluster", "n2")])
def test_the_log_of_another_node_is_refused(tmp_path: Path, identity: Identity) -> None:
    fill_segments(tmp_path / "wal", 1)
    error = refusal(tmp_path / "wal", identity)
    assert "identity" in error.reason and error.offset == 0


STATE = RecordType.HARD_STATE
ENTRIES = RecordType.ENTRIES


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ([(STATE, encode_hard_state(HardState(4, None, 0)))], "cannot follow"),
        ([(STATE, encode_hard_state(HardState(5, "n2", 0)))], "cannot follow"),
        ([(STATE, encode_hard_state(HardState(5, None, 0)))], "cannot follow"),
        ([(STATE, b"?")], "cannot follow"),
        ([(ENTRIES, batch(2, b"gap").encode())], "cannot follow entry 0"),
        ([(ENTRIES, EntryBatch(1, []).encode())], "cannot follow entry 0"),
        ([(ENTRIES, b"?")], "holds no entries"),
        ([(ENTRIES, batch(1, b"x", term=6).encode())], "log of term 5"),
        ([(ENTRIES, batch(1, b"x", term=3).encode()), (ENTRIES, batch(2, b"y").encode())], "follow term 3"),
        ([(9, b"")], "type 9"),
    ],
)
def test_intact_records_that_cannot_be_are_refused(
    tmp_path: Path, records: list[tuple[int, bytes]], reason: str
) -> None:
    """A checksum says that a record is as it was written, not that it should have been."""
    writer, data = SegmentWriter.begin(WHO, 1, 1, 0, HardState(5, "n1", 0), 512)
    for kind, payload in records:
        at = writer.end
        data += b"".join(writer.encode(kind, stored_payload(payload)))
    (tmp_path / segment_name(1)).write_bytes(data)
    error = refusal(tmp_path)
    assert reason in error.reason and error.offset == at


def test_an_unfinished_write_is_cut_off_and_a_copy_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log, _ = new_log(tmp_path / "wal")
    write(log, HardState(1, None, 0), batch(1, b"a"))
    log.close()
    path = tmp_path / "wal" / segment_name(1)
    good = path.read_bytes().rstrip(b"\0")
    log, _ = new_log(tmp_path / "wal")
    write(log, None, batch(2, b"torn" * 500))
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: len(good) + 1000].ljust(size, b"\0"))
    with caplog.at_level(logging.WARNING):
        log, recovered = new_log(tmp_path / "wal")
    assert bodies(recovered) == [b"a"]
    copy = tmp_path / "wal" / f"{path.name}.{len(good)}.broken"
    assert copy.stat().st_size == 1000
    assert path.stat().st_size == size and path.read_bytes().rstrip(b"\0") == good
    assert "unfinished write cut off" in caplog.text and copy.name in caplog.text
    write(log, None, batch(2, b"next"))
    log.close()
    caplog.clear()
    assert bodies(new_log(tmp_path / "wal")[1]) == [b"a", b"next"]
    assert "cut off" not in caplog.text


changes = st.lists(
    st.tuples(
        st.integers(0, 2),  # terms forward
        st.integers(0, 4),  # entries back
        st.lists(st.binary(max_size=300), max_size=4),
        st.sampled_from(["nothing", "sync", "restart"]),
    ),
    max_size=15,
)


@given(changes)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_log_and_a_list_in_memory_agree(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[int, int, list[bytes], str]],
) -> None:
    """Whatever is written, with restarts between, comes back as from the storage that has no disk."""
    directory = tmp_path_factory.mktemp("log") / "wal"
    memory = MemoryStorage()
    log, recovered = new_log(directory, segment_bytes=4096)
    term, last = 0, 0
    for forward, back, new, then in steps:
        term += forward
        state = HardState(term, None, 0)
        first = max(1, last + 1 - back)
        entries = batch(first, *new, term=term) if new and term else None
        for storage in (memory, log):
            storage.append(state, entries)
        last = entries.last_index if entries else last
        if then != "nothing":
            memory.sync()
            log.sync()
        if then == "restart":
            log.close()
            log, recovered = new_log(directory, segment_bytes=4096)
            assert recovered == memory.load()
    log.close()


def test_memory_storage_forgets_what_was_not_synced() -> None:
    memory = MemoryStorage()
    write(memory, HardState(1, "n1", 0), batch(1, b"a", b"b"))
    memory.append(HardState(2, None, 0), batch(2, b"lost", term=2))
    assert memory.load() == Recovered(HardState(1, "n1", 0), 1, [(1, 1, b"a"), (1, 1, b"b")])
    memory.sync()
    assert memory.load().hard_state.term == 1
    with pytest.raises(AssertionError, match="gap"):
        write(memory, None, batch(4, b"gap"))
    memory.append(None, batch(3, b"closed"))
    memory.close()
    memory.sync()
    assert memory.load().last_index == 2
