"""Watches of real processes keep the promises, though their nodes are killed while others write, their past
is compacted, and their consumers end them at random and go on with others where they were.

What really happened is read afterwards without any watch, revision by revision, and before it is compacted.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any

from bench.processes import ProcessCluster
from kvstore import protocol
from kvstore.client import Client, KeyValue, Operation
from kvstore.client.blocking_watch import BlockingWatch
from kvstore.errors import Compacted
from kvstore.paths import below
from tests.watching.validators import Recorded, SeenEvent, Truth, complaints_about

PHASE_SECONDS = 0.7  # of writing, at least
PHASE_WRITES = 60  # at least
CATCH_UP_SECONDS = 20.0
AWAY_SECONDS = 90.0  # longer than all takes that is waited for meanwhile
PATH = "/watched"
KEYS = [f"{PATH}/k{number}" for number in range(8)]
LEASED = [f"{PATH}/leased/{number}" for number in range(3)]  # their lease is revoked
EXPIRING = [f"{PATH}/expiring/{number}" for number in range(3)]  # nobody renews theirs
NEIGHBOUR = f"{PATH}-beside"  # within the range that has the tree, and no part of it

ASKED: list[dict[str, Any]] = [
    {"start_revision": 1, "progress": True},
    {"start_revision": 1, "previous": True},
    {"start_revision": 0, "progress": True, "previous": True},
    {"start_revision": 0, "puts": False, "progress": True},
    {"start_revision": 5, "deletes": False},
    {"start_revision": 1, "tree": True, "previous": True},
]
LATE: dict[str, Any] = {"start_revision": 1, "previous": True}


class Follower(threading.Thread):
    """A consumer with one watch at a time, each with a client of its own: it ends them at random and goes on
    behind the last revision that it had; where its past is compacted, with the oldest that is left. It ends
    when it has heard of the last revision, once it is told of that. Owned by the test."""

    def __init__(
        self, endpoints: list[str], asked: dict[str, Any], chance: Random, compacting: Callable[[], int]
    ) -> None:
        super().__init__(daemon=True)
        self._endpoints = endpoints
        self._asked = dict(asked)
        self._is_tree = self._asked.pop("tree", False)
        self._chance = chance
        self._compacting = compacting  # what may be compacted by now
        self._start = self._asked.pop("start_revision")  # of the next watch; 0: from now on
        self.last_revision: int | None = None  # set once it is known
        self.is_established = threading.Event()
        self.error: BaseException | None = None
        self.resumptions = 0
        # While the first is set it has no watch, and says so by the second.
        self.is_called_away, self.is_away = threading.Event(), threading.Event()
        self.records = [self._new_record()]

    def _new_record(self) -> Recorded:
        span = below(PATH.encode()) if self._is_tree else protocol.prefix_range(f"{PATH}/".encode())
        return Recorded(
            *((PATH.encode(), span[1]) if self._is_tree else span),
            self._start,
            path=PATH.encode() if self._is_tree else b"",
            wants_previous=self._asked.get("previous", False),
            no_puts=not self._asked.get("puts", True),
            no_deletes=not self._asked.get("deletes", True),
            name=f"the watch from {self._start} on with {self._asked}{' of a tree' * self._is_tree}",
        )

    def run(self) -> None:
        try:
            while self.last_revision is None or self._start <= self.last_revision:
                self._stay_away()
                self._chance.shuffle(self._endpoints)
                with Client(self._endpoints, timeout_seconds=10) as client:
                    self._follow(client)
        except BaseException as error:  # the test tells of it, in its own thread
            self.error = error
        finally:
            self.is_established.set()

    def _stay_away(self) -> None:
        until = time.monotonic() + AWAY_SECONDS
        while self.is_called_away.is_set():
            assert time.monotonic() < until, "nobody called it back"
            self.is_away.set()
            time.sleep(0.01)

    def _follow(self, client: Client) -> None:
        """One watch, until it is ended."""
        follow = client.watch_tree if self._is_tree else client.watch
        what: dict[str, Any] = {} if self._is_tree else {"prefix": True}
        record = self.records[-1]
        try:
            with follow(
                PATH + "/" * (not self._is_tree), start_revision=self._start, **what, **self._asked
            ) as watch:
                if record.registered is None:
                    record.registered = watch.revision
                self.is_established.set()
                self._listen(watch, record)
                self._start = watch.revision + 1
        except Compacted as compacted:
            record.compacted = self._start = compacted.compact_revision
            self.records.append(self._new_record())
            return
        record.promise(self._start - 1)
        self.resumptions += 1

    def _listen(self, watch: BlockingWatch, record: Recorded) -> None:
        left = self._chance.randint(5, 60)
        while left and not self.is_called_away.is_set():
            if self.last_revision is not None and watch.revision >= self.last_revision:
                return
            batch = watch.next(0.1)
            if batch is not None:
                left -= 1
                record.note(batch.revision, batch.events, self._compacting())


class Play:
    """A cluster with one who writes, and all who follow. Owned by the test."""

    def __init__(self, cluster: ProcessCluster, client: Client) -> None:
        self.cluster = cluster
        self.client = client
        self.compacted = 0  # set before it is compacted, so that it is never less than what is
        self.contents: list[dict[bytes, KeyValue]] = []  # at each revision from 1 on
        self.revisions: dict[str, list[int]] = {"txn": [], "revoked": [], "prefix": []}  # with several keys
        self._chance = Random(1)
        self.followers = [
            Follower(list(cluster.endpoints), asked, Random(seed), lambda: self.compacted)
            for seed, asked in enumerate([*ASKED, LATE])
        ]

    # -- what is written -------------------------------------------------------------------------------

    def write(self, seconds: float = PHASE_SECONDS) -> int:
        """Returns the last revision."""
        until, number = time.monotonic() + seconds, 0
        while time.monotonic() < until or number < PHASE_WRITES:
            number += 1
            self._write_one(number)
        return self.client.put("/other", "the end").revision

    def _write_one(self, number: int) -> None:
        client, chance = self.client, self._chance
        draw, key, value = chance.random(), chance.choice(KEYS), str(number)
        if draw < 0.55:
            client.put(key, value)
        elif draw < 0.7:
            client.delete(key)
        elif draw < 0.75:
            revision, deleted = client.delete_prefix(f"{PATH}/k")[:2]
            if deleted > 1:
                self.revisions["prefix"].append(revision)
        elif draw < 0.85:
            one, two, three = chance.sample(KEYS, 3)
            done = client.txn().then(
                Operation.put(one, value), Operation.delete(three), Operation.put(two, value)
            )
            self.revisions["txn"].append(done.commit().revision)
        elif draw < 0.9:
            self._revoke_one(value)
        else:
            client.put(chance.choice([NEIGHBOUR, "/other"]), value)

    def _revoke_one(self, value: str) -> None:
        lease = self.client.grant_lease(60)
        for key in LEASED:
            self.client.put(key, value, lease=lease.id)
        self.revisions["revoked"].append(self.client.revoke_lease(lease.id).revision)

    def lose_a_leader(self) -> None:
        """While one writes."""
        self.write()
        victim = self.cluster.wait_for_leader()
        self.cluster.kill(victim)
        self.write()
        self.cluster.start(victim)

    # -- what is compacted -----------------------------------------------------------------------------

    @contextmanager
    def away(self, follower: Follower) -> Iterator[None]:
        follower.is_called_away.set()
        assert follower.is_away.wait(CATCH_UP_SECONDS)
        yield
        follower.is_called_away.clear()

    def compact(self) -> None:
        """At a change of a key that was there, so that the record before that change is known no more."""
        self.write(0.0)
        self.client.put(KEYS[0], "before")
        revision = self.client.put(KEYS[0], "after").revision
        self.look_back(self.write(0.0))
        self.compacted = revision
        self.client.compact(revision)
        self.cluster.wait_for("compaction everywhere", self._have_compacted)

    def _have_compacted(self) -> bool:
        found = [self.cluster.status(name) for name in self.cluster.names]
        return all(status is not None and status["compact_revision"] >= self.compacted for status in found)

    # -- what happened ---------------------------------------------------------------------------------

    def look_back(self, last_revision: int) -> None:
        for revision in range(len(self.contents) + 1, last_revision + 1):
            items = self.client.prefix(PATH, revision=revision).items
            self.contents.append({item.key: item for item in items})

    def truth(self) -> Truth:
        return Truth.of_contents(self.contents, self.compacted)

    def expiry(self) -> int:
        """The revision that took the keys of the lease that nobody renewed."""
        had = [all(key.encode() in content for key in EXPIRING) for content in self.contents]
        return len(had) - had[::-1].index(True) + 1

    def hear_out(self, last_revision: int) -> None:
        for follower in self.followers:
            follower.last_revision = last_revision
        until = time.monotonic() + CATCH_UP_SECONDS
        for follower in self.followers:
            follower.join(max(0.0, until - time.monotonic()))
            assert follower.error is None, follower.error
            assert not follower.is_alive(), f"{follower.records[-1].name} has not heard of all"


def played(play: Play) -> Truth:
    """All of it, up to what really happened."""
    client, late = play.client, play.followers[-1]
    play.write(0.0)
    for follower in play.followers:
        follower.start()
    assert all(follower.is_established.wait(10) for follower in play.followers)
    lease = client.grant_lease(3)
    for key in EXPIRING:
        client.put(key, "for a while", lease=lease.id)
    play.lose_a_leader()
    with play.away(late):
        play.compact()
    play.lose_a_leader()  # another node, and each of them may be the leader
    play.cluster.wait_for("the end of a lease", lambda: client.get(EXPIRING[0]) is None)
    last_revision = play.write(0.0)
    play.hear_out(last_revision)
    play.look_back(last_revision)
    return play.truth()


def events_without_before(records: list[Recorded], truth: Truth) -> Counter[bool]:
    """Of the events of those that asked for the record before, and that had one: is it missing?"""
    events: list[SeenEvent] = [
        event for record in records if record.wants_previous for event in record.events()
    ]
    return Counter(
        event.previous is None for event in events if truth.before(event.key, event.mod_revision) is not None
    )


def test_h1_h2_h3_watches_keep_their_promises_while_nodes_are_killed(tmp_path: Path) -> None:
    with ExitStack() as stack:
        cluster = stack.enter_context(ProcessCluster(tmp_path))
        client = stack.enter_context(Client(cluster.endpoints, timeout_seconds=20))
        play = Play(cluster, client)
        truth = played(play)
    assert truth.revision > 6 * PHASE_WRITES
    for follower in play.followers:
        for record in follower.records:
            is_last = record is follower.records[-1]
            assert complaints_about(record, truth, is_over=is_last) == []
        assert any(record.events() for record in follower.records)
    # Each promise was put to the test.
    records = [record for follower in play.followers for record in follower.records]
    assert sum(follower.resumptions for follower in play.followers) > 2 * len(play.followers)
    late = play.followers[-1].records
    assert late[0].compacted == late[1].start_revision == play.compacted
    assert [event.previous for event in late[1].batches[0].events] == [None], "known before it was compacted"
    missing = events_without_before(records, truth)
    assert missing[True] and missing[False] > 20 * missing[True]
    play.revisions["expired"] = [play.expiry()]
    for kind, revisions in play.revisions.items():
        told = [batch for each in records for batch in each.batches if batch.revision in revisions]
        assert any(len(batch.events) > 1 for batch in told), f"no revision of several keys: {kind}"
    beside = [revision for revision in range(2, truth.revision) if truth.has_changed(NEIGHBOUR, revision)]
    assert beside, "the tree had no neighbour"
