"""What every Storage must do, as checks that run against yours: one function each, with no test framework.

A check gets a function that opens the storage, always at the same place, which is empty at the first call. It
opens it again as a process would that starts after a clean end or after a crash. With pytest:

    @pytest.mark.parametrize("check", CHECKS)
    def test_my_storage(check, tmp_path):
        check(lambda: MyStorage(tmp_path / "storage"))

They cannot cut the power. Whether what was synced survives that is for your design to answer.
"""

from __future__ import annotations

from collections.abc import Callable
from zlib import crc32

from raft.entries import Entry, EntryBatch, EntryKind, HardState, Index, Term
from raft.storage import Recovered, SnapshotMeta, Storage, snapshot_content

Opener = Callable[[], Storage]

_COMMAND = int(EntryKind.COMMAND)


class ContractBroken(AssertionError):
    """The storage does not do what a Storage must. Raised, not asserted: `python -O` keeps it."""


def begins_empty(open_storage: Opener) -> None:
    """Nothing is remembered at first: term 0, no vote, no entry, no snapshot."""
    storage = open_storage()
    _expect("a new storage", storage.load(), Recovered())
    storage.close()


def keeps_what_was_synced(open_storage: Opener) -> None:
    """Hard state and entries come back as they were, whatever their kind, term and size."""
    storage = open_storage()
    storage.load()
    entries: list[Entry] = [
        (1, int(EntryKind.NOOP), b""),
        (1, _COMMAND, b""),
        (2, _COMMAND, bytes(range(256))),
        (2, int(EntryKind.CONFIGURATION), b"{}"),
        (1 << 40, _COMMAND, b"x" * (1 << 20)),
    ]
    state = HardState(1 << 40, "a node with a name that is longer than most", 3)
    storage.append(state, EntryBatch(1, entries))
    storage.sync()
    storage.close()
    _expect("after a clean end", open_storage().load(), Recovered(state, 1, entries))


def keeps_it_without_a_close(open_storage: Opener) -> None:
    """A process that is killed closes nothing."""
    _write(open_storage, HardState(3, "n2", 0), 1, [3, 3])
    _expect("after a crash", open_storage().load(), Recovered(HardState(3, "n2", 0), 1, _entries(1, [3, 3])))


def keeps_appends_in_their_order(open_storage: Opener) -> None:
    """Several appends, then one sync; and more after the next start."""
    storage = open_storage()
    storage.load()
    for index in range(1, 11):
        storage.append(HardState(index), EntryBatch(index, _entries(index, [index])))
    storage.sync()
    storage.close()
    _write(open_storage, None, 11, [10])
    found = open_storage().load()
    expected = [entry for index in range(1, 11) for entry in _entries(index, [index])] + _entries(11, [10])
    _expect("the hard state", found.hard_state[:2], (10, None))
    _expect("the entries", found.entries, expected)


def replaces_from_where_a_batch_begins(open_storage: Opener) -> None:
    """Raft §5.3: a batch at or below the last index drops all that was there from its first index on."""
    _write(open_storage, HardState(1), 1, [1, 1, 1, 1, 1])
    _write(open_storage, HardState(2), 3, [2])
    _expect("a log that was cut", open_storage().load().entries, _entries(1, [1, 1]) + _entries(3, [2]))
    storage = open_storage()
    storage.load()
    storage.append(HardState(3), EntryBatch(4, _entries(4, [3, 3, 3])))
    storage.append(HardState(4), EntryBatch(1, _entries(1, [4])))
    storage.sync()
    storage.close()
    _expect("a log replaced before it was synced", open_storage().load().entries, _entries(1, [4]))


def keeps_the_vote_by_itself(open_storage: Opener) -> None:
    """Raft §5.2: a vote that is forgotten is given twice. It comes without entries."""
    _write(open_storage, HardState(7, "n3", 0), 0, [])
    _expect("the vote", open_storage().load().hard_state, HardState(7, "n3", 0))
    _write(open_storage, HardState(8, None, 0), 0, [])
    _expect("a term without a vote", open_storage().load().hard_state, HardState(8, None, 0))


def loses_only_an_end(open_storage: Opener) -> None:
    """What was not synced may be there or not; but nothing is there without what was appended before it."""
    _write(open_storage, HardState(1), 1, [1, 1])
    storage = open_storage()
    storage.load()
    storage.append(HardState(2), EntryBatch(3, _entries(3, [2])))
    storage.append(None, EntryBatch(4, _entries(4, [2])))
    del storage
    found = open_storage().load()
    whole = _entries(1, [1, 1, 2, 2])
    _expect("what was synced", found.entries[:2], whole[:2])
    _expect("what was not", found.entries, whole[: len(found.entries)])
    if len(found.entries) > 2 and found.hard_state.term < 2:
        raise ContractBroken(f"entries of term 2 are there, and the term is {found.hard_state.term}")


