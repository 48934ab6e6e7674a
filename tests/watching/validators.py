"""What a watch promises, as functions over what it delivered and what really happened.

Pure: they know a recorded watch and the history of revisions, nothing of sockets, simulators or the store's
code. So they judge the watches of a simulation and those of real processes alike. Each returns complaints, a
sentence for each breach, and none for a watch that kept its word. All that is wanted of any watch, however
its node died and whatever was dropped on the way, is in VALIDATORS; only that it is `complete` depends on
having been given time to hear of everything.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, NamedTuple

from kvstore.protocol import EVENT_DELETE, EVENT_PUT

Record = tuple[bytes, bytes, int, int, int, int]  # key, value, create_revision, mod_revision, version, lease


class SeenEvent(NamedTuple):
    """One event as a consumer got it."""

    type: int
    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int
    previous: Record | None = None  # the record before, of a watch that asked for it
    is_create: bool = False  # as the consumer was told


class SeenBatch(NamedTuple):
    """What came at once. Without events: a promise that all up to `revision` has come."""

    revision: int
    events: tuple[SeenEvent, ...]
    compacted: int | None = None  # what could be forgotten when it came; None: as much as in the end


@dataclass(slots=True)
class Recorded:
    """One watch: what was asked for, and all that came of it, in order."""

    key: bytes
    range_end: bytes
    start_revision: int = 0  # inclusive; 0: from now on
    wants_previous: bool = False
    no_puts: bool = False
    no_deletes: bool = False
    name: str = "a watch"
    path: bytes = b""  # of a watch of a tree: it has only what is at or below it, which the range exceeds
    # The revision that was "now" when it was told that it watches; None: it was not told.
    registered: int | None = None
    batches: list[SeenBatch] = field(default_factory=list)
    # Why it ended, if it ended by itself: the oldest revision that could still be had.
    compacted: int | None = None

    @property
    def first_revision(self) -> int | None:
        """From here on nothing may be missing; None as long as nobody said what now is."""
        if self.start_revision:
            return self.start_revision
        return None if self.registered is None else self.registered + 1

    @property
    def last_revision(self) -> int:
        """The newest revision that it has heard of, be it by an event or by a promise."""
        return max((batch.revision for batch in self.batches), default=0)

    def events(self) -> list[SeenEvent]:
        return [event for batch in self.batches for event in batch.events]

    def note(self, revision: int, events: Iterable[Any], compacted: int | None = None) -> None:
        """A batch as the client library has it: events are tuples of the protocol, and may know more."""
        seen = [
            SeenEvent._make((*event[:7], _record(getattr(event, "previous", None)), event.is_create))
            for event in events
        ]
        self.batches.append(SeenBatch(revision, tuple(seen), compacted))

    def promise(self, revision: int) -> None:
        """It ends here, by its consumer's will, and says that all up to this revision has come."""
        self.batches.append(SeenBatch(revision, ()))


def _record(previous: Any) -> Record | None:
    return None if previous is None else tuple(previous)


class Truth:
    """What each revision did, by somebody who saw it without any watch."""

    def __init__(self, compacted: int = 0) -> None:
        self.revision = 1
        self.compacted = compacted  # what was before this revision may be forgotten by the store
        self._changes: dict[int, list[tuple[bytes, Record | None]]] = {}
        self._revisions: dict[bytes, list[int]] = {}  # of each key, ascending
        self._records: dict[tuple[bytes, int], Record | None] = {}

    def add(self, revision: int, key: bytes, record: Sequence[Any] | None) -> None:
        """One key that this revision changed: its record from then on, None if it was deleted. In order."""
        assert revision >= self.revision, f"revision {revision} after {self.revision}"
        made = None if record is None else (record[0], record[1], record[2], record[3], record[4], record[5])
        self.revision = revision
        self._changes.setdefault(revision, []).append((key, made))
        revisions = self._revisions.setdefault(key, [])
        if not revisions or revisions[-1] != revision:
            revisions.append(revision)
        self._records[key, revision] = made

    @classmethod
    def of_contents(cls, contents: Sequence[Mapping[bytes, Sequence[Any]]], compacted: int = 0) -> Truth:
        """Of the whole content at each revision, from revision 1 on, as reads of the past show it."""
        truth = cls(compacted)
        for revision, (before, after) in enumerate(pairwise(contents), 2):
            for key in sorted(before.keys() | after.keys()):
                if before.get(key) != after.get(key):
                    truth.add(revision, key, after.get(key))
        truth.revision = max(1, len(contents))
        return truth

    def before(self, key: bytes, revision: int) -> Record | None:
        """The record of a key just before a revision."""
        revisions = self._revisions.get(key, [])
        position = bisect_left(revisions, revision)
        return self._records[key, revisions[position - 1]] if position else None

    def has_changed(self, key: str, revision: int) -> bool:
        return (key.encode(), revision) in self._records

    def events_at(self, watch: Recorded, revision: int) -> set[SeenEvent]:
        """What the watch is to hear of this revision; without what only some watches ask for."""
        found = set()
        for key, record in self._changes.get(revision, []):
            if not _concerns(watch, key) or (watch.no_deletes if record is None else watch.no_puts):
                continue
            if record is None:
                found.add(SeenEvent(EVENT_DELETE, key, b"", 0, revision, 0, 0))
            else:
                found.add(SeenEvent(EVENT_PUT, *record))
        return found

    def events_between(self, watch: Recorded, first: int, last: int) -> dict[int, set[SeenEvent]]:
        """By revision, both ends included, those with nothing left out."""
        revisions = range(max(first, 2), min(last, self.revision) + 1)
        found = {revision: self.events_at(watch, revision) for revision in revisions}
        return {revision: events for revision, events in found.items() if events}


