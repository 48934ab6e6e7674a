"""Writes while a disk is nearly full, or the store is above its quota: which of them go on.

May know: operations, and the time as it is passed in; nothing of files, connections or Raft. One member
without room is enough to stop growth: its log takes what every other one takes. A fenced one does not count.
Of the quota the leader judges alone, by its own settings and its own store. Only what is new is refused:
what was carried out before the alarm has its result, however late the retry that asks for it. Bodies are
decoded here, and only here at the edge, and only while the alarm is on.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Final

from kvstore import protocol
from kvstore.operations import decode_write, error_result
from kvstore.pending import Pending
from kvstore.quota import Quota
from raft.actor_messages import StateSize

log = logging.getLogger("assent.space")

# What a node said of its disk is believed for so long: one that is gone must not stop the others for ever.
BELIEVE_SECONDS: Final = 5.0
# What takes nothing but a record in the log, and as a rule gives room back or keeps alive what is there.
FRUGAL: Final = frozenset(
    {
        protocol.DELETE,
        protocol.OPEN_SESSION,
        protocol.CLOSE_SESSION,
        protocol.COMPACT,
        protocol.LEASE_REVOKE,
        protocol.LEASE_KEEPALIVE,
    }
)


@dataclass(slots=True)
class SpaceNotice:
    """gateway to the other nodes' gateways, each second while it is low, and when it no longer is.

    Not a part of Announce: a node of another version could read neither then.
    """

    is_low: bool
    free_bytes: int


class SpaceGate:
    """Owned by the gateway."""

    def __init__(self, own: str, quota_bytes: int = 0) -> None:
        self._own = own
        self._quota = Quota(quota_bytes)
        self._low: dict[str, float] = {}  # the nodes with too little room, and when they said so last
        self._notice: SpaceNotice | None = None  # what the others are to be told
        self._is_silent = False  # they are not told any more how this node is
        self.is_closed = False  # some member has too little room, or the store is too large: it may not grow

    def note(self, node: str, notice: SpaceNotice, now: float) -> None:
        """A member, or this node, says how it is."""
        if node == self._own and not self._is_silent:
            self._notice = notice
        if notice.is_low:
            self._low[node] = now
        else:
            self._low.pop(node, None)
        self._judge()

    def fall_silent(self) -> None:
        """The node is fenced: its disk cannot but fill, and the others do without it. What it said is taken
        back."""
        self._is_silent = True
        if self._notice is not None:
            self._notice = replace(self._notice, is_low=False)

    def sweep(self, members: Container[str], now: float) -> None:
        """Forget who is silent, or no member any more."""
        for node, heard_at in list(self._low.items()):
            if node != self._own and (now - heard_at > BELIEVE_SECONDS or node not in members):
                del self._low[node]
        self._judge()

    def take_notice(self) -> SpaceNotice | None:
        """What the others are to be told now: again and again while it is low, and once that it is over."""
        notice = self._notice
        if notice is not None and not notice.is_low:
            self._notice = None
        return notice

    def nodes(self) -> list[str]:
        """Those with too little room."""
        return sorted(self._low)

    def weigh(self, size: StateSize) -> None:
        """The applier says how large the store is."""
        self._quota.judge(size.size_bytes)
        self._judge()

    def status(self) -> dict[str, object]:
        return {
            "space_low": self.nodes(),
            "quota_bytes": self._quota.limit_bytes,
            "quota_exceeded": self._quota.is_exceeded,
        }

    def _judge(self) -> None:
        was_closed, self.is_closed = self.is_closed, bool(self._low) or self._quota.is_exceeded
        if self.is_closed is not was_closed:
            verdict = "refused" if self.is_closed else "allowed"
            log.warning(
                "growth=%s low=%s quota_exceeded=%s", verdict, ",".join(self.nodes()), self._quota.is_exceeded
            )

    def refusal(self) -> bytes:
        """The result of a write that would grow."""
        names = ", ".join(self.nodes())
        if not names:
            text = f"the store is above its quota of {self._quota.limit_bytes >> 20} MiB: delete; reads go on"
            return error_result(protocol.SPACE_EXCEEDED, text)
        text = f"too little disk space on {names}: delete or compact, or make room there; reads go on"
        return error_result(protocol.SPACE_EXCEEDED, text)

    def questions(self, bodies: list[bytes]) -> list[bytes]:
        """In the place of writes that would grow: reads whose answer is, of what is repeated, the result that
        it has already; of what is new, the refusal; of what is no write, what is wrong with it."""
        refusal = self.refusal()
        return [_question(decode_write(body), refusal) for body in bodies]


def _question(command: list[Any] | bytes, refusal: bytes) -> bytes:
    if isinstance(command, bytes):
        return protocol.remembered_body(0, 0, command)
    return protocol.remembered_body(command[0], command[1], refusal)


def runs(bodies: list[bytes]) -> Iterator[tuple[int, int, bool]]:
    """(start, stop, is_frugal) of the bodies that follow one another and are treated alike."""
    start = 0
    for frugal, group in groupby(bodies, _is_frugal):
        stop = start + sum(1 for _ in group)
        yield start, stop, frugal
        start = stop


def parts(pending: Pending, bodies: list[bytes]) -> Iterator[tuple[Pending, list[bytes], bool]]:
    """The same runs, each with its bodies as a request of its own."""
    for start, stop, is_frugal in runs(bodies):
        size, some = stop - start, bodies[start:stop]
        part = replace(
            pending,
            first_request_id=pending.first_request_id + start,
            count=size,
            remaining=size,
            size_bytes=sum(map(len, some)),
        )
        yield part, some, is_frugal


def _is_frugal(body: bytes) -> bool:
    command = decode_write(body)
    if not isinstance(command, list):
        return False
    return command[3] in FRUGAL or (command[3] == protocol.TXN and not command[4].has_put)
