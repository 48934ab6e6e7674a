"""Clusters of real processes whose members come and go: a node starts empty, and is added or initialised."""

from __future__ import annotations

import shutil
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

import zmq

from bench.ports import free_ports
from bench.processes import ProcessCluster
from kvstore import protocol
from kvstore.client import Client
from kvstore.errors import AssentError


class GrowingCluster(ProcessCluster):
    """Nothing runs after `__enter__`. Nodes of any name start with `launch`, and wait."""

    def __init__(self, directory: Path, arguments: tuple[str, ...] = ()) -> None:
        super().__init__(directory, 0, arguments=arguments)
        self.join: list[str] = []  # client endpoints that the nodes are told to join; none: just wait

    def __enter__(self) -> GrowingCluster:
        self.directory.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)

    def membership_flags(self) -> dict[str, str]:
        return {"--join": ",".join(self.join)} if self.join else {}

    def launch(self, *names: str) -> None:
        """Start nodes that were never started; returns when they answer."""
        for name in names:
            peer, client, watch = (f"tcp://127.0.0.1:{port}" for port in free_ports(3))
            self.names.append(name)
            self.peer_endpoints[name] = peer
            self.client_endpoints[name] = client
            self.watch_endpoints[name] = watch
            self.start(name)
        for name in names:
            self.wait_for(f"{name} to answer", lambda name=name: self.status(name))  # type: ignore[misc]

    def begin(self, *names: str) -> None:
        """One cluster of these: the first is initialised, the others are added."""
        self.launch(*names)
        with Client([self.client_endpoints[names[0]]], timeout_seconds=10) as client:
            client.initialise(self.client_endpoints[names[0]])
        for name in names[1:]:
            self.add(name)

    def add(self, name: str) -> None:
        with self.client() as client:
            client.cluster.add_member(name, self.peer_endpoints[name])

    def client(self, timeout_seconds: float = 20.0) -> Client:
        return Client(self.running_endpoints(), timeout_seconds=timeout_seconds)

    def running_endpoints(self) -> list[str]:
        return [self.client_endpoints[name] for name in self.names if self.is_running(name)]

    def wipe(self, name: str) -> None:
        """The disk of a node that does not run is lost."""
        shutil.rmtree(self.data_directory(name))


def local_read(endpoint: str, key: bytes) -> protocol.Results | protocol.Refusal:
    """What this very node says: a `Client` would go to another one that serves."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(endpoint)
        socket.send(protocol.encode_request(protocol.STALE_READ, 1, 2000, [protocol.range_body(key)]))
        assert socket.poll(10_000), f"{endpoint} does not answer"
        return protocol.decode_reply(socket.recv())


class Writing(ABC):
    """A client that writes on a thread, one step after the other, until it is told to end."""

    def __init__(self, endpoints: list[str], timeout_seconds: float) -> None:
        self.failures: list[Exception] = []
        self._is_over = threading.Event()
        self._client = Client(endpoints, timeout_seconds=timeout_seconds)
        self._thread = threading.Thread(target=self._write, name="writing")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(30)
        self._client.close()
        assert not self._thread.is_alive()

    @abstractmethod
    def step(self, number: int) -> None:
        """Write what has this number. An AssentError is a failure that is noted, and writing goes on."""

    def _write(self) -> None:
        number = 0
        while not self._is_over.is_set():
            try:
                self.step(number)
            except AssentError as error:
                self.failures.append(error)
            number += 1


class Load(Writing):
    """One writer: remembers what was acknowledged, and how long nothing was."""

    def __init__(self, endpoints: list[str]) -> None:
        super().__init__(endpoints, 10)
        self.acknowledged: list[int] = []
        self.longest_pause_seconds = 0.0

    def step(self, number: int) -> None:
        began_at = time.monotonic()
        try:
            self._client.put(f"/load/{number:08}", str(number))
            self.acknowledged.append(number)
        finally:
            self.longest_pause_seconds = max(self.longest_pause_seconds, time.monotonic() - began_at)

    def wait_for_more(self, count: int = 20) -> None:
        """Until so many further writes were acknowledged."""
        goal = len(self.acknowledged) + count
        deadline = time.monotonic() + 30
        while len(self.acknowledged) < goal:
            assert time.monotonic() < deadline, f"{len(self.acknowledged)} of {goal}; {self.failures[-3:]}"
            time.sleep(0.01)

    def verify(self, client: Client) -> None:
        """Everything that was acknowledged is there. Writes may go on meanwhile: what is acknowledged after
        the read began need not be in it."""
        acknowledged = set(self.acknowledged)
        found = client.prefix("/load/")
        assert not found.more
        there = {int(item.value) for item in found.items}
        missing = acknowledged - there
        assert not missing, f"{len(missing)} acknowledged writes are lost, such as {sorted(missing)[:5]}"