def _concerns(watch: Recorded, key: bytes) -> bool:
    if watch.path and key != watch.path and not key.startswith(watch.path + b"/"):
        return False
    if not watch.range_end:
        return key == watch.key
    return key >= watch.key and (watch.range_end == b"\x00" or key < watch.range_end)


def _plain(event: SeenEvent) -> SeenEvent:
    """Of an event what every watch gets."""
    return event._replace(previous=None, is_create=False)


# ---------------------------------------------------------------- the promises


def ordered(watch: Recorded, truth: Truth) -> list[str]:
    """Revisions never go backwards."""
    revisions = [event.mod_revision for event in watch.events()]
    return [f"revision {later} after {earlier}" for earlier, later in pairwise(revisions) if later < earlier]


def unique(watch: Recorded, truth: Truth) -> list[str]:
    """No event comes twice."""
    seen: set[tuple[bytes, int]] = set()
    complaints = []
    for event in watch.events():
        if (event.key, event.mod_revision) in seen:
            complaints.append(f"{event.key!r} of revision {event.mod_revision} twice")
        seen.add((event.key, event.mod_revision))
    return complaints


def reliable(watch: Recorded, truth: Truth) -> list[str]:
    """No gap: from the first revision on that was asked for, what is before something that came has come."""
    delivered: dict[int, set[bytes]] = {}
    last = 0
    for event in watch.events():
        delivered.setdefault(event.mod_revision, set()).add(event.key)
        last = max(last, event.mod_revision)
    if not delivered:
        return []
    first = watch.first_revision or min(delivered)
    complaints = []
    for revision, events in truth.events_between(watch, first, last).items():
        missing = {event.key for event in events} - delivered.get(revision, set())
        # A revision that came in part is a matter of atomicity.
        if missing and revision not in delivered:
            complaints.append(f"nothing of revision {revision}, and later ones came")
    return complaints


def atomic(watch: Recorded, truth: Truth) -> list[str]:
    """All events of a revision are in one batch, and a batch has those of one revision."""
    complaints = []
    for batch in watch.batches:
        strange = {event.mod_revision for event in batch.events} - {batch.revision}
        if strange:
            complaints.append(f"the batch of revision {batch.revision} has events of {sorted(strange)}")
        missing = truth.events_at(watch, batch.revision) - {_plain(event) for event in batch.events}
        missing_keys = sorted(event.key for event in missing)
        if batch.events and set(missing_keys) - {event.key for event in batch.events}:
            complaints.append(f"the batch of revision {batch.revision} lacks {missing_keys}")
    return complaints


def resumable(watch: Recorded, truth: Truth) -> list[str]:
    """It begins where it was asked to: with the first event from there on, and with nothing older."""
    first, events = watch.first_revision, watch.events()
    if first is None:
        return ["events came before it was told that it watches"] if events else []
    complaints = [
        f"revision {event.mod_revision}, and it was to begin with {first}"
        for event in events
        if event.mod_revision < first
    ]
    if events and not complaints:
        wanted = min(truth.events_between(watch, first, truth.revision), default=0)
        if events[0].mod_revision != wanted:
            complaints.append(f"from {first} on, it begins with {events[0].mod_revision} instead of {wanted}")
    return complaints


