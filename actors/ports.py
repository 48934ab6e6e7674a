"""What the frames of the raw planes look like: client ports and publishers. Knows bytes only.

A client port hands over (connection, payload) pairs untouched: it belongs to the actor that opened it to
judge them. A publisher hands over subscriptions: b"\\x01" + topic when somebody subscribes (each time),
b"\\x00" + topic when the last subscriber of the topic has gone.
"""

from __future__ import annotations

from typing import NamedTuple


class Subscription(NamedTuple):
    """One subscription frame of a publisher, taken apart."""

    subscribed: bool  # False: the last subscriber of this topic has gone
    topic: bytes


def read_subscription(frame: bytes) -> Subscription:
    """Take apart a frame that a publisher port gave; the transport has already dropped all others."""
    assert is_subscription(frame), f"not a subscription frame: {frame[:1]!r}"
    return Subscription(frame[0] == 1, frame[1:])


def is_subscription(frame: bytes) -> bool:
    return frame[:1] in (b"\x00", b"\x01")
