"""Reads, deletes and watches of trees of keys.

May know: calls, paths, results and watches. Pure: where calls are made one after the other, a generator
yields them, and is sent their results or thrown their errors, so that both faces of the client do the same.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import Any, Final

from kvstore import errors, protocol
from kvstore.client import calls, results
from kvstore.client.calls import Call, Consistency
from kvstore.client.paging import Pager
from kvstore.client.results import DeleteResult, RangeResult, TreeDeleted, WatchBatch
from kvstore.client.watch import Watch
from kvstore.paths import below, is_at_or_below, normal_path
from kvstore.transaction_bodies import encode_list, transaction_body

_OVERHEAD_BYTES: Final = 64

Steps = Generator[Call, Any, TreeDeleted]


def tree_path(path: str | bytes) -> bytes:
    """In its normal form. Raises TooLarge."""
    normal = normal_path(calls.to_bytes(path))
    if len(normal) > protocol.MAX_KEY_BYTES:
        raise errors.TooLarge(f"the path has {len(normal)} bytes, more than {protocol.MAX_KEY_BYTES}")
    return normal


def spans_of(path: bytes) -> list[tuple[bytes, bytes]]:
    """The path's own key, if it can have one, and what is below it."""
    return [(path, b""), below(path)] if path else [below(path)]


def children_call(
    path: str | bytes, consistency: Consistency, limit: int, start_after: str | bytes, revision: int
) -> Call:
    if not (protocol.is_integer(limit) and protocol.is_integer(revision)):
        raise ValueError(f"limit {limit!r}, revision {revision!r}: one is none")
    body = protocol.children_body(
        tree_path(path), limit=limit, start_after=calls.to_bytes(start_after), revision=revision
    )
    call = Call(calls.read_kind(consistency), results.decode_children, len(body))
    call.body = body
    return call


def tree_pager(
    path: str | bytes, consistency: Consistency, *, limit: int, revision: int, keys_only: bool
) -> Pager:
    spans = spans_of(tree_path(path))
    return Pager(spans, consistency, limit=limit, revision=revision, keys_only=keys_only)


def _encode_transaction(
    operations: bytes, session_id: int, sequence: int, below_sequence: int, *_: bytes, flags: int
) -> bytes:
    assert flags == 0, f"flags {flags}"
    return transaction_body(session_id, sequence, below_sequence, b"", operations, b"")


def _decode_deletes(result: list[Any]) -> TreeDeleted:
    parts = result[3] if len(result) == 4 else None
    if type(parts) is not list or not all(type(part) is list for part in parts):
        raise protocol.MalformedFrame("a transaction has a result for each of its operations")
    deleted = sum(results.decode_delete(part).deleted for part in parts)
    return TreeDeleted(result[1], deleted, int(deleted > 0))


def _delete_at_once(spans: list[tuple[bytes, bytes]]) -> Call:
    operations = encode_list((protocol.DELETE, *span, 0) for span in spans)
    call = Call(protocol.WRITE, _decode_deletes, len(operations) + _OVERHEAD_BYTES)
    call.encode = partial(_encode_transaction, operations)
    return call


def delete_steps(spans: list[tuple[bytes, bytes]]) -> Steps:
    """At once if it may be; what has too many keys for that in pieces of as many as may be."""
    if len(spans) > 1:
        try:
            at_once: TreeDeleted = yield _delete_at_once(spans)
            return at_once
        except errors.TooLarge:
            pass
    revision = deleted = pieces = 0
    for start, end in spans:
        cut = end
        while True:
            try:
                gone: DeleteResult = yield calls.delete_call(start, cut, False)
            except errors.TooLarge:
                page: RangeResult = yield calls.range_call(
                    (start, end),
                    "linearizable",
                    limit=protocol.MAX_DELETE_KEYS,
                    keys_only=True,
                    uncounted=True,
                )
                cut = page.items[-1].key + b"\0" if page.more else end
                continue
            revision, deleted, pieces = gone.revision, deleted + gone.deleted, pieces + bool(gone.deleted)
            if cut == end:
                break
            start, cut = cut, end
    return TreeDeleted(revision, deleted, pieces)


class TreeWatch(Watch):
    """Of a path and all below it. Their range has neighbours in it, as "/a-b" of "/a": these are left out."""

    def __init__(self, path: str | bytes, start_revision: int, **options: bool) -> None:
        if not protocol.is_integer(start_revision):
            raise ValueError(f"start_revision: {start_revision!r} is no revision")
        self._path = tree_path(path)
        key, end = below(self._path)
        if len(self._path) == protocol.MAX_KEY_BYTES:
            end = b""  # no key is long enough to be below it
        super().__init__(self._path or key, end, start_revision, **options)

    def wanted(self, batch: WatchBatch) -> WatchBatch:
        revision, events = super().wanted(batch)
        return WatchBatch(revision, [event for event in events if is_at_or_below(event.key, self._path)])