def bookmarkable(watch: Recorded, truth: Truth) -> list[str]:
    """A promise that all up to a revision has come is true, and nothing older comes afterwards."""
    complaints = []
    promised, heard = 0, set[int]()
    for batch in watch.batches:
        heard |= {event.mod_revision for event in batch.events}
        late = [event.mod_revision for event in batch.events if event.mod_revision <= promised]
        if late:
            complaints.append(f"revision {late[0]} after all up to {promised} was promised")
        if batch.events:
            continue
        if batch.revision < promised:
            complaints.append(f"a promise up to {batch.revision} after one up to {promised}")
        if batch.revision > truth.revision:
            complaints.append(f"a promise up to {batch.revision}, and there are {truth.revision} revisions")
        since = max(watch.first_revision or batch.revision + 1, promised + 1)
        wanted = truth.events_between(watch, since, batch.revision)
        missing = [revision for revision in wanted if revision not in heard]
        if missing:
            complaints.append(f"all up to {batch.revision} was promised, and {missing} had not come")
        promised = max(promised, batch.revision)
    return complaints


def filtered(watch: Recorded, truth: Truth) -> list[str]:
    """Nothing comes that was not asked for: other keys, or a type that was filtered out."""
    complaints = []
    for event in watch.events():
        if not _concerns(watch, event.key):
            complaints.append(f"{event.key!r} is not in the range")
        if (event.type == EVENT_PUT and watch.no_puts) or (event.type == EVENT_DELETE and watch.no_deletes):
            complaints.append(f"type {event.type} of {event.key!r} was not wanted")
    return complaints


def truthful(watch: Recorded, truth: Truth) -> list[str]:
    """Each event happened, and as it is told: a delete tells its key and revision only."""
    complaints: list[str] = []
    if filtered(watch, truth):
        return complaints  # what was not asked for is another matter
    for event in watch.events():
        happened = truth.events_at(watch, event.mod_revision)
        if _plain(event) not in happened:
            complaints.append(f"{event} never was; at that revision there was {sorted(happened)}")
    return complaints


def previous_known(watch: Recorded, truth: Truth) -> list[str]:
    """The record before comes with each event if it was asked for, and never if not; it may be missing only
    where it was compacted by the time at which the event came."""
    complaints = []
    for batch in watch.batches:
        compacted = truth.compacted if batch.compacted is None else batch.compacted
        for event in batch.events:
            what, before = (
                f"{event.key!r} of {event.mod_revision}",
                truth.before(event.key, event.mod_revision),
            )
            if event.previous is None:
                if watch.wants_previous and before is not None and event.mod_revision > compacted:
                    complaints.append(f"{what} comes without {before}")
            elif not watch.wants_previous:
                complaints.append(f"{what} comes with what nobody asked for")
            elif event.previous != before:
                complaints.append(f"{what}: {event.previous}, not {before}")
    return complaints


def creation_known(watch: Recorded, truth: Truth) -> list[str]:
    """A put says whether it made the key."""
    complaints = []
    for event in watch.events():
        is_new = event.type == EVENT_PUT and truth.before(event.key, event.mod_revision) is None
        if event.is_create != is_new:
            complaints.append(f"{event.key!r} of {event.mod_revision}: creation {event.is_create}")
    return complaints


def ended_rightly(watch: Recorded, truth: Truth) -> list[str]:
    """A watch that was told that its past is compacted did need what is compacted."""
    if watch.compacted is None:
        return []
    complaints = []
    if watch.compacted > truth.compacted:
        complaints.append(f"told that {watch.compacted} is the oldest; compacted is {truth.compacted}")
    wanted = max(watch.last_revision + 1, watch.first_revision or 0)
    if wanted >= watch.compacted:
        complaints.append(f"ended at {watch.compacted}, though it only wanted what is from {wanted} on")
    return complaints


Validator = Callable[[Recorded, Truth], list[str]]
VALIDATORS: Final[dict[str, Validator]] = {
    "ordered": ordered,
    "unique": unique,
    "reliable": reliable,
    "atomic": atomic,
    "resumable": resumable,
    "bookmarkable": bookmarkable,
    "filter": filtered,
    "truthful": truthful,
    "prev_kv": previous_known,
    "is_create": creation_known,
    "ended_rightly": ended_rightly,
}


def complete(watch: Recorded, truth: Truth) -> list[str]:
    """All that happened has come, or the watch was told why not: for a watch that was given time enough."""
    if watch.compacted is not None:
        return []
    if watch.first_revision is None:
        return ["it was never told that it watches"]
    heard = {event.mod_revision for event in watch.events()}
    wanted = truth.events_between(watch, watch.first_revision, truth.revision)
    missing = [revision for revision in wanted if revision not in heard]
    return [f"revisions {missing} never came"] if missing else []


def complaints_about(watch: Recorded, truth: Truth, *, is_over: bool = False) -> list[str]:
    """All there are, each with the name of the promise. `is_over`: it had time to hear of everything."""
    validators = VALIDATORS | ({"complete": complete} if is_over else {})
    return [
        f"{watch.name} is not {name}: {complaint}"
        for name, validate in validators.items()
        for complaint in validate(watch, truth)
    ]
