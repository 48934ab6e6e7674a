"""A cluster whose disk fills up, as real processes on real files with a quota on them.

Puts end before the disk does; deletes and reads go on; room that comes back is noticed; and whatever was
acknowledged is there after kill -9 on the full disk.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.ports import free_ports
from bench.processes import ROOT, ProcessCluster
from kvstore.cli import exits
from kvstore.client import Client
from kvstore.errors import MaybeApplied, NotApplied, SpaceExceeded
from tests.cluster.small_disk_node import SEGMENT_BYTES, SUFFIX, used_bytes

VALUE = b"x" * 20_000
# One more segment counts as 32 MiB, and snapshots are small here; so a quota in which a log has some room is:
QUOTA_BYTES = 40 << 20


class SmallDisks(ProcessCluster):
    """Nodes on disks with a quota that the test may change."""

    def module_of(self, name: str) -> str:
        return "tests.cluster.small_disk_node"


def set_quota(cluster: ProcessCluster, name: str, size_bytes: int) -> None:
    home = cluster.data_directory(name)
    draft = home.with_name(home.name + ".draft")
    draft.write_text(str(size_bytes))
    draft.rename(home.with_name(home.name + SUFFIX))


def small_disks(directory: Path, *more: str) -> SmallDisks:
    return SmallDisks(directory, arguments=["--disk-reserve-mib", "0", *more])


def fill(client: Client, prefix: str, most: int = 3000) -> list[str]:
    """Keys that were put until one was refused."""
    done: list[str] = []
    for number in range(most):
        key = f"{prefix}{number}"
        try:
            client.put(key, VALUE)
        except SpaceExceeded:
            return done
        done.append(key)
    raise AssertionError("the disk never filled up")


def test_puts_end_before_the_disk_does_and_begin_again_when_there_is_room(tmp_path: Path) -> None:
    with small_disks(tmp_path) as cluster, Client(cluster.endpoints, timeout_seconds=10) as client:
        leader = cluster.wait_for_leader()
        follower = next(name for name in cluster.names if name != leader)
        client.put("/before", "1")
        set_quota(cluster, follower, QUOTA_BYTES)
        done = fill(client, "/fill/")
        assert len(done) > 10
        assert used_bytes(cluster.data_directory(follower)) < QUOTA_BYTES
        # What frees room, and what needs none, goes on.
        assert client.delete(done.pop()).deleted == 1
        found = client.get(done[0])
        assert found is not None and found.value == VALUE
        with Client(cluster.endpoints, timeout_seconds=10) as other:  # with a session of its own
            assert other.delete(done.pop()).deleted == 1
            with pytest.raises(SpaceExceeded, match=f"disk space on {follower}"):
                other.put("/more", "")
        status, own = cluster.status(leader), cluster.status(follower)
        assert status is not None and own is not None
        assert (status["space"], status["space_low"]) == ("ok", [follower])
        assert (own["space"], own["space_low"]) == ("low", [follower])
        assert 0 <= own["space_free_bytes"] < own["space_wanted_bytes"]

        for name in cluster.names:
            cluster.kill(name)
        for name in cluster.names:
            cluster.start(name)
        cluster.wait_for_leader()
        with Client(cluster.endpoints, timeout_seconds=10) as again:
            kept = {item.key.decode() for item in again.prefix("/fill/").items}
            assert kept == set(done)
            set_quota(cluster, follower, used_bytes(cluster.data_directory(follower)) + (4 << 20))
            cluster.wait_for("the alarm", lambda: _refuses(again))
            set_quota(cluster, follower, 1 << 40)
            cluster.wait_for("its end", lambda: not _refuses(again))


def _refuses(client: Client) -> bool:
    try:
        client.put("/again", "")
    except SpaceExceeded:
        return True
    return False


def test_deletes_alone_make_room_and_puts_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the log's length no snapshot falls due while puts are refused, and without one nothing is freed."""
    monkeypatch.setenv(SEGMENT_BYTES, str(4 << 20))
    with (
        small_disks(tmp_path, "--history-revisions", "10") as cluster,
        Client(cluster.endpoints, timeout_seconds=10) as client,
    ):
        leader = cluster.wait_for_leader()
        follower = next(name for name in cluster.names if name != leader)
        set_quota(cluster, follower, 32 << 20)
        done = fill(client, "/fill/")
        for key in done[5:]:
            client.delete(key)
        cluster.wait_for("room", lambda: not _refuses(client), 60.0)
        status = cluster.status(follower)
        assert status is not None and status["snapshot_index"] > len(done)
        assert used_bytes(cluster.data_directory(follower)) < 24 << 20
        assert {item.key.decode() for item in client.prefix("/fill/").items} == set(done[:5])
        client.put("/more", VALUE)


