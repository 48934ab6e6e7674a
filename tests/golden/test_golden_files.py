"""What programs of the past have written is read by this one, and is found to be what they said it is.

The files are checked in, each with what is in it beside it; `make.py` made them, and is not run here. A new
version of a format gets new files; those of the old versions stay, and stay readable.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kvstore import codes, operations, protocol, protocol_lease, snapshots
from kvstore.backup_restore import restore_node
from kvstore.cli import cli
from kvstore.cli.wal import OPERATION_NAMES
from kvstore.operations import decode_write
from raft import directory, fence, segment, snapshot
from raft.directory import DataDirectory
from raft.entries import EntryBatch, HardState
from raft.fence import FileFence
from raft.files import OsFiles
from raft.membership import Configuration
from raft.state_machine import restore_all
from raft.storage import snapshot_content
from tests.kvstore.machine_log import Log

HERE = Path(__file__).parent
LOGS = sorted(path.stem for path in HERE.glob("log-*.json"))
INSTALLED = sorted(path.stem for path in HERE.glob("installed-*.json"))
STATES = sorted(path.stem for path in HERE.glob("state-*.json"))
IDENTITIES = sorted(path.stem for path in HERE.glob("identity-*.json"))
NODES = sorted(path.stem for path in HERE.glob("node-*.json"))
BACKUPS = sorted(path.stem for path in HERE.glob("backup-*.json"))
FENCES = sorted(path.stem for path in HERE.glob("fenced-*.json"))


def described(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text())
    return content


def a_copy(name: str, tmp_path: Path) -> Path:
    """A node writes into its directory as soon as it starts."""
    return Path(shutil.copytree(HERE / name, tmp_path / name))


def test_each_format_that_is_written_has_its_golden_files() -> None:
    assert [f"log-{version}" for version in range(1, segment.FORMAT_VERSION + 1)] == LOGS
    assert [f"installed-{version}" for version in range(3, segment.FORMAT_VERSION + 1)] == INSTALLED
    assert [f"state-{version}" for version in range(1, snapshots.FORMAT_VERSION + 1)] == STATES
    assert NODES and [name.removeprefix("node-") for name in NODES] == [
        name.removeprefix("backup-") for name in BACKUPS
    ]
    for names, kind, newest_version in (
        (IDENTITIES, "identity", directory.FORMAT_VERSION),
        (FENCES, "fenced", fence.FORMAT_VERSION),
    ):
        versions = range(1, newest_version + 1)
        assert [f"{kind}-{version}" for version in versions] == names
        assert [json.loads((HERE / name).read_bytes())["format"] for name in names] == list(versions)
    for pattern, version in (("*.wal", segment.FORMAT_VERSION), ("snapshot-*", snapshot.FORMAT_VERSION)):
        newest = [path for name in (LOGS[-1], INSTALLED[-1]) for path in (HERE / name / "wal").glob(pattern)]
        assert newest
        for path in newest:
            assert int.from_bytes(path.read_bytes()[8:12], "little") == version


@pytest.mark.parametrize("name", LOGS + INSTALLED)
def test_a_data_directory_of_each_version_is_read_to_the_last_byte(name: str, tmp_path: Path) -> None:
    content = described(name)
    data = DataDirectory(a_copy(name, tmp_path), content["cluster_id"], content["node_id"])
    assert data.founding.storage_id == content["storage_id"]
    assert data.founding.members == content["members"]
    log = data.open_log()
    recovered = log.load()
    assert recovered.hard_state == HardState(content["term"], content["voted_for"], content["commit_index"])
    entries = [(entry["term"], entry["kind"], bytes.fromhex(entry["body"])) for entry in content["entries"]]
    assert (recovered.first_index, recovered.entries) == (content.get("first_index", 1), entries)
    meta = recovered.snapshot
    assert meta is not None
    configuration = Configuration.decode(meta.configuration)
    assert content["snapshot"] == {
        "index": meta.index,
        "term": meta.term,
        "voters": sorted(configuration.voters),
        "learners": sorted(configuration.learners),
    }
    assert configuration.addresses == content["members"]
    assert b"".join(snapshot_content(log, meta)).hex() == content["content"]
    log.close()
    data.close()


@pytest.mark.parametrize("name", LOGS + INSTALLED)
def test_a_log_of_each_version_is_gone_on_with(name: str, tmp_path: Path) -> None:
    """Over several segments, and read again."""
    content = described(name)
    path = a_copy(name, tmp_path)
    bodies = [b"later %d " % number * 200 for number in range(12)]
    index = content.get("first_index", 1) - 1 + len(content["entries"])
    for first in range(0, len(bodies), 4):
        data = DataDirectory(path, content["cluster_id"], content["node_id"])
        log = data.open_log(segment_bytes=4096)
        assert log.load().last_index == index
        for body in bodies[first : first + 4]:
            index += 1
            log.append(HardState(6, None, content["commit_index"]), EntryBatch(index, [(6, 1, body)]))
            log.sync()
        log.close()
        data.close()
    data = DataDirectory(path, content["cluster_id"], content["node_id"])
    entries = data.open_log().load().entries
    assert [body for _, _, body in entries[-len(bodies) :]] == bodies
    assert [body.hex() for _, _, body in entries[: -len(bodies)]] == [
        entry["body"] for entry in content["entries"]
    ]
    assert len(list((path / "wal").glob("*.wal"))) > content["segments"]
    data.close()


@pytest.mark.parametrize("name", STATES)
def test_a_snapshot_of_the_store_of_each_version_is_restored(name: str) -> None:
    content = described(name)
    log = Log()
    restore_all(log.machine, [(HERE / f"{name}.bin").read_bytes()])
    assert (log.machine.applied_index, log.machine.revision) == (
        content["applied_index"],
        content["revision"],
    )
    records = log.ask(protocol.range_body(b"\0", b"\0"))[4]
    assert [[key.hex(), value.hex(), *numbers] for key, value, *numbers in records] == content["records"]
    leases = [
        [lease, *log.ask(protocol_lease.time_to_live_body(lease))[2:5]]
        for lease in log.ask(protocol_lease.list_body())[2]
    ]
    assert (leases, log.machine.lease_time_ms) == (content.get("leases", []), content.get("time_ms", 0))
    retries = [bytes.fromhex(body) for body, _ in content["retries"]]
    results = log.machine.apply(log.machine.applied_index + 1, retries)
    assert [result.hex() for result in results if result] == [result for _, result in content["retries"]]
    assert log.machine.revision == content["revision"], "what was done is not done again"


@pytest.mark.parametrize("name", IDENTITIES)
def test_an_identity_of_each_version_says_all_that_was_written(name: str, tmp_path: Path) -> None:
    content = described(name)
    shutil.copy(HERE / name, tmp_path / directory.IDENTITY_NAME)
    data = DataDirectory(tmp_path, content["cluster_id"], content["node_id"], storage_id="1", members={})
    assert data.founding == (content["cluster_id"], content["storage_id"], content["members"])
    data.close()


@pytest.mark.parametrize("name", FENCES)
def test_a_fence_of_each_version_says_why_it_stands(name: str, tmp_path: Path) -> None:
    shutil.copy(HERE / name, tmp_path / fence.FENCE_NAME)
    mark = FileFence(tmp_path, OsFiles()).mark
    assert mark is not None
    assert {**mark.fields(), "has_forgotten": mark.has_forgotten} == described(name)


# ---------------------------------------------------------------- a whole node of the store


@pytest.mark.parametrize("name", NODES)
@pytest.mark.parametrize("from_snapshot", [False, True])
def test_a_node_of_each_version_comes_to_the_same_state(
    name: str, from_snapshot: bool, tmp_path: Path
) -> None:
    """Every kind of command, with the result that was given for it, from the first entry or the snapshot."""
    content = described(name)
    data = DataDirectory(a_copy(name, tmp_path), content["cluster_id"], content["node_id"])
    disk, log = data.open_log(), Log()
    recovered = disk.load()
    assert recovered.snapshot is not None and recovered.first_index == 1
    assert len(recovered.entries) == len(content["entries"])
    if from_snapshot:
        restore_all(log.machine, snapshot_content(disk, recovered.snapshot))
        assert log.machine.applied_index == recovered.snapshot.index
        assert fingerprint_of(log) == content["entries"][recovered.snapshot.index - 1]["fingerprint"]
    begin = log.machine.applied_index
    for (_, kind, body), known in list(zip(recovered.entries, content["entries"]))[begin:]:
        [result] = log.machine.apply(log.machine.applied_index + 1, [body if kind == 1 and body else None])
        assert result == (known["result"] and bytes.fromhex(known["result"]))
        assert fingerprint_of(log) == known["fingerprint"], "nodes of both versions would fence themselves"
    disk.close()
    data.close()


def fingerprint_of(log: Log) -> str:
    return f"{log.machine.fingerprint():016x}"


@pytest.mark.parametrize("name", NODES)
def test_the_log_of_each_version_is_shown_as_what_it_is(name: str, tmp_path: Path) -> None:
    """`wal dump` and `wal check`: only what is refused for its form alone is unreadable."""
    content, directory = described(name), str(a_copy(name, tmp_path))
    shown = CliRunner().invoke(cli, ["wal", "dump", directory, "-w", "json"])
    assert shown.exit_code == 0, shown.output
    rows = [json.loads(line) for line in shown.stdout.splitlines()]
    names = [row["operation"] for row in rows if row.get("kind") == "command"]
    assert names == [entry["operation"] for entry in content["entries"] if entry["operation"]]
    assert names.count("unreadable") == 2
    checked = CliRunner().invoke(cli, ["wal", "check", directory, "-w", "json"])
    assert checked.exit_code == 0 and json.loads(checked.stdout)["start"] == "would succeed"


def test_the_golden_nodes_have_every_command_that_a_log_may_have(tmp_path: Path) -> None:
    """Of a new one there is a new golden node; a new form of an old one is to have one, too."""
    found: set[int] = set()
    for name in NODES:
        content = described(name)
        data = DataDirectory(a_copy(name, tmp_path), content["cluster_id"], content["node_id"])
        disk = data.open_log()
        commands = [decode_write(body) for _, kind, body in disk.load().entries if kind == 1 and body]
        found |= {command[3] for command in commands if not isinstance(command, bytes)}
        disk.close()
        data.close()
    assert found == {getattr(codes, name) for name in OPERATION_NAMES if name != "RANGE"}
    assert found == operations._WRITE_CHECKS.keys() | {codes.LEASE_TICK, codes.LEASE_EXPIRE}


@pytest.mark.parametrize("name", BACKUPS)
def test_a_backup_of_each_version_is_restored(name: str, tmp_path: Path) -> None:
    """`snapshot inspect` and `snapshot restore`, to the state of the node that it was made of."""
    content, file = described(name), HERE / f"{name}.bin"
    shown = CliRunner().invoke(cli, ["snapshot", "inspect", str(file), "-w", "json"])
    facts = json.loads(shown.stdout)
    assert shown.exit_code == 0 and (facts["keys"], facts["revision"]) == (
        content["keys"],
        content["revision"],
    )
    members = {"x1": "tcp://127.0.0.1:7901"}
    restored = restore_node(file, name="x1", data_dir=tmp_path / "x1", members=members)
    assert (restored.old_cluster_id, restored.log_index, restored.term) == (
        content["cluster_id"],
        content["log_index"],
        content["term"],
    )
    data = DataDirectory(tmp_path / "x1", restored.cluster_id, "x1")
    disk, log = data.open_log(), Log()
    meta = disk.load().snapshot
    assert meta is not None
    restore_all(log.machine, snapshot_content(disk, meta))
    assert (
        fingerprint_of(log) == described(f"node-{name.removeprefix('backup-')}")["entries"][-1]["fingerprint"]
    )
    disk.close()
    data.close()
