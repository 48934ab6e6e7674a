"""How entries and messages look in a scenario. Knows the messages; nothing of nodes.

2@1 is the entry of index 2 and term 1. What an entry holds follows, if it holds anything worth reading.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from raft.entries import Entry, EntryBatch, EntryKind, Index
from raft.membership import Configuration
from raft.messages import (
    AppendEntries,
    AppendRejected,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    InstallSnapshotResponse,
    PreVoteResponse,
    ReadIndexRefused,
    ReadIndexRequest,
    ReadIndexResponse,
    Removed,
    RequestPreVote,
    RequestVote,
    TimeoutNow,
    VoteResponse,
)

MANY_ENTRIES = 5


def entry_text(index: Index, entry: Entry) -> str:
    term, kind, body = entry
    place = f"{index}@{term}"
    if kind == EntryKind.NOOP:
        return f"{place} (begins the term)"
    if kind == EntryKind.CONFIGURATION:
        return f"{place} {configuration_text(Configuration.decode(body))}"
    if body == place.encode():
        return place  # an entry that was there from the start
    return f"{place} {body_text(body)}"


def configuration_text(configuration: Configuration) -> str:
    """{n1 n2 n3}: the voters. {n1 n2 n3 -> n1 n4 n5}: joint, the old ones and the new.

    Who is catching up is a learner that becomes a voter by itself.
    """
    text = " ".join(sorted(configuration.voters)) or "nobody"
    if configuration.is_joint:
        text = f"{' '.join(sorted(configuration.outgoing))} -> {text}"
    for what, names in (
        ("learners", configuration.learners - configuration.incoming),
        ("catching up", configuration.incoming),
        ("leaving then", configuration.retiring),
    ):
        if names:
            text += f"; {what} {' '.join(sorted(names))}"
    return f"{{{text}}}"


def body_text(body: bytes) -> str:
    return f"{len(body)}B" if not body.strip(b"\0") else body.decode()


def body_of(text: str) -> bytes:
    """What a scenario writes for a body: itself, or 300B for that many bytes."""
    return bytes(int(text[:-1])) if text[:-1].isdigit() and text[-1] == "B" else text.encode()


def entries_text(first_index: Index, entries: list[Entry]) -> str:
    if not entries:
        return "nothing"
    if len(entries) >= MANY_ENTRIES:
        last_index = first_index + len(entries) - 1
        return f"{first_index}@{entries[0][0]} to {last_index}@{entries[-1][0]}"
    return ", ".join(entry_text(index, entry) for index, entry in enumerate(entries, first_index))


def batch_text(batch: EntryBatch) -> str:
    return entries_text(batch.first_index, batch.entries)


def _granted(granted: bool) -> str:
    return "granted" if granted else "refused"


def _log_end(message: RequestPreVote | RequestVote) -> str:
    return f"log ends {message.last_index}@{message.last_term}"


def _request(context: int) -> str:
    """A follower's number for its request: the run of that node, and a count."""
    return f"request {context >> 32}.{context & 0xFFFFFFFF}"


def _append_rejected(message: AppendRejected) -> str:
    theirs = f" (its term there: {message.conflict_term})" if message.conflict_term else ""
    return f"nothing follows {message.prev_index} here, go on at {message.conflict_index}{theirs}"


# What follows the kind and the term.
_DETAILS: dict[type, Callable[[Any], str]] = {
    RequestPreVote: _log_end,
    PreVoteResponse: lambda message: _granted(message.granted),
    RequestVote: lambda message: _log_end(message) + (", for a transfer" if message.transfer else ""),
    VoteResponse: lambda message: _granted(message.granted),
    AppendEntries: lambda message: (
        f"after {message.prev_index}@{message.prev_term}: {batch_text(message.batch)}; "
        f"commit {message.commit_index}"
    ),
    AppendResponse: lambda message: f"match {message.match_index}",
    AppendRejected: _append_rejected,
    Heartbeat: lambda message: f"commit {message.commit_index}, round {message.round}",
    HeartbeatResponse: lambda message: f"round {message.round}",
    ReadIndexRequest: lambda message: _request(message.context),
    ReadIndexResponse: lambda message: f"{_request(message.context)} at {message.read_index}",
    ReadIndexRefused: lambda message: _request(message.context),
    InstallSnapshot: lambda message: (
        f"snapshot up to {message.index}@{message.snapshot_term}, "
        f"bytes {message.offset} to {message.offset + len(message.data)} of {message.size_bytes}"
    ),
    InstallSnapshotResponse: lambda message: f"snapshot up to {message.index}, next byte {message.offset}",
    TimeoutNow: lambda message: "campaign now",
    Removed: lambda message: "you are no member any more",
}


def message_text(message: Any) -> str:
    kind = type(message)
    details = _DETAILS.get(kind)
    if details is not None:
        return f"{kind.__name__} term {message.term}, {details(message)}"
    rest = [f"{field.name} {getattr(message, field.name)}" for field in fields(message)]
    return " ".join([kind.__name__, ", ".join(rest)])


def table(rows: list[list[str]]) -> list[str]:
    """Columns as wide as their widest cell; the first row is the head."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
