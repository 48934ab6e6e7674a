"""A state machine's snapshot, cut into slices of one size, with nothing read ahead.

Knows iterators of bytes and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator

# Of every slice but the last, and those which the machine ends earlier. To encode so much of a store of small
# records takes one to two milliseconds: that is how long a command may have to wait for it.
SLICE_BYTES = 64 << 10


class Slices:
    """Owned by whoever takes the snapshot."""

    __slots__ = ("_chunks", "_rest", "_slice_bytes", "offset")

    def __init__(self, chunks: Iterator[bytes], slice_bytes: int = SLICE_BYTES) -> None:
        self._chunks: Iterator[bytes] | None = chunks  # None: it has no more
        self._slice_bytes = slice_bytes
        self._rest = bytearray()  # given, and in no slice yet
        self.offset = 0  # of the next slice

    def next_slice(self) -> tuple[bytes, bool]:
        """The next slice, and whether it is the last one.

        It ends early, and may even be empty, where the machine gives an empty piece: it has worked long
        enough. The first slice is never empty unless it is the last.
        """
        rest, size = self._rest, self._slice_bytes
        while len(rest) < size and self._chunks is not None:
            chunk = next(self._chunks, None)
            if chunk is None:
                self._chunks = None
            elif chunk:
                rest += chunk
            elif rest or self.offset:
                break
        data = bytes(rest[:size])
        del rest[:size]
        self.offset += len(data)
        return data, self._chunks is None and not rest
