"""A state machine and the log that drives it, for the tests of both."""

from __future__ import annotations

from typing import Any

import msgpack

from kvstore import protocol
from kvstore.state_machine import StoreMachine
from kvstore.watch_plane import WatchPlane

NONCE = b"0123456789abcdef"


class Log:
    """A machine and the log that drives it."""

    def __init__(self, **options: Any) -> None:
        self.machine = StoreMachine(WatchPlane(1), **options)

    def apply(self, *bodies: bytes | None) -> list[Any]:
        results = self.machine.apply(self.machine.applied_index + 1, bodies)
        return [None if result is None else msgpack.unpackb(result) for result in results]

    def ask(self, body: bytes) -> list[Any]:
        [result] = self.machine.query([body])
        unpacked: list[Any] = msgpack.unpackb(result)
        return unpacked

    def open_session(self, nonce: bytes = NONCE) -> int:
        [[code, _, session_id]] = self.apply(protocol.open_session_body(nonce))
        assert code == protocol.OK
        return int(session_id)

    def put(self, key: bytes, value: bytes = b"v", **options: int) -> list[Any]:
        [result] = self.apply(protocol.put_body(0, 0, 0, key, value, **options))
        found: list[Any] = result
        return found

    def delete(self, key: bytes, range_end: bytes = b"", **options: int) -> list[Any]:
        [result] = self.apply(protocol.delete_body(0, 0, 0, key, range_end, **options))
        found: list[Any] = result
        return found

    def get(self, key: bytes) -> bytes | None:
        records = self.ask(protocol.range_body(key))[4]
        return bytes(records[0][1]) if records else None
