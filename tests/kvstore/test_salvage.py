"""`assent snapshot salvage`: what is left of a damaged directory begins a new cluster. Nothing is made up.

The logs have entry 1, which is none of the store's, and then a put of /key/N at each index N.
"""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kvstore.backup_restore import restore_node
from kvstore.cli import cli, exits
from kvstore.salvage import Salvaged, salvage
from kvstore.settings import derive_cluster_id
from kvstore.state_machine import StoreMachine
from kvstore.watch_plane import WatchPlane
from raft.directory import DataDirectory
from raft.entries import EntryBatch, HardState
from raft.fence import FenceMark, FileFence
from raft.files import OsFiles
from raft.membership import Configuration
from raft.segment import decode_segment_header
from raft.state_machine import restore_all
from raft.storage import DirectoryInUse, snapshot_content
from tests.kvstore.damaged import (
    DAMAGES,
    ENTRIES,
    SEGMENT_BYTES,
    Damage,
    flip,
    make_directory,
    put_at,
    segments_in,
)

MEMBERS = {"n1": "tcp://127.0.0.1:1"}
NEW_MEMBERS = {"m1": "tcp://127.0.0.1:2"}


def run(*words: str | Path, expect: int = 0) -> Result:
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == expect, f"{words}: {result.output} {result.exception!r}"
    return result


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def first_index_of(path: Path) -> int:
    header = decode_segment_header(path.read_bytes())
    assert not isinstance(header, str)
    return header.first_index


def restored(file: Path) -> StoreMachine:
    """The state with which a node of a new cluster begins."""
    home = file.with_name("new")
    node = restore_node(file, name="m1", data_dir=home, members=NEW_MEMBERS)
    machine = StoreMachine(WatchPlane(1))
    with (
        closing(DataDirectory(home, node.cluster_id, "m1")) as directory,
        closing(directory.open_log()) as log,
    ):
        recovered = log.load()
        assert recovered.snapshot is not None
        restore_all(machine, snapshot_content(log, recovered.snapshot))
        log.close()
    return machine


def whole(index: int) -> int:
    """The fingerprint of a store that has applied all up to this index."""
    return _state(None, *map(put_at, range(2, index + 1))).fingerprint()


def check(found: Salvaged, file: Path, last_index: int) -> None:
    """Exactly what the log has up to there, for a node of a new cluster."""
    assert (found.log_index, found.term, found.keys) == (last_index, 2, last_index - 1)
    machine = restored(file)
    assert machine.applied_index == last_index
    assert machine.fingerprint() == whole(last_index)


def test_of_a_log_without_damage_everything_is_found(tmp_path: Path) -> None:
    make_directory(tmp_path / "data", MEMBERS, compacted_at=12)
    found = salvage(tmp_path / "data", tmp_path / "file")
    check(found, tmp_path / "file", ENTRIES)
    assert found.damages == [] and found.node == "n1"


def test_what_stands_before_the_damage_is_found(tmp_path: Path) -> None:
    home, file = tmp_path / "data", tmp_path / "file"
    make_directory(home, MEMBERS)
    second, third, *_ = segments_in(home)
    flip(second, 1500)
    before = contents(home)
    found = salvage(home, file)
    assert contents(home) == before
    assert first_index_of(second) <= found.log_index < first_index_of(third) - 1
    check(found, file, found.log_index)
    [damage] = found.damages
    assert damage.startswith(f"{second} at byte ") and f"log index {found.log_index + 1}: " in damage


@pytest.mark.parametrize("is_missing", [False, True])
def test_what_stands_behind_the_damage_is_found_if_a_snapshot_covers_that(
    tmp_path: Path, is_missing: bool
) -> None:
    home, file = tmp_path / "data", tmp_path / "file"
    make_directory(home, MEMBERS, snapshot_at=14)
    _, second, third, *_ = segments_in(home)
    assert first_index_of(third) < 14
    if is_missing:
        second.unlink()
    else:
        flip(second, 1500)
    found = salvage(home, file)
    check(found, file, ENTRIES)
    [damage] = found.damages
    assert str(second) in damage


def test_a_gap_between_snapshot_and_log_is_not_bridged(tmp_path: Path) -> None:
    home, file = tmp_path / "data", tmp_path / "file"
    make_directory(home, MEMBERS, snapshot_at=3)
    flip(segments_in(home)[0], 700)
    flip(segments_in(home)[1], 1500)
    found = salvage(home, file)
    check(found, file, 3)
    assert len(found.damages) == 2