def keeps_a_snapshot(open_storage: Opener) -> None:
    """A committed one is there with its content, readable in parts of any size; one that was not, is not."""
    _write(open_storage, HardState(2, None, 4), 1, [1, 1, 2, 2])
    storage = open_storage()
    storage.load()
    meta = _snapshot(storage, 3, 2, [b"ab", b"", b"cde"], replaces_log=False)
    _expect("its description", meta, SnapshotMeta(3, 2, b"configuration", 5, crc32(b"abcde")))
    storage.begin_snapshot(4, 2, b"configuration")
    storage.append_snapshot(b"half of it")
    del storage
    again = open_storage()
    found = again.load()
    _expect("the snapshot after a crash", found.snapshot, meta)
    _expect("the log, which it does not replace", found.entries, _entries(1, [1, 1, 2, 2]))
    for size in (1, 2, 100):
        _expect(f"its content by {size}", b"".join(snapshot_content(again, meta, size)), b"abcde")
    _expect("a part of it", again.read_snapshot(3, 1, 3), b"bcd")
    again.close()


def gives_a_snapshot_up(open_storage: Opener) -> None:
    """What was abandoned, or begun anew, leaves nothing behind."""
    storage = open_storage()
    storage.load()
    storage.append(HardState(1), EntryBatch(1, _entries(1, [1, 1])))
    storage.sync()
    storage.abandon_snapshot()
    storage.begin_snapshot(1, 1, b"configuration")
    storage.append_snapshot(b"old")
    storage.abandon_snapshot()
    storage.begin_snapshot(1, 1, b"configuration")
    storage.append_snapshot(b"older")
    meta = _snapshot(storage, 2, 1, [b"new"], replaces_log=False)
    storage.close()
    again = open_storage()
    _expect("the snapshot", again.load().snapshot, meta)
    _expect("its content", b"".join(snapshot_content(again, meta)), b"new")
    again.close()


def lets_a_snapshot_replace_the_log(open_storage: Opener) -> None:
    """Raft figure 13, rule 7: what a leader sent stands for all that was here; the log goes on after it."""
    _write(open_storage, HardState(1), 1, [1, 1, 1])
    storage = open_storage()
    storage.load()
    storage.append(HardState(5), None)
    meta = _snapshot(storage, 100, 5, [b"state"], replaces_log=True)
    storage.append(None, EntryBatch(101, _entries(101, [5])))
    storage.sync()
    storage.close()
    found = open_storage().load()
    _expect("the snapshot", found.snapshot, meta)
    _expect("the log", (found.first_index, found.previous_term, found.entries), (101, 5, _entries(101, [5])))


def compacts(open_storage: Opener) -> None:
    """Entries that a snapshot stands for may go at once or later, and none beyond them."""
    _write(open_storage, HardState(2), 1, [1, 1, 2, 2, 2])
    storage = open_storage()
    storage.load()
    first = _snapshot(storage, 2, 1, [b"two"], replaces_log=False)
    second = _snapshot(storage, 4, 2, [b"four"], replaces_log=False)
    storage.compact(3, frozenset({first.index}))
    _expect("a snapshot that is kept", storage.read_snapshot(2, 0, 10), b"two")
    storage.append(None, EntryBatch(6, _entries(6, [2])))
    storage.sync()
    storage.close()
    found = open_storage().load()
    _expect("the newest snapshot", found.snapshot, second)
    _expect("the last index", found.last_index, 6)
    if not 1 <= found.first_index <= 4:
        raise ContractBroken(f"compacted up to 3, and the log begins at {found.first_index}")
    terms = [1, 1, 2, 2, 2, 2]
    _expect("the entries", found.entries, _entries(1, terms)[found.first_index - 1 :])
    _expect("the term before", found.previous_term, [0, *terms][found.first_index - 1])


CHECKS: tuple[Callable[[Opener], None], ...] = (
    begins_empty,
    keeps_what_was_synced,
    keeps_it_without_a_close,
    keeps_appends_in_their_order,
    replaces_from_where_a_batch_begins,
    keeps_the_vote_by_itself,
    loses_only_an_end,
    keeps_a_snapshot,
    gives_a_snapshot_up,
    lets_a_snapshot_replace_the_log,
    compacts,
)


def _expect(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise ContractBroken(f"{what}: {found!r} is there, {expected!r} should be")


def _entries(first_index: Index, terms: list[Term]) -> list[Entry]:
    """Each body tells where it belongs."""
    return [(term, _COMMAND, b"%d in %d" % (index, term)) for index, term in enumerate(terms, first_index)]


def _write(open_storage: Opener, state: HardState | None, first_index: Index, terms: list[Term]) -> None:
    """Open, append, sync, and no close."""
    storage = open_storage()
    storage.load()
    storage.append(state, EntryBatch(first_index, _entries(first_index, terms)) if terms else None)
    storage.sync()


def _snapshot(
    storage: Storage, index: Index, term: Term, parts: list[bytes], *, replaces_log: bool
) -> SnapshotMeta:
    storage.begin_snapshot(index, term, b"configuration")
    for part in parts:
        storage.append_snapshot(part)
    return storage.commit_snapshot(replaces_log=replaces_log)
