"""The replicated state machine: store and sessions, driven by the log alone.

May know: the store, the sessions, the protocol; nothing of time, chance, sockets or Raft. The same log
gives the same result bytes and the same state on every node, and no body, however broken, makes it raise:
a command that cannot be carried out has a result that says so, and that is the same everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgpack

from kvstore import protocol
from kvstore.history import EventHistory
from kvstore.operations import decode_read, decode_write, error_result
from kvstore.protocol import (
    CLOSE_SESSION,
    COUNT_ONLY,
    DELETE,
    KEYS_ONLY,
    MAX_PREV_KVS_BYTES,
    MAX_RANGE_REPLY_BYTES,
    OK,
    OPEN_SESSION,
    PREV_KV,
    PUT,
    RANGE,
    WATCH_HISTORY,
)
from kvstore.restoring import StoreRestorer
from kvstore.sessions import EXPIRED, Sessions
from kvstore.snapshots import encode_state
from kvstore.store import Store
from kvstore.watch_plane import WatchPlane

DEFAULT_HISTORY_BYTES: Final = 1 << 20  # of one watch history reply that asks for no limit of its own
MAX_HISTORY_BYTES: Final = 4 << 20
MAX_QUERY_BYTES: Final = 64 << 20  # results of one call of query()
SMALL_RESULT_BYTES: Final = 8192  # a result up to this size is given even beyond MAX_QUERY_BYTES

_pack: Callable[[Any], bytes] = msgpack.Packer().pack

TOO_MUCH_PREVIOUS: Final = error_result(
    protocol.TOO_LARGE, f"the deleted records exceed {MAX_PREV_KVS_BYTES} bytes: nothing deleted"
)
TOO_MUCH_AT_ONCE: Final = error_result(
    protocol.TOO_LARGE, f"reads asked for more than {MAX_QUERY_BYTES} bytes at once: ask again"
)


class StoreMachine:
    """Implements raft's StateMachine; owned by one applier. Its `watch_plane` is the applier's announcer."""

    def __init__(
        self,
        watch_plane: WatchPlane,
        *,
        history: EventHistory | None = None,
        sessions: Sessions | None = None,
    ) -> None:
        self.watch_plane = watch_plane
        self.applied_index = 0  # every entry up to here has had its effect, once
        self._store = Store()
        self._sessions = sessions if sessions is not None else Sessions()
        self._history = history if history is not None else EventHistory()
        self._commands: dict[int, Callable[[list[Any]], bytes]] = {PUT: self._put, DELETE: self._delete}
        self._reads: dict[int, Callable[[list[Any]], bytes]] = {
            RANGE: self._range,
            WATCH_HISTORY: self._watch_history,
        }

    @property
    def revision(self) -> int:
        return self._store.revision

    # -- commands --------------------------------------------------------------------------------------

    def apply(self, first_index: int, bodies: Sequence[bytes | None]) -> list[bytes | None]:
        """Applies consecutive entries; one result each, None for an entry without a command."""
        assert first_index == self.applied_index + 1, f"entry {first_index} after {self.applied_index}"
        commands, admit, remember = self._commands, self._sessions.admit, self._sessions.remember
        results: list[bytes | None] = []
        append = results.append
        for index, body in enumerate(bodies, first_index):
            if body is None:
                append(None)
                continue
            command = decode_write(body)
            if isinstance(command, bytes):
                append(command)
                continue
            session_id, sequence, operation = command[0], command[1], command[3]
            execute = commands.get(operation)
            if execute is None:
                append(self._change_session(command, index))
            elif session_id == 0:
                append(execute(command))  # without a session, a retry is applied again
            else:
                session = admit(session_id, sequence, command[2])
                if isinstance(session, bytes):
                    append(session)
                else:
                    result = execute(command)
                    remember(session, sequence, result)
                    append(result)
        self.applied_index += len(bodies)
        self._tell_watchers()
        return results

    def _tell_watchers(self) -> None:
        """Within apply, so that no read can see a revision which history and streams do not know yet."""
        changes = self._store.take_changes()
        if changes:
            self._history.extend(changes)
            self.watch_plane.feed(changes)

    def _put(self, command: list[Any]) -> bytes:
        store = self._store
        previous = store.put(command[4], command[5], command[6])
        return _pack((OK, store.revision, previous if command[7] else None))

    def _delete(self, command: list[Any]) -> bytes:
        key, range_end, flags = command[4:]
        store = self._store
        if flags & PREV_KV:
            size_bytes = sum(
                len(record[0]) + len(record[1]) for record in store.range(key, range_end).records
            )
            if size_bytes > MAX_PREV_KVS_BYTES:
                return TOO_MUCH_PREVIOUS
        removed = store.delete(key, range_end)
        return _pack((OK, store.revision, len(removed), removed if flags & PREV_KV else ()))

    def _change_session(self, command: list[Any], index: int) -> bytes:
        """Opening and closing need no memory of their results: they are the same when they come again."""
        if command[3] == OPEN_SESSION:
            return self._sessions.open(command[4], index, self._store.revision)
        assert command[3] == CLOSE_SESSION, f"operation {command[3]} was let in"
        return _pack((OK, self._store.revision)) if self._sessions.close(command[0]) else EXPIRED

    # -- reads -----------------------------------------------------------------------------------------

    def query(self, bodies: Sequence[bytes]) -> list[bytes]:
        """Answers reads against the state as applied so far."""
        reads = self._reads
        results: list[bytes] = []
        size_bytes = 0
        for body in bodies:
            read = decode_read(body)
            result = read if isinstance(read, bytes) else reads[read[0]](read)
            size = len(result)
            if size > SMALL_RESULT_BYTES:
                # Thousands of large reads in one frame must not become gigabytes of answer.
                size_bytes += size
                if size_bytes > MAX_QUERY_BYTES:
                    size_bytes -= size
                    result = TOO_MUCH_AT_ONCE
            results.append(result)
        return results

    def _range(self, read: list[Any]) -> bytes:
        _, key, range_end, limit, revision, flags = read
        store = self._store
        current = store.revision
        if revision and revision != current:
            if revision > current:
                message = "required revision is a future revision"
                return error_result(protocol.FUTURE_REVISION, message, current)
            # Only the newest version of a key is kept, so every older revision counts as compacted.
            return error_result(protocol.COMPACTED, "required revision has been compacted", current)
        if flags & COUNT_ONLY:
            return _pack((OK, current, store.count(key, range_end), False, ()))
        if flags & KEYS_ONLY:
            answer = store.range(key, range_end, limit=limit)
            stripped = [(record[0], b"", *record[2:]) for record in answer.records]
            return _pack((OK, current, answer.total, answer.more, stripped))
        if not range_end:
            record = store.get(key)
            return _pack(
                (OK, current, 0, False, ()) if record is None else (OK, current, 1, False, (record,))
            )
        total, more, records = store.range(key, range_end, limit=limit, max_bytes=MAX_RANGE_REPLY_BYTES)
        return _pack((OK, current, total, more, records))

    def _watch_history(self, read: list[Any]) -> bytes:
        _, key, range_end, start_revision, limit_bytes, _ = read
        epoch, sequence = self.watch_plane.position(key, range_end)
        current = self._store.revision
        if start_revision == 0:
            return _pack((OK, current, epoch, sequence, False, ()))
        limit_bytes = min(limit_bytes or DEFAULT_HISTORY_BYTES, MAX_HISTORY_BYTES)
        page = self._history.read(key, range_end, start_revision, limit_bytes)
        if page is None:
            message = "required revision has been compacted"
            return error_result(protocol.COMPACTED, message, self._history.compact_revision)
        return _pack((OK, current, epoch, sequence, page.more, page.revisions))

    # -- snapshots -------------------------------------------------------------------------------------

    def snapshot(self) -> Iterator[bytes]:
        """The state as of this call. Everything that decides a result is in it; the history is not."""
        store, sessions = self._store, self._sessions.frozen()
        return encode_state(
            self.applied_index, store.revision, store.frozen(), len(store), sessions, len(sessions)
        )

    def restorer(self) -> StoreRestorer:
        """What it is fed is built beside the state in force, and takes its place at the end."""
        return StoreRestorer(Store(), self._sessions.empty(), self._take_over)

    def _take_over(self, applied_index: int, store: Store, sessions: Sessions) -> None:
        """Replaces everything. Watchers hear that they missed something, and older events are compacted."""
        self._store, self._sessions = store, sessions
        self.applied_index = applied_index
        self._history.restart(store.revision)
        self.watch_plane.restart(store.revision)

    # -- for operators and tests -----------------------------------------------------------------------

    def status(self) -> dict[str, object]:
        return {
            "revision": self._store.revision,
            "keys": len(self._store),
            "sessions": len(self._sessions),
            "compact_revision": self._history.compact_revision,
            "history_bytes": self._history.size_bytes,
            **self.watch_plane.status(),
        }

    def digest(self) -> bytes:
        """A hash of all that replicas with the same applied_index must agree on."""
        return hashlib.sha256(self._store.digest() + self._sessions.digest()).digest()
