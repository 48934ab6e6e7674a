"""What can still be believed of a damaged log: for when no other copy of what it held is left.

Knows segments and snapshots by way of an inspection; changes nothing. A start refuses such a log, rightly:
the node would forget what it has acknowledged. So what is found here must never be started under the old
cluster's name, only be put into a new cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import NamedTuple

from raft.entries import EntryKind, Index, SnapshotMeta, Term
from raft.files import FailStop
from raft.inspection import Inspection, ReadOnlyFiles, SnapshotFile
from raft.membership import Configuration
from raft.replay import Replay
from raft.segment import segment_name
from raft.snapshot import SnapshotReader
from raft.storage import (
    NOTHING_LEFT,
    REPLACE_THE_MEMBER,
    CorruptLog,
    CorruptSnapshot,
    Recovered,
    StorageError,
    UnknownFormat,
    WrongDirectory,
)

_SLICE_BYTES = 256 << 10

Judgement = Callable[[SnapshotFile], StorageError | None]
"""What the state machine has against an intact snapshot, if anything."""


class Remains(NamedTuple):
    """The newest snapshot that is of use, and the longest run of entries that joins it."""

    recovered: Recovered  # snapshot and entries; its hard state is no promise of anything any more
    snapshot: SnapshotFile | None
    damages: list[StorageError]  # all that a start could have refused: identity, snapshots, then the log

    @property
    def end(self) -> tuple[Term, Index]:
        """Of the last entry, or of the snapshot that stands for it."""
        return _up_to_date(self.recovered)

    @property
    def configuration(self) -> bytes:
        """The members as far as these remains know; none if nothing tells."""
        for _, kind, body in reversed(self.recovered.entries):
            if kind == EntryKind.CONFIGURATION:
                return body
        known = self.recovered.snapshot
        return Configuration().encode() if known is None else known.configuration

    def commands(self, size: int) -> Iterator[tuple[Index, list[bytes | None]]]:
        """What is to be applied on top of the snapshot, `size` entries at a time: the index of the first,
        and the bodies, None for what is no command."""
        recovered, snapshot = self.recovered, self.recovered.snapshot
        applied = 0 if snapshot is None else snapshot.index
        entries = recovered.entries[applied + 1 - recovered.first_index :]
        for start in range(0, len(entries), size):
            part = entries[start : start + size]
            yield (
                applied + 1 + start,
                [body if kind == EntryKind.COMMAND else None for _, kind, body in part],
            )

    def content(self) -> Iterator[bytes]:
        """Of the snapshot. Raises CorruptSnapshot if it has changed since it was checked."""
        found = self.snapshot
        if found is None:
            return
        with closing(SnapshotReader(found.file, FailStop(ReadOnlyFiles()), None)) as reader:
            for offset in range(0, reader.meta.size_bytes, _SLICE_BYTES):
                yield reader.read(offset, _SLICE_BYTES)


def find_remains(inspection: Inspection, why_unusable: Judgement) -> Remains:
    """All entries are taken that are whole, committed or not: somebody may have been told that they are.

    `why_unusable` is asked of snapshots that are whole. Damage ends a run of segments, and behind it another
    may begin. Of several that join the snapshot the most up-to-date is taken (Raft §5.4.1). Raises what is
    wrong if nothing is left; and UnknownFormat if a later version has written there, for that one can read
    all of it.
    """
    newest, damages = _newest_of_use(inspection, why_unusable)
    meta = None if newest is None else newest.meta
    best = (
        None
        if meta is None
        else Recovered(first_index=meta.index + 1, previous_term=meta.term, snapshot=meta)
    )
    for joined in _runs(inspection, meta, damages):
        if best is None or _up_to_date(joined) > _up_to_date(best):
            best = joined
    if best is None or best.last_index == 0:
        raise _why_nothing(inspection, damages)
    if inspection.identity_damage is not None:
        damages.insert(0, inspection.identity_damage)
    return Remains(best, newest, damages)


def _newest_of_use(
    inspection: Inspection, why_unusable: Judgement
) -> tuple[SnapshotFile | None, list[StorageError]]:
    """And what is wrong with others, oldest first; those that are older need only be whole."""
    newest: SnapshotFile | None = None
    damages: list[StorageError] = []
    for found in reversed(inspection.snapshots()):
        damage = found.damage
        if newest is None:
            damage = damage or why_unusable(found)
            if isinstance(damage, UnknownFormat):
                raise damage
            newest = None if damage is not None else found
        if damage is not None:
            damages.append(damage)
    return newest, damages[::-1]


def _why_nothing(inspection: Inspection, damages: list[StorageError]) -> StorageError:
    """What is advised elsewhere is what was tried here."""
    if damages:
        error = damages[0]
    elif not inspection.sequences():
        error = CorruptLog(inspection.directory, 0, 1, "no segment of it is there, and no snapshot")
    else:
        error = WrongDirectory(inspection.directory, "content", expected="entries or a snapshot", found=None)
    if isinstance(error, CorruptLog | CorruptSnapshot) and error.remedy == REPLACE_THE_MEMBER:
        error.remedy = NOTHING_LEFT
    return error


def _up_to_date(recovered: Recovered) -> tuple[Term, Index]:
    entries = recovered.entries
    return entries[-1][0] if entries else recovered.previous_term, recovered.last_index


def _runs(
    inspection: Inspection, snapshot: SnapshotMeta | None, damages: list[StorageError]
) -> Iterator[Recovered]:
    """What each unbroken run of segments makes together with the snapshot; adds what broke it."""
    sequences = inspection.sequences()
    place = 0
    while place < len(sequences):
        replay, first = Replay(inspection.identity), sequences[place]
        due = first
        try:
            while place < len(sequences):
                sequence = sequences[place]
                path = inspection.directory / segment_name(due)
                if sequence != due:
                    raise CorruptLog(path, 0, replay.next_index, "this segment is missing")
                place, due = place + 1, due + 1
                data, failure = inspection.read_what_comes(path)
                if failure is not None:
                    damages.append(failure)
                replay.segment(path, sequence, data, is_last=place == len(sequences))
        except UnknownFormat:
            raise
        except StorageError as damage:
            damages.append(damage)
        joined = replay.joined(snapshot)
        if isinstance(joined, Recovered):
            yield joined
