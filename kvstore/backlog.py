"""Large replies that may still wait in a queue to a client that does not read: a bound on their bytes.

A queue of ZeroMQ is bounded in frames, and a frame may be megabytes. So a client that reads large ranges says
in its requests which answers it has received, and one that does not say so gets no more than a bounded lot.
Pure bookkeeping: knows connections, request ids and sizes. Small replies are not counted: the bound on frames
does for them.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

LARGE_REPLY_BYTES: Final = 64 << 10
MAX_UNCONFIRMED_BYTES: Final = 32 << 20  # of one connection
MAX_TOTAL_BYTES: Final = 256 << 20  # of all of them


class Backlog:
    """Owned by one gateway."""

    def __init__(
        self, *, max_connection_bytes: int = MAX_UNCONFIRMED_BYTES, max_total_bytes: int = MAX_TOTAL_BYTES
    ) -> None:
        self._max_connection_bytes = max_connection_bytes
        self._max_total_bytes = max_total_bytes
        # By connection, the one heard of longest ago first: (id of the last request answered, bytes) each.
        self._replies: OrderedDict[bytes, deque[tuple[int, int]]] = OrderedDict()
        self._bytes: dict[bytes, int] = {}  # by connection, the sum over its replies
        self.total_bytes = 0  # the sum over _bytes

    def admit(self, connection: bytes, last_request_id: int, size_bytes: int) -> bool:
        """May this reply be sent? If so it counts until it is confirmed. With nothing waiting, any may."""
        if size_bytes < LARGE_REPLY_BYTES:
            return True
        waiting = self._bytes.get(connection, 0)
        if waiting and waiting + size_bytes > self._max_connection_bytes:
            return False
        while self.total_bytes and self.total_bytes + size_bytes > self._max_total_bytes:
            if not self._forget_another(connection):
                break
        self._replies.setdefault(connection, deque()).append((last_request_id, size_bytes))
        self._bytes[connection] = waiting + size_bytes
        self.total_bytes += size_bytes
        return True

    def confirm(self, connection: bytes, confirmed_below: int) -> None:
        """The client has received the answers to all requests below this id."""
        replies = self._replies.get(connection)
        if replies is None:
            return
        self._replies.move_to_end(connection)
        while replies and replies[0][0] < confirmed_below:
            size_bytes = replies.popleft()[1]
            self._bytes[connection] -= size_bytes
            self.total_bytes -= size_bytes
        if not replies:
            del self._replies[connection], self._bytes[connection]

    def _forget_another(self, connection: bytes) -> bool:
        """Write off what the quietest other connection owes: most likely it is gone, with its queue."""
        for quietest in self._replies:
            if quietest != connection:
                del self._replies[quietest]
                self.total_bytes -= self._bytes.pop(quietest)
                return True
        return False
