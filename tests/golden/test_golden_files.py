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

from kvstore import protocol, protocol_lease, snapshots
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
