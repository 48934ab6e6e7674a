"""The replicated log in memory. Knows indexes and terms; nothing of roles, peers, commit or disk.

Indexes begin at 1. What lies at or below `snapshot_index` is compacted away: of it only the term of its
last entry is known. The log also keeps count of how far it is durable here, since truncation must undo
that count in the same breath.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate
from operator import itemgetter

from raft.entries import Entry, EntryBatch, Index, Term

# What an entry costs beside its body, in memory windows and on the wire alike (term, kind, length).
ENTRY_OVERHEAD_BYTES = 13

_term_of = itemgetter(0)
_body_of = itemgetter(2)


def size_bytes(entries: list[Entry]) -> int:
    return sum(map(len, map(_body_of, entries))) + ENTRY_OVERHEAD_BYTES * len(entries)


def fitting(entries: list[Entry], max_bytes: int) -> tuple[int, int]:
    """How many of the first entries fit in `max_bytes`, and their size. At least one: any entry passes."""
    total = size_bytes(entries)
    if total <= max_bytes:
        return len(entries), total
    sizes = list(accumulate([len(body) + ENTRY_OVERHEAD_BYTES for _, _, body in entries]))
    count = max(1, bisect_right(sizes, max_bytes))
    return count, sizes[count - 1]


class Log:
    """Owned by one core; changed by nobody else."""

    __slots__ = (
        "_entries",
        "_received",
        "_replaced",
        "last_index",
        "last_term",
        "persisting_index",
        "snapshot_index",
        "snapshot_term",
        "stable_index",
    )

    def __init__(self, first_index: Index, entries: list[Entry], snapshot_term: Term = 0) -> None:
        self.snapshot_index: Index = first_index - 1  # 0: nothing was compacted yet
        self.snapshot_term: Term = snapshot_term  # 0 exactly if snapshot_index is 0
        self._entries: list[Entry] = (
            entries  # its own from here on; entry of index i is at i - snapshot_index - 1
        )
        self.last_index: Index = self.snapshot_index + len(entries)
        self.last_term: Term = entries[-1][0] if entries else snapshot_term
        # stable_index <= persisting_index <= last_index. Entries up to stable_index are durable here;
        # those up to persisting_index have been given to storage, which has not confirmed them all.
        self.stable_index: Index = self.last_index
        self.persisting_index: Index = self.last_index
        # The batch that the last entries came in, kept so that its bytes serve the disk as they are.
        self._received: EntryBatch | None = None
        self._replaced: list[Entry] = []  # by a snapshot: of no use, and not given up yet

    @property
    def first_index(self) -> Index:
        """Index of the first entry that is still here; last_index + 1 if there is none."""
        return self.snapshot_index + 1

    def term_at(self, index: Index) -> Term | None:
        """None if it is compacted away or not there yet: an unknown term equals no term."""
        position = index - self.snapshot_index - 1
        if 0 <= position < len(self._entries):
            return self._entries[position][0]
        return self.snapshot_term if position == -1 else None

    def slice(self, first_index: Index, last_index: Index) -> list[Entry]:
        """Both ends included. A copy of references, at C speed."""
        offset = self.snapshot_index + 1
        assert offset <= first_index and last_index <= self.last_index, (
            f"{first_index}..{last_index} is not within {offset}..{self.last_index}"
        )
        return self._entries[first_index - offset : last_index - offset + 1]

    def is_up_to_date(self, last_index: Index, last_term: Term) -> bool:
        """Raft §5.4.1: is a log that ends so at least as up to date as this one?"""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def first_index_of_term_at(self, index: Index) -> Index:
        """First index, of those still here, that has the same term as `index`."""
        position = index - self.snapshot_index - 1
        term = self._entries[position][0]
        return self.first_index + bisect_left(self._entries, term, 0, position, key=_term_of)

    def last_index_of_term(self, term: Term, not_after: Index) -> Index | None:
        """The last index up to `not_after` that has this term; None if no entry has it."""
        end = min(not_after, self.last_index) - self.snapshot_index
        if end <= 0:
            return None
        position = bisect_right(self._entries, term, 0, end, key=_term_of) - 1
        if position >= 0 and self._entries[position][0] == term:
            return self.first_index + position
        return None

    def first_difference(self, batch: EntryBatch) -> Index:
        """First index of the batch that this log lacks or has with another term; last_index + 1 if none.

        By Log Matching (Raft §5.3) equal terms at an index mean equal logs up to it, so if the ends agree
        all agrees.
        """
        shared = min(batch.last_index, self.last_index) - batch.first_index + 1
        offset = batch.first_index - self.snapshot_index - 1
        theirs, ours = batch.entries, self._entries
        if shared > 0 and theirs[shared - 1][0] != ours[offset + shared - 1][0]:
            for position in range(shared):
                if theirs[position][0] != ours[offset + position][0]:
                    return batch.first_index + position
        return batch.first_index + max(shared, 0)

    def extend(self, batch: EntryBatch) -> None:
        """Take the batch in at the end."""
        assert batch.first_index == self.last_index + 1, (
            f"batch of {batch.first_index} does not follow {self.last_index}"
        )
        if batch.entries:
            self._entries += batch.entries
            self.last_index = batch.last_index
            self.last_term = batch.entries[-1][0]
            self._received = batch

    def append(self, entries: list[Entry]) -> None:
        """A leader's own entries; at least one."""
        self._entries += entries
        self.last_index += len(entries)
        self.last_term = entries[-1][0]
        self._received = None

    def truncate_from(self, index: Index) -> None:
        """Forget `index` and all after it, and that they ever were on the way to the disk."""
        assert self.snapshot_index < index <= self.last_index, (
            f"cannot truncate {self.first_index}..{self.last_index} from {index}"
        )
        del self._entries[index - self.snapshot_index - 1 :]
        self.last_index = index - 1
        self.last_term = self._entries[-1][0] if self._entries else self.snapshot_term
        self.stable_index = min(self.stable_index, self.last_index)
        self.persisting_index = min(self.persisting_index, self.last_index)
        self._received = None

    def compact(self, index: Index) -> None:
        """Forget the entries up to `index`, but for the term of the last of them."""
        assert self.snapshot_index <= index <= self.stable_index, (
            f"cannot compact {self.first_index}..{self.stable_index} up to {index}"
        )
        count = index - self.snapshot_index
        if count:
            self.snapshot_term = self._entries[count - 1][0]
            self.snapshot_index = index
            del self._entries[:count]

    def restore(self, snapshot_index: Index, snapshot_term: Term) -> None:
        """A snapshot takes the place of all entries, which may be millions: give_up() frees them."""
        self._replaced += self._entries
        self._entries = []
        self.snapshot_index = self.last_index = snapshot_index
        self.snapshot_term = self.last_term = snapshot_term
        self.stable_index = self.persisting_index = snapshot_index
        self._received = None

    def give_up(self, count: int) -> bool:
        """So many at most of the entries that a snapshot replaced; whether there are more."""
        del self._replaced[-count:]
        return bool(self._replaced)

    def has_unpersisted(self) -> bool:
        return self.persisting_index < self.last_index

    def take_unpersisted(self) -> EntryBatch | None:
        """All that storage has not been given yet. The batch in which it arrived, if that is all of it."""
        first_index = self.persisting_index + 1
        if first_index > self.last_index:
            return None
        self.persisting_index = self.last_index
        received, self._received = self._received, None
        if received is not None and received.first_index == first_index:
            return received
        return EntryBatch(first_index, self.slice(first_index, self.last_index))

    def confirm_persisted(self) -> None:
        """What was taken is durable, except for what was truncated since."""
        self.stable_index = self.persisting_index
