"""What the connections of a load are busy with: the bodies they send, and whether a result is the right one.

May know: the client protocol. Opens no socket and reads no clock; `load` does, and hands results here one
by one, so that a wrong answer is never counted as a fast one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final, Protocol, TypeAlias

import zmq

from kvstore import protocol

VALUES: Final = 64

Operation: TypeAlias = tuple[float, bytes, bytes]
"""(when it was first sent, body, key)."""


class Connection:
    """One DEALER and what it still owes an answer; owned by the load.

    A request's id is its sequence in the session too, so both survive a retry, on whatever socket.
    """

    __slots__ = (
        "endpoint",
        "heard_at",
        "next_id",
        "outstanding",
        "patience_seconds",
        "refusals_in_a_row",
        "resend",
        "resend_at",
        "session_id",
        "socket",
    )

    def __init__(self, patience_seconds: float) -> None:
        self.socket: zmq.Socket[bytes] | None = None
        self.endpoint = ""
        self.session_id = 0
        self.next_id = 0  # 0 is the opening of the session
        self.outstanding: dict[int, Operation] = {}  # by request id, ascending
        self.resend: set[int] = set()  # ids in `outstanding` which are to be sent again
        self.resend_at = 0.0
        self.heard_at = 0.0
        self.patience_seconds = patience_seconds
        self.refusals_in_a_row = 0  # frames, since the last one with results

    @property
    def acknowledged_below(self) -> int:
        """Every lower sequence has been answered: the node need not remember its result."""
        return next(iter(self.outstanding), self.next_id)


class Work(Protocol):
    """What the connections are busy with. `judge` answers None, or the name of what is wrong."""

    kind: int

    def take_keys(self, count: int) -> Sequence[bytes]: ...
    def bodies(self, connection: Connection, keys: Sequence[bytes]) -> list[bytes]: ...
    def judge(self, connection: Connection, key: bytes, result: list[Any]) -> str | None: ...


def _failure(result: list[Any]) -> str:
    return protocol.CODE_NAMES.get(result[0], f"code_{result[0]}")


class OpenSessions:
    kind = protocol.WRITE

    def take_keys(self, count: int) -> Sequence[bytes]:
        return [b""] * count

    def bodies(self, connection: Connection, keys: Sequence[bytes]) -> list[bytes]:
        return [protocol.open_session_body(os.urandom(protocol.NONCE_BYTES)) for _ in keys]

    def judge(self, connection: Connection, key: bytes, result: list[Any]) -> str | None:
        if result[0] != protocol.OK or len(result) < 3:
            return _failure(result)
        connection.session_id = result[2]
        return None


class CloseSessions(OpenSessions):
    def bodies(self, connection: Connection, keys: Sequence[bytes]) -> list[bytes]:
        sequence = connection.next_id
        return [protocol.close_session_body(connection.session_id, sequence, connection.acknowledged_below)]

    def judge(self, connection: Connection, key: bytes, result: list[Any]) -> str | None:
        return None if result[0] == protocol.OK else _failure(result)


class Puts:
    kind = protocol.WRITE

    def __init__(self, keys: Iterator[bytes], values: list[bytes]) -> None:
        self._keys = keys
        self._values = values
        self.revisions: list[int] = []

    def take_keys(self, count: int) -> Sequence[bytes]:
        return list(islice(self._keys, count))

    def bodies(self, connection: Connection, keys: Sequence[bytes]) -> list[bytes]:
        session_id, below, values = connection.session_id, connection.acknowledged_below, self._values
        return [
            protocol.put_body(session_id, sequence, below, key, values[sequence % VALUES])
            for sequence, key in enumerate(keys, connection.next_id)
        ]

    def judge(self, connection: Connection, key: bytes, result: list[Any]) -> str | None:
        if result[0] != protocol.OK or len(result) != 3:
            return _failure(result)
        self.revisions.append(result[1])
        return None

    def repeated_revisions(self) -> int:
        """Every put has a revision of its own; two with the same one cannot both have been applied."""
        return len(self.revisions) - len(set(self.revisions))


class Gets:
    def __init__(self, kind: int, keys: Iterator[bytes], value_bytes: int) -> None:
        self.kind = kind
        self._keys = keys
        self._value_bytes = value_bytes

    def take_keys(self, count: int) -> Sequence[bytes]:
        return list(islice(self._keys, count))

    def bodies(self, connection: Connection, keys: Sequence[bytes]) -> list[bytes]:
        return [protocol.range_body(key) for key in keys]

    def judge(self, connection: Connection, key: bytes, result: list[Any]) -> str | None:
        if result[0] != protocol.OK:
            return _failure(result)
        try:
            [found] = result[4]
            right = found[0] == key and len(found[1]) == self._value_bytes
        except (IndexError, TypeError, ValueError):
            right = False
        return None if right else "wrong_value"