def test_a_disk_that_is_full_altogether_loses_nothing_and_the_others_go_on(tmp_path: Path) -> None:
    """Something else took the room: the node lives on its reserve for a while, ends with the code for it,
    and comes back when there is room."""
    with small_disks(tmp_path) as cluster, Client(cluster.endpoints, timeout_seconds=20) as client:
        leader = cluster.wait_for_leader()
        victim = next(name for name in cluster.names if name != leader)
        done = [f"/a/{number}" for number in range(20)]
        for key in done:
            client.put(key, VALUE)
        set_quota(cluster, victim, 1)  # no room at all
        cluster.wait_for("the alarm", lambda: _refuses(client))
        for key in done[10:]:
            client.delete(key)
        cluster.kill(victim)
        cluster.start(victim)
        cluster.wait_until_caught_up(victim)
        set_quota(cluster, victim, 1 << 40)
        cluster.wait_for("its end", lambda: not _refuses(client))
        with Client([cluster.client_endpoints[victim]], timeout_seconds=20) as own:
            kept = {item.key.decode() for item in own.prefix("/a/", consistency="local").items}
        assert kept == set(done[:10])


def limited(size_bytes: int) -> Callable[[], None]:
    """No file may be larger; what goes beyond fails with EFBIG, for SIGXFSZ is ignored by Python."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))


def test_a_write_that_fails_ends_the_process_and_nothing_is_acknowledged_after_it(tmp_path: Path) -> None:
    peer, endpoint, watch = (f"tcp://127.0.0.1:{port}" for port in free_ports(3))
    words = ["--name", "n1", "--data-dir", str(tmp_path / "n1"), "--cluster", f"n1={peer}"]
    command = [sys.executable, "-m", "kvstore.cli", "node", *words, "--client", endpoint, "--watch", watch]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ASSENT_")}
    environment["PYTHONPATH"] = str(ROOT)

    def start(limit: Callable[[], None] | None) -> subprocess.Popen[bytes]:
        with (tmp_path / "log").open("ab") as log:
            return subprocess.Popen(command, cwd=ROOT, env=environment, preexec_fn=limit, stderr=log)

    acknowledged, unknown = [], []
    node = start(limited((1 << 20) + 100_000))
    try:
        with Client([endpoint], timeout_seconds=20) as client:
            calls = 0
            while node.poll() is None and calls < 400:
                key = f"/{calls}"
                calls += 1
                try:
                    client.put(key, VALUE, timeout_seconds=20 if calls == 1 else 3)
                    acknowledged.append(key)
                except (MaybeApplied, NotApplied):
                    unknown.append(key)
                    break
        assert node.wait(10) == exits.DISK_FAILED
        said = (tmp_path / "log").read_text()
        assert "File too large" in said and "pwrite" in said
        assert acknowledged and len(unknown) == 1
    finally:
        node.kill()
        node.wait(10)
    node = start(None)
    try:
        with Client([endpoint], timeout_seconds=20) as client:
            kept = {item.key.decode() for item in client.prefix("/").items}
        assert set(acknowledged) <= kept <= {*acknowledged, *unknown}
    finally:
        node.terminate()
        assert node.wait(10) == exits.OK