def test_a_damaged_snapshot_is_made_up_for_by_the_log(tmp_path: Path) -> None:
    home, file = tmp_path / "data", tmp_path / "file"
    make_directory(home, MEMBERS, snapshot_at=9)
    [snapshot] = (home / "wal").glob("snapshot-*")
    flip(snapshot, 300)
    found = salvage(home, file)
    check(found, file, ENTRIES)
    assert str(snapshot) in found.damages[0]


def test_a_fork_is_decided_as_an_election_is(tmp_path: Path) -> None:
    """The damage hides that entries were replaced: what replaced them is of a later term, however short."""
    home, file = tmp_path / "data", tmp_path / "file"
    with closing(DataDirectory(home, "0" * 15 + "1", "n1", members=MEMBERS)) as directory:
        log = directory.open_log(segment_bytes=SEGMENT_BYTES)
        log.load()
        index = 0
        while len(segments_in(home)) < 2:
            index += 1
            log.append(HardState(2, "n1", 0), EntryBatch(index, [(2, 1, put_at(index))]))
            log.sync()
            if index == 2:
                log.begin_snapshot(2, 2, Configuration(MEMBERS).encode())
                for piece in _state(put_at(1), put_at(2)).snapshot():
                    log.append_snapshot(piece)
                log.commit_snapshot(replaces_log=False)
        assert index == 6
        log.append(HardState(3, "n1", 0), EntryBatch(3, [(3, 1, put_at(99))]))
        log.sync()
        log.close()
    first = segments_in(home)[0]
    flip(first, len(first.read_bytes().rstrip(b"\0")) - 200)
    found = salvage(home, file)
    assert (found.term, found.log_index, len(found.damages)) == (3, 3, 1)
    assert restored(file).fingerprint() == _state(put_at(1), put_at(2), put_at(99)).fingerprint()


def _state(*bodies: bytes | None) -> StoreMachine:
    machine = StoreMachine(WatchPlane(1))
    machine.apply(1, bodies)
    return machine


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_whatever_a_start_refuses_gives_a_file_that_is_whole_or_none(tmp_path: Path, damage: Damage) -> None:
    home, file = tmp_path / "data", tmp_path / "file"
    make_directory(home, MEMBERS, compacted_at=damage.compacted_at, snapshot_at=damage.snapshot_at)
    damage.do(home)
    before = contents(home)
    result = CliRunner().invoke(cli, ["-w", "json", "snapshot", "salvage", str(home), str(file)])
    assert contents(home) == before
    if result.exit_code:
        assert result.exit_code == damage.code and damage.reason in result.stderr
        assert not file.exists() and not list(tmp_path.glob("*.partial"))
    else:
        facts = json.loads(result.stdout)
        assert any(damage.reason in said for said in facts["damages"])
        assert "assent: left out: " in result.stderr
        machine = restored(file)
        assert machine.fingerprint() == whole(facts["index"])


@pytest.mark.parametrize("log", [".", "wal"])
@pytest.mark.parametrize("first_segment_is_damaged", [False, True])
@pytest.mark.parametrize("is_missing", [False, True])
def test_a_lost_identity_costs_nothing_of_a_whole_log(
    tmp_path: Path, is_missing: bool, first_segment_is_damaged: bool, log: str
) -> None:
    """Nothing else says whose the directory is but its segments; the log is whole, or as far as it goes."""
    home, file = tmp_path / "data", tmp_path / "file"
    make_directory(home, MEMBERS, snapshot_at=14)
    if is_missing:
        (home / "identity").unlink()
    else:
        flip(home / "identity", 40)
    if first_segment_is_damaged:
        flip(segments_in(home)[0], 20)
    found = salvage(home / log, file)
    check(found, file, ENTRIES)
    assert found.node == "n1" and found.cluster_id == f"{derive_cluster_id(MEMBERS):016x}"
    damages = found.damages
    if not (
        is_missing and log == "wal"
    ):  # of a log that was taken out of its directory no identity is missed
        told, *damages = damages
        where = f"data directory {home}: identity is None" if is_missing else f"{home}/identity is damaged"
        assert told.startswith(where) and "remove this member" not in told
    assert len(damages) == first_segment_is_damaged


