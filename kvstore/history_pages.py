"""What a read of the watch history is answered, and what a page of it costs.

May know: the store, the watch plane, the protocol. A page has whole revisions, so what it takes goes with the
revision that it begins in; how much more it may have is bounded by versions and bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgpack

from kvstore.protocol import OK, PREV_KV, KeyValue
from kvstore.range_steps import compacted
from kvstore.store import Store
from kvstore.watch_plane import WatchPlane

DEFAULT_HISTORY_BYTES: Final = 1 << 20  # of one watch history reply that asks for no limit of its own
MAX_HISTORY_BYTES: Final = 4 << 20
HISTORY_KEYS: Final = 1024  # a megabyte of the history counts as so many, beside the first revision's

_pack: Callable[[Any], bytes] = msgpack.Packer().pack


def keys_of_page(store: Store, read: list[Any]) -> int:
    """As how many keys it counts that are looked at."""
    _, _, _, start_revision, limit_bytes, flags = read
    if start_revision == 0:
        return 0
    keys = HISTORY_KEYS * (DEFAULT_HISTORY_BYTES + _limit_bytes(limit_bytes)) // (2 * DEFAULT_HISTORY_BYTES)
    keys += store.history.size_at(start_revision)
    return 2 * keys if flags & PREV_KV else keys


def history_page(store: Store, plane: WatchPlane, read: list[Any], max_scanned_versions: int) -> bytes:
    _, key, range_end, start_revision, limit_bytes, flags = read
    epoch, sequence = plane.position(key, range_end, is_full=bool(flags & PREV_KV))
    current = store.revision
    if start_revision == 0:
        return _pack((OK, current, epoch, sequence, False, ()))

    def kept_before(name: bytes, revision: int) -> KeyValue | None:
        """Nothing for an event at the compacted revision itself: what was before is gone, swept or not."""
        return store.record_before(name, revision) if revision > store.oldest_revision else None

    record_before = kept_before if flags & PREV_KV else None
    page = store.history.read(
        key, range_end, start_revision, _limit_bytes(limit_bytes), max_scanned_versions, record_before
    )
    if page is None:
        return compacted(store.history.oldest_start)
    return _pack((OK, current, epoch, sequence, page.more, page.revisions))


def _limit_bytes(asked: int) -> int:
    return min(asked or DEFAULT_HISTORY_BYTES, MAX_HISTORY_BYTES)
