"""What the layers are fed with: puts of 256 bytes, as a client of the library sends them."""

from __future__ import annotations

import random
from collections.abc import Callable

from actors import Codec
from kvstore.protocol import put_body
from raft.entries import Entry, EntryKind
from raft.wire import register_messages

VALUE = random.Random(1).randbytes(256)  # the same in every run, and not to be compressed
KEYS = 1000
SESSION = 1
TERM = 1


def overwritten_key(number: int) -> bytes:
    return b"/bench/k%04d" % (number % KEYS)


def new_key(number: int) -> bytes:
    return b"/bench/k%09d" % number


def bodies(first: int, count: int, key: Callable[[int], bytes] = overwritten_key) -> list[bytes]:
    """Puts within a session; their sequence numbers begin at `first`, and a few are not yet answered."""
    numbers = range(first, first + count)
    return [put_body(SESSION, number, max(1, first - 256), key(number), VALUE) for number in numbers]


def entries(first: int, count: int) -> list[Entry]:
    return [(TERM, int(EntryKind.COMMAND), body) for body in bodies(first, count)]


def node_codec() -> Codec:
    codec = Codec()
    register_messages(codec)
    return codec
