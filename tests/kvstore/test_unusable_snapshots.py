"""Snapshots of which every byte is as it was written, and that hold what the store cannot restore: no state,
one that bad memory has bent before the checksums were made, one that ends elsewhere, or a later version's.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kvstore.applier import StoreApplier
from kvstore.cli import cli, exits
from kvstore.client.errors import SnapshotOfLaterVersion
from kvstore.salvage import salvage
from kvstore.settings import derive_cluster_id
from kvstore.state_machine import StoreMachine
from kvstore.unusable import UnusableSnapshot
from kvstore.watch_plane import WatchPlane
from raft.actor_messages import PartWanted, RestoreSnapshot, SnapshotPart, SnapshotRestored
from raft.snapshot import snapshot_name
from raft.storage import UnknownFormat
from tests.kvstore.damaged import (
    DAMAGES,
    ENTRIES,
    bent_state,
    flip,
    later_state,
    make_directory,
    put_snapshot,
    state_at,
)
from tests.kvstore.test_salvage import check, contents, restored
from tests.kvstore.test_saving import Nodes
from tests.raft.lone_actor import Surroundings

MEMBERS = {"n1": "tcp://127.0.0.1:1"}
CLUSTER = f"{derive_cluster_id(MEMBERS):016x}"
AT = 20
UNUSABLE = {
    "no state": (b"something else", "expected format version"),
    "bent": (bent_state(AT), "the state has fingerprint"),
    "ends elsewhere": (state_at(9), "it ends at index 9"),
    "cut": (state_at(AT)[:-1], "ends too early"),
}
EACH = pytest.mark.parametrize(("content", "reason"), UNUSABLE.values(), ids=UNUSABLE)
LATER = "has format version 4, this program reads versions up to 3"


def run(*words: str | Path, expect: int) -> Result:
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == expect, f"{words}: {result.output} {result.exception!r}"
    return result


def file_in(home: Path, index: int = AT) -> Path:
    return home / "wal" / snapshot_name(index, 2)


def restore(file: Path, target: Path, expect: int) -> str:
    words = ("--name", "m1", "--data-dir", target, "--cluster", "m1=tcp://127.0.0.1:2")
    said = run("snapshot", "restore", file, *words, expect=expect).stderr
    assert not target.exists()
    return said


# ---------------------------------------------------------------- salvage


@EACH
@pytest.mark.parametrize("older_at", [0, 12])
def test_a_salvage_makes_up_for_an_unusable_snapshot_by_an_older_one_or_the_log(
    tmp_path: Path, content: bytes, reason: str, older_at: int
) -> None:
    home, file = tmp_path / "data", tmp_path / "file"
    make_directory(home, MEMBERS, compacted_at=older_at)
    put_snapshot(home, AT, content)
    before = contents(home)
    found = salvage(home, file)
    assert contents(home) == before
    check(found, file, ENTRIES)
    [damage] = found.damages
    assert damage.startswith(f"{file_in(home)}, log index {AT}: ") and reason in damage
    assert "remove this member" not in damage and "snapshot salvage" not in damage


def test_of_several_unusable_snapshots_each_is_left_out_in_order(tmp_path: Path) -> None:
    home, file = tmp_path / "data", tmp_path / "file"
    make_directory(home, MEMBERS, compacted_at=8)
    put_snapshot(home, 12, b"something else")
    put_snapshot(home, 16, b"something else")
    flip(file_in(home, 12), 20)
    put_snapshot(home, AT, b"something else")
    found = salvage(home, file)
    check(found, file, ENTRIES)
    assert [damage.partition(",")[0].partition(" at byte")[0] for damage in found.damages] == [
        str(file_in(home, index)) for index in (12, 16, AT)
    ]


def test_an_older_snapshot_stands_alone_where_the_log_does_not_join_it(tmp_path: Path) -> None:
    home, file = tmp_path / "data", tmp_path / "file"
    make_directory(home, MEMBERS, compacted_at=AT)
    file_in(home).unlink()
    put_snapshot(home, AT, bent_state(AT))
    put_snapshot(home, 3, state_at(3))
    found = salvage(home, file)
    assert (found.log_index, found.keys) == (3, 0)
    assert restored(file).applied_index == 3
    assert any(str(file_in(home)) in damage for damage in found.damages)


@EACH
def test_a_salvage_that_has_nothing_but_an_unusable_snapshot_does_not_advise_a_salvage(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    home, file = tmp_path / "data", tmp_path / "file"
    make_directory(home, MEMBERS, compacted_at=AT, content=content)
    said = run("snapshot", "salvage", home, file, expect=exits.CORRUPT).stderr
    assert f"the snapshot {file_in(home)} is whole" in said and reason in said
    assert "restore a backup" in said and "snapshot salvage" not in said
    assert not file.exists()


# ---------------------------------------------------------------- a later version


@pytest.mark.parametrize("compacted_at", [0, AT])
def test_content_of_a_later_version_is_no_damage_of_a_directory(tmp_path: Path, compacted_at: int) -> None:
    """Not even if the whole log is beside it: that may have commands of the later version, too."""
    home, file = tmp_path / "data", tmp_path / "file"
    make_directory(home, MEMBERS, compacted_at=compacted_at, content=later_state(AT))
    put_snapshot(home, AT, later_state(AT))
    for words in (("wal", "check", home), ("snapshot", "salvage", home, file)):
        said = run(*words, expect=exits.DATA_DIRECTORY).stderr
        assert f"the content of {file_in(home)} (log index {AT}) {LATER}" in said
        assert "Start this node with the version of Assent that wrote it, or with a later one" in said
        assert "remove this member" not in said
    assert not file.exists()


def test_a_salvage_leaves_the_log_of_a_later_version_to_that_version(tmp_path: Path) -> None:
    home, file = tmp_path / "data", tmp_path / "file"
    make_directory(home, MEMBERS)
    [damage] = [damage for damage in DAMAGES if damage.name == "log_of_a_later_version"]
    damage.do(home)
    said = run("snapshot", "salvage", home, file, expect=exits.DATA_DIRECTORY).stderr
    assert damage.reason in said and "Start this node with the version of Assent that wrote it" in said
    assert not file.exists()


def test_an_older_snapshot_of_a_later_format_is_not_asked_for(tmp_path: Path) -> None:
    """Left over from before an upgrade was taken back; what followed it is of this version."""
    home, file = tmp_path / "data", tmp_path / "file"
    make_directory(home, MEMBERS, snapshot_at=12)
    put_snapshot(home, 5, state_at(5), version=9)
    found = salvage(home, file)
    check(found, file, ENTRIES)
    [damage] = found.damages
    assert damage.startswith(f"{file_in(home, 5)} has format version 9") and "Start this node" not in damage


def test_content_of_a_later_version_is_no_damage_of_a_file(tmp_path: Path) -> None:
    home, file = tmp_path / "data", tmp_path / "backup"
    make_directory(home, MEMBERS, snapshot_at=AT, content=later_state(AT))
    file.write_bytes(file_in(home).read_bytes())
    inspected = run("snapshot", "inspect", file, expect=exits.DATA_DIRECTORY).stderr
    for said in (inspected, restore(file, tmp_path / "new", exits.DATA_DIRECTORY)):
        assert f"the content of {file} (log index {AT}) {LATER}" in said
        assert "Use the version of Assent that wrote it, or a later one" in said
        assert "node" not in said and "Traceback" not in said


def test_a_file_of_a_later_format_is_not_advised_to_be_started_on(tmp_path: Path) -> None:
    home, file = tmp_path / "data", tmp_path / "backup"
    make_directory(home, MEMBERS, snapshot_at=AT)
    data = bytearray(file_in(home).read_bytes())
    put_snapshot(home, AT, state_at(AT), version=9)
    file.write_bytes(file_in(home).read_bytes())
    assert len(file.read_bytes()) != len(data)
    inspected = run("snapshot", "inspect", file, expect=exits.DATA_DIRECTORY).stderr
    for said in (inspected, restore(file, tmp_path / "new", exits.DATA_DIRECTORY)):
        assert f"{file} has format version 9" in said and "Use the version of Assent that wrote it" in said
        assert "Start this node" not in said
    for words in (("wal", "check", home), ("snapshot", "salvage", home, tmp_path / "file")):
        said = run(*words, expect=exits.DATA_DIRECTORY).stderr
        assert f"{file_in(home)} has format version 9" in said and "Start this node with" in said


def test_a_save_from_a_node_of_a_later_version_says_so() -> None:
    with pytest.raises(SnapshotOfLaterVersion, match=r"content of version 4, .* up to 3") as caught:
        Nodes(later_state(AT)).save(lambda data: None)
    assert exits.code_of(caught.value) == exits.DATA_DIRECTORY
    assert "Save it with the version of Assent that this node has" in str(caught.value)


# ---------------------------------------------------------------- inspect and restore


@EACH
def test_what_a_start_would_refuse_is_refused_of_a_file(tmp_path: Path, content: bytes, reason: str) -> None:
    """By `snapshot inspect` and `snapshot restore`, with file, index and what to do with a file."""
    home, file = tmp_path / "data", tmp_path / "backup"
    make_directory(home, MEMBERS, snapshot_at=AT, content=content)
    file.write_bytes(file_in(home).read_bytes())
    start = f"the snapshot {file} is whole, and the store cannot restore it: log index {AT}: "
    said = run("snapshot", "inspect", file, expect=exits.CORRUPT).stderr
    assert start in said and reason in said and "use another copy of it" in said
    said = restore(file, tmp_path / "new", exits.CORRUPT)
    assert start in said and reason in said and "Use another backup; nothing was changed" in said


@pytest.mark.parametrize("place", ["header", "first chunk", "second chunk"])
def test_a_damaged_file_is_said_to_be_damaged_where_it_is(tmp_path: Path, place: str) -> None:
    home, file = tmp_path / "data", tmp_path / "backup"
    make_directory(home, MEMBERS)
    put_snapshot(home, AT, state_at(AT), chunk_bytes=16)
    data = file_in(home).read_bytes()
    begins = data.index(state_at(AT)[:16]) - 8  # each chunk has a length and a checksum before it
    offset = {"header": 0, "first chunk": begins, "second chunk": begins + 24}[place]
    file.write_bytes(data)
    flip(file, offset + 9)
    index = "" if place == "header" else f", log index {AT}"
    inspected = run("snapshot", "inspect", file, expect=exits.CORRUPT).stderr
    for said in (inspected, restore(file, tmp_path / "new", exits.CORRUPT)):
        assert f"the snapshot {file} is damaged at byte {offset}{index}: " in said
    flip(file_in(home), offset + 9)
    [shown] = json.loads(run("wal", "check", home, "-w", "json", expect=0).stdout)["snapshots"]
    assert f"damaged at byte {offset}, log index {AT}: " in shown["damage"]


# ---------------------------------------------------------------- a follower


def receive(home: Path, content: bytes) -> list[SnapshotRestored]:
    """An applier that is given this as the snapshot which its leader has sent."""
    machine = StoreMachine(WatchPlane(1))
    applier = StoreApplier(machine, snapshots=home / "wal")
    world = Surroundings(applier)
    world.tell(RestoreSnapshot(AT, len(content), 2))
    for message in world.take(PartWanted):
        world.tell(SnapshotPart(AT, message.offset, content))
    return world.take(SnapshotRestored)


@EACH
def test_a_follower_that_is_sent_an_unusable_snapshot_names_it(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    with pytest.raises(UnusableSnapshot) as caught:
        receive(tmp_path, content)
    said = str(caught.value)
    assert f"the snapshot {file_in(tmp_path)} is whole" in said and f"log index {AT}: " in said
    assert reason in said and "remove this member" in said
    assert exits.code_of(caught.value) == exits.CORRUPT


def test_a_follower_that_is_sent_an_empty_snapshot_names_it(tmp_path: Path) -> None:
    with pytest.raises(UnusableSnapshot, match=f"log index {AT}: a snapshot has nothing in it"):
        receive(tmp_path, b"")


def test_a_follower_that_is_sent_content_of_a_later_version_says_which_version_to_start(
    tmp_path: Path,
) -> None:
    with pytest.raises(
        UnknownFormat, match=re.escape(f"(log index {AT}) {LATER}. Start this node")
    ) as caught:
        receive(tmp_path, later_state(AT))
    assert exits.code_of(caught.value) == exits.DATA_DIRECTORY


def test_a_follower_takes_what_is_whole(tmp_path: Path) -> None:
    assert receive(tmp_path, state_at(AT)) == [SnapshotRestored(AT)]
