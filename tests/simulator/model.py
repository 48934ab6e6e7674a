"""What the store must answer: a second, simple implementation of its commands, to compare with.

Fed with the committed commands in log order, once each. Knows the protocol's encoding and the meaning of each
operation, and shares no code with kvstore's store or sessions. Remembers every revision, so that a read can
be checked against the very revision that it names.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Any, NamedTuple

import msgpack

from kvstore import protocol
from kvstore.codes import (
    INTERNAL_BYTE,
    LEASE_GRANT,
    LEASE_KEEPALIVE,
    LEASE_REVOKE,
    LEASE_TICK,
)
from tests.kvstore.plain_transaction import holds, is_in

Record = list[Any]  # [key, value, create_revision, mod_revision, version, lease], as on the wire
Chosen = tuple[bool, list[list[Any]]]  # whether its compares hold, and the operations of that branch


class Change(NamedTuple):
    """What one revision did to one key: `record` is None if it removed it."""

    revision: int
    record: Record | None


class Lease:
    """Owned by the model."""

    __slots__ = ("ends_at_ms", "renewed_at", "ttl_seconds")

    def __init__(self, ttl_seconds: int, index: int) -> None:
        self.ttl_seconds = ttl_seconds
        self.renewed_at = index
        self.ends_at_ms: int | None = None  # None: not known before the next tick


class StoreModel:
    """Owned by the oracles."""

    def __init__(self) -> None:
        self.revision = 1
        self.compact_revision = 0
        self.compactions = 0
        self.keys: dict[bytes, list[Change]] = {}  # all changes of each key, in order of revision
        self.changes: list[tuple[int, bytes, Record | None]] = []  # the same, in one list
        self.max_sessions = 0  # 0: no bound that anybody would reach
        # The results by sequence, of which none is ever forgotten; who was used last comes last.
        self._sessions: dict[int, dict[int, list[Any]]] = {}
        self._floors: dict[int, int] = {}
        self._nonces: dict[bytes, list[Any]] = {}
        self.time_ms = 0
        self.leases: dict[int, Lease] = {}
        self.expired: Callable[[int], None] = _nobody  # told of each lease that a leader ends
        self._index = 0  # of the command that is being applied
        self.repeats = 0  # commands that came again, and must not have had an effect

    def now(self, key: bytes) -> Record | None:
        changes = self.keys.get(key)
        return changes[-1].record if changes else None

    def at(self, key: bytes, revision: int) -> Record | None:
        changes = self.keys.get(key, [])
        position = bisect_right(changes, revision, key=lambda change: change.revision)
        return changes[position - 1].record if position else None

    def contents(self, revision: int | None = None) -> list[Record]:
        """All keys, now or as of a revision."""
        keys = sorted(self.keys)
        records = [self.now(key) if revision is None else self.at(key, revision) for key in keys]
        return [record for record in records if record is not None]

    def apply(self, index: int, body: bytes) -> list[Any]:
        """The result that every node must give for this entry."""
        self._index = index
        if body[:1] == INTERNAL_BYTE:
            operation, *arguments = msgpack.unpackb(body[1:])
            return self._tick(*arguments) if operation == LEASE_TICK else self._expire(*arguments)
        session, sequence, floor, operation, *arguments = msgpack.unpackb(body)
        if operation == protocol.OPEN_SESSION:
            return self._open(index, arguments[0])
        if session == 0:
            return self._execute(operation, arguments)
        if session not in self._sessions:
            return [protocol.SESSION_EXPIRED]
        results = self._use(session)
        if sequence in results and sequence >= self._floors[session]:
            self.repeats += 1
            return results[sequence]
        if sequence < self._floors[session]:
            self.repeats += 1
            return [protocol.SEQUENCE_FORGOTTEN]
        self._floors[session] = max(self._floors[session], floor)
        result = results[sequence] = self._execute(operation, arguments)
        return result

    def _open(self, index: int, nonce: bytes) -> list[Any]:
        if nonce in self._nonces:
            self.repeats += 1
            self._use(self._nonces[nonce][2])
            return self._nonces[nonce]
        if 0 < self.max_sessions == len(self._sessions):
            oldest = next(iter(self._sessions))
            del self._sessions[oldest]
            self._nonces = {name: opened for name, opened in self._nonces.items() if opened[2] != oldest}
        self._sessions[index] = {}
        self._floors[index] = 1
        result = self._nonces[nonce] = [protocol.OK, self.revision, index]
        return result

    def _use(self, session: int) -> dict[int, list[Any]]:
        results = self._sessions[session] = self._sessions.pop(session)
        return results

    def _execute(self, operation: int, arguments: list[Any]) -> list[Any]:
        if operation == protocol.PUT:
            return self._put(*arguments)
        if operation == protocol.TXN:
            return self._transact(arguments)
        if operation == protocol.COMPACT:
            return self._compact(*arguments)
        if operation == LEASE_GRANT:
            return self._grant(*arguments)
        if operation == LEASE_REVOKE:
            return self._revoke(*arguments)
        if operation == LEASE_KEEPALIVE:
            return self._keep_alive(*arguments)
        assert operation == protocol.DELETE, f"the model knows no operation {operation}"
        return self._delete(*arguments)

    def _put(self, key: bytes, value: bytes, lease: int, flags: int) -> list[Any]:
        if lease and not self._is_alive(lease):
            return [protocol.LEASE_NOT_FOUND]
        self.revision += 1
        before = self.now(key)
        created, version = (self.revision, 1) if before is None else (before[2], before[4] + 1)
        self._change(key, [key, value, created, self.revision, version, lease])
        return [protocol.OK, self.revision, before if flags & protocol.PREV_KV else None]

    def _delete(self, key: bytes, range_end: bytes, flags: int) -> list[Any]:
        found = [record for record in self.contents() if is_in(record[0], key, range_end)]
        if found:
            self.revision += 1
        for record in found:
            self._change(record[0], None)
        return [protocol.OK, self.revision, len(found), found if flags & protocol.PREV_KV else []]

    def _transact(self, lists: list[bytes]) -> list[Any]:
        """All compares look at what was before; all that changes does so in one revision."""
        before, known = self.revision, len(self.changes)
        results: list[list[Any]] = []
        whole = self._carry_out(self._choose(lists), results)
        self.revision = before + (len(self.changes) > known)
        for result in results:
            result[1] = self.revision
        return whole

    def _choose(self, lists: list[bytes]) -> Chosen:
        compares, *branches = map(_items, lists)
        contents = {record[0]: record for record in self.contents()}
        succeeded = all(holds(contents, compare) for compare in compares)
        operations = branches[0] if succeeded else branches[1]
        return succeeded, [
            [protocol.TXN, self._choose(each[1:])] if each[0] == protocol.TXN else each for each in operations
        ]

    def _carry_out(self, chosen: Chosen, results: list[list[Any]]) -> list[Any]:
        succeeded, operations = chosen
        parts = []
        before = self.revision
        for operation, *arguments in operations:
            if operation == protocol.TXN:
                parts.append(self._carry_out(arguments[0], results))
            elif operation == protocol.RANGE:
                parts.append(self._range(*arguments))
            else:
                parts.append(self._execute(operation, arguments))
                assert parts[-1][0] == protocol.OK, f"nobody here makes a transaction fail: {parts[-1]}"
            self.revision = before
        results += parts
        whole = [protocol.OK, 0, succeeded, parts]
        results.append(whole)
        return whole

    def _range(self, key: bytes, range_end: bytes, *options: int) -> list[Any]:
        assert not any(options), "nobody here asks for a part, or for the past"
        found = [record for record in self.contents() if is_in(record[0], key, range_end)]
        return [protocol.OK, 0, len(found), False, found]

    def _compact(self, revision: int) -> list[Any]:
        """What was before stays known here: it is what a node must not answer any more."""
        if revision > self.revision:
            return [protocol.FUTURE_REVISION]
        if revision <= self.compact_revision:
            return [protocol.COMPACTED]
        self.compact_revision = revision
        self.compactions += 1
        return [protocol.OK, self.revision]

    def _grant(self, ttl_seconds: int, lease: int) -> list[Any]:
        assert not lease, "nobody here chooses an id"
        lease = self._index
        while lease in self.leases:
            lease += 1
        granted = self.leases[lease] = Lease(max(2, ttl_seconds), self._index)
        return [protocol.OK, self.revision, lease, granted.ttl_seconds]

    def _revoke(self, lease: int) -> list[Any]:
        if lease not in self.leases:
            return [protocol.LEASE_NOT_FOUND]
        deleted = self._end(lease)
        return [protocol.OK, self.revision, deleted]

    def _end(self, lease: int) -> int:
        del self.leases[lease]
        found = [record for record in self.contents() if record[5] == lease]
        self.revision += bool(found)
        for record in found:
            self._change(record[0], None)
        return len(found)

    def _is_alive(self, lease: int) -> bool:
        known = self.leases.get(lease)
        return known is not None and (known.ends_at_ms is None or known.ends_at_ms >= self.time_ms)

    def _keep_alive(self, *leases: int) -> list[Any]:
        ttls = []
        for lease in leases:
            known = self.leases[lease] if self._is_alive(lease) else None
            if known is not None:
                known.renewed_at, known.ends_at_ms = self._index, None
            ttls.append(0 if known is None else known.ttl_seconds)
        return [protocol.OK, self.revision, ttls]

    def _tick(self, *moments: int) -> list[Any]:
        is_stale = moments[-2] < self.time_ms
        for time_ms, seen_index in zip(moments[::2], moments[1::2]):
            for lease in self.leases.values():
                if lease.ends_at_ms is None and lease.renewed_at <= seen_index:
                    since_ms = self.time_ms if is_stale else time_ms
                    lease.ends_at_ms = since_ms + 1000 * lease.ttl_seconds
        self.time_ms = max(self.time_ms, moments[-2])
        return [protocol.OK, self.revision]

    def _expire(self, time_ms: int, *leases: int) -> list[Any]:
        for lease in leases:
            ends_at_ms = self.leases[lease].ends_at_ms if lease in self.leases else None
            if ends_at_ms is not None and ends_at_ms <= time_ms:
                self._end(lease)
                self.expired(lease)
        return [protocol.OK, self.revision]

    def _change(self, key: bytes, record: Record | None) -> None:
        self.keys.setdefault(key, []).append(Change(self.revision, record))
        self.changes.append((self.revision, key, record))


def _nobody(lease: int) -> None:
    """Nobody has leases."""


def _items(blob: bytes) -> list[list[Any]]:
    """The arrays of a list in a transaction."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(blob)
    return list(unpacker)
