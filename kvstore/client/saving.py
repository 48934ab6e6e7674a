"""Snapshots of the cluster, saved or just taken: which questions to ask of which node, what to believe.

May know: calls, the protocol's bodies and the layout of a snapshot file; no socket, clock or thread. The
steps are a generator, which both faces of the client drive: it yields what to ask, gets the answer or the
error, and hands what is to be written to a sink, in order. Nothing is believed before its checksum is right.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, TypeVar
from zlib import crc32

from kvstore.backup_file import BackupFile
from kvstore.client.calls import Call
from kvstore.client.errors import SnapshotBroken, SnapshotDamaged, SnapshotOfLaterVersion
from kvstore.errors import AssentError, DeadlineExceeded, Overloaded, SnapshotGone, Unreachable
from kvstore.protocol import NONCE_BYTES, SNAPSHOT
from kvstore.protocol_snapshot import (
    SLICE_BYTES,
    Close,
    Open,
    Opened,
    Pending,
    Read,
    Slice,
    SnapshotRequest,
    decode_closed,
    decode_opened,
    decode_slice,
    encode_snapshot_request,
)
from kvstore.snapshots import FORMAT_VERSION, Contents, CorruptState, UnknownState, contents_of
from raft.entries import SnapshotMeta
from raft.snapshot import SnapshotHeader, encode_chunk

ATTEMPT_SECONDS: Final = 2.0  # for a node to answer at all, while there are others to try
PAUSE_SECONDS: Final = 0.05
CLOSE_SECONDS: Final = 1.0
_DECODERS: Final[dict[type, Callable[[list[Any]], Any]]] = {
    Open: decode_opened,
    Read: decode_slice,
    Close: decode_closed,
}

Sink = Callable[[bytes], object]
Progress = Callable[[int, int], None]
"""Called with the bytes so far and their number in all; that is 0 while the node still takes the snapshot."""


class SavedSnapshot(NamedTuple):
    """What a snapshot file holds. Put and delete count revisions, entries of the log count indexes."""

    cluster_id: str
    node: str  # that it was read from
    log_index: int
    term: int
    revision: int
    keys: int
    size_bytes: int  # of the content
    checksum: int  # CRC-32 of the content
    file_bytes: int


class TakenSnapshot(NamedTuple):
    """One that a node has on its disk: of its log nothing is needed any more up to `log_index`."""

    cluster_id: str
    node: str
    log_index: int
    term: int
    size_bytes: int


class Ask(NamedTuple):
    """One question to the node at this endpoint."""

    endpoint: str
    call: Call
    timeout_seconds: float


class Wait(NamedTuple):
    """A pause before the next question."""

    seconds: float


def snapshot_call(request: SnapshotRequest) -> Call:
    """To be pinned to a node: each has snapshots of its own."""
    body = encode_snapshot_request(request)
    call = Call(SNAPSHOT, _DECODERS[type(request)], len(body))
    call.body = body
    return call


Outcome = TypeVar("Outcome")
Steps = Generator[Ask | Wait, Any, Outcome]


def save_steps(
    endpoints: tuple[str, ...],
    sink: Sink,
    *,
    timeout_seconds: float,
    now: Callable[[], float],
    on_progress: Progress | None,
) -> Steps[SavedSnapshot]:
    """`timeout_seconds` is for a node to open a snapshot at all, while it takes one for getting any further
    with that, and then for each of its answers."""
    tell = on_progress if on_progress is not None else _tell_nobody
    nonce = secrets.token_bytes(NONCE_BYTES)
    endpoint, opened = yield from _open(endpoints, nonce, timeout_seconds, now, tell)
    read_bytes = 0
    try:
        header = _header_of(opened)
        sink(header.encode())
        file_bytes = len(header.encode())
        contents: Contents | None = None
        checksum = 0
        for number in range(-(-opened.size_bytes // SLICE_BYTES)):
            data = yield from _slice(endpoint, opened, nonce, read_bytes, timeout_seconds, now)
            contents = contents or _contents(endpoint, data)
            chunk = encode_chunk(header.meta, number, data)
            sink(chunk)
            checksum = crc32(data, checksum)
            read_bytes += len(data)
            file_bytes += len(chunk)
            tell(read_bytes, opened.size_bytes)
        if checksum != opened.checksum or contents is None:
            raise SnapshotDamaged(endpoint, "the checksum of the whole is wrong")
    except (SnapshotDamaged, SnapshotBroken, SnapshotOfLaterVersion):
        raise
    except AssentError as error:
        raise SnapshotBroken(endpoint, read_bytes, opened.size_bytes, error) from error
    yield from _close(endpoint, nonce)
    return SavedSnapshot(
        opened.cluster_id,
        opened.node,
        opened.log_index,
        opened.term,
        contents.revision,
        contents.keys,
        read_bytes,
        checksum,
        file_bytes,
    )


def take_steps(endpoint: str, *, timeout_seconds: float, now: Callable[[], float]) -> Steps[TakenSnapshot]:
    """The node there takes one, or has one that is no older than this question; nothing of it is read."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    _, opened = yield from _open((endpoint,), nonce, timeout_seconds, now, _tell_nobody)
    yield from _close(endpoint, nonce)
    return TakenSnapshot(opened.cluster_id, opened.node, opened.log_index, opened.term, opened.size_bytes)


