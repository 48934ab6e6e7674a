"""A store as of one moment, to be read while puts, deletes and compactions go on.

May know: versions and the order of keys. Nothing is copied: versions are never changed, only superseded, and
what a reader may still want is not given up until it is gone. It looks up a few keys at a time, and fewer
where values are large, and the versions of one key all at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from kvstore.protocol import KeyValue
from kvstore.record_sums import record_sum
from kvstore.versions import OlderVersions
from raft.errors import StateDamaged

SLICE_KEYS: Final = 128
SLICE_BYTES: Final = 256 << 10  # of values that were looked at; or one value


class Frozen:
    """Owned by whoever asked the store for it. While it lives, nothing that it may want is given up."""

    __slots__ = ("__weakref__", "_checksum", "_keys", "_versions", "compact_revision", "revision")

    def __init__(
        self, keys: Any, versions: OlderVersions, revision: int, compact_revision: int, checksum: int
    ) -> None:
        self.revision = revision
        self.compact_revision = compact_revision
        self._keys = keys
        self._versions = versions
        self._checksum = checksum  # sum of record_sum over the records which are current then

    def __iter__(self) -> Iterator[KeyValue]:
        """All kept versions, in order of key and then of revision."""
        for versions in self.slices():
            yield from versions

    def slices(self) -> Iterator[list[KeyValue]]:
        """The same, a few keys at a time; an empty list where none of them has a version of then.

        At the end it is known whether the current records are those that were put once: StateDamaged if not.
        """
        kept, compact_revision, revision = self._versions.kept, self.compact_revision, self.revision
        checksum, after = 0, b""
        while keys := self._keys_after(after):
            after = keys[-1]
            slice_: list[KeyValue] = []
            left_bytes = SLICE_BYTES
            for key in keys:
                versions = kept(key, compact_revision, revision)
                if versions:
                    slice_ += versions
                    if versions[-1][4]:
                        checksum += record_sum(versions[-1])
                        left_bytes -= len(versions[-1][1])
                        if left_bytes <= 0:
                            yield slice_
                            slice_, left_bytes = [], SLICE_BYTES
            yield slice_
        if checksum != self._checksum:
            raise StateDamaged(f"the records of revision {revision} are not those that were written")

    def _keys_after(self, after: bytes) -> list[bytes]:
        """The next keys, in order; a key that comes or goes meanwhile has a place in one of both indexes."""
        found: list[bytes] = []
        last: bytes | None = None
        for index in (self._keys, self._versions.gone):
            some = list(islice(index.irange(after, None, (False, True)), SLICE_KEYS))
            if len(some) == SLICE_KEYS and (last is None or some[-1] < last):
                last = some[-1]  # this index may have others right behind it
            found += some
        found.sort()
        return found if last is None else [key for key in found if key <= last]
