"""Backup and restore as an operator does them, with real processes: of one moment, and one way only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench.processes import ROOT, ProcessCluster
from kvstore import protocol
from kvstore.backup_file import reading
from kvstore.cli import exits
from kvstore.client import Client, ClusterMismatch, KeyValue
from kvstore.state_machine import StoreMachine
from kvstore.watch_plane import WatchPlane
from raft.state_machine import restore_all
from tests.cluster.growing import GrowingCluster, Writing


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "kvstore.cli", "-w", "json", "--timeout", "20", *words]


def environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ASSENT_")}
    return kept | {"PYTHONPATH": str(ROOT)}


def assent(*words: str, expect: int = exits.OK) -> dict[str, Any]:
    """What the command line says; of one that fails its message, as {"error": …}."""
    done = subprocess.run(
        command(*words), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == expect, (done.returncode, done.stdout, done.stderr)
    said: dict[str, Any] = json.loads(done.stdout) if expect == exits.OK else {"error": done.stderr}
    return said


def save(cluster: ProcessCluster, file: Path, *names: str) -> dict[str, Any]:
    endpoints = [cluster.client_endpoints[name] for name in names or cluster.names]
    return assent("--endpoints", ",".join(endpoints), "snapshot", "save", str(file))


def restore(
    file: Path, cluster: ProcessCluster, name: str, *more: str, members: str = "", expect: int = exits.OK
) -> dict[str, Any]:
    members = members or ",".join(f"{peer}={where}" for peer, where in cluster.peer_endpoints.items())
    where = str(cluster.data_directory(name))
    words = ("--name", name, "--data-dir", where, "--cluster", members, *more)
    return assent("snapshot", "restore", str(file), *words, expect=expect)


def content_of(file: Path) -> dict[bytes, KeyValue]:
    """What is in a snapshot file, by way of a state machine of its own."""
    machine = StoreMachine(WatchPlane(1))
    with reading(file) as reader:
        restore_all(machine, [reader.read(0, reader.meta.size_bytes)])
    [result] = machine.query([protocol.range_body(b"\0", b"\0")])
    [answer] = protocol.split_results(result, 1)
    return {item[0]: KeyValue(*item) for item in answer[4]}


class Writer(Writing):
    """Counts up: each number goes to /pair/a, then to /pair/b, then has a key of its own, each acknowledged
    before the next is sent. So in a state of one moment b is a or one less, and no number is left out."""

    def __init__(self, endpoints: list[str]) -> None:
        super().__init__(endpoints, 20)
        self.acknowledged = 0

    def step(self, number: int) -> None:
        if self.failures:
            self._is_over.set()
            return
        number += 1
        self._client.put("/pair/a", str(number))
        self._client.put("/pair/b", str(number))
        self._client.put(f"/number/{number:06}", bytes(2000))
        self.acknowledged = number

    def wait_for(self, number: int) -> None:
        deadline = time.monotonic() + 60
        while self.acknowledged < number:
            assert time.monotonic() < deadline and not self.failures, (self.acknowledged, self.failures)
            time.sleep(0.01)


def check_moment(found: dict[bytes, KeyValue], at_least: int) -> None:
    a, b = int(found[b"/pair/a"].value), int(found[b"/pair/b"].value)
    numbers = sorted(int(key[-6:]) for key in found if key.startswith(b"/number/"))
    assert at_least <= numbers[-1] and a - 1 <= b <= a, (at_least, a, b, numbers[-1])
    assert numbers == list(range(1, len(numbers) + 1)) and b - 1 <= numbers[-1] <= b


def test_what_is_saved_while_others_write_is_of_one_moment_and_begins_a_new_cluster(tmp_path: Path) -> None:
    with ProcessCluster(tmp_path / "old") as old:
        with Client(old.endpoints, timeout_seconds=20) as client:
            for number in range(20):
                client.put(f"/gone/{number}", "x")
            client.delete_prefix("/gone/1")
        with Writer(old.endpoints) as writer:
            leader = old.wait_for_leader()
            follower = next(name for name in old.names if name != leader)
            for number, asked in enumerate([(leader,), (follower,), tuple(old.names)]):
                writer.wait_for(30 * (number + 1))
                before = writer.acknowledged
                saved = save(old, tmp_path / f"file-{number}", *asked)
                found = content_of(tmp_path / f"file-{number}")
                check_moment(found, before)
                assert saved["keys"] == len(found) and saved["node"] in asked
                assert saved["bytes"] == (tmp_path / f"file-{number}").stat().st_size
                assert saved["revision"] == max(item.mod_revision for item in found.values())
        assert not writer.failures
        old_id = save(old, tmp_path / "last")["cluster_id"]
    file = tmp_path / "file-1"
    new = ProcessCluster(tmp_path / "new")
    said = [restore(file, new, name) for name in new.names]
    [cluster_id] = {one["cluster_id"] for one in said}
    assert cluster_id != old_id == said[0]["old_cluster_id"]
    with new, Client(new.endpoints, timeout_seconds=20) as client:
        assert {status.cluster_id for status in client.status_all(timeout_seconds=10).values() if status} == {
            cluster_id
        }
        found = content_of(file)
        answer = client.prefix("", keys_only=True)
        assert answer.revision == said[0]["revision"] and answer.count == len(found)
        for name in new.names:  # each of them has it from its own file
            new.wait_until_caught_up(name)
            with Client([new.client_endpoints[name]], timeout_seconds=20) as reader:
                items = [item for key in ("/gone/", "/pair/") for item in reader.prefix(key).items]
                assert items == [item for key, item in found.items() if key[:6] in (b"/pair/", b"/gone/")]
        assert client.put("/new", "1").revision == said[0]["revision"] + 1
        members = client.cluster.members().members
        assert {one.name: one.role for one in members} == dict.fromkeys(new.names, "voter")
        new.terminate("n1")
        refused = restore(file, new, "n1", expect=exits.DATA_DIRECTORY)["error"]
        assert str(new.data_directory("n1")) in refused
        new.start("n1")
        new.wait_until_caught_up("n1")


def test_the_old_clusters_nodes_and_clients_are_not_let_into_the_new_one(tmp_path: Path) -> None:
    """At the very same addresses: the new cluster has a majority without the old node, which is of no use."""
    with ProcessCluster(tmp_path / "old") as old:
        new = ProcessCluster(tmp_path / "new")
        new.peer_endpoints = old.peer_endpoints
        client = Client([*old.endpoints, *new.endpoints], timeout_seconds=5)
        client.put("/a", "old")
        save(old, tmp_path / "file")
        client.put("/a", "newer")
        for name in ("n1", "n2"):
            old.kill(name)
            restore(tmp_path / "file", new, name)
            new.start(name)
        try:
            with Client(new.endpoints[:2], timeout_seconds=20) as fresh:
                found = fresh.get("/a")
                assert found is not None and found.value == b"old"
                fresh.put("/a", "new")
            status, other = old.status("n3"), new.status("n1")
            assert status is not None and other is not None
            assert status["cluster_id"] != other["cluster_id"]
            assert status["revision"] == 3 and status["role"] != "leader"
            old.kill("n3")
            with pytest.raises(ClusterMismatch):
                client.get("/a")
        finally:
            client.close()
            new.stop()


def test_one_node_is_restored_and_the_others_are_added(tmp_path: Path) -> None:
    """From a cluster of three to one, whose log begins after the snapshot: who joins is sent it. Names that
    were removed from the old cluster are free again, and so are those of its other members."""
    with GrowingCluster(tmp_path / "old") as old:
        old.begin("n1", "n2", "n3")
        with old.client() as client:
            client.put("/a", "1")
            client.cluster.remove_member("n3")
        save(old, tmp_path / "file", "n1", "n2")
    with GrowingCluster(tmp_path / "new") as new:
        new.launch("n2")  # waits to be added
        alone = ProcessCluster(tmp_path / "new", 1)
        new.names.append("n3")
        new.peer_endpoints["n3"] = alone.peer_endpoints["n1"]
        new.client_endpoints["n3"] = alone.client_endpoints["n1"]
        new.watch_endpoints["n3"] = alone.watch_endpoints["n1"]
        restore(tmp_path / "file", new, "n3", members=f"n3={new.peer_endpoints['n3']}")
        new.start("n3")
        with Client([new.client_endpoints["n3"]], timeout_seconds=30) as client:
            client.cluster.add_member("n2", new.peer_endpoints["n2"])
            members = client.cluster.members().members
            assert {one.name: one.role for one in members} == {"n2": "voter", "n3": "voter"}
        new.wait_until_caught_up("n2")
        with Client([new.client_endpoints["n2"]], timeout_seconds=20) as client:
            found = client.get("/a", consistency="local")
            assert found is not None and found.value == b"1"


def test_a_node_that_dies_while_it_is_read_from_leaves_no_file(tmp_path: Path) -> None:
    with ProcessCluster(tmp_path / "old") as cluster:
        with Client(cluster.endpoints, timeout_seconds=30) as client:
            for number in range(24):
                client.put(f"/{number}", bytes(1 << 20))
        file = tmp_path / "file"
        name = cluster.names[0]
        endpoint = cluster.client_endpoints[name]
        saving = subprocess.Popen(
            command("--endpoints", endpoint, "snapshot", "save", str(file)),
            cwd=ROOT, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        partial = tmp_path / "file.partial"
        deadline = time.monotonic() + 60
        while not (partial.exists() and partial.stat().st_size > 1 << 20):
            assert time.monotonic() < deadline and saving.poll() is None
            time.sleep(0.001)
        saving.send_signal(signal.SIGSTOP)
        cluster.kill(name)
        saving.send_signal(signal.SIGCONT)
        _, said = saving.communicate(timeout=60)
        assert saving.returncode == exits.UNREACHABLE and "broke off after" in said, said
        assert not file.exists() and not partial.exists()
        save(cluster, file, *cluster.names[1:])
        assert file.exists()


def test_a_damaged_file_is_refused_and_nothing_is_made_of_it(tmp_path: Path) -> None:
    with ProcessCluster(tmp_path / "old", 1) as cluster:
        with Client(cluster.endpoints) as client:
            client.put("/a", "1")
        save(cluster, tmp_path / "file")
    spoilt = bytearray((tmp_path / "file").read_bytes())
    spoilt[-1] ^= 1
    (tmp_path / "file").write_bytes(spoilt)
    new = ProcessCluster(tmp_path / "new", 1)
    said = restore(tmp_path / "file", new, "n1", expect=exits.CORRUPT)["error"]
    assert str(tmp_path / "file") in said and "another backup" in said
    assert not new.data_directory("n1").exists()
