"""History and stream together: a watcher misses nothing and sees nothing twice."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore import protocol, watch_frames
from kvstore.protocol import prefix_range
from kvstore.watch_frames import stream_topic
from tests.kvstore.machine_log import Log

# ---------------------------------------------------------------- watch history

APP = prefix_range(b"/app/")


def test_history_carries_the_position_of_the_stream_at_the_same_moment() -> None:
    log = Log()
    log.put(b"/app/a", b"1")
    assert log.ask(protocol.watch_history_body(*APP)) == [0, 2, 0, 0, False, []]
    log.machine.watch_plane.subscribed([b"\x01" + stream_topic(*APP)])
    log.put(b"/app/b", b"2")
    epoch, sequence = log.machine.watch_plane.position(*APP)
    assert log.ask(protocol.watch_history_body(*APP, start_revision=2)) == [
        0,
        3,
        epoch,
        sequence,
        False,
        [[2, [[0, b"/app/a", b"1", 2, 2, 1, 0]]], [3, [[0, b"/app/b", b"2", 3, 3, 1, 0]]]],
    ]
    assert sequence == 1
    assert log.ask(protocol.watch_history_body(*APP, start_revision=50)) == [0, 3, epoch, 1, False, []]


def test_h5_history_below_the_compacted_revision_is_refused_with_that_revision() -> None:
    log = Log()
    for _ in range(50):
        log.put(b"k")
    log.machine._store.compact(42)
    result = log.ask(protocol.watch_history_body(b"k", start_revision=2))
    assert result[:2] == [protocol.COMPACTED, "required revision has been compacted"]
    oldest = result[2]
    pages = log.ask(protocol.watch_history_body(b"k", start_revision=oldest))[5]
    assert [revision for revision, _ in pages] == list(range(oldest, 52))
    assert log.ask(protocol.watch_history_body(b"k", start_revision=oldest - 1))[0] == protocol.COMPACTED
    assert log.machine.status()["compact_revision"] == oldest


def test_a_range_that_ends_before_it_begins_has_no_watch() -> None:
    """As a read it is empty; as a watch it would be silent for ever."""
    log = Log()
    log.put(b"a")
    for key, range_end in ((b"b", b"a"), (b"a", b"a")):
        history = protocol.watch_history_body(key, range_end, start_revision=1)
        assert log.ask(history) == [protocol.WATCH_RANGE_EMPTY, "watcher range is empty"]
        assert log.ask(protocol.range_body(key, range_end)) == [0, 2, 0, False, []]


def test_every_change_of_a_batch_is_published_and_in_the_history() -> None:
    """A batch is what happened to arrive together: it means nothing to a watcher."""
    log = Log()
    log.machine.watch_plane.subscribed([b"\x01" + stream_topic(*APP)])
    log.apply(*[protocol.put_body(0, 0, 0, b"/app/%d" % number, b"v") for number in range(20)])
    headers = [
        watch_frames.decode_stream_message(*frame[1:])[0] for frame in log.machine.watch_plane.announcements()
    ]
    assert [(header.sequence, header.revision) for header in headers] == [
        (number, number + 1) for number in range(1, 21)
    ]
    result = log.ask(protocol.watch_history_body(*APP, start_revision=1))
    assert [revision for revision, _ in result[5]] == list(range(2, 22))


def test_history_comes_in_pages() -> None:
    log = Log()
    for number in range(10):
        log.put(b"k", b"%d" % number)
    seen, start, more = [], 1, True
    while more:
        result = log.ask(protocol.watch_history_body(b"k", start_revision=start, limit_bytes=400))
        more = result[4]
        seen += [revision for revision, _ in result[5]]
        start = seen[-1] + 1
    assert seen == list(range(2, 12))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_h1_h2_h10_a_watcher_misses_nothing_and_sees_nothing_twice(data: st.DataObject) -> None:
    """Subscribe, then history, then what the stream says beyond it; a gap means: ask again."""
    log = Log()
    plane, topic = log.machine.watch_plane, stream_topic(*APP)
    start = data.draw(st.integers(1, 6))
    written = 0

    def write() -> None:
        nonlocal written
        for _ in range(data.draw(st.integers(0, 3))):
            key = data.draw(st.sampled_from([b"/app/a", b"/app/b", b"/other"]))
            written += 1
            if data.draw(st.booleans()):
                log.put(key, b"%d" % written)
            else:
                log.delete(key, data.draw(st.sampled_from([b"", b"\x00"])))

    write()
    wire = plane.subscribed([b"\x01" + topic])
    write()
    watcher = Watcher(log, start)
    watcher.ask()
    for _ in range(data.draw(st.integers(1, 6))):
        write()
        wire += plane.announcements() + plane.heartbeats(float(written))
        lost = data.draw(st.sets(st.integers(0, max(0, len(wire) - 1)), max_size=2))
        watcher.receive([frame for position, frame in enumerate(wire) if position not in lost])
        wire = []
    watcher.receive(plane.heartbeats(1e9))
    history = log.ask(protocol.watch_history_body(*APP, start_revision=max(start, 1), limit_bytes=1 << 20))
    assert watcher.seen == [(revision, events) for revision, events in history[5] if events]


class Watcher:
    """The shortest watcher that keeps to the protocol."""

    def __init__(self, log: Log, start_revision: int) -> None:
        self.log = log
        self.next_revision = start_revision
        self.seen: list[tuple[int, list[list[Any]]]] = []
        self.epoch = self.sequence = 0

    def ask(self) -> None:
        body = protocol.watch_history_body(*APP, start_revision=self.next_revision)
        _, _, self.epoch, self.sequence, more, pages = self.log.ask(body)
        assert not more
        for revision, events in pages:
            self.take(revision, events)

    def take(self, revision: int, events: list[list[Any]]) -> None:
        if revision >= self.next_revision and events:
            self.seen.append((revision, events))
            self.next_revision = revision + 1

    def receive(self, frames: list[list[bytes]]) -> None:
        for _, packed, body in frames:
            header, events = watch_frames.decode_stream_message(packed, body)
            if header.epoch == self.epoch and header.sequence <= self.sequence:
                continue
            if (header.epoch, header.sequence) == (self.epoch, self.sequence + 1) and events:
                self.sequence = header.sequence
                self.take(header.revision, [list(event) for event in events])
            else:
                self.ask()
