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
from kvstore.protocol import COUNT_ONLY, IGNORE_LEASE, IGNORE_VALUE, KEYS_ONLY, OK, PREV_KV
from tests.kvstore.plain_transaction import holds, is_ambiguous, is_in

Record = list[Any]  # [key, value, create_revision, mod_revision, version, lease], as on the wire
Event = list[Any]  # [type, key, value, create_revision, mod_revision, version, lease]
Result = list[Any]


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
            result = self._writes[operation](draft, *arguments)
        except Refused as refused:
            return refused.result
        if draft.events:
            self.contents.append(draft.contents)
            self.events.append(sorted(draft.events, key=lambda event: event[1]))
        return result

    def _put(self, draft: Draft, key: bytes, value: bytes, lease: int, flags: int) -> Result:
        before = draft.contents.get(key)
        if lease:
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

    def _range(self, key: bytes, range_end: bytes, limit: int, revision: int, flags: int) -> Result:
        return self._range_of(self.contents_at(revision), key, range_end, limit, 0, flags)

    def _range_of(
        self,
        contents: dict[bytes, Record],
        key: bytes,
        range_end: bytes,
        limit: int,
        revision: int,
        flags: int,
    ) -> Result:
        if revision:
            contents = self.contents_at(revision)
        found = [contents[name] for name in sorted(contents) if is_in(name, key, range_end)]
        total = len(found)
        if flags & COUNT_ONLY:
            return [OK, self.revision, total, False, []]
        found = found[: limit or total]
        if flags & KEYS_ONLY:
            found = [[record[0], b"", *record[2:]] for record in found]
        return [OK, self.revision, total, len(found) < total, found]

    def history(self, key: bytes, range_end: bytes, start_revision: int) -> list[tuple[int, list[Event]]]:
        """All events of the range from a revision on, whatever was compacted, by revision."""
        found = [
            (revision, [event for event in self.events[revision] if is_in(event[1], key, range_end)])
            for revision in range(start_revision, len(self.events))
        ]
        return [(revision, events) for revision, events in found if events]


def wrong_at_sight(operation: int, arguments: list[Any]) -> int | None:
    """What a body shows to be wrong is refused before anything else is looked at, the session too."""
    if operation == protocol.PUT:
        _, value, lease, flags = arguments
        if flags & IGNORE_VALUE and value:
            return protocol.VALUE_PROVIDED
        if flags & IGNORE_LEASE and lease:
            return protocol.LEASE_PROVIDED
    if operation == protocol.TXN and (is_ambiguous(arguments[1]) or is_ambiguous(arguments[2])):
        return protocol.DUPLICATE_KEY
    return None


def _at_revision(result: Result, revision: int) -> Result:
    """The result of a transaction, and those of all operations in it, name the revision after all of it."""
    inner = result[3] if len(result) == 4 and type(result[2]) is bool else []
    nested = [_at_revision(each, revision) for each in inner]
    return [result[0], revision, result[2], nested] if inner else [result[0], revision, *result[2:]]
