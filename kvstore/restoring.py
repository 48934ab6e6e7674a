"""A snapshot on its way into the state machine: a new store, sessions and leases, beside those in force.

May know: the store, the sessions, the leases and the shape of a snapshot; nothing of Raft. What comes is
built into its place at once, so the work of a piece is in proportion to that piece, and the end is a change
of references: of a million revisions, some ten milliseconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import msgpack

from kvstore.leases import ImpossibleLease, Leases
from kvstore.protocol import KeyValue
from kvstore.sessions import Sessions
from kvstore.snapshots import CorruptState, StateHeader, StateReader
from kvstore.store import Store
from kvstore.store_builder import ImpossibleStore, StoreBuilder


def state_fingerprint(applied_index: int, store: Store, sessions: Sessions, leases: Leases) -> int:
    """64 bits that replicas which have applied the same must agree on: of what is, not of what was. What
    keys were before is not in it, nor is each result that a session remembers.

    Where no lease ever was it is what it was before there were any: older snapshots tell it so.
    """
    parts = [applied_index, store.fingerprint, sessions.fingerprint]
    packed = msgpack.packb([*parts, leases.fingerprint] if leases.were_used else parts)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "big")


class StoreRestorer:
    """Implements raft's Restorer. Owned by the applier, until the snapshot is whole or given up."""

    def __init__(self, sessions: Sessions, take_over: Callable[[int, Store, Sessions, Leases], None]) -> None:
        """`sessions` are empty ones; `take_over` gets the applied index, the store, them and the leases."""
        self._sessions = sessions
        self._leases = Leases()
        self._take_over = take_over
        self._reader = StateReader(self._begin, self._leases.load, self._take_versions, sessions.load)
        self._builder: StoreBuilder | None = None  # there from the first item on

    def feed(self, data: bytes) -> None:
        """Raises CorruptState."""
        try:
            self._reader.feed(data)
        except (ImpossibleStore, ImpossibleLease) as error:
            raise CorruptState(str(error)) from error

    def finish(self) -> None:
        """Raises CorruptState unless all of it is there, and is what it was when it was written."""
        header = self._reader.finish()
        assert self._builder is not None, "a header has come"
        try:
            store = self._builder.finish()
        except ImpossibleStore as error:
            raise CorruptState(str(error)) from error
        unknown = [lease for lease in store.leases() if lease not in self._leases]
        if unknown:
            raise CorruptState(f"keys name lease {unknown[0]}, and there is none")
        fingerprint = state_fingerprint(header.applied_index, store, self._sessions, self._leases)
        if header.fingerprint not in (None, fingerprint):
            raise CorruptState(f"the state has fingerprint {fingerprint:016x}, not {header.fingerprint:016x}")
        self._take_over(header.applied_index, store, self._sessions, self._leases)

    def _begin(self, header: StateHeader) -> None:
        self._leases.time_ms = header.time_ms
        self._builder = StoreBuilder(header.revision, header.compact_revision, header.known_from)

    def _take_versions(self, versions: Sequence[KeyValue]) -> None:
        assert self._builder is not None, "versions before a header"
        self._builder.add(versions)
