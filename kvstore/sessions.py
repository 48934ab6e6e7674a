"""Sessions: what makes a retried write happen once (dissertation 6.3).

May know: session ids, sequences and results as bytes; nothing of the store or of time. Part of the
replicated state: every decision depends on the order of the log alone, so an old session is one that the
log has not used for longest. Everything is bounded, and whatever is pushed out by a bound fails loudly
afterwards, never by a second apply.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgpack

from kvstore import protocol
from kvstore.protocol import MAX_UNACKNOWLEDGED
from kvstore.snapshots import SessionState

MAX_SESSIONS: Final = 65_536
MAX_REMEMBERED_BYTES: Final = 256 << 20  # of all sessions; then the least recently used one goes
MAX_SESSION_BYTES: Final = 16 << 20  # of one session; then the older half of its results goes
RESULT_OVERHEAD_BYTES: Final = 128  # of one remembered result, beside its own bytes

_pack: Callable[[Any], bytes] = msgpack.Packer().pack

EXPIRED: Final = _pack((protocol.SESSION_EXPIRED, "session expired or never opened"))
FORGOTTEN: Final = _pack((protocol.SEQUENCE_FORGOTTEN, "the result of this sequence is forgotten"))


class Session:
    """Owned by Sessions. Every sequence from `floor` on that was ever applied is in `results`."""

    __slots__ = ("floor", "nonce", "opened", "remembered_bytes", "results")

    def __init__(self, nonce: bytes, opened: bytes) -> None:
        self.nonce = nonce
        self.opened = opened  # the result of the opening, for whoever asks again
        self.floor = 1  # never falls; sequences below it are acknowledged or forgotten
        self.results: dict[int, bytes] = {}  # at most MAX_UNACKNOWLEDGED, all within one such span
        self.remembered_bytes = 0  # of `results`, overhead included


class Sessions:
    """Owned by one state machine."""

    def __init__(
        self,
        *,
        max_sessions: int = MAX_SESSIONS,
        max_remembered_bytes: int = MAX_REMEMBERED_BYTES,
        max_session_bytes: int = MAX_SESSION_BYTES,
    ) -> None:
        assert max_sessions >= 1, f"no room for a session: {max_sessions}"
        self._max_sessions = max_sessions
        self._max_remembered_bytes = max_remembered_bytes
        self._max_session_bytes = max_session_bytes
        self._sessions: OrderedDict[int, Session] = OrderedDict()  # least recently used first
        self._by_nonce: dict[bytes, int] = {}  # exactly the nonces of _sessions
        self._remembered_bytes = 0  # sum over _sessions

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, nonce: bytes, index: int, revision: int) -> bytes:
        """The log position of the opening is the id: unique, and the same on every node."""
        known = self._by_nonce.get(nonce)
        if known is not None:
            self._sessions.move_to_end(known)
            return self._sessions[known].opened
        if len(self._sessions) >= self._max_sessions:
            self._evict()
        opened = _pack((protocol.OK, revision, index))
        self._sessions[index] = Session(nonce, opened)
        self._by_nonce[nonce] = index
        return opened

    def close(self, session_id: int) -> bool:
        """False if there is no such session."""
        session = self._sessions.pop(session_id, None)
        if session is None:
            return False
        del self._by_nonce[session.nonce]
        self._remembered_bytes -= session.remembered_bytes
        return True

    def admit(self, session_id: int, sequence: int, acknowledged_below: int) -> Session | bytes:
        """Before a command: the session it is new in, or the result which it has without being applied."""
        session = self._sessions.get(session_id)
        if session is None:
            return EXPIRED
        self._sessions.move_to_end(session_id)
        first_result = session.results.get(sequence)
        if first_result is not None:
            return first_result
        floor = session.floor
        if sequence < floor:
            return FORGOTTEN
        if acknowledged_below > floor:
            self._forget(session, acknowledged_below)
        return session

    def result_of(self, session_id: int, sequence: int) -> bytes | None:
        """What a command gets without being applied, as `admit` would say it; None: it is new. To ask changes
        nothing, for it is no command of the log."""
        session = self._sessions.get(session_id)
        if session is None:
            return EXPIRED
        return session.results.get(sequence) or (FORGOTTEN if sequence < session.floor else None)

    def remember(self, session: Session, sequence: int, result: bytes) -> None:
        """After a command that `admit` let in."""
        session.results[sequence] = result
        size_bytes = len(result) + RESULT_OVERHEAD_BYTES
        session.remembered_bytes += size_bytes
        self._remembered_bytes += size_bytes
        if sequence - session.floor >= MAX_UNACKNOWLEDGED:
            self._forget(session, sequence - MAX_UNACKNOWLEDGED + 1)
        while session.remembered_bytes > self._max_session_bytes and len(session.results) > 1:
            known = sorted(session.results)
            self._forget(session, known[len(known) // 2])
        # The session in use is the last of the order, so it is never the one that goes here.
        while self._remembered_bytes > self._max_remembered_bytes and len(self._sessions) > 1:
            self._evict()

    def _forget(self, session: Session, floor: int) -> None:
        """Drops all below `floor`, whichever of both ways is shorter."""
        results = session.results
        freed_bytes = 0
        if floor - session.floor <= len(results):  # as ever, while a client acknowledges what it gets
            for sequence in range(session.floor, floor):
                result = results.pop(sequence, None)
                if result is not None:
                    freed_bytes += len(result) + RESULT_OVERHEAD_BYTES
        else:
            for sequence in [known for known in results if known < floor]:
                freed_bytes += len(results.pop(sequence)) + RESULT_OVERHEAD_BYTES
        session.floor = floor
        session.remembered_bytes -= freed_bytes
        self._remembered_bytes -= freed_bytes

    def _evict(self) -> None:
        self.close(next(iter(self._sessions)))

    def frozen(self) -> Iterator[SessionState]:
        """All sessions as of this call, the least recently used first, though they are read later.

        There may be millions of results, so these are copied as whole tables now, and gone through later.
        """
        copies = [
            (session_id, session.nonce, session.opened, session.floor, session.results.copy())
            for session_id, session in self._sessions.items()
        ]
        return (
            (session_id, nonce, opened, floor, list(results.items()))
            for session_id, nonce, opened, floor, results in copies
        )

    def empty(self) -> Sessions:
        """Others with the same bounds, and nobody in them."""
        return Sessions(
            max_sessions=self._max_sessions,
            max_remembered_bytes=self._max_remembered_bytes,
            max_session_bytes=self._max_session_bytes,
        )

    def load(self, state: SessionState) -> None:
        """One more session of a snapshot; they come in the order of frozen().

        Raises ValueError if it cannot be: to close both of two with the same nonce would end the node.
        """
        session_id, nonce, opened, floor, results = state
        if session_id in self._sessions or nonce in self._by_nonce:
            raise ValueError(f"session {session_id} is there twice")
        session = Session(nonce, opened)
        session.floor = floor
        session.results = dict(results)
        session.remembered_bytes = sum(len(result) + RESULT_OVERHEAD_BYTES for _, result in results)
        self._sessions[session_id] = session
        self._by_nonce[nonce] = session_id
        self._remembered_bytes += session.remembered_bytes

    @property
    def fingerprint(self) -> int:
        """64 bits of who is there, how much is remembered, and the last result of whoever came last.

        No more than that, so that remembering costs nothing more; the rest follows from what the store is.
        """
        newest = next(reversed(self._sessions), 0)
        session = self._sessions.get(newest)
        last = None if session is None else (session.floor, *next(reversed(session.results.items()), ()))
        state = _pack((len(self._sessions), newest, self._remembered_bytes, last))
        return int.from_bytes(hashlib.blake2b(state, digest_size=8).digest(), "big")

    def digest(self) -> bytes:
        """A hash of all that replicas must agree on, the order of use included."""
        state = hashlib.sha256()
        for session_id, session in self._sessions.items():
            results = sorted(session.results.items())
            state.update(_pack((session_id, session.nonce, session.opened, session.floor, results)))
        return state.digest()
