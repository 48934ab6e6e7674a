"""What happened, one line for each event: the time, the node, what, and of messages the fields that matter.

Lines are kept only if somebody will read them; a run without a reader pays one comparison for each event.
"""

from __future__ import annotations

from collections import Counter

from raft.entries import EntryBatch
from tests.simulator.clocks import Schedule


class Violation(AssertionError):
    """Something that must never happen has happened. Ends the run; never caught inside of it."""


class Trace:
    """Owned by one simulation. `counts` is the coverage: how often each kind of event was there."""

    def __init__(self, schedule: Schedule, *, keep: bool) -> None:
        self._schedule = schedule
        self.keep = keep
        self.lines: list[str] = []
        self.counts: Counter[str] = Counter()

    def say(self, node: str, what: str, detail: str = "") -> None:
        """An event that is worth a line, and counts for coverage under its name."""
        self.counts[what] += 1
        if self.keep:
            self.line(node, what, detail)

    def line(self, node: str, what: str, detail: str = "") -> None:
        """A line only. The caller asks `keep` first, if it costs anything to make the detail."""
        self.lines.append(f"{self._schedule.now:11.6f} {node:<4} {what:<18} {detail}".rstrip())


_SHORT = {
    "term": "t",
    "last_index": "last",
    "last_term": "lt",
    "prev_index": "prev",
    "prev_term": "pt",
    "commit_index": "commit",
    "match_index": "match",
    "conflict_index": "conflict",
    "conflict_term": "ct",
}


def summary(message: object) -> str:
    """A message on one line: its kind, and its fields by short names."""
    kind = type(message)
    fields = []
    for name in getattr(kind, "__slots__", ()):
        value = getattr(message, name)
        if isinstance(value, EntryBatch):
            terms = sorted({term for term, _, _ in value.entries})
            span = f"{value.first_index}..{value.last_index}" if value.entries else "none"
            fields.append(f"entries={span}" + (f" of t{','.join(map(str, terms))}" if terms else ""))
        elif isinstance(value, bytes):
            fields.append(f"{name}={len(value)}B")
        else:
            fields.append(f"{_SHORT.get(name, name)}={value}")
    return f"{kind.__name__} {' '.join(fields)}".rstrip()
