"""snapshot save and restore on the command line: what is shown, what is refused, and what a restore makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kvstore.backup_restore import derive_restored_id
from kvstore.cli import cli, disk, exits
from kvstore.client.errors import SnapshotBroken, SnapshotDamaged
from kvstore.errors import AssentError, NoLeader, Overloaded, Unreachable
from kvstore.founding import open_directory, origin_of
from kvstore.settings import derive_cluster_id, load_settings, parse_cluster
from kvstore.state_machine import StoreMachine
from kvstore.watch_plane import WatchPlane
from raft.membership import Configuration
from raft.storage import restored_index
from tests.kvstore.test_saving import CONTENT, Nodes, cluster_of

MEMBERS = "n1=tcp://127.0.0.1:7101,n2=tcp://127.0.0.1:7102"


class Source:
    """Where the command line gets its clients: of nodes that are played. Owned by one test."""

    def __init__(self) -> None:
        self.nodes = Nodes()
        self.cluster = cluster_of(self.nodes)

    def client(self, endpoints: tuple[str, ...], timeout_seconds: float) -> Source:
        return self

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def run(*words: str, source: Source | None = None) -> Result:
    return CliRunner().invoke(cli, ["snapshot", *words], obj=source or Source())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    cluster_of(Nodes()).save_snapshot(path)
    return path


def restore(file: Path, directory: Path, *more: str, name: str = "n1", members: str = MEMBERS) -> Result:
    words = ("--name", name, "--data-dir", str(directory), "--cluster", members)
    return run("restore", str(file), *words, *more)


def test_a_save_says_what_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    result = run("save", str(path), "-w", "json")
    assert result.exit_code == 0, result.output
    size = path.stat().st_size
    said = json.loads(result.stdout)
    assert len(said.pop("checksum")) == 8
    assert said == {
        "file": str(path), "cluster_id": "00ff", "node": "n1", "index": 5, "term": 2,
        "revision": 6, "keys": 5, "bytes": size,
    }  # fmt: skip
    assert result.stderr == ""
    assert run("save", str(tmp_path / "g")).stdout == f"saved 5 keys at revision 6 to {tmp_path / 'g'}\n"
    assert "REVISION" in run("save", str(tmp_path / "h"), "-w", "table").stdout


def test_a_file_is_replaced_with_force_only(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"precious")
    refused = run("save", str(path))
    assert refused.exit_code == exits.REFUSED and "--force" in refused.stderr
    assert path.read_bytes() == b"precious"
    assert run("save", str(path), "--force").exit_code == 0
    assert path.stat().st_size > len(CONTENT)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unreachable(("tcp://a:1",)), exits.UNREACHABLE),
        (NoLeader("none"), exits.NO_LEADER),
        (Overloaded("two are open"), exits.REFUSED),
        (SnapshotBroken("tcp://a:1", 0, 0, Unreachable(("tcp://a:1",))), exits.UNREACHABLE),
        (SnapshotDamaged("tcp://a:1", "a bit"), exits.CORRUPT),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_save_that_fails_leaves_nothing(tmp_path: Path, error: AssentError, code: int) -> None:
    source = Source()

    def fault(*_: object) -> AssentError:
        source.nodes.seconds += 1
        return error

    source.nodes.fault = fault
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kvstore.client.cluster.time.monotonic", lambda: source.nodes.seconds)
        patch.setattr("kvstore.client.cluster.time.sleep", source.nodes.wait)
        result = run("save", str(tmp_path / "f"), source=source)
    assert result.exit_code == code and result.stderr.startswith("assent: ")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_to_is_a_failed_disk(tmp_path: Path) -> None:
    result = run("save", str(tmp_path / "nowhere" / "f"))
    assert result.exit_code == exits.DISK_FAILED and "nowhere" in result.stderr


def test_progress_is_for_a_terminal_only(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = iter(range(100))
    with disk._Progress(lambda: next(seconds)) as progress:
        progress.tell(1 << 20, 0)
        assert capsys.readouterr().err == ""
        progress._is_seen = True
        progress.tell(3 << 20, 0)
        progress.tell(1 << 20, 2 << 20)
        assert capsys.readouterr().err == (
            "\rthe node takes the snapshot: 3.0 MiB\r 50 % of 2.0 MiB                    "
        )
    assert capsys.readouterr().err.endswith("\r")


def test_every_member_is_made_alike_in_a_cluster_of_its_own(tmp_path: Path, file: Path) -> None:
    facts: list[dict[str, Any]] = []
    for name in ("n1", "n2"):
        result = restore(file, tmp_path / name, "-w", "json", name=name)
        assert result.exit_code == 0, result.output
        facts.append(json.loads(result.stdout))
    first, second = facts
    assert first["cluster_id"] == second["cluster_id"] != first["old_cluster_id"] == "00ff"
    assert (first["revision"], first["keys"], first["index"], first["term"]) == (6, 5, 5, 2)
    assert first["members"] == parse_cluster(MEMBERS)
    shown = restore(file, tmp_path / "other", name="n2").stdout
    assert first["cluster_id"] in shown and "5 keys at revision 6" in shown


def test_a_node_starts_in_it_as_usual(tmp_path: Path, file: Path) -> None:
    """With the --cluster that it was restored for, though the id is not the one of that setting."""
    assert restore(file, tmp_path / "n1").exit_code == 0
    flags = {"name": "n1", "data_dir": str(tmp_path / "n1"), "cluster": MEMBERS}
    settings = load_settings(flags, {})
    directory = open_directory(settings, lambda: False)
    assert directory is not None
    origin = origin_of(directory, settings)
    assert origin.cluster_id not in (derive_cluster_id(settings.cluster), 0xFF) and origin.storage_id
    log = directory.open_log()
    recovered = log.load()
    assert recovered.snapshot is not None
    assert Configuration.decode(recovered.snapshot.configuration).voters == {"n1", "n2"}
    machine = StoreMachine(WatchPlane(1))
    assert restored_index(machine, log, recovered) == 5 and machine.revision == 6
    log.close()
    directory.close()


def test_a_used_directory_is_refused(tmp_path: Path, file: Path) -> None:
    assert restore(file, tmp_path / "n1").exit_code == 0
    again = restore(file, tmp_path / "n1")
    assert again.exit_code == exits.DATA_DIRECTORY and str(tmp_path / "n1") in again.stderr
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letters.txt").write_text("dear")
    refused = restore(file, tmp_path / "mine")
    assert refused.exit_code == exits.DATA_DIRECTORY and "letters.txt" in refused.stderr


@pytest.mark.parametrize("place", [3, 60, 2000, -1])
def test_a_damaged_file_is_refused_and_nothing_is_made(tmp_path: Path, file: Path, place: int) -> None:
    spoilt = bytearray(file.read_bytes())
    spoilt[place] ^= 4
    file.write_bytes(spoilt)
    result = restore(file, tmp_path / "n1")
    assert result.exit_code == exits.CORRUPT and "another backup" in result.stderr
    assert not (tmp_path / "n1").exists()


def test_an_intact_file_that_this_program_cannot_read_is_refused(tmp_path: Path) -> None:
    """It is read as the node will read it, before anything is made."""
    nodes = Nodes(CONTENT[:-3])
    cluster_of(nodes).save_snapshot(tmp_path / "file")
    result = restore(tmp_path / "file", tmp_path / "n1")
    assert result.exit_code == exits.CORRUPT and not (tmp_path / "n1").exists()


@pytest.mark.parametrize(
    ("name", "members"), [("n3", MEMBERS), ("n1", "n1"), ("n1", "n1=nowhere"), ("n1", "n1=tcp://0.0.0.0:1")]
)
def test_wrong_members_are_wrong_usage(tmp_path: Path, file: Path, name: str, members: str) -> None:
    result = restore(file, tmp_path / "n1", name=name, members=members)
    assert result.exit_code == exits.USAGE and not (tmp_path / "n1").exists()
    assert run("restore", str(tmp_path / "nothing")).exit_code == exits.USAGE


def test_the_new_id_follows_from_file_members_and_token() -> None:
    from raft.entries import SnapshotMeta
    from raft.snapshot import SnapshotHeader

    header = SnapshotHeader("00ff", 700, SnapshotMeta(5, 2, b"{}", 100, 7))
    members = {"n1": "tcp://a:1", "n2": "tcp://b:1"}
    found = derive_restored_id(header, members, "")
    assert found == derive_restored_id(header, dict(reversed(members.items())), "") < 1 << 63
    others = {
        derive_restored_id(header, members, "again"),
        derive_restored_id(header, members | {"n3": "tcp://c:1"}, ""),
        derive_restored_id(header, members | {"n2": "tcp://c:1"}, ""),
        derive_restored_id(header._replace(cluster_id="00fe"), members, ""),
        derive_restored_id(header._replace(meta=header.meta._replace(checksum=8)), members, ""),
        derive_restored_id(header._replace(meta=header.meta._replace(index=6)), members, ""),
        derive_restored_id(header._replace(cluster_id=f"{found:016x}"), members, ""),
    }
    assert len(others) == 7 and found not in others
