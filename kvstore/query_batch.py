"""What the reads of one call of the state machine may cost, and answers in steps for those which cost more.

May know: numbers of keys and of bytes, and encoded results; nothing of what is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvstore import protocol
from kvstore.error_results import error_result
from raft.state_machine import LongAnswer

MAX_QUERY_BYTES: Final = 64 << 20  # results of one call of query()
QUERY_KEYS: Final = 4096  # looked at by one call of begin_query(), about: what is more is read in steps
SMALL_RANGE_KEYS: Final = 64  # a range of no more is answered at once, whatever others ask for
SMALL_QUERY_KEYS: Final = 2048  # looked at for such ranges beside
# Answered by it, of results that are not small; small ranges have as much beside.
QUERY_BYTES: Final = 8 << 20
SMALL_RESULT_BYTES: Final = 8192  # a result up to this size is given even beyond MAX_QUERY_BYTES

TOO_MUCH_AT_ONCE: Final = error_result(
    protocol.TOO_LARGE, f"reads asked for more than {MAX_QUERY_BYTES} bytes at once: ask again"
)


class QueryBatch:
    """What the reads of one call of begin_query() may still cost; owned by that call and its long answers."""

    __slots__ = ("keys_left", "size_bytes", "small_keys_left")

    def __init__(self) -> None:
        self.keys_left = QUERY_KEYS
        self.small_keys_left = SMALL_QUERY_KEYS  # which no scan of somebody else takes away
        self.size_bytes = 0  # of the results that are not small

    def affords(self, keys: int) -> bool:
        """If so, these are paid for."""
        if keys <= SMALL_RANGE_KEYS and keys <= self.small_keys_left and self.size_bytes < 2 * QUERY_BYTES:
            self.small_keys_left -= keys
            return True
        if keys <= self.keys_left and self.size_bytes < QUERY_BYTES:
            self.keys_left -= keys
            return True
        return False

    def admit(self, result: bytes) -> bytes:
        """Thousands of large reads in one frame must not become gigabytes of answer."""
        size = len(result)
        if size <= SMALL_RESULT_BYTES:
            return result
        if self.size_bytes + size > MAX_QUERY_BYTES:
            return TOO_MUCH_AT_ONCE
        self.size_bytes += size
        return result


def in_steps(steps: Callable[[], LongAnswer], keys: int, batch: QueryBatch) -> bytes | LongAnswer:
    """The first step is done at once, for it may be the only one, unless too much was done already.

    If it is not, it is done again later: a LongAnswer that waits has not begun.
    """
    if batch.affords(keys):
        answer = next(steps())
        if answer is not None:
            return answer
    return admitted(steps(), batch)


def admitted(steps: LongAnswer, batch: QueryBatch) -> LongAnswer:
    """Of a call that has answered enough already, a large answer is given no more."""
    for answer in steps:
        yield None if answer is None else batch.admit(answer)


def whole_answer(answer: bytes | LongAnswer) -> bytes:
    if isinstance(answer, bytes):
        return answer
    return next(result for result in answer if result is not None)
