"""A cluster of real nodes, each a process of its own on loopback, to be killed, paused and started again.

Knows the command line of a node and its status, nothing of what is inside. Benchmarks and tests share it.
Rules: every wait has a deadline; every process is ended by its own process id, also when a run fails; after a
failure the ends of the logs are printed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from bench.ports import free_ports
from kvstore.client.load import node_status

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 20.0
STOP_SECONDS = 5.0
LOG_TAIL_LINES = 30
_POLL_SECONDS = 0.02
_STATUS_SECONDS = 0.3


class ClusterFailed(Exception):
    """The cluster did not do in time what was waited for, or a node ended that nobody had ended."""


class ProcessCluster:
    """Owns its node processes from `__enter__` to `__exit__`.

    Data and logs are below `directory`, and stay there. Nodes are called n1, n2, …; `endpoints` are their
    client endpoints; `arguments` go to every node that is started. After the `size` nodes come `absent`
    members, which every node is told of and counts in its quorum, and which never start.
    """

    def __init__(
        self, directory: Path, size: int = 3, *, absent: int = 0, arguments: Sequence[str] = ()
    ) -> None:
        ports = iter(free_ports(3 * size + absent))
        self.directory = directory
        members = [f"n{number}" for number in range(1, size + absent + 1)]
        self.names = members[:size]
        self.absent = members[size:]
        self.peer_endpoints = {name: f"tcp://127.0.0.1:{next(ports)}" for name in members}
        self.client_endpoints = {name: f"tcp://127.0.0.1:{next(ports)}" for name in self.names}
        self.watch_endpoints = {name: f"tcp://127.0.0.1:{next(ports)}" for name in self.names}
        self.arguments = list(arguments)  # of every node that is started from now on
        self._processes: dict[str, subprocess.Popen[bytes]] = {}  # those started and not ended by us

    @property
    def endpoints(self) -> list[str]:
        return list(self.client_endpoints.values())

    def __enter__(self) -> ProcessCluster:
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            for name in self.names:
                self.start(name)
            self.wait_for_leader(START_SECONDS)
        except BaseException:
            self.print_logs()
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.print_logs()
        self.stop()

    # ---- one node

    def start(self, name: str) -> None:
        """Returns at once; the node is not yet serving."""
        assert name not in self._processes, f"{name} is running"
        flags = {
            "--name": name,
            "--data-dir": str(self.data_directory(name)),
            "--peer": self.peer_endpoints[name],
            "--client": self.client_endpoints[name],
            "--watch": self.watch_endpoints[name],
            **self.membership_flags(),
        }
        command = [
            sys.executable,
            "-m",
            self.module_of(name),
            "node",
            *(word for pair in flags.items() for word in pair),
        ]
        # What is set for a node of the developer's own must not reach these.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ASSENT_")}
        environment["PYTHONPATH"] = str(ROOT)
        with self.log(name).open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [*command, *self.arguments], cwd=ROOT, env=environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def module_of(self, name: str) -> str:
        """What is run; tests have nodes that can be harmed."""
        return "kvstore.cli"

    def membership_flags(self) -> dict[str, str]:
        """How a node learns who takes part: here all begin together, and know one another."""
        return {"--cluster": ",".join(f"{peer}={where}" for peer, where in self.peer_endpoints.items())}

    def kill(self, name: str) -> None:
        """SIGKILL: nothing that was not synced survives in the process; returns when it is gone."""
        process = self._processes.pop(name)
        process.kill()
        process.wait(STOP_SECONDS)

    def terminate(self, name: str, timeout_seconds: float = STOP_SECONDS) -> int:
        """SIGTERM; the exit code. A node that does not end in time is killed, and that is a failure."""
        process = self._processes.pop(name)
        process.terminate()
        try:
            return process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_SECONDS)
            raise ClusterFailed(f"{name} did not end within {timeout_seconds} s of SIGTERM") from None

    def ask_to_end(self, name: str) -> None:
        """SIGTERM, and no wait: `terminate` does the rest."""
        self._processes[name].terminate()

    def restart(self, name: str) -> None:
        """Starts a node that was ended, or ends and starts one that runs, on the same data and ports."""
        if name in self._processes:
            self.terminate(name)
        self.start(name)

    def restart_all(self, timeout_seconds: float = START_SECONDS) -> None:
        """Ends all that run and starts all; returns when each has caught up with a leader that all know."""
        for name in [name for name in self.names if name in self._processes]:
            self.terminate(name)
        for name in self.names:
            self.start(name)
        self.wait_for_leader(timeout_seconds)
        for name in self.names:
            self.wait_until_caught_up(name, timeout_seconds)

    def pause(self, name: str) -> None:
        self._processes[name].send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        self._processes[name].send_signal(signal.SIGCONT)

    def is_running(self, name: str) -> bool:
        process = self._processes.get(name)
        return process is not None and process.poll() is None

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    def resident_bytes(self, name: str) -> int:
        return int(psutil.Process(self.pid(name)).memory_info().rss)

    def cpu_seconds(self, name: str) -> float:
        """Of processor time since it began, as the system counts it: a busy node answers late."""
        times = psutil.Process(self.pid(name)).cpu_times()
        return float(times.user + times.system)

    def data_directory(self, name: str) -> Path:
        return self.directory / name

    def log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    # ---- what the nodes say

    def status(self, name: str) -> dict[str, Any] | None:
        """The node's status map; None when it does not answer."""
        return node_status(self.client_endpoints[name], _STATUS_SECONDS) if self.is_running(name) else None

    def leader(self) -> str | None:
        """The node that says it leads; of two the one in the higher term: the other has not heard of it."""
        answers = [status for name in self.names if (status := self.status(name))]
        leaders = [status for status in answers if status["role"] == "leader"]
        return str(max(leaders, key=lambda status: int(status["term"]))["node"]) if leaders else None

    def terms(self) -> dict[str, int]:
        """By node, of those that answer."""
        return {name: int(status["term"]) for name in self.names if (status := self.status(name))}

    def wait_for_leader(self, timeout_seconds: float = START_SECONDS) -> str:
        """The leader that every node which answers agrees on, with a quorum of all among them."""

        def agreed() -> str | None:
            answers = [status for name in self.names if (status := self.status(name))]
            leaders = {status["leader"] for status in answers}
            if 2 * len(answers) <= len(self.peer_endpoints) or len(leaders) != 1:
                return None
            [leader] = leaders
            return leader if leader and self.is_running(leader) else None

        return str(self._wait("a leader that all agree on", timeout_seconds, agreed))

    def wait_until_caught_up(self, name: str, timeout_seconds: float = START_SECONDS) -> None:
        """Until the node has applied everything that was committed anywhere when this was called."""
        reached = [status["commit_index"] for other in self.names if (status := self.status(other))]
        target = max(reached, default=0)

        def caught_up() -> bool:
            status = self.status(name)
            return status is not None and status["applied_index"] >= target

        self._wait(f"{name} to apply index {target}", timeout_seconds, caught_up)

    def wait_for_storage_ids(self, timeout_seconds: float = START_SECONDS) -> None:
        """Until each member's data directory is known by the log: from then on nobody takes its place."""

        def are_known() -> bool:
            return all((self.status(name) or {}).get("storages_known") for name in self.names)

        self._wait("storage ids", timeout_seconds, are_known)

    def wait_for(self, what: str, ready: Callable[[], Any], timeout_seconds: float = START_SECONDS) -> Any:
        """Until `ready` gives something; a node that ends by itself, or the deadline, is a failure."""
        return self._wait(what, timeout_seconds, ready)

    def _wait(self, what: str, timeout_seconds: float, ready: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            if answer := ready():
                return answer
            self._check_processes()
            time.sleep(_POLL_SECONDS)
        raise ClusterFailed(f"waited {timeout_seconds} s for {what}, in vain; logs in {self.directory}")

    def _check_processes(self) -> None:
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise ClusterFailed(
                    f"{name} ended by itself with {process.returncode}: {self.log_tail(name)}"
                )

    # ---- the end

    def stop(self) -> None:
        """Ends every process: asked first, then killed. May be called twice."""
        processes = list(self._processes.values())
        self._processes.clear()
        for process in processes:
            process.send_signal(signal.SIGCONT)  # a paused one could not be asked
            process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait(STOP_SECONDS)

    def log_tail(self, name: str, lines: int = LOG_TAIL_LINES) -> str:
        """The last lines of the node's log, of at most 64 KiB."""
        if not self.log(name).exists():
            return ""
        with self.log(name).open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 65_536))
            return b"\n".join(log.read().splitlines()[-lines:]).decode(errors="replace")

    def print_logs(self) -> None:
        for name in self.names:
            print(f"---- {self.log(name)}\n{self.log_tail(name)}", file=sys.stderr)