def test_a_snapshot_alone_says_of_which_cluster_it_is(tmp_path: Path) -> None:
    """Every segment and the identity are damaged; which node's it is, nothing tells any more."""
    home, file = tmp_path / "data", tmp_path / "file"
    make_directory(home, MEMBERS, snapshot_at=14)
    for path in (home / "identity", *segments_in(home)):
        flip(path, 20)
    found = salvage(home, file)
    check(found, file, 14)
    assert (found.node, found.cluster_id) == ("", f"{derive_cluster_id(MEMBERS):016x}")


def test_a_salvage_that_finds_nothing_does_not_advise_a_salvage(tmp_path: Path) -> None:
    home, file = tmp_path / "data", tmp_path / "file"
    make_directory(home, MEMBERS)
    first, *others = segments_in(home)
    flip(first, 20)
    result = run("snapshot", "salvage", home, file, expect=exits.CORRUPT)
    assert "snapshot salvage" not in result.stderr and "restore a backup" in result.stderr
    for path in others:
        flip(path, 20)
    flip(home / "identity", 20)
    result = run("snapshot", "salvage", home, file, expect=exits.DATA_DIRECTORY)
    assert "snapshot salvage" not in result.stderr and "restore a backup" in result.stderr


@pytest.mark.parametrize("log", [".", "wal"])
@pytest.mark.parametrize("command", ["salvage", "check"])
def test_of_a_node_that_had_fenced_itself_that_is_said_first(tmp_path: Path, command: str, log: str) -> None:
    """What was wrong may be in its snapshots, too."""
    home = tmp_path / "data"
    make_directory(home, MEMBERS)
    words: dict[str, list[str | Path]] = {
        "salvage": ["snapshot", "salvage", home / log, tmp_path / "file", "--force"],
        "check": ["wal", "check", home / log],
    }
    result = run("-w", "json", *words[command])
    assert json.loads(result.stdout)["fenced"] is None and "fenced" not in result.stderr
    fence = FileFence(home, OsFiles())
    fence.put_up(FenceMark(20, 1, 2, "another state than a majority"))
    flip(segments_in(home)[1], 1500)
    result = CliRunner().invoke(cli, ["-w", "json", *map(str, words[command])])
    said = "this node had fenced itself at index 20: another state than a majority; its state may be wrong"
    assert json.loads(result.stdout)["fenced"].startswith(said)
    assert result.stderr.startswith(f"assent: {said}")
    fence.put_up(FenceMark(30, 0, 0, "its log was cut", True))
    result = CliRunner().invoke(cli, ["-w", "json", *map(str, words[command])])
    assert "index 30: its log was cut; its log may lack what was acknowledged" in result.stderr
    flip(home / "fenced", 3)
    result = CliRunner().invoke(cli, ["-w", "json", *map(str, words[command])])
    assert "fenced itself: the mark cannot be read; its log may lack" in result.stderr


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    home, file = tmp_path / "data", tmp_path / "file"
    make_directory(home, MEMBERS)
    file.write_text("mine")
    result = run("snapshot", "salvage", home, file, expect=exits.REFUSED)
    assert "is there already" in result.stderr and file.read_text() == "mine"
    cluster_id = f"{derive_cluster_id(MEMBERS):016x}"
    with closing(DataDirectory(home, cluster_id, "n1")), pytest.raises(DirectoryInUse):
        salvage(home, file, overwrite=True)
    (tmp_path / "empty" / "wal").mkdir(parents=True)
    result = run("snapshot", "salvage", tmp_path / "empty", tmp_path / "other", expect=exits.DATA_DIRECTORY)
    assert result.stderr and not (tmp_path / "other").exists()
    shutil.rmtree(home / "wal")
    result = run("snapshot", "salvage", home, tmp_path / "other", expect=exits.CORRUPT)
    assert "no segment of it is there, and no snapshot" in result.stderr


def test_a_log_in_which_nothing_was_written_has_nothing_to_be_found(tmp_path: Path) -> None:
    home = tmp_path / "data"
    with closing(DataDirectory(home, "0" * 15 + "1", "n1", members=MEMBERS)) as directory:
        directory.open_log().close()
    result = run("snapshot", "salvage", home, tmp_path / "file", expect=exits.DATA_DIRECTORY)
    assert "entries or a snapshot" in result.stderr