def _open(
    endpoints: tuple[str, ...], nonce: bytes, timeout_seconds: float, now: Callable[[], float], tell: Progress
) -> Generator[Ask | Wait, Any, tuple[str, Opened]]:
    """A snapshot that can be read. Nothing of it has come yet, so for a node that breaks off, or gets no
    further, one of the others is asked."""
    broken: SnapshotBroken | None = None
    while endpoints:
        try:
            endpoint, answer = yield from _find(endpoints, nonce, timeout_seconds, now)
        except AssentError as error:
            if broken is None:
                raise
            raise broken from error  # one that answered says more
        try:
            return endpoint, (yield from _outwait(endpoint, answer, nonce, timeout_seconds, now, tell))
        except AssentError as error:
            broken = SnapshotBroken(endpoint, 0, 0, error)
        yield from _close(endpoint, nonce)
        endpoints = tuple(each for each in endpoints if each != endpoint)
    assert broken is not None, "nobody was asked"
    raise broken from broken.cause


def _outwait(
    endpoint: str,
    answer: Opened | Pending,
    nonce: bytes,
    timeout_seconds: float,
    now: Callable[[], float],
    tell: Progress,
) -> Generator[Ask | Wait, Any, Opened]:
    """However long it takes, as long as it goes on: a node that was cut off from its leader never has all
    that the snapshot is to have, and says again and again that it is to come."""
    moved_at, written_bytes = now(), -1
    while isinstance(answer, Pending):
        if answer.written_bytes != written_bytes:
            moved_at, written_bytes = now(), answer.written_bytes
        elif now() - moved_at >= timeout_seconds:
            reason = f"for {timeout_seconds:g} s it got no further than {written_bytes} bytes"
            raise DeadlineExceeded(reason)
        tell(written_bytes, 0)
        answer = yield Ask(endpoint, snapshot_call(Open(nonce)), timeout_seconds)
    return answer


