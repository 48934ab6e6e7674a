"""Some cells of the fault matrix with real processes: exit code, message, and what is there afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import psutil
import pytest

from bench.ports import free_ports
from bench.processes import ROOT, ProcessCluster
from kvstore.cli import exits
from kvstore.client import Client
from kvstore.errors import AssentError
from raft.storage import REPLACE_THE_MEMBER
from tests.faults.damage import flip, flip_snapshot_chunk
from tests.faults.hard_disk import Image, read_image
from tests.faults.points import ENTRIES, SEGMENT_HEAD_BYTES, records_in

SMALL = ("--snapshot-interval-entries", "60", "--trailing-entries", "5")
PUTS = 100
VALUE_BYTES = 25_000  # so that the first segment is released once a snapshot is there
START_SECONDS = 60.0  # for several processes at once, on a machine that has other things to do


def put_all(cluster: ProcessCluster) -> None:
    with Client(cluster.endpoints, timeout_seconds=10) as client:
        for number in range(PUTS):
            client.put(f"/key/{number}", str(number).ljust(VALUE_BYTES))


def wait_for_snapshot(log: Path) -> None:
    """One is there, and the first segment was released."""
    deadline = time.monotonic() + 20
    while not any(log.glob("snapshot-*-*")) or (log / "0000000001.wal").exists():
        assert time.monotonic() < deadline, sorted(path.name for path in log.iterdir())
        time.sleep(0.05)


def check_all(cluster: ProcessCluster, acknowledged: int = PUTS) -> None:
    with Client(cluster.endpoints, timeout_seconds=10) as client:
        values = {int(item.key.rpartition(b"/")[2]): int(item.value) for item in client.prefix("/key/").items}
    assert {number: number for number in range(acknowledged)}.items() <= values.items()


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The data directory of a node that was killed, after it had taken a snapshot; and its `--cluster`."""
    with ProcessCluster(tmp_path_factory.mktemp("node"), size=1, arguments=SMALL) as cluster:
        put_all(cluster)
        wait_for_snapshot(cluster.data_directory("n1") / "wal")
        cluster.kill("n1")
        yield cluster.data_directory("n1"), f"n1={cluster.peer_endpoints['n1']}"


def start(directory: Path, founders: str) -> subprocess.Popen[str]:
    client, watch = (f"tcp://127.0.0.1:{port}" for port in free_ports(2))
    words = ["--name", "n1", "--data-dir", str(directory), "--client", client, "--watch", watch]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ASSENT_")}
    return subprocess.Popen(
        [sys.executable, "-m", "kvstore.cli", "node", *words, "--cluster", founders],
        cwd=ROOT, env=environment | {"PYTHONPATH": str(ROOT)}, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def flip_entry(directory: Path) -> Path:
    path = min((directory / "wal").glob("*.wal"))
    data = path.read_bytes()
    record = next(r for r in records_in(data, SEGMENT_HEAD_BYTES) if r.kind == ENTRIES)
    path.write_bytes(flip(data, record.start + 40, Random(1)))
    return path


def flip_snapshot(directory: Path) -> Path:
    path = max((directory / "wal").glob("snapshot-*"))
    path.write_bytes(flip_snapshot_chunk(path.read_bytes(), Random(2)))
    return path


def lose_first_segment(directory: Path) -> Path:
    for path in (directory / "wal").glob("snapshot-*"):
        path.unlink()
    path = min((directory / "wal").glob("*.wal"))
    path.unlink()
    return directory / "wal"


def lose_log(directory: Path) -> Path:
    shutil.rmtree(directory / "wal")
    return directory / "wal"


def flip_identity(directory: Path) -> Path:
    path = directory / "identity"
    data = path.read_bytes()
    path.write_bytes(flip(data, data.index(b'"storage_id": "') + 20, Random(3)))
    return path


CELLS: dict[str, tuple[Callable[[Path], Path], int]] = {
    "flip: entries": (flip_entry, exits.CORRUPT),
    "flip: snapshot chunk, older segments gone": (flip_snapshot, exits.CORRUPT),
    "missing: segment and snapshot": (lose_first_segment, exits.CORRUPT),
    "missing: log": (lose_log, exits.CORRUPT),
    "flip: identity": (flip_identity, exits.DATA_DIRECTORY),
}


def test_damaged_directories_are_refused_with_their_exit_code_and_the_way_out(
    killed: tuple[Path, str], tmp_path: Path
) -> None:
    directory, founders = killed
    processes: dict[str, tuple[subprocess.Popen[str], int, Path, Path, Image]] = {}
    for name, (harm, code) in CELLS.items():
        copy = tmp_path / str(len(processes))
        shutil.copytree(directory, copy)
        place = harm(copy)
        processes[name] = start(copy, founders), code, place, copy, read_image(copy)
    said_by = {}
    try:
        for name, (process, *_) in processes.items():
            said_by[name] = process.communicate(timeout=START_SECONDS)[1]
    finally:
        for process, *_ in processes.values():
            process.kill()
            process.wait()
            assert process.stderr is not None
            process.stderr.close()
    for name, (process, code, place, copy, before) in processes.items():
        said = said_by[name]
        assert process.returncode == code, (name, said)
        assert str(place) in said, (name, said)
        assert REPLACE_THE_MEMBER in said, (name, said)
        after = read_image(copy)
        del after[Path("lock")], before[Path("lock")]
        assert after == before, name


def test_kill_9_and_a_torn_tail_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    with ProcessCluster(tmp_path, size=1, arguments=SMALL) as cluster:
        put_all(cluster)
        cluster.kill("n1")
        path = max((cluster.data_directory("n1") / "wal").glob("*.wal"))
        data = path.read_bytes()
        end = len(data.rstrip(b"\0"))
        # A write that the kill broke off: half a sector of a record header, and nothing behind it.
        path.write_bytes(data[:end] + b"\x11" * 20 + bytes(len(data) - end - 20))
        cluster.start("n1")
        cluster.wait_for_leader()
        check_all(cluster)
        assert list(path.parent.glob("*.broken"))


def test_a_write_that_fails_ends_the_process_and_what_was_acknowledged_is_there(tmp_path: Path) -> None:
    """A limit on the size of files, where there is such a thing, makes a real write fail."""
    limit = getattr(psutil, "RLIMIT_FSIZE", None)
    with ProcessCluster(tmp_path, size=1) as cluster:
        put_all(cluster)
        process = cluster._processes["n1"]
        if limit is not None:
            path = max((cluster.data_directory("n1") / "wal").glob("*.wal"))
            used = len(path.read_bytes().rstrip(b"\0"))
            psutil.Process(process.pid).rlimit(limit, (used + 5000, used + 5000))
            acknowledged = put_until_refused(cluster)
            assert acknowledged > PUTS and process.wait(START_SECONDS) == exits.DISK_FAILED
            said = cluster.log_tail("n1")  # the system may write a part first, and say so
            assert "File too large" in said or "bytes were written" in said
            cluster.kill("n1")
            cluster.start("n1")
            cluster.wait_for_leader()
            check_all(cluster, acknowledged)


def put_until_refused(cluster: ProcessCluster) -> int:
    """How many puts were acknowledged in all."""
    with Client(cluster.endpoints, timeout_seconds=2) as client:
        for number in range(PUTS, PUTS + 1000):
            try:
                client.put(f"/key/{number}", str(number))
            except AssentError:
                return number
    raise AssertionError("no write failed")
