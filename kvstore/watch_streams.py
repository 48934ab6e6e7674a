"""Streams of watched ranges, each with what is applied and not yet said.

May know: ranges, revisions and encoded events, and a time that it is given. What the fan-out of a stream
costs a node goes with its messages, not with its events. So a stream with many subscribers, to whom it spoke
a moment ago, holds what comes and says it a little later in one message; what comes to a quiet one leaves at
once. Of a stream with few subscribers nothing is held.
"""

from __future__ import annotations

from typing import Final

from kvstore.history import range_filter

# One message to one subscriber takes a node, its kernel included, 4 to 12 microseconds, and the subscriber
# itself more than that: so one stream takes a twenty-fifth of a core of its node at most, until the pause is
# the longest.
PAUSE_SECONDS_PER_SUBSCRIBER: Final = 0.000_3
LEAST_PAUSE_SECONDS: Final = 0.005  # a shorter one would not be worth it
MOST_PAUSE_SECONDS: Final = 0.1


class Stream:
    """One watched range; owned by the watch plane, from the first subscription to the last unsubscription."""

    __slots__ = (
        "concerns",
        "epoch",
        "held",
        "held_bytes",
        "held_events",
        "held_revision",
        "key",
        "pause_seconds",
        "range_end",
        "sequence",
        "spoke_at",
        "subscriptions",
        "topic",
    )

    def __init__(self, topic: bytes, key: bytes, range_end: bytes, epoch: int) -> None:
        self.topic = topic
        self.key = key
        self.range_end = range_end
        self.concerns = range_filter(key, range_end)
        self.epoch = epoch  # no other stream on any node has or had it
        self.sequence = 0  # of the last message; grows by one with each, published or dropped
        # Since it began: the socket does not tell of the end of one of several. So it may count too many,
        # who are never kept waiting longer than the longest pause by it.
        self.subscriptions = 0
        self.pause_seconds = 0.0  # between two messages with events, as long as it goes by their number
        self.spoke_at = float("-inf")  # when its last message with events was made
        self.held: list[bytes] = []  # encoded events, in order, of whole revisions
        self.held_events = 0
        self.held_bytes = 0  # their length together
        self.held_revision = 0  # of the last of them

    def greet(self) -> None:
        self.subscriptions += 1
        pause_seconds = min(self.subscriptions * PAUSE_SECONDS_PER_SUBSCRIBER, MOST_PAUSE_SECONDS)
        self.pause_seconds = pause_seconds if pause_seconds >= LEAST_PAUSE_SECONDS else 0.0

    def hold(self, revision: int, count: int, bodies: bytes) -> None:
        self.held.append(bodies)
        self.held_events += count
        self.held_bytes += len(bodies)
        self.held_revision = revision

    def let_go(self) -> None:
        """What was held was said, or never will be."""
        self.held = []
        self.held_events = self.held_bytes = 0
