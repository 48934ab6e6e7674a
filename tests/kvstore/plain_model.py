"""What the state machine ought to be, with no thought for time or memory: the whole state of every revision.

Knows what each operation means, and shares nothing with the production code but the numbers of the protocol.
Commands and reads come in as lists, as the protocol describes them; results go out in the same way, errors
without their text. A new operation is one function more in `_writes` or `_reads`: it changes a draft of the
next revision, and by raising Refused leaves no trace.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvstore import protocol
from kvstore.codes import (
    LEASE_EXPIRE,
    LEASE_GRANT,
    LEASE_KEEPALIVE,
    LEASE_LIST,
    LEASE_REVOKE,
    LEASE_TICK,
    LEASE_TIME_TO_LIVE,
    UNCOUNTED,
)
from kvstore.protocol import COUNT_ONLY, IGNORE_LEASE, IGNORE_VALUE, KEYS_ONLY, OK, PREV_KV
from tests.kvstore.plain_transaction import holds, is_ambiguous, is_in

Record = list[Any]  # [key, value, create_revision, mod_revision, version, lease], as on the wire
Event = list[Any]  # [type, key, value, create_revision, mod_revision, version, lease]
Result = list[Any]

LEAST_TTL_SECONDS = 2
MOST_TTL_SECONDS = 9_000_000_000
SORTED_BY = (0, 0, 4, 2, 3, 1)  # the place in a record, by the number of the target


class Refused(Exception):
    """The result of an operation that changes nothing: a code, and what comes after the text."""

    def __init__(self, code: int, *data: int) -> None:
        super().__init__(code, *data)
        self.result: Result = [code, *data]


class Draft:
    """The next revision as one command makes it; owned by that command, and forgotten if it is refused."""

    def __init__(self, contents: dict[bytes, Record], revision: int, index: int) -> None:
        self.contents = dict(contents)
        self.before = revision  # the newest revision that there is
        self.index = index  # of the command in the log
        self.events: list[Event] = []

    @property
    def revision(self) -> int:
        """As the results of this command name it: a new one from the first change on."""
        return self.before + bool(self.events)

    def put(self, key: bytes, value: bytes, lease: int) -> Record | None:
        made, previous = self.before + 1, self.contents.get(key)
        created, version = (made, 1) if previous is None else (previous[2], previous[4] + 1)
        record = self.contents[key] = [key, value, created, made, version, lease]
        self.events.append([protocol.EVENT_PUT, *record])
        return previous

    def delete(self, key: bytes, range_end: bytes) -> list[Record]:
        doomed = [self.contents[name] for name in sorted(self.contents) if is_in(name, key, range_end)]
        for record in doomed:
            del self.contents[record[0]]
            self.events.append([protocol.EVENT_DELETE, record[0], b"", 0, self.before + 1, 0, 0])
        return doomed


class PlainSession:
    """Owned by the model; `results` are of every sequence from `floor` on that was applied."""

    def __init__(self, nonce: bytes, opened: Result) -> None:
        self.nonce = nonce
        self.opened = opened
        self.floor = 1
        self.results: dict[int, Result] = {}

    def forget_below(self, floor: int) -> None:
        self.floor = max(self.floor, floor)
        self.results = {known: result for known, result in self.results.items() if known >= self.floor}


class PlainLease:
    """Owned by the model; its keys are those whose records name it."""

    def __init__(self, ttl_seconds: int, index: int) -> None:
        self.ttl_seconds = ttl_seconds
        self.renewed_at = index
        self.ends_at_ms: int | None = None  # None: no tick since then


class PlainModel:
    """Owned by a test."""

    def __init__(self, *, max_sessions: int) -> None:
        self.contents: list[dict[bytes, Record]] = [{}, {}]  # by revision; there is no revision 0
        self.events: list[list[Event]] = [[], []]  # by revision
        self.compact_revision = 0
        self.index = 0  # of the last command
        self.sessions: dict[int, PlainSession] = {}  # by id, the one unused for longest first
        self._max_sessions = max_sessions
        self._writes: dict[int, Callable[..., Result]] = {
            protocol.PUT: self._put,
            protocol.DELETE: self._delete,
            protocol.COMPACT: self._compact,
            protocol.TXN: self._transact,
        }
        self._reads: dict[int, Callable[..., Result]] = {
            protocol.RANGE: self._range,
            protocol.READ_TXN: self._read_transaction,
            protocol.CHILDREN: self._children,
            LEASE_TIME_TO_LIVE: self._time_to_live,
            LEASE_LIST: self._list_leases,
        }
        self.time_ms = 0
        self.leases: dict[int, PlainLease] = {}
        self._lease_commands: dict[int, Callable[..., Result]] = {
            LEASE_GRANT: self._grant,
            LEASE_REVOKE: self._revoke,
            LEASE_KEEPALIVE: self._keep_alive,
            LEASE_TICK: self._tick,
            LEASE_EXPIRE: self._expire,
        }

    @property
    def revision(self) -> int:
        return len(self.contents) - 1

    # -- commands --------------------------------------------------------------------------------------

    def apply(self, command: list[Any] | None) -> Result | None:
        """The result of the next entry; None for one without a command."""
        self.index += 1
        if command is None:
            return None
        session_id, sequence, acknowledged_below, operation, *arguments = command
        if operation == protocol.OPEN_SESSION:
            return self._open(*arguments)
        code = wrong_at_sight(operation, arguments)
        if code is not None:
            return [code]
        if operation == protocol.CLOSE_SESSION:
            known = self.sessions.pop(session_id, None)
            return [protocol.SESSION_EXPIRED] if known is None else [OK, self.revision]
        if session_id == 0:
            return self._execute(operation, arguments)
        session = self.sessions.pop(session_id, None)
        if session is None:
            return [protocol.SESSION_EXPIRED]
        self.sessions[session_id] = session  # the one that was used last
        if sequence in session.results:
            return session.results[sequence]
        if sequence < session.floor:
            return [protocol.SEQUENCE_FORGOTTEN]
        session.forget_below(acknowledged_below)
        result = session.results[sequence] = self._execute(operation, arguments)
        session.forget_below(sequence - protocol.MAX_UNACKNOWLEDGED + 1)
        return result

    def _open(self, nonce: bytes) -> Result:
        for session_id, session in self.sessions.items():
            if session.nonce == nonce:
                self.sessions[session_id] = self.sessions.pop(session_id)
                return session.opened
        if len(self.sessions) == self._max_sessions:
            del self.sessions[next(iter(self.sessions))]
        session = self.sessions[self.index] = PlainSession(nonce, [OK, self.revision, self.index])
        return session.opened

    def _execute(self, operation: int, arguments: list[Any]) -> Result:
        draft = Draft(self.contents[-1], self.revision, self.index)
        try:
            if operation in self._lease_commands:
                return self._lease_commands[operation](*arguments)
            result = self._writes[operation](draft, *arguments)
        except Refused as refused:
            return refused.result
        self._commit(draft)
        return result

    def _commit(self, draft: Draft) -> None:
        if draft.events:
            self.contents.append(draft.contents)
            self.events.append(sorted(draft.events, key=lambda event: event[1]))

    def _put(self, draft: Draft, key: bytes, value: bytes, lease: int, flags: int) -> Result:
        before = draft.contents.get(key)
        if lease and not self._is_alive(lease):
            raise Refused(protocol.LEASE_NOT_FOUND)
        if flags & (IGNORE_VALUE | IGNORE_LEASE) and before is None:
            raise Refused(protocol.KEY_NOT_FOUND)
        if before is not None:
            value = before[1] if flags & IGNORE_VALUE else value
            lease = before[5] if flags & IGNORE_LEASE else lease
        previous = draft.put(key, value, lease)
        return [OK, draft.revision, previous if flags & PREV_KV else None]

    def _delete(self, draft: Draft, key: bytes, range_end: bytes, flags: int) -> Result:
        gone = draft.delete(key, range_end)
        return [OK, draft.revision, len(gone), gone if flags & PREV_KV else []]

    def _compact(self, draft: Draft, revision: int) -> Result:
        if revision > self.revision:
            raise Refused(protocol.FUTURE_REVISION, self.revision)
        if revision <= self.compact_revision:
            raise Refused(protocol.COMPACTED, self.compact_revision)
        self.compact_revision = revision
        return [OK, self.revision]

    def _transact(self, draft: Draft, *lists: list[Any]) -> Result:
        """Lists come as lists; all compares look at what was before."""
        result = self._branch(draft, *lists)
        return _at_revision(result, draft.revision)

    def _branch(self, draft: Draft, compares: Any, then: Any, otherwise: Any) -> Result:
        succeeded = all(holds(self.contents[-1], compare) for compare in compares)
        results = []
        for operation, *arguments in then if succeeded else otherwise:
            if operation == protocol.TXN:
                results.append(self._branch(draft, *arguments))
            elif operation == protocol.RANGE:
                results.append(self._range_of(draft.contents, *arguments))
            else:
                results.append(self._writes[operation](draft, *arguments))
        return [OK, 0, succeeded, results]

    def _read_transaction(self, *lists: list[Any]) -> Result:
        result = self._branch(Draft(self.contents[-1], self.revision, self.index), *lists)
        return _at_revision(result, self.revision)

    # -- leases ----------------------------------------------------------------------------------------

    def _grant(self, ttl_seconds: int, lease: int) -> Result:
        if lease in self.leases:
            raise Refused(protocol.LEASE_EXISTS)
        if not lease:
            lease = self.index
            while lease in self.leases:
                lease += 1
        granted = self.leases[lease] = PlainLease(max(ttl_seconds, LEAST_TTL_SECONDS), self.index)
        return [OK, self.revision, lease, granted.ttl_seconds]

    def leased_keys(self, lease: int) -> list[bytes]:
        return [key for key, record in sorted(self.contents[-1].items()) if lease and record[5] == lease]

    def _end(self, lease: int) -> int:
        draft, keys = Draft(self.contents[-1], self.revision, self.index), self.leased_keys(lease)
        for key in keys:
            draft.delete(key, b"")
        del self.leases[lease]
        self._commit(draft)
        return len(keys)

    def _revoke(self, lease: int) -> Result:
        if lease not in self.leases:
            raise Refused(protocol.LEASE_NOT_FOUND)
        deleted = self._end(lease)
        return [OK, self.revision, deleted]

    def _is_alive(self, lease: int) -> bool:
        known = self.leases.get(lease)
        return known is not None and (known.ends_at_ms is None or known.ends_at_ms >= self.time_ms)

    def _keep_alive(self, *leases: int) -> Result:
        known = [self.leases[lease] if self._is_alive(lease) else None for lease in leases]
        for lease in known:
            if lease is not None:
                lease.renewed_at, lease.ends_at_ms = self.index, None
        return [OK, self.revision, [0 if lease is None else lease.ttl_seconds for lease in known]]

    def _tick(self, *moments: int) -> Result:
        is_stale = moments[-2] < self.time_ms
        for time_ms, seen_index in zip(moments[::2], moments[1::2]):
            for lease in self.leases.values():
                if lease.ends_at_ms is None and lease.renewed_at <= seen_index:
                    since_ms = self.time_ms if is_stale else time_ms
                    lease.ends_at_ms = since_ms + 1000 * lease.ttl_seconds
        self.time_ms = max(self.time_ms, moments[-2])
        return [OK, self.revision]

    def _expire(self, time_ms: int, *leases: int) -> Result:
        for lease in leases:
            ends_at_ms = self.leases[lease].ends_at_ms if lease in self.leases else None
            if ends_at_ms is not None and ends_at_ms <= time_ms:
                self._end(lease)
        return [OK, self.revision]

    def _time_to_live(self, lease: int, flags: int) -> Result:
        keys, known = self.leased_keys(lease), self.leases.get(lease)
        names = keys if flags else []
        if known is None:
            return [OK, self.revision, -1, 0, 0, []]
        left = known.ttl_seconds
        if known.ends_at_ms is not None:
            left = max(0, (known.ends_at_ms - self.time_ms) // 1000)
        return [OK, self.revision, left, known.ttl_seconds, len(keys), names]

    def _list_leases(self) -> Result:
        return [OK, self.revision, sorted(self.leases)]

    # -- reads -----------------------------------------------------------------------------------------

    def query(self, read: list[Any]) -> Result:
        operation, *arguments = read
        try:
            return self._reads[operation](*arguments)
        except Refused as refused:
            return refused.result

    def contents_at(self, revision: int) -> dict[bytes, Record]:
        """As of a revision, 0 for the current one."""
        if revision > self.revision:
            raise Refused(protocol.FUTURE_REVISION, self.revision)
        if 0 < revision < self.compact_revision:
            raise Refused(protocol.COMPACTED, self.compact_revision)
        return self.contents[revision or -1]

    def _range(
        self, key: bytes, range_end: bytes, limit: int, revision: int, flags: int, *selection: int
    ) -> Result:
        return self._range_of(self.contents_at(revision), key, range_end, limit, 0, flags, *selection)

    def _range_of(
        self,
        contents: dict[bytes, Record],
        key: bytes,
        range_end: bytes,
        limit: int,
        revision: int,
        flags: int,
        *selection: int,
    ) -> Result:
        if revision:
            contents = self.contents_at(revision)
        there = [contents[name] for name in sorted(contents) if is_in(name, key, range_end)]
        if flags & COUNT_ONLY:
            return [OK, self.revision, len(there), False, []]
        target, order, min_mod, max_mod, min_create, max_create = selection or (0, 0, 0, 0, 0, 0)
        chosen = [
            record
            for record in there
            if min_mod <= record[3] <= (max_mod or record[3])
            and min_create <= record[2] <= (max_create or record[2])
        ]
        if target:
            chosen.sort(key=lambda record: record[SORTED_BY[target]], reverse=order == 1)
        found = chosen[: limit or len(chosen)]
        if flags & KEYS_ONLY:
            found = [[record[0], b"", *record[2:]] for record in found]
        total = len(found) if flags & UNCOUNTED else len(there)
        return [OK, self.revision, total, len(found) < len(chosen), found]

    def _children(self, path: bytes, limit: int, start_after: bytes, revision: int) -> Result:
        contents, names = self.contents_at(revision), path.strip(b"/")
        prefix = b"/" + names + b"/" if names else b"/"
        below = [key[len(prefix) :] for key in contents if key.startswith(prefix)]
        found = [
            [name, name in below, any(rest.startswith(name + b"/") for rest in below)]
            for name in sorted({rest.partition(b"/")[0] for rest in below} - {b""})
            if name > start_after
        ]
        cut = found[: limit or len(found)]
        return [OK, self.revision, len(cut) < len(found), cut]

    def history(
        self, key: bytes, range_end: bytes, start_revision: int, flags: int = 0
    ) -> list[tuple[int, list[Event]]]:
        """All events of the range from a revision on, whatever was compacted, by revision."""
        found = []
        for revision in range(start_revision, len(self.events)):
            events = [event for event in self.events[revision] if is_in(event[1], key, range_end)]
            if flags & PREV_KV:
                is_kept = revision > max(1, self.compact_revision)
                before = self.contents[revision - 1] if is_kept else {}
                events = [[*event, before.get(event[1])] for event in events]
            found.append((revision, events))
        return [(revision, events) for revision, events in found if events]


def wrong_at_sight(operation: int, arguments: list[Any]) -> int | None:
    """What a body shows to be wrong is refused before anything else is looked at, the session too."""
    if operation == protocol.PUT:
        _, value, lease, flags = arguments
        if flags & IGNORE_VALUE and value:
            return protocol.VALUE_PROVIDED
        if flags & IGNORE_LEASE and lease:
            return protocol.LEASE_PROVIDED
    if operation == LEASE_GRANT and arguments[0] > MOST_TTL_SECONDS:
        return protocol.LEASE_TTL_TOO_LARGE
    if operation == protocol.TXN and (is_ambiguous(arguments[1]) or is_ambiguous(arguments[2])):
        return protocol.DUPLICATE_KEY
    return None


def _at_revision(result: Result, revision: int) -> Result:
    """The result of a transaction, and those of all operations in it, name the revision after all of it."""
    inner = result[3] if len(result) == 4 and type(result[2]) is bool else []
    nested = [_at_revision(each, revision) for each in inner]
    return [result[0], revision, result[2], nested] if inner else [result[0], revision, *result[2:]]
