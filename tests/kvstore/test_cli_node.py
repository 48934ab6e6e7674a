"""`assent node` as a process: what it refuses with which code, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.ports import free_ports
from kvstore.cli import exits
from kvstore.client import Client

ROOT = Path(__file__).resolve().parents[2]
WAIT_SECONDS = 20.0


class Node:
    """The command line of a cluster of one, and the processes started with it. Owned by one test."""

    def __init__(self, directory: Path) -> None:
        peer, client, watch = free_ports(3)
        self.client = f"tcp://127.0.0.1:{client}"
        self.flags = {
            "--name": "n1",
            "--data-dir": str(directory / "data"),
            "--cluster": f"n1=tcp://127.0.0.1:{peer}",
            "--client": self.client,
            "--watch": f"tcp://127.0.0.1:{watch}",
        }
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, **changed: str) -> subprocess.Popen[str]:
        flags = self.flags | {f"--{name.replace('_', '-')}": value for name, value in changed.items()}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ASSENT_")}
        process = subprocess.Popen(
            [sys.executable, "-m", "kvstore.cli", "node", *(word for pair in flags.items() for word in pair)],
            cwd=ROOT,
            env=environment | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        return process

    def serve(self) -> subprocess.Popen[str]:
        """Started, and a put acknowledged."""
        process = self.start()
        with Client(self.client, timeout_seconds=WAIT_SECONDS) as client:
            client.put("/a", "1")
        return process

    def refused(self, **changed: str) -> tuple[int, str]:
        """The exit code and what is said, of a node that must not come up."""
        process = self.start(**changed)
        _out, said = process.communicate(timeout=WAIT_SECONDS)
        assert "Traceback" not in said, said
        return process.returncode, said

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate(timeout=WAIT_SECONDS)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_node_cleanly_within_two_seconds(node: Node, number: signal.Signals) -> None:
    process = node.serve()
    began = time.monotonic()
    process.send_signal(number)
    _out, said = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 0, said
    assert time.monotonic() - began < 2.0
    with Client(node.client, timeout_seconds=WAIT_SECONDS) as client:
        node.start()
        found = client.get("/a")
    assert found is not None and found.value == b"1"


def test_a_data_directory_in_use_is_refused(node: Node) -> None:
    running = node.serve()
    client, watch = free_ports(2)
    code, said = node.refused(client=f"tcp://127.0.0.1:{client}", watch=f"tcp://127.0.0.1:{watch}")
    assert code == exits.DATA_DIRECTORY
    assert node.flags["--data-dir"] in said and str(running.pid) in said
    assert running.poll() is None


def test_a_data_directory_of_another_node_or_cluster_is_refused(node: Node) -> None:
    node.serve().terminate()
    [peer] = free_ports(1)
    for changed in (
        {"name": "n2", "cluster": f"n2=tcp://127.0.0.1:{peer}"},
        {"cluster_token": "another"},
    ):
        code, said = node.refused(**changed)
        assert code == exits.DATA_DIRECTORY, said
        assert node.flags["--data-dir"] in said


def test_a_cluster_setting_that_is_out_of_date_is_ignored_and_said_so(node: Node) -> None:
    """It counted at the first start; now the log says who takes part."""
    node.serve().terminate()
    own, other = node.flags["--cluster"], free_ports(1)[0]
    process = node.start(cluster=f"{own},n2=tcp://127.0.0.1:{other}")
    with Client(node.client, timeout_seconds=WAIT_SECONDS) as client:
        found = client.get("/a")
        assert found is not None and found.value == b"1"
        assert [member.name for member in client.cluster.members().members] == ["n1"]
    process.terminate()
    _out, said = process.communicate(timeout=WAIT_SECONDS)
    assert said.count("cluster_setting=ignored") == 1


@pytest.mark.parametrize("words", [{}, {"join": "tcp://127.0.0.1:1,tcp://127.0.0.1:2"}])
def test_a_node_that_waits_ends_cleanly_within_two_seconds(node: Node, words: dict[str, str]) -> None:
    node.flags["--peer"] = node.flags.pop("--cluster").removeprefix("n1=")
    process = node.start(**words)
    assert process.stderr is not None
    first = process.stderr.readline()
    assert "waiting" in first or "joining" in first
    began = time.monotonic()
    process.terminate()
    _out, said = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 0, said
    assert time.monotonic() - began < 2.0 and "stopped" in said
    assert not Path(node.flags["--data-dir"]).exists()


def test_an_address_that_is_taken_is_named(node: Node) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = f"tcp://127.0.0.1:{holder.getsockname()[1]}"
        code, said = node.refused(client=taken)
    assert code == exits.ADDRESS_UNUSABLE
    assert taken in said
