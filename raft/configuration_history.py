"""The configurations in a log: which is in force, and which was committed last.

Knows indexes and configurations; nothing of terms, roles or messages. A configuration is in force from the
moment its entry is appended, whether it is committed or not, and goes when its entry goes (Raft §6).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import compress
from typing import TYPE_CHECKING

from raft.entries import LIMIT, Entry, EntryBatch, EntryKind, Index
from raft.membership import Configuration, CorruptConfiguration

if TYPE_CHECKING:
    from raft.storage import Recovered

_CONFIGURATION = int(EntryKind.CONFIGURATION)
NEVER: Index = LIMIT  # no log index gets there

Logged = tuple[Index, Configuration]


def configurations_in(first_index: Index, entries: list[Entry]) -> list[Logged]:
    """Those among consecutive entries. Raises CorruptConfiguration."""
    are_those = [kind == _CONFIGURATION for _, kind, _ in entries]
    found = compress(enumerate(entries, first_index), are_those)
    return [(index, Configuration.decode(body)) for index, (_, _, body) in found]


def configurations_of(batch: EntryBatch) -> list[Logged] | None:
    """Those in a batch of a peer; None if one of them is none. Batches of commands alone cost nothing."""
    if not batch.holds_configurations:
        return []
    try:
        return configurations_in(batch.first_index, batch.entries)
    except CorruptConfiguration:
        return None


def recovered_history(initial: Configuration, recovered: Recovered) -> ConfigurationHistory:
    """From the snapshot, if there is one, and from the log after it."""
    logged = configurations_in(recovered.first_index, recovered.entries)
    snapshot = recovered.snapshot
    if snapshot is None:
        return ConfigurationHistory(0, initial, logged, is_logged=False)
    logged = [each for each in logged if each[0] > snapshot.index]
    base = Configuration.decode(snapshot.configuration)
    return ConfigurationHistory(snapshot.index, base, logged, is_logged=True)


class ConfigurationHistory:
    """Owned by one core, which keeps it in step with its log."""

    __slots__ = ("_logged", "has_news", "is_initial_only", "uncommitted_index")

    def __init__(
        self, index: Index, base: Configuration, logged: Iterable[Logged], *, is_logged: bool
    ) -> None:
        """`base` is the one at `index`, before the log: from a snapshot (is_logged), or what the node was
        started with."""
        self._logged: list[Logged] = [(index, base), *logged]  # by index, and never empty
        # Neither log nor snapshot have a configuration: the next leader begins with one (see Leader.begin).
        self.is_initial_only = not is_logged and len(self._logged) == 1
        self.has_news = len(self._logged) > 1  # for whoever asks, and resets it
        # Of the configuration in force; NEVER once it is known to be committed.
        self.uncommitted_index: Index = self.last_index if self.has_news else NEVER

    def _note_news(self) -> None:
        self.has_news = True
        self.uncommitted_index = self.last_index

    def note_committed(self) -> None:
        """The one in force is committed."""
        self.uncommitted_index = NEVER
        self.has_news = True

    @property
    def last_index(self) -> Index:
        """Index of the entry that holds the configuration in force; 0 if no entry does."""
        return self._logged[-1][0]

    @property
    def base_index(self) -> Index:
        """That of the snapshot, whose configuration stands for all before; 0 while there is none."""
        return self._logged[0][0]

    @property
    def in_force(self) -> Configuration:
        return self._logged[-1][1]

    def at(self, index: Index) -> Configuration:
        """The one in force for a log that ends at `index`, which is not before the snapshot."""
        return self.logged_at(index)[1]

    def logged_at(self, index: Index) -> Logged:
        """That one, with the index of its entry."""
        return next(logged for logged in reversed(self._logged) if logged[0] <= index)

    def after(self, index: Index) -> list[Logged]:
        return [logged for logged in self._logged if logged[0] > index]

    def append(self, index: Index, configuration: Configuration) -> None:
        assert index > self.last_index, f"configuration of {index} after that of {self.last_index}"
        self._logged.append((index, configuration))
        self.is_initial_only = False
        self._note_news()

    def truncate_from(self, index: Index) -> bool:
        """The log ends before `index` now. True if that changes which one is in force."""
        if index > self.last_index:
            return False
        base = self._logged[0]
        self._logged = [base, *(logged for logged in self._logged[1:] if logged[0] < index)]
        self.is_initial_only = len(self._logged) == 1 and base[0] == 0
        self._note_news()
        return True

    def compact(self, index: Index) -> None:
        """Entries up to `index` are in a snapshot now, which has the configuration as of there."""
        base = (index, self.at(index))
        self._logged = [base, *self.after(index)]
        self.is_initial_only = False

    def restore(self, index: Index, configuration: Configuration) -> None:
        """A snapshot up to `index` replaces the log."""
        self._logged = [(index, configuration)]
        self.is_initial_only = False
        self._note_news()
