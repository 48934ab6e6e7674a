"""A session: what makes a write that is sent twice apply once (dissertation 6.3).

May know: sequences. Knows nothing of links, frames or time.
"""

from __future__ import annotations

from typing import Final

from kvstore import protocol

# Fewer than what the server remembers, so that no sequence of ours is forgotten while it is unanswered.
WINDOW: Final = protocol.MAX_UNACKNOWLEDGED - 1


class Session:
    """Owned by the core, one at a time. Sequences are handed out in order and answered in any order."""

    __slots__ = ("_lowest", "_unanswered", "expired", "next_sequence", "nonce", "session_id")

    def __init__(self, nonce: bytes) -> None:
        assert len(nonce) == protocol.NONCE_BYTES, f"nonce of {len(nonce)} bytes"
        self.nonce = nonce  # repeated by each attempt to open, so that retries open one session
        self.session_id = 0  # 0 until the server has opened it
        self.expired = False  # the server forgot it: what is unanswered is unknown for good
        self.next_sequence = 1
        self._unanswered: set[int] = set()  # sequences handed out whose outcome is not known
        self._lowest = 1  # no member of _unanswered is below; rises only

    @property
    def is_open(self) -> bool:
        return self.session_id != 0 and not self.expired

    @property
    def has_unanswered(self) -> bool:
        return bool(self._unanswered)

    def acknowledged_below(self) -> int:
        """The lowest sequence that is not answered: results of all below may be forgotten."""
        lowest, last = self._lowest, self.next_sequence
        unanswered = self._unanswered
        while lowest < last and lowest not in unanswered:
            lowest += 1
        self._lowest = lowest
        return lowest

    def room(self) -> int:
        """How many sequences may be handed out before the lowest unanswered one is answered."""
        return WINDOW - (self.next_sequence - self.acknowledged_below())

    def take_sequence(self) -> int:
        sequence = self.next_sequence
        self.next_sequence = sequence + 1
        self._unanswered.add(sequence)
        return sequence

    def answered(self, sequence: int) -> None:
        """Its outcome is known, or its caller was told that it never will be."""
        self._unanswered.discard(sequence)
