"""Saving a snapshot: which node is asked, what is believed, and what is left of it when it breaks off."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import msgpack
import pytest

from kvstore import protocol
from kvstore.backup_file import BackupRefused, reading
from kvstore.client.cluster import BlockingCluster
from kvstore.client.errors import SnapshotBroken, SnapshotDamaged
from kvstore.client.saving import Ask, SavedSnapshot, drive, drive_async, save_steps
from kvstore.errors import (
    AssentError,
    BadFrame,
    DeadlineExceeded,
    NoLeader,
    NotMember,
    Overloaded,
    SnapshotGone,
    Unreachable,
)
from kvstore.protocol_snapshot import (
    SLICE_BYTES,
    Close,
    Open,
    Opened,
    Pending,
    Read,
    Slice,
    SnapshotRequest,
    decode_snapshot_request,
)
from kvstore.sessions import Sessions
from kvstore.state_machine import StoreMachine
from kvstore.watch_plane import WatchPlane
from raft.snapshot import CHUNK_BYTES
from raft.snapshot_streams import STREAM_SLICE_BYTES

A, B = "tcp://127.0.0.1:1", "tcp://127.0.0.1:2"


def some_content() -> bytes:
    """Of a store with five keys at revision 6, in three slices."""
    machine = StoreMachine(WatchPlane(1), sessions=Sessions())
    for number in range(5):
        machine.apply(number + 1, [protocol.put_body(0, 0, 0, b"k%d" % number, bytes(150_000))])
    content = b"".join(machine.snapshot())
    assert 2 * SLICE_BYTES < len(content) < 3 * SLICE_BYTES
    return content


CONTENT = some_content()


class Nodes:
    """Answers questions, at both endpoints alike; `fault` may answer in its place. Owned by one test."""

    def __init__(self, content: bytes = CONTENT) -> None:
        self.content = content
        self.asked: list[tuple[str, SnapshotRequest]] = []
        self.fault: Callable[[str, SnapshotRequest], object] = lambda endpoint, request: None
        self.seconds = 0.0

    def answer(self, endpoint: str, request: SnapshotRequest) -> Any:
        match request:
            case Open():
                return Opened("n1", "00ff", 5, 2, len(self.content), crc32(self.content), b"{}")
            case Read(_, offset):
                data = self.content[offset : offset + SLICE_BYTES]
                return Slice(offset, crc32(data), data)

    def ask(self, one: Ask) -> Any:
        request = decode_snapshot_request(one.call.body)
        self.asked.append((one.endpoint, request))
        self.seconds += 0.001
        found = self.fault(one.endpoint, request)
        if isinstance(found, DeadlineExceeded):
            self.seconds += one.timeout_seconds
        if isinstance(found, AssentError):
            raise found
        return self.answer(one.endpoint, request) if found is None else found

    def wait(self, seconds: float) -> None:
        self.seconds += seconds

    def save(self, sink: Callable[[bytes], object], *endpoints: str, progress: Any = None) -> SavedSnapshot:
        steps = save_steps(
            endpoints or (A,), sink, timeout_seconds=5.0, now=lambda: self.seconds, on_progress=progress
        )
        return drive(steps, self.ask, self.wait)

    def kinds(self) -> list[tuple[str, str]]:
        return [(endpoint, type(request).__name__) for endpoint, request in self.asked]


def test_slices_have_the_size_of_chunks_everywhere() -> None:
    assert SLICE_BYTES == CHUNK_BYTES == STREAM_SLICE_BYTES


def test_a_snapshot_is_saved_as_a_snapshot_file(tmp_path: Path) -> None:
    nodes, told = Nodes(), list[tuple[int, int]]()
    path = tmp_path / "f"
    with path.open("wb") as file:
        saved = nodes.save(file.write, progress=lambda *how_far: told.append(how_far))
    size = len(CONTENT)
    assert saved == SavedSnapshot("00ff", "n1", 5, 2, 6, 5, size, crc32(CONTENT), path.stat().st_size)
    with reading(path) as reader:
        assert reader.read(0, size) == CONTENT and reader.header.cluster_id == "00ff"
        assert reader.meta == (5, 2, b"{}", size, crc32(CONTENT))
    assert told == [(SLICE_BYTES, size), (2 * SLICE_BYTES, size), (size, size)]
    assert nodes.kinds() == [(A, kind) for kind in ("Open", "Read", "Read", "Read", "Close")]
    assert len({request.nonce for _, request in nodes.asked}) == 1


def test_it_waits_for_the_snapshot_however_long_it_takes() -> None:
    nodes, told = Nodes(), list[tuple[int, int]]()
    left = [Pending(number) for number in range(50)]

    def fault(endpoint: str, request: SnapshotRequest) -> object:
        nodes.seconds += 0.5
        return left.pop(0) if left and isinstance(request, Open) else None

    nodes.fault = fault
    nodes.save(lambda data: None, A, B, progress=lambda *how_far: told.append(how_far))
    assert told[:50] == [(number, 0) for number in range(50)]
    assert {endpoint for endpoint, _ in nodes.asked} == {A}


def stuck_at(nodes: Nodes, stuck: str, written_bytes: int = 7) -> None:
    """This node is asked for a snapshot, and gets no further with it."""

    def fault(endpoint: str, request: SnapshotRequest) -> object:
        assert len(nodes.asked) < 1000, "it waits for ever"
        if endpoint != stuck or not isinstance(request, Open):
            return None
        nodes.seconds += 0.5
        return Pending(written_bytes)

    nodes.fault = fault


@pytest.mark.parametrize("written_bytes", [0, 7])
def test_a_node_that_gets_no_further_with_its_snapshot_is_given_up(written_bytes: int) -> None:
    """A follower that was cut off never has all that it is to have; each of its answers was a reason to wait
    for the next one, for ever."""
    nodes = Nodes()
    stuck_at(nodes, A, written_bytes)
    with pytest.raises(SnapshotBroken) as caught:
        nodes.save(lambda data: None)
    assert isinstance(caught.value.cause, DeadlineExceeded) and 5.0 <= nodes.seconds < 7.0
    assert nodes.kinds()[-1] == (A, "Close")  # nothing is kept for it


def test_another_node_is_asked_if_the_first_gets_no_further() -> None:
    nodes = Nodes()
    stuck_at(nodes, A)
    written: list[bytes] = []
    nodes.save(written.append, A, B)
    assert nodes.kinds()[-6:] == [(A, "Close"), (B, "Open"), *[(B, "Read")] * 3, (B, "Close")]
    assert len(written) == 4 and nodes.seconds < 7.0


@pytest.mark.parametrize("cause", [Unreachable((A,)), SnapshotGone("full"), DeadlineExceeded("")], ids=repr)
def test_another_node_is_asked_if_the_first_breaks_off_before_it_has_begun(cause: AssentError) -> None:
    """Nothing of its snapshot was written yet."""
    nodes = Nodes()
    answers: list[object] = [Pending(1), cause]
    nodes.fault = lambda endpoint, _: answers.pop(0) if answers and endpoint == A else None
    nodes.save(lambda data: None, A, B)
    assert nodes.kinds()[:4] == [(A, "Open"), (A, "Open"), (A, "Close"), (B, "Open")]


def test_of_a_node_that_gets_no_further_and_one_that_is_gone_the_first_is_told_of() -> None:
    nodes = Nodes()
    stuck_at(nodes, A)
    of_a = nodes.fault
    nodes.fault = lambda endpoint, request: Unreachable((B,)) if endpoint == B else of_a(endpoint, request)
    with pytest.raises(SnapshotBroken) as caught:
        nodes.save(lambda data: None, A, B)
    assert caught.value.endpoint == A


@pytest.mark.parametrize(
    "reason",
    [
        Unreachable((A,)),
        NoLeader(""),
        NotMember(""),
        Overloaded(""),
        DeadlineExceeded(""),
        SnapshotGone("full"),
    ],
    ids=lambda reason: type(reason).__name__,
)
def test_another_node_is_asked_if_the_first_cannot_open_one(reason: AssentError) -> None:
    nodes = Nodes()
    nodes.fault = lambda endpoint, request: reason if endpoint == A else None
    nodes.save(lambda data: None, A, B)
    assert nodes.kinds()[:2] == [(A, "Open"), (B, "Open")] and nodes.seconds < 3.0


def test_nodes_are_asked_until_the_time_is_over_and_the_best_reason_is_told() -> None:
    nodes = Nodes()
    nodes.fault = lambda endpoint, request: NoLeader("none") if endpoint == A else Unreachable((B,))
    with pytest.raises(NoLeader):
        nodes.save(lambda data: None, A, B)
    assert 5.0 <= nodes.seconds < 6.0 and len(nodes.asked) > 10


def test_what_does_not_pass_is_told_at_once() -> None:
    nodes = Nodes()
    nodes.fault = lambda endpoint, request: BadFrame("an older node")
    with pytest.raises(BadFrame):
        nodes.save(lambda data: None, A, B)
    assert len(nodes.asked) == 1


@pytest.mark.parametrize("cause", [Unreachable((A,)), SnapshotGone(""), DeadlineExceeded("")], ids=repr)
def test_a_node_that_ceases_to_answer_is_not_made_up_for_by_another(
    tmp_path: Path, cause: AssentError
) -> None:
    """What another node has is another snapshot."""
    nodes = Nodes()

    def fault(endpoint: str, request: SnapshotRequest) -> object:
        return cause if isinstance(request, Read) and request.offset else None

    nodes.fault = fault
    written: list[bytes] = []
    with pytest.raises(SnapshotBroken) as caught:
        nodes.save(written.append, A, B)
    assert (caught.value.read_bytes, caught.value.size_bytes) == (SLICE_BYTES, len(CONTENT))
    assert caught.value.cause is cause and f"{A} broke off after" in str(caught.value)
    assert {endpoint for endpoint, _ in nodes.asked} == {A}


def test_a_reader_among_many_waits_for_its_turn() -> None:
    nodes = Nodes()
    refusals = [Overloaded("")] * 3
    nodes.fault = lambda _, request: refusals.pop() if refusals and isinstance(request, Read) else None
    nodes.save(lambda data: None)
    nodes.fault = lambda _, request: Overloaded("") if isinstance(request, Read) else None
    with pytest.raises(SnapshotBroken):
        nodes.save(lambda data: None)


DATA = CONTENT[:SLICE_BYTES]


@pytest.mark.parametrize(
    "piece",
    [
        Slice(0, crc32(DATA) ^ 1, DATA),
        Slice(1, crc32(DATA), DATA),
        Slice(0, crc32(DATA[:-1]), DATA[:-1]),
        Slice(0, 0, b""),
        Slice(0, crc32(b"!" + DATA[1:]), b"!" + DATA[1:]),
        Slice(0, crc32(DATA[:-1] + b"!"), DATA[:-1] + b"!"),
    ],
    ids=["checksum", "offset", "short", "empty", "content", "whole"],
)
def test_what_is_not_what_the_node_said_is_not_believed(tmp_path: Path, piece: Slice) -> None:
    nodes = Nodes()
    nodes.fault = lambda _, request: piece if isinstance(request, Read) and not request.offset else None
    with pytest.raises(SnapshotDamaged):
        nodes.save(lambda data: None)


def test_content_of_no_store_is_not_believed() -> None:
    with pytest.raises(SnapshotDamaged):
        Nodes(msgpack.packb(["another state machine"])).save(lambda data: None)
    with pytest.raises(SnapshotDamaged):
        Nodes(b"").save(lambda data: None)


def test_a_lost_answer_to_close_is_no_failure() -> None:
    nodes = Nodes()
    nodes.fault = lambda _, request: DeadlineExceeded("") if isinstance(request, Close) else None
    nodes.save(lambda data: None)


def cluster_of(nodes: Nodes) -> BlockingCluster:
    def ask(call: Any, timeout_seconds: float | None) -> Any:
        raise AssertionError("nobody is asked for the membership")

    return BlockingCluster(ask, lambda *one: nodes.ask(Ask(*one)), (A,))


def test_a_path_has_a_whole_file_or_none(tmp_path: Path) -> None:
    nodes = Nodes()
    cluster = cluster_of(nodes)
    nodes.fault = lambda _, request: Unreachable((A,)) if isinstance(request, Read) else None
    with pytest.raises(SnapshotBroken):
        cluster.save_snapshot(tmp_path / "f")
    assert list(tmp_path.iterdir()) == []
    nodes.fault = lambda endpoint, request: None
    saved = cluster.save_snapshot(str(tmp_path / "f"))
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").stat().st_size == saved.file_bytes
    asked = len(nodes.asked)
    with pytest.raises(BackupRefused):
        cluster.save_snapshot(tmp_path / "f")
    assert len(nodes.asked) == asked  # refused before anybody was asked
    buffer = io.BytesIO()
    cluster.save_snapshot(buffer, endpoint=B)
    assert buffer.getvalue() == (tmp_path / "f").read_bytes()
    assert {endpoint for endpoint, _ in nodes.asked[asked:]} == {B}


def test_the_asyncio_face_takes_the_same_steps() -> None:
    nodes = Nodes()
    refusals = [Overloaded("")]
    nodes.fault = lambda _, request: refusals.pop() if refusals and isinstance(request, Read) else None

    async def ask(one: Ask) -> Any:
        return nodes.ask(one)

    async def wait(seconds: float) -> None:
        nodes.wait(seconds)

    async def main() -> SavedSnapshot:
        steps = save_steps(
            (A,), lambda data: None, timeout_seconds=5.0, now=lambda: nodes.seconds, on_progress=None
        )
        return await drive_async(steps, ask, wait)

    assert asyncio.run(main()).keys == 5
