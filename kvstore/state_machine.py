"""The replicated state machine: store, sessions and leases, driven by the log alone.

May know: the store, the sessions, the leases, the protocol; nothing of clocks, chance, sockets or Raft. The
same log gives the same result bytes and the same state on every node, and no body, however broken, makes it
raise: a command that cannot be carried out has a result that says so, and that is the same everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgpack

from kvstore import protocol
from kvstore.compactor import KeptHistory
from kvstore.dismantling import Dismantling
from kvstore.hierarchy import STEP_KEYS, children_in_steps
from kvstore.history import MAX_SCANNED_VERSIONS
from kvstore.history_pages import history_page, keys_of_page
from kvstore.lease_commands import LeaseCommands
from kvstore.lease_keeper import LeasesSeen
from kvstore.leases import Leases
from kvstore.operations import decode_read, decode_read_transaction, decode_write, error_result
from kvstore.protocol import (
    CHILDREN,
    CLOSE_SESSION,
    COMPACT,
    COUNT_ONLY,
    DELETE,
    KEYS_ONLY,
    MAX_DELETE_KEYS,
    MAX_PREV_KVS_BYTES,
    MAX_RANGE_REPLY_BYTES,
    OK,
    OPEN_SESSION,
    PREV_KV,
    PUT,
    RANGE,
    READ_TXN,
    TXN,
    WATCH_HISTORY,
)
from kvstore.query_batch import (
    SMALL_RESULT_BYTES,
    QueryBatch,
    admitted,
    in_steps,
    whole_answer,
)
from kvstore.range_select import SortRoom, selected_in_steps
from kvstore.range_steps import PastCounts, compacted, range_in_steps
from kvstore.restoring import StoreRestorer, state_fingerprint
from kvstore.sessions import EXPIRED, Sessions
from kvstore.snapshots import StateHeader, encode_state
from kvstore.store import SLICE_KEYS, Store
from kvstore.transaction_bodies import Transaction
from kvstore.transactions import (
    FUTURE,
    Refused,
    Writing,
    keys_of_first_step,
    read_in_steps,
    resolved_put,
)
from kvstore.watch_plane import WatchPlane
from raft.state_machine import LongAnswer

# Of what was compacted, given back with each call of apply(), query() or tidy(); a millisecond.
SWEEP_VERSIONS: Final = 1024
# Puts take 5 to 10 microseconds each, and a microsecond for each kilobyte of what was there and is there now.
UNASKED_PUTS: Final = 64  # one after another, and then the time is asked for; fewer where many watch
UNASKED_BYTES: Final = 256 << 10  # touched by them: requests, results and what was overwritten
FEW_WATCHES: Final = 4  # of one key: to tell so many costs as much as a put
MAX_RESULTS_BYTES: Final = 4 << 20  # of one call of apply_some(), and one result more
TREE_BYTES: Final = 32  # of the lists of a transaction: to read so many counts as a key

_pack: Callable[[Any], bytes] = msgpack.Packer().pack

TOO_MUCH_PREVIOUS: Final = error_result(
    protocol.TOO_LARGE, f"the deleted records exceed {MAX_PREV_KVS_BYTES} bytes: nothing deleted"
)
TOO_MANY_KEYS: Final = error_result(
    protocol.TOO_LARGE,
    f"the range has more than {MAX_DELETE_KEYS} keys: nothing deleted; delete it in pieces (longer prefixes)",
)


class StoreMachine:
    """Implements raft's StateMachine; owned by one applier. Its `watch_plane` is the applier's announcer."""

    # Another one whenever fingerprints are computed in another way, or a command has another effect.
    fingerprint_version: Final = 7

    def __init__(
        self,
        watch_plane: WatchPlane,
        *,
        sessions: Sessions | None = None,
        max_scanned_versions: int = MAX_SCANNED_VERSIONS,
    ) -> None:
        self.watch_plane = watch_plane
        self.applied_index = 0  # every entry up to here has had its effect, once
        self._store = Store()
        self._leaving: Dismantling | None = None  # the state before this one, as far as it is still there
        self._sessions = sessions if sessions is not None else Sessions()
        self._leases = LeaseCommands(self._store, Leases())
        self._max_scanned_versions = max_scanned_versions  # by one read of the history
        self._overwritten_bytes = 0  # by puts, since apply_some() has asked for the time
        self._commands: dict[int, Callable[[list[Any]], bytes]] = {
            PUT: self._put,
            DELETE: self._delete,
            COMPACT: self._compact,
            TXN: self._transact,
            **self._leases.writes,
        }
        self._counts = PastCounts()
        self._sort_room = SortRoom()
        self._reads: dict[int, Callable[[list[Any], QueryBatch], bytes | LongAnswer]] = {
            RANGE: self._range,
            WATCH_HISTORY: self._watch_history,
            READ_TXN: self._read_transaction,
            **dict.fromkeys(self._leases.reads, self._read_leases),
            CHILDREN: self._children,
            protocol.REMEMBERED: self._remembered,
        }

    @property
    def revision(self) -> int:
        return self._store.revision

    # -- commands --------------------------------------------------------------------------------------

    def apply(self, first_index: int, bodies: Sequence[bytes | None]) -> list[bytes | None]:
        """Applies consecutive entries; one result each, None for an entry without a command."""
        results = self.apply_some(first_index, bodies)
        while len(results) < len(bodies):
            results += self.apply_some(first_index + len(results), bodies[len(results) :])
        return results

    def apply_some(
        self,
        first_index: int,
        bodies: Sequence[bytes | None],
        *,
        is_time_up: Callable[[], bool] = lambda: False,
    ) -> list[bytes | None]:
        """The same of the first of them, until the time is up or the results are many megabytes.

        The watchers are told first, for that takes time too. It is asked for behind whatever is no put, and
        whenever so many puts were done, or so much was touched by them.
        """
        assert first_index == self.applied_index + 1, f"entry {first_index} after {self.applied_index}"
        commands, admit, remember = self._commands, self._sessions.admit, self._sessions.remember
        leases = self._leases
        results: list[bytes | None] = []
        append = results.append
        result_bytes, cost = 0, self._put_bytes()
        left, self._overwritten_bytes = UNASKED_BYTES, 0
        for index, body in enumerate(bodies, first_index):
            if body is None:
                append(None)
                continue
            command = decode_write(body)
            if isinstance(command, bytes):
                operation, result = 0, command
            else:
                session_id, sequence, operation = command[0], command[1], command[3]
                execute = commands.get(operation)
                leases.index = index
                if execute is None:
                    result = self._change_session(command, index)
                elif session_id == 0:
                    result = execute(command)  # without a session, a retry is applied again
                else:
                    session = admit(session_id, sequence, command[2])
                    if isinstance(session, bytes):
                        result = session
                    else:
                        result = execute(command)
                        remember(session, sequence, result)
            append(result)
            size_bytes = len(result)
            result_bytes += size_bytes
            left -= cost + size_bytes + len(body)
            if operation != PUT or left < self._overwritten_bytes:
                self._tell_watchers()
                if result_bytes >= MAX_RESULTS_BYTES or is_time_up():
                    break
                left, self._overwritten_bytes = UNASKED_BYTES, 0
        self.applied_index += len(results)
        self._tell_watchers()
        self._give_back(SWEEP_VERSIONS + 2 * len(results))
        return results

    def _put_bytes(self) -> int:
        """As so many bytes counts a put, for what it costs whatever its size: more where many watch."""
        return UNASKED_BYTES // UNASKED_PUTS * (1 + self.watch_plane.most_concerned() // FEW_WATCHES)

    def _tell_watchers(self) -> None:
        """Within apply, so that no read can see a revision which history and streams do not know yet."""
        changes = self._store.take_changes()
        if changes:
            self.watch_plane.feed(changes, self._store.record_before)

    def _put(self, command: list[Any]) -> bytes:
        store = self._store
        if command[6] or command[7] > PREV_KV:
            before = store.get(command[4])
            try:
                command[5:7] = resolved_put(self._leases, before, *command[4:])
            except Refused as refused:
                return refused.result
        previous = store.put(command[4], command[5], command[6])
        if previous is not None:
            self._overwritten_bytes += len(previous[1])
        return _pack((OK, store.revision, previous if command[7] & PREV_KV else None))

    def _delete(self, command: list[Any]) -> bytes:
        key, range_end, flags = command[4:]
        store = self._store
        if range_end and store.count(key, range_end) > MAX_DELETE_KEYS:
            return TOO_MANY_KEYS
        if flags & PREV_KV:
            size_bytes = sum(
                len(record[0]) + len(record[1]) for record in store.range(key, range_end).records
            )
            if size_bytes > MAX_PREV_KVS_BYTES:
                return TOO_MUCH_PREVIOUS
        removed = store.delete(key, range_end)
        return _pack((OK, store.revision, len(removed), removed if flags & PREV_KV else ()))

    def _transact(self, command: list[Any]) -> bytes:
        return Writing(self._store, self._leases).run(command[4])

    def _compact(self, command: list[Any]) -> bytes:
        revision, store = command[4], self._store
        if revision > store.revision:
            return error_result(protocol.FUTURE_REVISION, FUTURE, store.revision)
        if revision <= store.compact_revision:
            # Not the oldest that can be read here: that is not the same on all nodes, and this is remembered.
            return compacted(store.compact_revision)
        store.compact(revision)
        return _pack((OK, store.revision))

    def _change_session(self, command: list[Any], index: int) -> bytes:
        """They need no memory of their results: of a session that was opened it is kept with the session, and
        one that is closed is found closed."""
        if command[3] == OPEN_SESSION:
            return self._sessions.open(command[4], index, self._store.revision)
        assert command[3] == CLOSE_SESSION, f"operation {command[3]} was let in"
        return _pack((OK, self._store.revision)) if self._sessions.close(command[0]) else EXPIRED

    def leases_seen(self) -> LeasesSeen:
        """What expiry could take, as the leader's keeper wants to know it."""
        store = self._store
        return LeasesSeen(
            self._leases.leases, self.applied_index, lambda lease: len(store.leased_keys(lease))
        )

    @property
    def lease_time_ms(self) -> int:
        """The time of the cluster, as far as the log tells it."""
        return self._leases.leases.time_ms

    def kept_history(self) -> KeptHistory:
        """What compaction could take, as the policy wants to know it."""
        store = self._store
        kept = store.revision, store.oldest_revision, store.history_bytes, store.is_sweeping
        return KeptHistory(*kept, store.size_bytes)

    def size_bytes(self) -> int:
        """What the store holds, as its quota counts."""
        return self._store.size_bytes

    # -- reads -----------------------------------------------------------------------------------------

    def query(self, bodies: Sequence[bytes]) -> list[bytes]:
        """Answers reads against the state as applied so far, however long that takes."""
        return [whole_answer(answer) for answer in self.begin_query(bodies)]

    def begin_query(self, bodies: Sequence[bytes]) -> list[bytes | LongAnswer]:
        """The answers, and in the place of those which would take long what gives them step by step."""
        reads, batch = self._reads, QueryBatch()
        answers: list[bytes | LongAnswer] = []
        for body in bodies:
            read = decode_read(body)
            answer = read if isinstance(read, bytes) else reads[read[0]](read, batch)
            if type(answer) is bytes and len(answer) > SMALL_RESULT_BYTES:
                answer = batch.admit(answer)
            answers.append(answer)
        self._give_back(SWEEP_VERSIONS)  # though nobody writes
        return answers

    def _range(self, read: list[Any], batch: QueryBatch) -> bytes | LongAnswer:
        _, key, range_end, limit, revision, flags = read[:6]
        store = self._store
        current = store.revision
        if revision and revision != current:
            return self._why_not_as_of(revision) or self._range_in_steps(read, batch)
        if len(read) > 6:
            return self._range_in_steps(read, batch)
        if not range_end and not flags:
            record = store.get(key)
            if record is None:
                return _pack((OK, current, 0, False, ()))
            if len(record[1]) > SMALL_RESULT_BYTES and not batch.affords(1):
                return admitted(self._range_steps(read), batch)
            return _pack((OK, current, 1, False, (record,)))
        count = store.count(key, range_end)
        if flags & COUNT_ONLY:
            return _pack((OK, current, count, False, ()))
        wanted = min(count, limit) if limit else count
        if not batch.affords(wanted):
            return admitted(self._range_steps(read), batch)
        keys_only = bool(flags & KEYS_ONLY)
        total, more, records = store.range(
            key, range_end, limit=limit, max_bytes=MAX_RANGE_REPLY_BYTES, keys_only=keys_only
        )
        return _pack((OK, current, total, more, records))

    def _why_not_as_of(self, revision: int) -> bytes | None:
        """The result of a read that names a revision which cannot be read."""
        if revision > self._store.revision:
            return error_result(protocol.FUTURE_REVISION, FUTURE, self._store.revision)
        if 0 < revision < self._store.oldest_revision:
            return compacted(self._store.oldest_revision)
        return None

    def _children(self, read: list[Any], batch: QueryBatch) -> bytes | LongAnswer:
        def steps() -> LongAnswer:
            return children_in_steps(lambda: self._store, self._counts, read)

        return self._why_not_as_of(read[4]) or in_steps(steps, STEP_KEYS, batch)

    def _range_in_steps(self, read: list[Any], batch: QueryBatch) -> bytes | LongAnswer:
        keys = min(self._store.width(read[1], read[2]), SLICE_KEYS)
        return in_steps(lambda: self._range_steps(read), keys, batch)

    def _range_steps(self, read: list[Any]) -> LongAnswer:
        if len(read) > 6:
            return selected_in_steps(lambda: self._store, self._counts, self._sort_room, read)
        return range_in_steps(lambda: self._store, self._counts, read)

    def _read_transaction(self, read: list[Any], batch: QueryBatch) -> bytes | LongAnswer:
        """As the first step of in_steps(). Others may wait for this one, as bytes: a tree is much larger."""
        if batch.affords(sum(map(len, read[1:])) // TREE_BYTES):
            transaction = decode_read_transaction(read)
            if isinstance(transaction, bytes):
                return transaction
            if batch.affords(keys_of_first_step(transaction)):
                answer = next(self._transaction_steps(transaction))
                if answer is not None:
                    return answer
        return admitted(self._later_transaction(read), batch)

    def _later_transaction(self, read: list[Any]) -> LongAnswer:
        transaction = decode_read_transaction(read)
        if isinstance(transaction, bytes):
            yield transaction
        else:
            yield from self._transaction_steps(transaction)

    def _transaction_steps(self, transaction: Transaction) -> LongAnswer:
        return read_in_steps(lambda: self._store, self._counts, self._sort_room, transaction)

    def _read_leases(self, read: list[Any], batch: QueryBatch) -> bytes | LongAnswer:
        leases = self._leases
        answer = leases.reads[read[0]]
        return in_steps(lambda: (answer(read) for _ in range(1)), leases.width(read), batch)

    def _remembered(self, read: list[Any], batch: QueryBatch) -> bytes | LongAnswer:
        """A large one has a step of its own, and is never too much: of a write that would be a lie."""
        _, session_id, sequence, otherwise = read
        known = self._sessions.result_of(session_id, sequence) if session_id else None
        result: bytes = otherwise if known is None else known
        return result if len(result) <= SMALL_RESULT_BYTES else iter((result,))

    def _watch_history(self, read: list[Any], batch: QueryBatch) -> bytes | LongAnswer:
        """A page that is dearer than all that one call may cost is always a step of its own."""
        keys = keys_of_page(self._store, read)
        if keys > batch.keys_left:
            return admitted((self._history_page(read) for _ in range(1)), batch)
        batch.keys_left -= keys
        return self._history_page(read)

    def _history_page(self, read: list[Any]) -> bytes:
        return history_page(self._store, self.watch_plane, read, self._max_scanned_versions)

    # -- snapshots -------------------------------------------------------------------------------------

    def snapshot(self) -> Iterator[bytes]:
        """The state as of this call: everything that decides a result, now or later.

        Reading it raises StateDamaged if the records are not what was put, once.
        """
        store, sessions = self._store, self._sessions.frozen()
        revisions = store.revision, store.compact_revision, store.known_from
        leases = self._leases.leases
        header = StateHeader(
            self.applied_index,
            *revisions,
            self.fingerprint(),
            len(store),
            len(self._sessions),
            leases.time_ms,
            len(leases),
        )
        return encode_state(header, leases.frozen(), store.frozen().slices(), sessions)

    def restorer(self) -> StoreRestorer:
        """What it is fed is built beside the state in force, and takes its place at the end."""
        return StoreRestorer(self._sessions.empty(), self._take_over)

    def _take_over(self, applied_index: int, store: Store, sessions: Sessions, leases: Leases) -> None:
        """Replaces everything. Watchers hear that they missed something, and find it in the history."""
        self._leaving = Dismantling(self._store, self._sessions)
        self._store, self._sessions = store, sessions
        self._leases.store, self._leases.leases = store, leases
        self.applied_index = applied_index
        self.watch_plane.restart(store.revision)

    # -- memory that is of no use any more -------------------------------------------------------------

    def tidy(self) -> None:
        """A step of giving it back, though nobody writes or reads; of the state it changes nothing."""
        self._give_back(SWEEP_VERSIONS)

    def _give_back(self, versions: int) -> None:
        """Of what was compacted, and of the store that was in force before the last restored snapshot."""
        if self._store.is_sweeping:
            self._store.sweep(versions)
        if self._leaving is not None and not self._leaving.step():
            self._leaving = None

    # -- for operators and tests -----------------------------------------------------------------------

    def status(self) -> dict[str, object]:
        return {
            "revision": self._store.revision,
            "keys": len(self._store),
            "sessions": len(self._sessions),
            "leases": len(self._leases.leases),
            "compact_revision": self._store.compact_revision,
            "history_bytes": self._store.history_bytes,
            "store_bytes": self._store.size_bytes,
            **self.watch_plane.status(),
        }

    def fingerprint(self) -> int:
        """64 bits that replicas with the same applied_index have in common; takes no more than a moment."""
        return state_fingerprint(self.applied_index, self._store, self._sessions, self._leases.leases)

    def digest(self) -> bytes:
        """A hash of all that replicas with the same applied_index must agree on."""
        parts = self._store.digest(), self._sessions.digest(), self._leases.leases.digest()
        return hashlib.sha256(b"".join(parts)).digest()