def _find(
    endpoints: tuple[str, ...], nonce: bytes, timeout_seconds: float, now: Callable[[], float]
) -> Generator[Ask | Wait, Any, tuple[str, Opened | Pending]]:
    """The first node, in the order given, that opens a snapshot; all are asked until the time is over."""
    give_up_at = now() + timeout_seconds
    reason: AssentError | None = None
    while True:
        for endpoint in endpoints:
            left_seconds = give_up_at - now()
            if len(endpoints) > 1:
                left_seconds = min(left_seconds, ATTEMPT_SECONDS)
            try:
                answer = yield Ask(endpoint, snapshot_call(Open(nonce)), max(left_seconds, 0.001))
                return endpoint, answer
            except AssentError as error:
                # A node that has no room for one says that it is gone.
                is_passing = error.retry_helps or isinstance(
                    error, Unreachable | DeadlineExceeded | SnapshotGone
                )
                if not is_passing:
                    raise
                # Of several reasons the one of a node that answered says more.
                if reason is None or not isinstance(error, Unreachable):
                    reason = error
            if now() >= give_up_at:
                assert reason is not None, "nobody was asked"
                raise reason
        yield Wait(PAUSE_SECONDS)


def _slice(
    endpoint: str, opened: Opened, nonce: bytes, offset: int, timeout_seconds: float, now: Callable[[], float]
) -> Generator[Ask | Wait, Any, bytes]:
    give_up_at = now() + timeout_seconds
    while True:
        try:
            piece: Slice = yield Ask(endpoint, snapshot_call(Read(nonce, offset)), timeout_seconds)
            break
        except Overloaded:  # by others who read
            if now() >= give_up_at:
                raise
        yield Wait(PAUSE_SECONDS)
    due = min(SLICE_BYTES, opened.size_bytes - offset)
    if piece.offset != offset or len(piece.data) != due:
        reason = f"{len(piece.data)} bytes of {piece.offset} on came for {due} bytes of {offset} on"
        raise SnapshotDamaged(endpoint, reason)
    if crc32(piece.data) != piece.checksum:
        raise SnapshotDamaged(endpoint, f"the checksum of the slice at byte {offset} is wrong")
    return piece.data


def _close(endpoint: str, nonce: bytes) -> Generator[Ask | Wait, Any, None]:
    """If it is not heard, the node forgets the stream by itself."""
    try:
        yield Ask(endpoint, snapshot_call(Close(nonce)), CLOSE_SECONDS)
    except AssentError:
        return


def _header_of(opened: Opened) -> SnapshotHeader:
    meta = SnapshotMeta(
        opened.log_index, opened.term, opened.configuration, opened.size_bytes, opened.checksum
    )
    return SnapshotHeader(opened.cluster_id, SLICE_BYTES, meta)


def _contents(endpoint: str, data: bytes) -> Contents:
    try:
        return contents_of(data)
    except UnknownState as error:
        raise SnapshotOfLaterVersion(endpoint, error.version, FORMAT_VERSION) from error
    except CorruptState as error:
        raise SnapshotDamaged(endpoint, str(error)) from error


def _tell_nobody(done_bytes: int, size_bytes: int) -> None:
    pass


@contextmanager
def saving_to(target: str | Path | BinaryIO, *, overwrite: bool) -> Iterator[Sink]:
    """Where the bytes go; at the end the file is there, and after an error nothing is."""
    if not isinstance(target, str | Path):
        yield target.write
        return
    file = BackupFile(Path(target), overwrite=overwrite)
    try:
        yield file.write
        file.commit()
    finally:
        file.abandon()


# ---------------------------------------------------------------- the two drivers


def drive(steps: Steps[Outcome], ask: Callable[[Ask], Any], wait: Callable[[float], object]) -> Outcome:
    """Every step in turn, by a caller that blocks."""
    try:
        step = next(steps)
        while True:
            if isinstance(step, Wait):
                wait(step.seconds)
                step = steps.send(None)
                continue
            try:
                answer = ask(step)
            except AssentError as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome


async def drive_async(
    steps: Steps[Outcome], ask: Callable[[Ask], Awaitable[Any]], wait: Callable[[float], Awaitable[object]]
) -> Outcome:
    """The same for asyncio."""
    try:
        step = next(steps)
        while True:
            if isinstance(step, Wait):
                await wait(step.seconds)
                step = steps.send(None)
                continue
            try:
                answer = await ask(step)
            except AssentError as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome
