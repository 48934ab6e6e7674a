"""wal, and snapshot inspect: what is on a disk, looked at and never changed.

Knows the inspection of logs, and how commands are written down; no cluster is asked. What a start of the node
would refuse ends these commands with the same code and the same sentence.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kvstore.cli import output

if TYPE_CHECKING:
    from raft.inspection import Inspection, LogRecord, Report, Segment
    from raft.membership import Configuration

SEGMENT_HEADER = ("SEGMENT", "VERSION", "FIRST", "LAST", "RECORDS", "USED", "SIZE", "SEALED")
DUMP_HEADER = ("SEGMENT", "OFFSET", "RECORD", "INDEX", "TERM", "KIND", "WHAT")
_COUNTED = ("revision", "compact_revision", "keys", "sessions")  # of what the state machine tells of itself
_DIRECTORY = click.argument(
    "directory", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path)
)

# Of what a log may have, and a transaction in it.
OPERATION_NAMES = (
    *("PUT", "DELETE", "OPEN_SESSION", "CLOSE_SESSION", "COMPACT", "TXN", "RANGE"),
    *("LEASE_GRANT", "LEASE_REVOKE", "LEASE_KEEPALIVE", "LEASE_TICK", "LEASE_EXPIRE"),
)


# What can be said of the end of a log: the limit of docs/disk.md.
CLEAN = "clean: a last record vouches for what was written before it"
NOT_CLEAN = "not clean: if zeros stand where the last turns stood, nothing here tells"


@click.group("wal")
def wal() -> None:
    """Look at the log of a node that does not run."""


@wal.command("check")
@_DIRECTORY
@click.option(
    "--no-restore", is_flag=True, help="Leave out what is in snapshots: for a log of another state machine."
)
@click.pass_context
def check(ctx: click.Context, directory: Path, no_restore: bool) -> None:
    """Say what a start of the node would find, and whether it would refuse.

    DIR is a data directory, or the log in it. Nothing is changed. A directory in use is refused.

    Each snapshot is restored into memory, one after the other, as a start does with the newest: that takes
    as much memory as the node.
    """
    with closing(_inspection(directory)) as inspection:
        report = inspection.report()
        if not no_restore:
            _restore_snapshots(report)
    if report.fence is not None:
        click.echo(f"assent: {report.fence.warning()}", err=True)
    if ctx.obj.write_out == "json":
        output.write_json(_facts(report) | {"segments": [_segment(segment) for segment in report.segments]})
    else:
        rows = [(name.replace("_", " "), _text(value)) for name, value in _facts(report).items()]
        segments = [[_text(cell) for cell in _segment(item).values()] for item in report.segments]
        if ctx.obj.write_out == "simple":
            for row in (*rows, *segments):
                output.write_line(*(cell.encode() for cell in row))
        else:
            output.write_table(("LOG", str(report.directory)), rows)
            output.write_raw(b"\n")
            output.write_table(SEGMENT_HEADER, segments)
    if report.refusal is not None:
        output.flush()
        raise report.refusal


def _restore_snapshots(report: Report) -> None:
    """Adds what the store has against those whose every byte checks. A start restores the newest one that
    goes with the log, and behind a fence none."""
    from kvstore.unusable import why_unusable
    from raft.inspection import ReadOnlyFiles

    for place, found in enumerate(report.snapshots):
        if found.meta is None:
            continue
        damage = why_unusable(found.file, ReadOnlyFiles(), report.identity.cluster_id)
        if damage is None:
            continue
        report.snapshots[place] = found._replace(meta=None, damage=damage)
        is_used = report.recovered is not None and report.recovered.snapshot == found.meta
        if is_used and report.fence is None:
            report.refusal = damage


@wal.command("dump")
@_DIRECTORY
@click.option(
    "--from", "first_index", type=click.IntRange(1), metavar="N", help="Leave out what is before entry N."
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most so many rows.")
@click.option("--values", is_flag=True, help="Show the values of puts, too.")
@click.pass_context
def dump(
    ctx: click.Context, directory: Path, first_index: int | None, limit: int | None, values: bool
) -> None:
    """Show every record of the log in the order in which it was written.

    So an entry that was replaced stands there too, before the one that replaced it. What is behind damage is
    not shown; the command then ends as a start of the node would.
    """
    with closing(_inspection(directory)) as inspection:
        rows = _limited(_rows(inspection, first_index or 0, values), limit)
        if ctx.obj.write_out == "json":
            for row in rows:
                output.write_json(row)
        elif ctx.obj.write_out == "table":
            output.write_table(DUMP_HEADER, [_cells(row) for row in rows])
        else:
            for row in rows:
                output.write_line(*(cell.encode() for cell in _cells(row)))
        refusal = inspection.report().refusal
    if refusal is not None:
        output.flush()
        raise refusal


@click.command("inspect")
@click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.pass_context
def inspect(ctx: click.Context, file: Path) -> None:
    """Read all of a snapshot, check every byte, and say what is in it.

    Of a node or of `snapshot save`. It is restored into memory, as a start or a restore would, which refuse
    what is refused here; nothing is changed.
    """
    facts = _snapshot_facts(file)
    if ctx.obj.write_out == "json":
        output.write_json(facts)
        return
    rows = [(name.replace("_", " "), _text(value)) for name, value in facts.items()]
    if ctx.obj.write_out == "table":
        output.write_table(("SNAPSHOT", str(file)), rows)
    else:
        for row in rows:
            output.write_line(*(cell.encode() for cell in row))


def _inspection(directory: Path) -> Inspection:
    from raft.inspection import Inspection

    # What a start would write to its log is said here in other words.
    logging.getLogger("assent").addHandler(logging.NullHandler())
    return Inspection(directory)


# ---------------------------------------------------------------- check


def _facts(report: Report) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "directory": str(report.directory),
        "cluster_id": report.identity.cluster_id,
        "node_id": report.identity.node_id,
        "fenced": report.fence and report.fence.warning(),
    }
    recovered = report.recovered
    if recovered is not None:
        facts |= {
            "term": recovered.hard_state.term,
            "voted_for": recovered.hard_state.voted_for,
            "commit_index": recovered.hard_state.commit_index,
            "first_index": recovered.first_index,
            "last_index": recovered.last_index,
            "snapshot_index": recovered.snapshot.index if recovered.snapshot else None,
        }
    facts["snapshots"] = [
        {"file": found.file.name, "damage": str(found.damage)}
        if found.meta is None
        else {"file": found.file.name, "index": found.meta.index, "bytes": found.meta.size_bytes}
        for found in report.snapshots
    ]
    torn = report.torn
    facts["unfinished_write"] = torn and {
        "file": torn.file.name,
        "offset": torn.offset,
        "bytes": torn.size_bytes,
        "reason": torn.reason,
    }
    if recovered is not None:
        facts["end"] = CLEAN if report.has_witness else NOT_CLEAN
    facts["start"] = "would succeed" if report.refusal is None else "would refuse"
    return facts


def _segment(segment: Segment) -> dict[str, Any]:
    header = segment.header
    return {
        "file": segment.file.name,
        "version": header.version,
        "first_index": header.first_index,
        "last_index": segment.last_index,
        "records": segment.records,
        "used_bytes": segment.used_bytes,
        "size_bytes": segment.size_bytes,
        "is_sealed": segment.is_sealed,
    }


# ---------------------------------------------------------------- dump


def _limited(rows: Iterator[dict[str, Any]], limit: int | None) -> Iterator[dict[str, Any]]:
    from itertools import islice

    return rows if limit is None else islice(rows, limit)


def _rows(inspection: Inspection, first_index: int, values: bool) -> Iterator[dict[str, Any]]:
    """One for each entry, and for each record that has none; nothing before the first entry that is shown."""
    begun = first_index == 0
    for record in inspection.records():
        for row in _record_rows(record, values):
            begun = begun or row.get("index", 0) >= first_index
            if begun and (row["record"] != "entry" or row["index"] >= first_index):
                yield row


def _record_rows(record: LogRecord, values: bool) -> Iterator[dict[str, Any]]:
    from raft.entries import CorruptEntries, decode_entries
    from raft.record import RecordType
    from raft.replay import decode_mark
    from raft.segment import decode_hard_state, decode_seal

    kind, payload = record.record_type, record.payload
    place: dict[str, Any] = {"segment": record.file.name, "offset": record.offset}
    if kind == RecordType.ENTRIES:
        try:
            first_index, entries = decode_entries(payload)
        except CorruptEntries as error:
            yield place | {"record": "entries", "what": f"unreadable: {error.reason}"}
            return
        for index, (term, entry_kind, body) in enumerate(entries, first_index):
            yield place | {"record": "entry", "index": index, "term": term} | _entry(entry_kind, body, values)
    elif kind == RecordType.HARD_STATE and (state := decode_hard_state(payload)) is not None:
        what = {"voted_for": state.voted_for, "commit_index": state.commit_index}
        yield place | {"record": "hard_state", "term": state.term} | what
    elif kind == RecordType.SNAPSHOT_MARK and (mark := decode_mark(payload)) is not None:
        index, term, replaces_log = mark
        yield place | {"record": "snapshot_mark", "index": index, "term": term, "replaces_log": replaces_log}
    elif kind == RecordType.SEAL and (seal := decode_seal(payload)) is not None:
        yield place | {"record": "seal", "next_segment": seal[0]}
    else:
        yield place | {"record": f"type {kind}", "bytes": len(payload)}


def _entry(kind: int, body: bytes, values: bool) -> dict[str, Any]:
    from raft.entries import EntryKind
    from raft.membership import Configuration, CorruptConfiguration

    if kind == EntryKind.CONFIGURATION:
        try:
            return {"kind": "configuration", **_configuration(Configuration.decode(body))}
        except CorruptConfiguration as error:
            return {"kind": "configuration", "unreadable": str(error)}
    if kind == EntryKind.COMMAND:
        return {"kind": "command", **_command(body, values)}
    return {"kind": "no-op"}


def _configuration(configuration: Configuration) -> dict[str, Any]:
    sets = ("voters", "outgoing", "learners", "incoming", "retiring", "removed")
    return {name: sorted(getattr(configuration, name)) for name in sets if getattr(configuration, name)} | {
        "addresses": dict(configuration.addresses)
    }


def _command(body: bytes, values: bool) -> dict[str, Any]:
    from kvstore.operations import decode_write

    command = decode_write(body)
    if isinstance(command, bytes):
        return {"operation": "unreadable", "bytes": len(body)}
    session_id, sequence, _, *operation = command
    row: dict[str, Any] = {"operation": "", "bytes": len(body)}
    if session_id:
        row |= {"session": session_id, "sequence": sequence}
    return row | _operation(operation, values)


def _operation(operation: list[Any], values: bool) -> dict[str, Any]:
    """What a command does, or one of the operations in a transaction."""
    from kvstore import codes

    kind, *arguments = operation
    name = next((name for name in OPERATION_NAMES if getattr(codes, name) == kind), f"operation {kind}")
    row: dict[str, Any] = {"operation": name.lower()}
    if kind == codes.PUT:
        row |= {"key": output.json_bytes(arguments[0]), "value_bytes": len(arguments[1])}
        if values:
            row["value"] = output.json_bytes(arguments[1])
        row |= {"lease": arguments[2]} if arguments[2] else {}
    elif kind in (codes.DELETE, codes.RANGE):
        row["key"] = output.json_bytes(arguments[0])
        if arguments[1]:
            row["range_end"] = output.json_bytes(arguments[1])
    elif kind == codes.TXN:
        compares, then, otherwise, _ = arguments[0]
        row["compares"] = [_plain(compare) for compare in compares]
        row["then"] = [_operation(each, values) for each in then]
        row["else"] = [_operation(each, values) for each in otherwise]
    elif kind != codes.OPEN_SESSION and arguments:
        row["arguments"] = [_text(argument) for argument in arguments]
    return row


def _plain(items: list[Any]) -> list[object]:
    return [output.json_bytes(item) if isinstance(item, bytes) else item for item in items]


def _cells(row: dict[str, Any]) -> list[str]:
    """What has no column of its own goes into the last one."""
    named = ("segment", "offset", "record", "index", "term", "kind")
    # Anything may be in them, line ends too.
    quoted = ("key", "range_end", "value", "compares", "then", "else")
    rest = " ".join(
        f"{name}={json.dumps(value, ensure_ascii=False) if name in quoted else _text(value)}"
        for name, value in row.items()
        if name not in named
    )
    return [*(_text(row.get(name)) for name in named), rest]


# ---------------------------------------------------------------- snapshot


def _snapshot_facts(file: Path) -> dict[str, Any]:
    from kvstore.unusable import restored_in_memory
    from raft.files import FailStop
    from raft.inspection import ReadOnlyFiles
    from raft.membership import Configuration
    from raft.snapshot import SnapshotReader
    from raft.storage import TAKE_ANOTHER_COPY

    with closing(SnapshotReader(file, FailStop(ReadOnlyFiles()), None)) as reader:
        reader.verify()
        meta = reader.meta
        machine = restored_in_memory(reader, file, remedy=TAKE_ANOTHER_COPY)
    status = machine.status()
    return {
        "file": str(file),
        "format": reader.header.version,
        "cluster_id": reader.header.cluster_id,
        "index": meta.index,
        "term": meta.term,
        "bytes": meta.size_bytes,
        "checksum": f"{meta.checksum:08x}",
        "configuration": _configuration(Configuration.decode(meta.configuration)),
        "applied_index": machine.applied_index,
        **{name: status[name] for name in _COUNTED if name in status},
    }


def _text(value: object) -> str:
    if value is None or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ",".join(_text(item) for item in value)
    if isinstance(value, dict):
        return " ".join(f"{name}={_text(item)}" for name, item in value.items())
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
