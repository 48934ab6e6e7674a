"""Watches of real processes keep the promises, though their nodes are killed while others write.

What really happened is read afterwards without any watch, revision by revision.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from random import Random
from typing import Any

from bench.processes import ProcessCluster
from kvstore import protocol
from kvstore.client import Client
from tests.watching.validators import Recorded, Truth, complaints_about

SECONDS = 3.0  # of writing
CATCH_UP_SECONDS = 20.0
PREFIX = "/watched/"
ASKED: list[dict[str, Any]] = [
    {"start_revision": 1, "progress": True},
    {"start_revision": 1, "previous": True},
    {"start_revision": 0, "progress": True, "previous": True},
    {"start_revision": 0, "puts": False, "progress": True},
    {"start_revision": 5, "deletes": False},
]


class Follower(threading.Thread):
    """One client with one watch, which it follows until it is told where the end is. Owned by the test."""

    def __init__(self, endpoints: list[str], asked: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self._endpoints = endpoints
        self._asked = asked
        self.last_revision: int | None = None  # set once it is known
        self.is_established = threading.Event()
        self.error: BaseException | None = None
        self.record = Recorded(
            *protocol.prefix_range(PREFIX.encode()),
            asked["start_revision"],
            wants_previous=asked.get("previous", False),
            no_puts=not asked.get("puts", True),
            no_deletes=not asked.get("deletes", True),
            name=f"the watch with {asked}",
        )

    def run(self) -> None:
        try:
            with Client(self._endpoints, timeout_seconds=10) as client:
                self._follow(client)
        except BaseException as error:  # the test tells of it, in its own thread
            self.error = error
        finally:
            self.is_established.set()

    def _follow(self, client: Client) -> None:
        with client.watch(PREFIX, prefix=True, **self._asked) as watch:
            self.record.registered = watch.revision
            self.is_established.set()
            while self.last_revision is None or watch.revision < self.last_revision:
                batch = watch.next(0.2)
                if batch is not None:
                    self.record.note(batch.revision, batch.events)


def write(client: Client, chance: Random, seconds: float) -> int:
    """Returns the last revision."""
    until, number = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        number += 1
        draw, key = chance.random(), f"{PREFIX}{chance.randrange(8)}"
        if draw < 0.7:
            client.put(key, str(number))
        elif draw < 0.9:
            client.delete(key)
        elif draw < 0.95:
            client.delete_prefix(PREFIX)
        else:
            client.put("/other", str(number))
    return client.put("/other", "the end").revision


def what_happened(client: Client, last_revision: int) -> Truth:
    contents: list[dict[bytes, Any]] = []
    for revision in range(1, last_revision + 1):
        items = client.prefix(PREFIX, revision=revision).items
        contents.append({item.key: item for item in items})
    return Truth.of_contents(contents)


def test_h1_h2_h3_watches_keep_their_promises_while_nodes_are_killed(tmp_path: Path) -> None:
    with (
        ProcessCluster(tmp_path) as cluster,
        Client(cluster.endpoints, timeout_seconds=20) as client,
    ):
        chance = Random(1)
        write(client, chance, 0.2)
        orders = [cluster.endpoints[place % 3 :] + cluster.endpoints[: place % 3] for place in range(5)]
        followers = [Follower(order, asked) for order, asked in zip(orders, ASKED)]
        for follower in followers:
            follower.start()
        assert all(follower.is_established.wait(10) for follower in followers)
        for _ in range(2):  # two different nodes, and each of them may be the leader
            victim = cluster.wait_for_leader()
            write(client, chance, SECONDS / 4)
            cluster.kill(victim)
            write(client, chance, SECONDS / 4)
            cluster.start(victim)
        last_revision = write(client, chance, 0.1)
        for follower in followers:
            follower.last_revision = last_revision
        until = time.monotonic() + CATCH_UP_SECONDS
        for follower in followers:
            follower.join(max(0.0, until - time.monotonic()))
            assert follower.error is None, follower.error
            assert not follower.is_alive(), f"{follower.record.name} has not heard of all"
        truth = what_happened(client, last_revision)
    assert truth.revision > 20
    for follower in followers:
        assert complaints_about(follower.record, truth, is_over=True) == []
        assert follower.record.events()
