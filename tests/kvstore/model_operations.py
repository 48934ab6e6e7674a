"""Everything that can be asked of the state machine, as a table: each kind does it to the machine and to the
plain model, and compares.

A kind is a function of a Pair and of a source of chance, which may look at the state to draw something that
matters there. The source is a test's: hypothesis shrinks what it draws, a seed repeats it. To add an
operation, teach it to plain_model.py and write one more function under `@kind`, here or in a module that
model_kinds.py names: the log that the kinds write is also the one that tests of determinism replay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, Final

import msgpack

from kvstore import protocol
from kvstore.codes import INTERNAL_BYTE
from kvstore.protocol import IGNORE_LEASE, IGNORE_VALUE, PREV_KV, PUT, RANGE, TXN
from kvstore.sessions import Sessions
from kvstore.state_machine import StoreMachine
from kvstore.watch_plane import WatchPlane
from tests.kvstore.plain_model import PlainModel, Result

MAX_SESSIONS: Final = 3  # few, so that they push each other out
EVERYTHING: Final = (b"\x00", b"\x00")

Kind = Callable[["Pair", Random], None]
KINDS: Final[dict[str, Kind]] = {}  # by name


def kind(run: Kind) -> Kind:
    KINDS[run.__name__] = run
    return run


def new_machine() -> StoreMachine:
    return StoreMachine(WatchPlane(1), sessions=Sessions(max_sessions=MAX_SESSIONS))


class Pair:
    """The machine and the model, which get the same; owned by a test."""

    def __init__(self) -> None:
        self.machine = new_machine()
        self.model = PlainModel(max_sessions=MAX_SESSIONS)
        self.log: list[bytes | None] = []  # all that was applied
        self.story: list[object] = []  # the same and the reads, to be read by people
        self.codes: Counter[str] = Counter()  # how often each code was the result
        self.session_ids: list[int] = []  # of all sessions that there ever were
        self.sequences: Counter[int] = Counter()  # the last one of each session
        self.sent: list[list[Any]] = []  # commands of sessions
        # A snapshot that is being read, with index, fingerprint and digest of its moment.
        self.reader: tuple[Iterator[bytes], list[bytes], int, int, bytes] | None = None

    # -- both, and compare -----------------------------------------------------------------------------

    def apply(self, command: list[Any] | None, *, is_leaders: bool = False) -> Result | None:
        """`is_leaders`: one that a leader proposes by itself, and no client can."""
        body = None if command is None else encoded(command)
        if command is not None and is_leaders:
            body = INTERNAL_BYTE + encoded(command[3:])
        self.log.append(body)
        [given] = self.machine.apply(self.machine.applied_index + 1, [body])
        return self._compare(command, given, self.model.apply(command))

    def query(self, read: list[Any]) -> Result:
        [given] = self.machine.query([encoded(read)])
        result = self._compare(read, given, self.model.query(read))
        assert result is not None
        return result

    def _compare(self, asked: object, given: bytes | None, expected: Result | None) -> Result | None:
        self.story.append(asked)
        result = None if given is None else without_text(msgpack.unpackb(given))
        assert result == expected, f"{result} instead of {expected}, after {self.story}"
        if result is not None:
            self.codes[protocol.CODE_NAMES[result[0]]] += 1
        return result

    # -- what is drawn ---------------------------------------------------------------------------------

    def write(self, chance: Random, operation: int, *arguments: Any) -> Result:
        """Within a session or without one; mostly with the next sequence, now and then with a later one."""
        command = [0, 0, 0, operation, *arguments]
        if self.session_ids and chance.random() < 0.5:
            session_id = chance.choice(self.session_ids[-MAX_SESSIONS - 1 :])
            sequence = self.sequences[session_id] + chance.choice([1, 1, 1, 2, 5])
            self.sequences[session_id] = sequence
            acknowledged_below = max(0, sequence - chance.choice([0, 1, 3, 9]))
            command[:3] = session_id, sequence, acknowledged_below
            self.sent.append(command)
        result = self.apply(command)
        assert result is not None
        return result

    def some_key(self, chance: Random) -> bytes:
        return b"/" + bytes(chance.choice(b"ab/") for _ in range(chance.randint(0, 2)))

    def some_range(self, chance: Random) -> tuple[bytes, bytes]:
        """Of every form: prefixes, all, all from a key on, empty and inverted ones."""
        key = self.some_key(chance)
        forms = [protocol.prefix_range(key), (key, b"\x00"), EVERYTHING, (key, self.some_key(chance))]
        return chance.choice([*forms, (key, b"")])

    def some_lease(self, chance: Random) -> int:
        """Mostly one that there is."""
        known = sorted(self.model.leases)
        return chance.choice(known) if known and chance.random() < 0.8 else 1 << 40

    def some_past(self, chance: Random) -> int:
        """A revision that is kept."""
        return chance.randint(max(1, self.model.compact_revision), self.model.revision)

    # -- at any time -----------------------------------------------------------------------------------

    def check(self) -> None:
        """All that is kept, at each revision, and every event."""
        machine, model = self.machine, self.model
        assert (machine.revision, machine.applied_index) == (model.revision, model.index)
        for revision in range(max(1, model.compact_revision), model.revision + 1):
            for span in (EVERYTHING, (b"/a", b"/b")):
                self.query([protocol.RANGE, *span, 0, revision, 0])
        self.pages(EVERYTHING, model.compact_revision or 1, 1 << 20)

    def pages(self, span: tuple[bytes, bytes], start: int, limit_bytes: int, flags: int = 0) -> None:
        """The history from a revision on, page by page: each page whole revisions, all of them everything."""
        found: list[tuple[int, list[Any]]] = []
        expected = self.model.history(*span, start, flags)
        while True:
            read = [protocol.WATCH_HISTORY, *span, start, limit_bytes, flags]
            self.story.append(read)
            [given] = self.machine.query([msgpack.packb(read)])
            code, revision, _, _, more, revisions = msgpack.unpackb(given)
            assert (code, revision) == (protocol.OK, self.model.revision)
            found += [(at, events) for at, events in revisions if events]
            if not more:
                break
            assert revisions and revisions[-1][0] >= start, f"a page without progress from {start}"
            start = revisions[-1][0] + 1
        assert found == expected, f"{found} instead of {expected}, after {self.story}"


def encoded(item: list[Any]) -> bytes:
    """A command or a read; the lists of a transaction, which nest, become bins, which do not."""
    body: bytes = msgpack.packb([listed(part) if type(part) is list else part for part in item])
    return body


def listed(items: list[Any]) -> bytes:
    return b"".join(map(encoded, items))


def without_text(result: list[Any]) -> Result:
    """The text of an error is for people."""
    return result if result[0] == protocol.OK else [result[0], *result[2:]]


# ---------------------------------------------------------------- commands


@kind
def put(pair: Pair, chance: Random) -> None:
    pair.write(chance, protocol.PUT, pair.some_key(chance), chance.choice([b"", b"v", b"w" * 30]), 0, 0)


@kind
def put_with_previous(pair: Pair, chance: Random) -> None:
    pair.write(chance, protocol.PUT, pair.some_key(chance), b"p", 0, PREV_KV)


@kind
def delete(pair: Pair, chance: Random) -> None:
    pair.write(chance, protocol.DELETE, pair.some_key(chance), b"", 0)


@kind
def delete_with_previous(pair: Pair, chance: Random) -> None:
    pair.write(chance, protocol.DELETE, pair.some_key(chance), b"", PREV_KV)


@kind
def delete_range(pair: Pair, chance: Random) -> None:
    pair.write(chance, protocol.DELETE, *pair.some_range(chance), chance.choice([0, PREV_KV]))


@kind
def put_that_keeps_something(pair: Pair, chance: Random) -> None:
    flags = chance.choice([IGNORE_VALUE, IGNORE_LEASE, IGNORE_VALUE | IGNORE_LEASE]) | chance.choice(
        [0, PREV_KV]
    )
    value = chance.choice([b"", b"k"]) if flags & IGNORE_VALUE else b"k"
    lease = chance.choice([0, 0, 0, 1 << 40]) if flags & IGNORE_LEASE else 0
    pair.write(chance, protocol.PUT, pair.some_key(chance), value, lease, flags)


@kind
def put_with_nobodys_lease(pair: Pair, chance: Random) -> None:
    result = pair.write(chance, protocol.PUT, pair.some_key(chance), b"never", 1 << 40, 0)
    assert result[0] != protocol.OK


# ---------------------------------------------------------------- transactions


def some_compare(pair: Pair, chance: Random) -> list[Any]:
    """Mostly near to what is there."""
    target = chance.randint(protocol.COMPARE_VERSION, protocol.COMPARE_LEASE)
    key, range_end = pair.some_range(chance)
    operand: int | bytes = chance.choice(
        [0, 0, 1, 2, pair.model.revision, chance.randint(1, pair.model.revision)]
    )
    if target == protocol.COMPARE_VALUE:
        operand = chance.choice([b"", b"v", b"w" * 30, b"p"])
    return [target, chance.randint(protocol.EQUAL, protocol.LESS), key, range_end, operand]


def some_operation(pair: Pair, chance: Random, depth: int, *, writes: bool) -> list[Any]:
    draw = chance.randint(0 if writes else 6, 9)
    if draw < 3:
        options = [(b"t", 0), (b"t", PREV_KV), (b"", IGNORE_VALUE), (b"u", IGNORE_LEASE | PREV_KV)]
        value, flags = chance.choice(options)
        lease = pair.some_lease(chance) if flags == 0 and chance.random() < 0.2 else 0
        return [PUT, pair.some_key(chance), value, lease, flags]
    if draw < 5:
        return [protocol.DELETE, pair.some_key(chance), b"", chance.choice([0, PREV_KV])]
    if draw == 5:
        return [protocol.DELETE, *pair.some_range(chance), chance.choice([0, PREV_KV])]
    if draw < 9 or depth == 0:
        past = 0 if writes else chance.choice([0, 0, pair.some_past(chance)])
        return [RANGE, *pair.some_range(chance), chance.randint(0, 2), past, chance.choice([0, 0, 1, 2])]
    return [TXN, *some_lists(pair, chance, depth - 1, writes=writes)]


def some_lists(pair: Pair, chance: Random, depth: int, *, writes: bool) -> list[list[Any]]:
    compares = [some_compare(pair, chance) for _ in range(chance.choice([0, 1, 1, 2]))]
    branches = [
        [some_operation(pair, chance, depth, writes=writes) for _ in range(chance.randint(0, 3))]
        for _ in range(2)
    ]
    return [compares, *branches]


@kind
def transaction(pair: Pair, chance: Random) -> None:
    pair.write(chance, TXN, *some_lists(pair, chance, 2, writes=True))


@kind
def transaction_that_is_read(pair: Pair, chance: Random) -> None:
    pair.query([protocol.READ_TXN, *some_lists(pair, chance, 2, writes=False)])


@kind
def transaction_that_is_ambiguous(pair: Pair, chance: Random) -> None:
    key = pair.some_key(chance)
    again = chance.choice(
        [
            [PUT, key, b"2", 0, 0],
            [protocol.DELETE, b"\x00", b"\x00", 0],
            [TXN, [], [[PUT, key, b"", 0, 0]], []],
        ]
    )
    both = [[PUT, key, b"1", 0, 0], again]
    chance.shuffle(both)
    result = pair.write(chance, TXN, [], *chance.choice([(both, []), ([], both)]))
    assert result[0] != protocol.OK


@kind
def compact(pair: Pair, chance: Random) -> None:
    pair.write(chance, protocol.COMPACT, pair.some_past(chance))


@kind
def compact_what_is_compacted_or_to_come(pair: Pair, chance: Random) -> None:
    compacted, newest = pair.model.compact_revision, pair.model.revision
    revision = chance.choice([0, compacted, max(0, compacted - 1), newest + 1, protocol.MAX_INTEGER])
    assert pair.write(chance, protocol.COMPACT, revision)[0] != protocol.OK


@kind
def entry_without_command(pair: Pair, chance: Random) -> None:
    pair.apply(None)


@kind
def nonsense(pair: Pair, chance: Random) -> None:
    """What no machine may choke on: it has a result, and no effect in the store or in any session."""
    body = chance.choice([b"", b"\xc1", b"\x90", b"junk", msgpack.packb([0, 0, 0, 99]), msgpack.packb({})])
    before = pair.machine.digest()
    pair.log.append(body)
    pair.model.apply(None)
    [given] = pair.machine.apply(pair.machine.applied_index + 1, [body])
    assert given is not None and msgpack.unpackb(given)[0] == protocol.BAD_REQUEST
    assert pair.machine.digest() == before
    pair.codes["bad_request"] += 1


# ---------------------------------------------------------------- sessions


def nonce(number: int) -> bytes:
    return b"%016d" % number


@kind
def open_session(pair: Pair, chance: Random) -> None:
    """A new one, or one of before, which may be known still or was pushed out by others."""
    result = pair.apply([0, 0, 0, protocol.OPEN_SESSION, nonce(chance.randrange(MAX_SESSIONS + 3))])
    assert result is not None
    if result[2] not in pair.session_ids:
        pair.session_ids.append(result[2])


@kind
def close_session(pair: Pair, chance: Random) -> None:
    if pair.session_ids:
        session_id = chance.choice(pair.session_ids)
        pair.apply([session_id, pair.sequences[session_id] + 1, 0, protocol.CLOSE_SESSION])


@kind
def retry(pair: Pair, chance: Random) -> None:
    """Late or at once: the first result, or that it is forgotten, or that the session is gone; no effect."""
    if pair.sent:
        before = pair.model.revision
        pair.apply(chance.choice(pair.sent[-6:]))
        assert pair.model.revision == before, "the model itself applied a retry"


@kind
def command_of_nobodys_session(pair: Pair, chance: Random) -> None:
    result = pair.apply([1 << 40, 1, 0, protocol.PUT, pair.some_key(chance), b"never", 0, 0])
    assert result == [protocol.SESSION_EXPIRED]


@kind
def sequence_far_ahead(pair: Pair, chance: Random) -> None:
    """More is left open than a session remembers: what it forgot is refused, and never done twice."""
    if pair.session_ids:
        pair.sequences[pair.session_ids[-1]] += chance.choice([100, protocol.MAX_UNACKNOWLEDGED])
        pair.write(chance, protocol.PUT, pair.some_key(chance), b"far", 0, 0)


# ---------------------------------------------------------------- snapshots, and memory


def restored(content: list[bytes], chance: Random) -> StoreMachine:
    """Fed in pieces cut anywhere."""
    machine, data = new_machine(), b"".join(content)
    restorer = machine.restorer()
    while data:
        size = chance.choice([1, 100, 10_000])
        restorer.feed(data[:size])
        data = data[size:]
    restorer.finish()
    return machine


@kind
def restore(pair: Pair, chance: Random) -> None:
    """Another machine goes on from a snapshot; nothing tells it from the first."""
    before = (pair.machine.digest(), pair.machine.fingerprint())
    pair.machine = restored(list(pair.machine.snapshot()), chance)
    assert (pair.machine.digest(), pair.machine.fingerprint()) == before, pair.story


@kind
def read_a_snapshot(pair: Pair, chance: Random) -> None:
    """Begin with one, go on, or end with it: it is of the moment at which it began."""
    if pair.reader is None:
        machine = pair.machine
        moment = machine.applied_index, machine.fingerprint(), machine.digest()
        pair.reader = (iter(machine.snapshot()), [], *moment)
        return
    pieces, content, *expected = pair.reader
    for _ in range(chance.choice([1, 3, 1000])):
        piece = next(pieces, None)
        if piece is None:
            other = restored(content, chance)
            assert [other.applied_index, other.fingerprint(), other.digest()] == expected, pair.story
            pair.reader = None
            return
        content.append(piece)


@kind
def tidy(pair: Pair, chance: Random) -> None:
    """Memory is given back, and nothing else changes."""
    before = pair.machine.digest()
    pair.machine.tidy()
    assert pair.machine.digest() == before
