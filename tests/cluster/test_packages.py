"""Real input through real processes: an import that loses its leader half-way, under the eyes of a watch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from bench.processes import ROOT, ProcessCluster
from kvstore.client import Client, Event
from kvstore.tree import encode_value
from tests.cluster.packages import installed_packages, package_tree

PREFIX = "/packages/"
KILL_AFTER_KEYS = 20
COMMAND_SECONDS = 60


class Witness(threading.Thread):
    """Watches a prefix until told to stop, and keeps every event in the order in which it came."""

    def __init__(self, endpoints: list[str]) -> None:
        super().__init__(daemon=True)
        self._client = Client(endpoints, timeout_seconds=20)
        self._watch = self._client.watch(PREFIX, prefix=True, start_revision=1)
        self.events: list[Event] = []

    def run(self) -> None:
        for batch in self._watch:
            self.events += batch.events

    def wait_for(self, count: int, timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        while len(self.events) < count and time.monotonic() < deadline:
            time.sleep(0.005)
        assert len(self.events) >= count, f"saw {len(self.events)} events of {count} in {timeout_seconds} s"

    def close(self) -> None:
        self._watch.cancel()
        self._client.close()
        self.join(10)


def assent(cluster: ProcessCluster, *words: str) -> subprocess.Popen[bytes]:
    endpoints = ",".join(cluster.endpoints)
    command = [sys.executable, "-m", "kvstore.cli", "--endpoints", endpoints, "--timeout", "20", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(process: subprocess.Popen[bytes]) -> bytes:
    try:
        out, err = process.communicate(timeout=COMMAND_SECONDS)
    finally:
        process.kill()
    assert process.returncode == 0, err.decode(errors="replace")
    return out


def test_an_import_survives_the_loss_of_its_leader_and_a_watch_sees_each_key_once(tmp_path: Path) -> None:
    packages = installed_packages()
    assert len(packages) > KILL_AFTER_KEYS
    tree = package_tree(packages)
    file = tmp_path / "packages.json"
    file.write_text(json.dumps(tree))
    with ProcessCluster(tmp_path / "cluster") as cluster:
        witness = Witness(cluster.endpoints)
        witness.start()
        try:
            leader = cluster.wait_for_leader()
            importing = assent(cluster, "import", str(file), "--prefix", PREFIX, "--in-flight", "2")
            witness.wait_for(KILL_AFTER_KEYS, 20)
            cluster.kill(leader)
            assert len(witness.events) < len(packages) / 2, "the import was nearly over when its leader died"
            finish(importing)
            assert cluster.wait_for_leader() != leader
            exported = finish(assent(cluster, "export", PREFIX, "--format", "json"))
            assert json.loads(exported) == tree
            witness.wait_for(len(packages), 20)
            cluster.restart(leader)
            cluster.wait_until_caught_up(leader)
        finally:
            witness.close()
        check_witness(witness.events, packages)
        check_replica(cluster.client_endpoints[leader], packages)


def check_witness(events: list[Event], packages: dict[str, str]) -> None:
    revisions = [event.mod_revision for event in events]
    assert revisions == sorted(set(revisions)), "events out of order, or one twice"
    expected = {
        f"{PREFIX}{name[0]}/{name}".encode(): encode_value(version).encode()
        for name, version in packages.items()
    }
    assert {event.key: event.value for event in events} == expected
    assert len(events) == len(expected), "a key was seen more than once"


def check_replica(endpoint: str, packages: dict[str, str]) -> None:
    """The node that was killed has everything, out of its own store."""
    with Client([endpoint]) as client:
        found = client.prefix(PREFIX, consistency="local")
    assert found.count == len(packages)
