"""What a store ought to be, with no thought for time or memory: the whole content at each revision."""

from __future__ import annotations

from kvstore.protocol import EVENT_DELETE, EVENT_PUT, Event, KeyValue


def in_range(candidate: bytes, key: bytes, range_end: bytes) -> bool:
    if not range_end:
        return candidate == key
    return candidate >= key and (range_end == b"\x00" or candidate < range_end)


class DumbStore:
    def __init__(self) -> None:
        self.contents: list[dict[bytes, KeyValue]] = [{}, {}]  # by revision; there is no revision 0
        self.events: list[list[Event]] = [[], []]  # by revision
        self.compact_revision = 0

    @property
    def revision(self) -> int:
        return len(self.contents) - 1

    def put(self, key: bytes, value: bytes) -> None:
        revision = len(self.contents)
        current = self.contents[-1]
        _, _, created, _, version, _ = current.get(key, (key, b"", revision, 0, 0, 0))
        record = (key, value, created, revision, version + 1, 0)
        self.contents.append({**current, key: record})
        self.events.append([(EVENT_PUT, *record)])

    def delete(self, key: bytes, range_end: bytes) -> None:
        revision = len(self.contents)
        doomed = sorted(name for name in self.contents[-1] if in_range(name, key, range_end))
        if doomed:
            self.contents.append({k: r for k, r in self.contents[-1].items() if k not in doomed})
            self.events.append([(EVENT_DELETE, name, b"", 0, revision, 0, 0) for name in doomed])

    def compact(self, revision: int) -> None:
        self.compact_revision = revision

    def range(self, key: bytes, range_end: bytes, revision: int) -> list[KeyValue]:
        content = self.contents[revision]
        return [content[name] for name in sorted(content) if in_range(name, key, range_end)]

    def history(self, key: bytes, range_end: bytes, start: int) -> list[tuple[int, list[Event]]]:
        found = [
            (revision, [event for event in self.events[revision] if in_range(event[1], key, range_end)])
            for revision in range(start, len(self.events))
        ]
        return [(revision, events) for revision, events in found if events]

    def versions(self) -> list[KeyValue]:
        """All that is kept: in order of key and of revision; a deletion as a record of version 0."""
        base = self.contents[self.compact_revision].values()
        kept = [record for record in base if record[3] < self.compact_revision]
        for events in self.events[self.compact_revision :]:
            kept += [event[1:] for event in events]
        return sorted(kept, key=lambda version: (version[0], version[3]))
