"""Makes the golden files: one node's data in the formats that this program writes, and what is in them.

Run by hand, `python -m tests.golden.make`, when a format gets a new version; never by a test. It makes what
is missing and touches nothing that is there: the files of an older version are what programs of that time
wrote, and no later program could make them again. Beside each stands what is to be found in it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from kvstore import codes, protocol, protocol_lease
from kvstore.cli.wal import OPERATION_NAMES
from kvstore.operations import decode_write
from kvstore.salvage import salvage
from kvstore.snapshots import FORMAT_VERSION as STATE_VERSION
from raft.directory import FORMAT_VERSION as IDENTITY_VERSION
from raft.directory import IDENTITY_NAME, LOCK_NAME, DataDirectory
from raft.entries import EntryBatch, HardState
from raft.fence import FENCE_NAME, FenceMark, FileFence
from raft.fence import FORMAT_VERSION as FENCE_VERSION
from raft.files import OsFiles
from raft.membership import Configuration
from raft.segment import FORMAT_VERSION as LOG_VERSION
from tests.golden import commands
from tests.kvstore.machine_log import Log

HERE = Path(__file__).parent
CLUSTER_ID = "0f1e2d3c4b5a6978"  # a store's is of this form
CLUSTER, NODE, STORAGE = "golden", "n1", "00112233445566778899aabbccddeeff"
ADDRESSES = {"n1": "tcp://127.0.0.1:7101", "n2": "tcp://127.0.0.1:7102", "n3": "tcp://127.0.0.1:7103"}
SEGMENT_BYTES = 2048
CONFIGURATION = Configuration(["n1", "n2"], ["n3"], addresses=ADDRESSES)
MARK = FenceMark(512, 2**64 - 1, 7, "another state", True)
CONTENT = b"what a state machine said " * 40

COMMAND, NO_OP, CONFIGURED = 1, 0, 2


def make_log(target: Path) -> dict[str, object]:
    """A data directory of every kind of record: segments that were switched, a run that replaces another, a
    payload that had to be stuffed, a snapshot and its mark, a clean end."""
    directory = DataDirectory(target, CLUSTER, NODE, storage_id=STORAGE, members=ADDRESSES)
    log = directory.open_log(segment_bytes=SEGMENT_BYTES)
    log.load()
    entries = [(1, NO_OP, b""), (1, CONFIGURED, CONFIGURATION.encode()), (1, COMMAND, b"replaced")]
    log.append(HardState(1, "n1", 0), EntryBatch(1, entries))
    log.sync()
    entries[2:] = [(3, NO_OP, b""), (3, COMMAND, b"zeros" + bytes(1200))]
    log.append(HardState(3, "n2", 2), EntryBatch(3, entries[2:]))
    log.sync()
    log.begin_snapshot(3, 3, CONFIGURATION.encode())
    log.append_snapshot(CONTENT)
    log.commit_snapshot(replaces_log=False)
    for number in range(4):
        entries.append((4, COMMAND, b"%d " % number * 300))
        log.append(HardState(4, None, 4), EntryBatch(len(entries), entries[-1:]))
        log.sync()
    log.append(HardState(5, "n3", 7), None)
    log.close()
    directory.close()
    (target / LOCK_NAME).unlink()
    return {
        "cluster_id": CLUSTER,
        "node_id": NODE,
        "storage_id": STORAGE,
        "members": ADDRESSES,
        "term": 5,
        "voted_for": "n3",
        "commit_index": 7,
        "entries": [{"term": term, "kind": kind, "body": body.hex()} for term, kind, body in entries],
        "snapshot": {"index": 3, "term": 3, "voters": ["n1", "n2"], "learners": ["n3"]},
        "content": CONTENT.hex(),
        "segments": len(list((target / "wal").glob("*.wal"))),
    }


def make_installed(target: Path) -> dict[str, object]:
    """A data directory with a snapshot that took the place of its log, as a leader sends it or a restore
    makes it: the mark says that what stands before it is void."""
    directory = DataDirectory(target, CLUSTER, NODE, storage_id=STORAGE, members=ADDRESSES)
    log = directory.open_log(segment_bytes=SEGMENT_BYTES)
    log.load()
    void = [(1, NO_OP, b""), (1, CONFIGURED, CONFIGURATION.encode()), (1, COMMAND, b"void")]
    log.append(HardState(1, None, 2), EntryBatch(1, void))
    log.sync()
    log.append(HardState(4, None, 2), None)
    log.begin_snapshot(20, 3, CONFIGURATION.encode())
    log.append_snapshot(CONTENT)
    log.commit_snapshot(replaces_log=True)
    entries = []
    for number in range(8):
        entries.append((4, COMMAND, b"%d " % number * 300))
        log.append(HardState(4, None, 20), EntryBatch(20 + len(entries), entries[-1:]))
        log.sync()
    log.close()
    directory.close()
    (target / LOCK_NAME).unlink()
    return {
        "cluster_id": CLUSTER,
        "node_id": NODE,
        "storage_id": STORAGE,
        "members": ADDRESSES,
        "term": 4,
        "voted_for": None,
        "commit_index": 20,
        "first_index": 21,
        "entries": [{"term": term, "kind": kind, "body": body.hex()} for term, kind, body in entries],
        "snapshot": {"index": 20, "term": 3, "voters": ["n1", "n2"], "learners": ["n3"]},
        "content": CONTENT.hex(),
        "segments": len(list((target / "wal").glob("*.wal"))),
    }


def make_node(target: Path) -> dict[str, object]:
    """What a node of the store can start on: a log of every kind of command, and a snapshot at half way."""
    directory = DataDirectory(target, CLUSTER_ID, NODE, storage_id=STORAGE, members=ADDRESSES)
    disk, log = directory.open_log(segment_bytes=SEGMENT_BYTES), Log()
    disk.load()
    found: list[dict[str, object]] = []

    def apply(body: bytes | None, kind: int | None = None) -> None:
        index = len(found) + 1
        [result] = log.machine.apply(index, [body if kind is None else None])
        kind = kind if kind is not None else NO_OP if body is None else COMMAND
        disk.append(HardState(2, NODE, index - 1), EntryBatch(index, [(2, kind, body or b"")]))
        disk.sync()
        found.append(
            {
                "operation": operation_of(body) if body and kind == COMMAND else None,
                "result": result and result.hex(),
                "fingerprint": f"{log.machine.fingerprint():016x}",
            }
        )

    def take() -> None:
        disk.begin_snapshot(len(found), 2, CONFIGURATION.encode())
        for piece in log.machine.snapshot():
            disk.append_snapshot(piece)
        disk.commit_snapshot(replaces_log=False)

    apply(CONFIGURATION.encode(), CONFIGURED)
    commands.fill(log, apply, take)
    disk.close()
    directory.close()
    (target / LOCK_NAME).unlink()
    return {"cluster_id": CLUSTER_ID, "node_id": NODE, "members": ADDRESSES, "entries": found}


def operation_of(body: bytes) -> str:
    """Its name in lower case."""
    command = decode_write(body)
    if isinstance(command, bytes):
        return "unreadable"
    return next(name for name in OPERATION_NAMES if getattr(codes, name) == command[3]).lower()


def make_backup(target: Path) -> dict[str, object]:
    """A file for `snapshot restore`, of the node above."""
    found = salvage(HERE / NODE_FILES, target)
    return {
        "cluster_id": found.cluster_id,
        "log_index": found.log_index,
        "term": found.term,
        "revision": found.revision,
        "keys": found.keys,
    }


def make_state(target: Path) -> dict[str, object]:
    """The content of a snapshot of the store: records, deleted ones, leases, and sessions with what they
    remember."""
    log = Log()
    first = log.open_session(b"nonce of session")
    log.put(b"a", b"1")
    log.put(b"b", b"gone")
    log.put(b"a", b"2")
    log.delete(b"b")
    log.put(b"binary\0\xff", bytes(range(256)))
    second = log.open_session(b"nonce of another")
    retries = [
        protocol.put_body(first, 1, 0, b"counted", b"once"),
        protocol.put_body(first, 2, 0, b"counted", b"twice", flags=protocol.PREV_KV),
        protocol.delete_body(second, 7, 0, b"not there"),
    ]
    leased = [
        protocol_lease.grant_body(0, 0, 0, 60, 77),
        protocol.put_body(0, 0, 0, b"leased", b"v", lease=77),
        protocol.put_body(0, 0, 0, b"leased too", b"v", lease=77),
        protocol_lease.grant_body(0, 0, 0, 10, 78),
        protocol_lease.tick_body(1234, log.machine.applied_index + 4),
        protocol_lease.keepalive_body([78]),
    ]
    log.machine.apply(log.machine.applied_index + 1, leased)
    results = log.machine.apply(log.machine.applied_index + 1, retries)
    target.write_bytes(b"".join(log.machine.snapshot()))
    _, _, _, _, records = log.ask(protocol.range_body(b"\0", b"\0"))
    return {
        "applied_index": log.machine.applied_index,
        "revision": log.machine.revision,
        # key, value, and the numbers behind them as a read gives them
        "records": [[key.hex(), value.hex(), *numbers] for key, value, *numbers in records],
        # id, remaining and granted seconds, keys
        "leases": [[lease, *log.ask(protocol_lease.time_to_live_body(lease))[2:5]] for lease in (77, 78)],
        "time_ms": log.machine.lease_time_ms,
        # commands of sessions that were applied once, and what each is answered when it comes again
        "retries": [[body.hex(), result.hex()] for body, result in zip(retries, results) if result],
    }


def make_identity(target: Path) -> dict[str, object]:
    """Whose directory it is, with all that may be said of it."""
    with tempfile.TemporaryDirectory() as home:
        DataDirectory(Path(home), CLUSTER, NODE, storage_id=STORAGE, members=ADDRESSES).close()
        shutil.copy(Path(home) / IDENTITY_NAME, target)
    return {"cluster_id": CLUSTER, "node_id": NODE, "storage_id": STORAGE, "members": ADDRESSES}


def make_fence(target: Path) -> dict[str, object]:
    """The mark of a node that differed from a majority."""
    with tempfile.TemporaryDirectory() as home:
        FileFence(Path(home), OsFiles()).put_up(MARK)
        shutil.copy(Path(home) / FENCE_NAME, target)
    return {**MARK.fields(), "has_forgotten": MARK.has_forgotten}


# The commands in a log have no version of their own. These get another number when there is a new command, or
# a new form of one; and when a file in them has a new version.
NODE_FILES, BACKUP_FILE = "node-1", "backup-1.bin"
MAKERS: dict[str, Callable[[Path], dict[str, object]]] = {
    f"log-{LOG_VERSION}": make_log,
    f"installed-{LOG_VERSION}": make_installed,
    f"state-{STATE_VERSION}.bin": make_state,
    f"identity-{IDENTITY_VERSION}": make_identity,
    f"fenced-{FENCE_VERSION}": make_fence,
    NODE_FILES: make_node,
    BACKUP_FILE: make_backup,
}


def main() -> None:
    for name, make in MAKERS.items():
        target, description = HERE / name, (HERE / name).with_suffix(".json")
        if description.exists():
            print(f"{name} is there already")
            continue
        if target.is_dir():
            shutil.rmtree(target)  # left by a run that broke off
        content = make(target)
        description.write_text(json.dumps(content, indent=1) + "\n")
        print(f"{name} made")


if __name__ == "__main__":
    main()
