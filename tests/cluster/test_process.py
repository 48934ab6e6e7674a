"""One node as a process: how it starts, refuses to start, and ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from bench.ports import free_ports
from bench.processes import ROOT, ProcessCluster
from kvstore.cli import exits


def run_node(*words: str, timeout_seconds: float = 10) -> subprocess.CompletedProcess[str]:
    """For a node that is expected to refuse; one that starts after all is killed, and the test fails."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ASSENT_")}
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run(
        [sys.executable, "-m", "kvstore.cli", "node", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
    )


def flags(name: str, directory: Path, cluster: str = "") -> list[str]:
    peer, client, watch = (f"tcp://127.0.0.1:{port}" for port in free_ports(3))
    words = {"--name": name, "--data-dir": str(directory), "--client": client, "--watch": watch}
    return [word for pair in words.items() for word in pair] + ["--cluster", cluster or f"{name}={peer}"]


def test_sigterm_ends_each_node_cleanly_within_two_seconds_also_when_its_peers_are_dead(
    tmp_path: Path,
) -> None:
    with ProcessCluster(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        others = [name for name in cluster.names if name != leader]
        for name in [*others, leader]:  # the last one has nobody to talk to
            started = time.monotonic()
            assert cluster.terminate(name, 2.0) == exits.OK
            assert time.monotonic() - started < 2.0
            assert "stopped" in cluster.log_tail(name, 1)


def test_a_data_directory_in_use_is_refused_and_its_owner_serves_on(tmp_path: Path) -> None:
    with ProcessCluster(tmp_path, size=1) as cluster:
        words = flags("n1", cluster.data_directory("n1"), f"n1={cluster.peer_endpoints['n1']}")
        refused = run_node(*words)
        assert refused.returncode == exits.DATA_DIRECTORY
        assert str(cluster.pid("n1")) in refused.stderr and "in use" in refused.stderr
        assert cluster.status("n1") is not None


def test_a_data_directory_of_another_node_or_cluster_is_refused(tmp_path: Path) -> None:
    with ProcessCluster(tmp_path, size=1) as cluster:
        peer = cluster.peer_endpoints["n1"]
        directory = cluster.data_directory("n1")
        cluster.terminate("n1")
        for name, words, wrong in (
            ("n2", ["--cluster", f"n1={peer},n2=tcp://127.0.0.1:1"], "node id"),
            ("n1", ["--cluster", f"n1={peer}", "--cluster-token", "another"], "cluster id"),
        ):
            refused = run_node(*flags(name, directory), *words)
            assert refused.returncode == exits.DATA_DIRECTORY
            assert wrong in refused.stderr
    with ProcessCluster(tmp_path / "two", size=2) as cluster:
        members = ",".join(f"{name}={peer}" for name, peer in cluster.peer_endpoints.items())
        cluster.terminate("n1")
        cluster.terminate("n2")
        refused = run_node(*flags("n2", cluster.data_directory("n1"), members))
        assert refused.returncode == exits.DATA_DIRECTORY
        assert "node id" in refused.stderr and "'n1'" in refused.stderr and "'n2'" in refused.stderr


def test_an_address_that_others_can_reach_is_refused_unless_said_to_be_insecure(tmp_path: Path) -> None:
    [port] = free_ports(1)
    words = [*flags("n1", tmp_path / "n1"), "--client", f"tcp://0.0.0.0:{port}"]
    refused = run_node(*words)
    assert refused.returncode == exits.USAGE
    assert "--insecure" in refused.stderr and "client" in refused.stderr
    assert not (tmp_path / "n1").exists()


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with ProcessCluster(tmp_path, size=1) as cluster:
        words = [*flags("n9", tmp_path / "n9"), "--client", cluster.client_endpoints["n1"]]
        refused = run_node(*words)
        assert refused.returncode != exits.OK
        assert cluster.client_endpoints["n1"] in refused.stderr
        assert "Traceback" not in refused.stderr


def test_logs_have_one_line_for_each_transition_and_can_be_json(tmp_path: Path) -> None:
    with ProcessCluster(tmp_path, size=1, arguments=["--log-format", "json"]) as cluster:
        cluster.wait_for_leader()
        lines = cluster.log("n1").read_text().splitlines()
    assert all(line.startswith("{") for line in lines), lines
    assert len(lines) < 15
    assert sum('"role": "leader"' in line for line in lines) == 1
