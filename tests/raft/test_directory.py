"""The data directory: one process at a time, one node for ever."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from raft.directory import DataDirectory, Founding, read_founding, read_identity
from raft.entries import EntryBatch, HardState
from raft.fields import encode_fields
from raft.files import OsFiles
from raft.storage import (
    REPLACE_THE_MEMBER,
    CorruptLog,
    DamagedIdentity,
    DirectoryInUse,
    StorageFailed,
    WrongDirectory,
)
from tests.raft.disk import PowerLoss, SimulatedDisk

ROOT = Path(__file__).resolve().parents[2]


def write_something(directory: DataDirectory) -> None:
    log = directory.open_log()
    log.load()
    log.append(HardState(1, "n1", 0), EntryBatch(1, [(1, 1, b"x")]))
    log.sync()
    log.close()


def test_a_new_directory_is_private_and_complete(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "deep" / "down" / "data", "cluster", "n1")
    assert directory.path.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in directory.path.iterdir()) == ["identity", "lock", "wal"]
    for path in directory.path.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert directory.open_log().load().entries == []
    directory.close()


def test_it_is_opened_again_with_what_is_in_it(tmp_path: Path) -> None:
    first = DataDirectory(tmp_path / "data", "cluster", "n1")
    write_something(first)
    first.close()
    first.close()
    second = DataDirectory(tmp_path / "data", "cluster", "n1")
    assert second.open_log().load().entries == [(1, 1, b"x")]
    second.close()


def test_a_second_opener_is_told_who_has_it(tmp_path: Path) -> None:
    """Within one process: each opener has a lock of its own."""
    directory = DataDirectory(tmp_path / "data", "cluster", "n1")
    with pytest.raises(DirectoryInUse) as caught:
        DataDirectory(tmp_path / "data", "cluster", "n1")
    assert (caught.value.path, caught.value.pid) == (tmp_path / "data", os.getpid())
    assert f"data directory {tmp_path / 'data'} is in use by process {os.getpid()}." in str(caught.value)
    directory.close()
    DataDirectory(tmp_path / "data", "cluster", "n1").close()


HOLDER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from raft.directory import DataDirectory, Founding, read_founding
directory = DataDirectory(Path(sys.argv[2]), "cluster", "n1")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    """The lock goes with the process, however it ends; what it wrote about itself does not count."""
    command = [sys.executable, "-c", HOLDER, str(ROOT), str(tmp_path / "data")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(DirectoryInUse) as caught:
            DataDirectory(tmp_path / "data", "cluster", "n1")
        assert caught.value.pid == holder.pid
        holder.kill()
    assert (tmp_path / "data" / "lock").read_text() == f"{holder.pid}\n"
    DataDirectory(tmp_path / "data", "cluster", "n1").close()


def test_an_owner_that_left_no_number_is_another_process(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "data", "cluster", "n1")
    (tmp_path / "data" / "lock").write_text("")
    with pytest.raises(DirectoryInUse, match="in use by another process") as caught:
        DataDirectory(tmp_path / "data", "cluster", "n1")
    assert caught.value.pid is None
    directory.close()


@pytest.mark.parametrize(
    ("cluster_id", "node_id", "field", "found"),
    [("other", "n1", "cluster id", "cluster"), ("cluster", "n2", "node id", "n1")],
)
def test_the_directory_of_another_is_refused(
    tmp_path: Path, cluster_id: str, node_id: str, field: str, found: str
) -> None:
    """What is found and what was expected are both named."""
    DataDirectory(tmp_path / "data", "cluster", "n1").close()
    for _ in range(2):  # the refusal gives the lock back
        with pytest.raises(WrongDirectory) as caught:
            DataDirectory(tmp_path / "data", cluster_id, node_id)
    error = caught.value
    assert (error.field, error.found) == (field, found)
    assert error.expected in (cluster_id, node_id) and error.expected != found
    assert f"{field} is {found!r}, expected {error.expected!r}" in str(error)


def test_an_identity_of_a_later_format_is_refused_by_name(tmp_path: Path) -> None:
    """With fields of which nobody has heard yet; its checksum stands where it always does."""
    DataDirectory(tmp_path / "data", "cluster", "n1").close()
    later = {"format": 3, "cluster_id": "cluster", "colour": "blue"}
    (tmp_path / "data" / "identity").write_bytes(encode_fields(later))
    with pytest.raises(WrongDirectory, match="or with a later one") as caught:
        DataDirectory(tmp_path / "data", "cluster", "n1")
    assert (caught.value.field, caught.value.found) == ("format", 3)


def plain(**content: object) -> bytes:
    """As identities were written before there were checksums."""
    return (json.dumps({"format": 1, **content}) + "\n").encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[1]",
        b"[1]\n",
        json.dumps({"format": 2, "cluster_id": "cluster", "node_id": "n1"}).encode(),
        plain(cluster_id="cluster"),
        plain(node_id="n1", cluster_id="cluster"),
        plain(cluster_id="cluster", node_id="n1").strip(),
        plain(cluster_id="cluster", node_id="n1", colour="blue"),
        plain(cluster_id="cluster", node_id="n1", storage_id=7),
        plain(cluster_id="cluster", node_id="n1", storage_id="00fg"),
        plain(cluster_id="cluster", node_id="n1", members=None),
        plain(cluster_id="cluster", node_id="n1", members=[1]),
        plain(cluster_id="cluster", node_id="n1", members={"n1": 7}),
        plain(cluster_id="cluster", node_id="n1", members={"\udcff": "tcp://a:1"}),
        plain(cluster_id=7, node_id="n1"),
        plain(cluster_id="\udcff", node_id="n1"),
        plain(cluster_id="c" * 201, node_id="n1"),
        encode_fields({"format": 2, "cluster_id": "cluster"}),
        encode_fields({"format": 1, "cluster_id": "cluster", "node_id": "n1"}),
        encode_fields({}),
    ],
)
def test_an_identity_that_no_node_writes_is_refused_and_nothing_of_it_believed(
    tmp_path: Path, content: bytes
) -> None:
    DataDirectory(tmp_path / "data", "cluster", "n1").close()
    (tmp_path / "data" / "identity").write_bytes(content)
    for look in (
        lambda path: DataDirectory(path, "cluster", "n1"),
        read_founding,
        lambda path: read_identity(path, OsFiles()),
    ):
        with pytest.raises(DamagedIdentity) as caught:
            look(tmp_path / "data")
        assert str(caught.value).startswith(f"{tmp_path}/data/identity is damaged: ")
        assert REPLACE_THE_MEMBER in str(caught.value)


def test_an_identity_of_before_there_were_checksums_is_read(tmp_path: Path) -> None:
    DataDirectory(tmp_path / "data", "cluster", "n1").close()
    members = {"n1": "tcp://a:1"}
    content = plain(cluster_id="cluster", node_id="n1", storage_id="00ff", members=members)
    (tmp_path / "data" / "identity").write_bytes(content)
    assert read_founding(tmp_path / "data") == Founding("cluster", "00ff", members)


def test_what_a_directory_was_made_with_is_kept_for_its_life(tmp_path: Path) -> None:
    """The id by which a lost disk is noticed, and the members to begin with, are those of the first start."""
    path = tmp_path / "data"
    assert read_founding(path) is None
    made_with = Founding("cluster", "00ff", {"n1": "tcp://127.0.0.1:1"})
    DataDirectory(path, "cluster", "n1", storage_id=made_with.storage_id, members=made_with.members).close()
    assert read_founding(path) == made_with
    again = DataDirectory(path, "cluster", "n1", storage_id="beef", members={})
    assert again.founding == made_with
    again.close()
    empty = DataDirectory(tmp_path / "empty", "cluster", "n1", members={})
    assert empty.founding == read_founding(empty.path) == Founding("cluster", "", {})
    empty.close()


def test_a_directory_of_before_there_were_storage_ids_is_opened(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "data", "cluster", "n1")
    assert read_founding(directory.path) == directory.founding == Founding("cluster", "", None)
    directory.close()


def test_a_directory_full_of_other_things_is_refused_and_left_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    (home / "letter.txt").write_text("dear")
    with pytest.raises(WrongDirectory) as caught:
        DataDirectory(home, "cluster", "n1")
    assert caught.value.found == "letter.txt"
    assert home.stat().st_mode & 0o777 == 0o755
    assert not (home / "identity").exists()


@pytest.mark.parametrize("lock", [None, b"held by a mail program"])
def test_a_directory_of_somebody_else_keeps_its_lock_or_gets_none(tmp_path: Path, lock: bytes | None) -> None:
    """A file of that name is nothing special: it was emptied, and our number written into it."""
    (tmp_path / "letter.txt").write_text("dear")
    if lock is not None:
        (tmp_path / "lock").write_bytes(lock)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(WrongDirectory):
        DataDirectory(tmp_path, "cluster", "n1")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_directory_of_another_node_keeps_the_number_of_its_last_owner(tmp_path: Path) -> None:
    DataDirectory(tmp_path / "data", "cluster", "n1").close()
    (tmp_path / "data" / "lock").write_text("77\n")
    with pytest.raises(WrongDirectory):
        DataDirectory(tmp_path / "data", "cluster", "n2")
    assert (tmp_path / "data" / "lock").read_text() == "77\n"


def test_a_fresh_file_system_counts_as_empty(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / ".keep").write_text("")
    DataDirectory(tmp_path, "cluster", "n1").close()


def test_a_log_that_lost_its_identity_is_not_taken_over(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "data", "cluster", "n1")
    write_something(directory)
    directory.close()
    (tmp_path / "data" / "identity").unlink()
    with pytest.raises(WrongDirectory, match="log is"):
        DataDirectory(tmp_path / "data", "cluster", "n1")
    with pytest.raises(CorruptLog, match="identity"):
        DataDirectory(tmp_path / "data", "cluster", "n2")


def test_a_lost_identity_is_named_and_not_what_lies_beside_it(tmp_path: Path) -> None:
    """Of a node that was started once: to give it an empty directory is the worst that could be advised."""
    directory = DataDirectory(tmp_path / "data", "cluster", "n1")
    write_something(directory)
    directory.fence().keep_room()
    directory.close()
    (tmp_path / "data" / "identity").unlink()
    for look in (
        lambda path: DataDirectory(path, "cluster", "n1"),
        lambda path: read_identity(path, OsFiles()),
    ):
        with pytest.raises(WrongDirectory, match="identity is None") as caught:
            look(tmp_path / "data")
        assert caught.value.remedy == REPLACE_THE_MEMBER


def test_an_identity_that_lost_its_log_is_not_a_new_node(tmp_path: Path) -> None:
    """An emptied node would vote a second time."""
    directory = DataDirectory(tmp_path / "data", "cluster", "n1")
    write_something(directory)
    directory.close()
    for path in (tmp_path / "data" / "wal").iterdir():
        path.unlink()
    directory = DataDirectory(tmp_path / "data", "cluster", "n1")
    with pytest.raises(CorruptLog, match="no segment"):
        directory.open_log().load()
    directory.close()


def test_an_identity_is_never_there_without_its_log() -> None:
    """The power is lost before every call of the first start; the next start makes up for it."""
    whole = SimulatedDisk()
    DataDirectory(Path("/data"), "cluster", "n1", whole).close()
    for number in range(len(whole.calls)):
        for survives in (True, False):
            disk = SimulatedDisk()
            disk.fail_at(number, PowerLoss())
            with pytest.raises(PowerLoss):
                DataDirectory(Path("/data"), "cluster", "n1", disk)
            disk.lose_power(survives)
            if "identity" in disk.list_directory(Path("/data")):
                assert Path("/data/wal/0000000001.wal") in disk.names
            directory = DataDirectory(Path("/data"), "cluster", "n1", disk)
            write_something(directory)
            disk.lose_power(False)
            directory = DataDirectory(Path("/data"), "cluster", "n1", disk)
            assert directory.open_log().load().last_index == 1


def test_a_first_start_that_was_killed_leaves_no_identity_without_its_log() -> None:
    """The second start finds the log in the cache only, and the power is lost right after it."""
    whole = SimulatedDisk()
    DataDirectory(Path("/data"), "cluster", "n1", whole).close()
    for number in range(len(whole.calls)):
        disk = SimulatedDisk()
        disk.fail_at(number, PowerLoss())
        with pytest.raises(PowerLoss):
            DataDirectory(Path("/data"), "cluster", "n1", disk)
        disk.kill_process()
        DataDirectory(Path("/data"), "cluster", "n1", disk)
        disk.lose_power(False)
        assert DataDirectory(Path("/data"), "cluster", "n1", disk).open_log().load().last_index == 0


def test_a_failing_disk_is_named_and_the_lock_given_back() -> None:
    whole = SimulatedDisk()
    DataDirectory(Path("/data"), "cluster", "n1", whole).close()
    for number in range(len(whole.calls)):
        disk = SimulatedDisk()
        disk.fail_at(number, OSError(errno.EIO, "Input/output error"))
        with pytest.raises(StorageFailed, match="Input/output error") as caught:
            DataDirectory(Path("/data"), "cluster", "n1", disk)
        assert caught.value.action == whole.calls[number]
        assert str(caught.value).startswith(f"{whole.calls[number]} of /")
        disk.fault = None
        DataDirectory(Path("/data"), "cluster", "n1", disk).close()
