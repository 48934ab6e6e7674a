"""The other side of bench.watchers: processes full of watchers, and one that makes the changes.

Run by `bench.watchers` and `bench.fanout` alone, which tell them over standard input when it is over. Bare
watchers know the documented format of range streams and nothing else of the client library: they take
history from nobody, so whatever is lost to one is missed.

Bare watchers look at their sockets each `LOOK_SECONDS`, and that is in the delays that they tell: 25 ms
more on average, 50 ms at most. They share the machine with what is measured, so they must be cheap. Whoever
looks more often finds fewer messages with each look, and is woken by libzmq's own thread for more of them,
which then costs as much as reading them. Each socket is asked by itself, and again after each message, in
place of an exception after the last: with something in most of them a zmq.Poller is no cheaper.
"""

from __future__ import annotations

import asyncio
import json
import select
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass

import msgpack
import zmq

from kvstore.client import AsyncClient, PutResult
from kvstore.client.aio_watch import AsyncWatch
from kvstore.protocol import prefix_range
from kvstore.watch_frames import stream_topic

PREFIX = "/watched/"
WATCHED_KEYS = 100
ESTABLISH_SECONDS = 60.0
DRAIN_SECONDS = 10.0  # of silence after the last change, before what has not come is missed
LOOK_SECONDS = 0.05  # between two looks of bare watchers at their sockets
# As plain integers: looking an option up by its enumeration takes longer than asking for it.
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)
_DONTWAIT = int(zmq.DONTWAIT)


@dataclass(slots=True)
class Heard:
    """What the watchers of one process have to say, all together."""

    events: int  # delivered
    messages: int  # that they came in; of clients 0: they do not tell
    missed: int  # of those that every watcher should have had
    disorder: int  # revisions that came twice, or after a later one
    gaps: int  # holes in a stream; clients have filled them from the history
    cpu_seconds: float  # of this process, since all watched
    delays: list[float]  # in seconds from when the change was due, sorted; a sample


def _delay(value: bytes) -> float:
    return time.monotonic() - float(value.split()[0])


# ---------------------------------------------------------------- bare SUB sockets


class BareWatcher:
    """A SUB socket with a connection of its own, on one range stream."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, topic: bytes) -> None:
        self.socket = context.socket(zmq.SUB)
        self.socket.set(zmq.LINGER, 0)
        self.socket.set(zmq.SUBSCRIBE, topic)
        self.socket.connect(endpoint)
        self.epoch = 0
        self.sequence = 0
        self.revision = 0
        self.events = self.messages = self.gaps = self.disorder = 0

    def take(self, delays: list[float]) -> bool:
        """All that has come; False if that is nothing."""
        receive, ask, before = self.socket.recv, self.socket.get, self.messages
        while int(ask(_EVENTS)) & _POLLIN:
            receive(_DONTWAIT)  # the topic; all parts of a message are there, or none
            header = receive(_DONTWAIT)
            self._hear(header, receive(_DONTWAIT), delays)
        return self.messages > before

    def _hear(self, header: bytes, packed: bytes, delays: list[float]) -> None:
        _, epoch, sequence, revision = msgpack.unpackb(header)
        events = msgpack.unpackb(packed)
        if not self.epoch:
            self.epoch, self.sequence, self.revision = epoch, sequence, revision
            return
        self.gaps += epoch != self.epoch or sequence != self.sequence + bool(events)
        self.epoch, self.sequence = epoch, sequence
        for event in events:
            self.disorder += event[4] < self.revision  # of one revision there may be several
            self.revision = event[4]
        self.disorder += revision < self.revision
        self.revision = revision
        if events:
            self.messages += 1
            self.events += len(events)
            if self.messages % 10 == 0:
                delays.append(_delay(events[0][2]))


def watch_bare(endpoints: str, count: int) -> None:
    """Says when all are greeted; is then told how many changes there were, and says what it has of them."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    topic = stream_topic(*prefix_range(PREFIX.encode()))
    nodes = endpoints.split(",")
    watchers = [BareWatcher(context, nodes[number % len(nodes)], topic) for number in range(count)]
    delays: list[float] = []
    ends_at = time.monotonic() + ESTABLISH_SECONDS
    while not all(watcher.epoch for watcher in watchers) and time.monotonic() < ends_at:
        _look(watchers, delays)
    print("ready" if all(watcher.epoch for watcher in watchers) else "not greeted", flush=True)
    total, used = None, time.process_time()
    while total is None or (time.monotonic() < ends_at and min(each.events for each in watchers) < total):
        if _look(watchers, delays):
            ends_at = time.monotonic() + DRAIN_SECONDS
        if total is None and select.select([sys.stdin], [], [], 0)[0]:
            total, ends_at = int(sys.stdin.readline()), time.monotonic() + DRAIN_SECONDS
    heard = Heard(
        events=sum(each.events for each in watchers),
        messages=sum(each.messages for each in watchers),
        missed=sum(max(0, total - each.events) for each in watchers),
        disorder=sum(each.disorder for each in watchers),
        gaps=sum(each.gaps for each in watchers),
        cpu_seconds=time.process_time() - used,
        delays=sorted(delays),
    )
    print(json.dumps(asdict(heard)), flush=True)
    context.destroy(linger=0)


def _look(watchers: Sequence[BareWatcher], delays: list[float]) -> bool:
    """At all sockets, after a pause. False if no event has come."""
    time.sleep(LOOK_SECONDS)
    return sum(watcher.take(delays) for watcher in watchers) > 0  # any() would leave the rest unread


# ---------------------------------------------------------------- whole clients


class Watcher:
    """One client with one watch; owned by its process."""

    def __init__(self, client: AsyncClient, watch: AsyncWatch) -> None:
        self.client = client
        self.events = 0
        self.disorder = 0
        self.delays: list[float] = []
        self._watch = watch
        self._revision = 0

    async def follow(self) -> None:
        async for batch in self._watch:
            self.disorder += batch.revision <= self._revision
            self._revision = batch.revision
            self.events += len(batch.events)
            if self.events % 10 == 0:
                self.delays.append(_delay(batch.events[0].value))


async def watch_as_clients(endpoints: str, count: int) -> None:
    """The same with clients of the library, each with connections of its own."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        watchers = []
        for _ in range(count):
            client = await stack.enter_async_context(AsyncClient(endpoints))
            watch = client.watch(PREFIX, prefix=True, timeout_seconds=ESTABLISH_SECONDS)
            watchers.append(Watcher(client, await stack.enter_async_context(watch)))
        tasks = [asyncio.create_task(watcher.follow()) for watcher in watchers]
        print("ready", flush=True)
        used = time.process_time()
        total = int(await loop.run_in_executor(None, sys.stdin.readline))
        ends_at = loop.time() + DRAIN_SECONDS
        while min(watcher.events for watcher in watchers) < total and loop.time() < ends_at:
            await asyncio.sleep(0.05)
        heard = Heard(
            events=sum(watcher.events for watcher in watchers),
            messages=0,
            missed=sum(max(0, total - watcher.events) for watcher in watchers),
            disorder=sum(watcher.disorder for watcher in watchers),
            gaps=sum(watcher.client.counters["watch_gaps"] for watcher in watchers),
            cpu_seconds=time.process_time() - used,
            delays=sorted(delay for watcher in watchers for delay in watcher.delays),
        )
        print(json.dumps(asdict(heard)), flush=True)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# ---------------------------------------------------------------- changes


async def make_changes(endpoints: str, rate: float, value_bytes: int) -> None:
    """At a fixed rate, each when it is due, whatever became of those before; each says when it was due."""
    loop = asyncio.get_running_loop()
    waiting: set[asyncio.Future[PutResult]] = set()
    total = 0
    async with AsyncClient(endpoints, timeout_seconds=ESTABLISH_SECONDS) as client:
        await client.put("/before", b"")
        print("ready", flush=True)
        over = loop.run_in_executor(None, sys.stdin.readline)
        due = time.monotonic()
        while not over.done():
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            value = f"{due:.6f} ".encode().ljust(value_bytes, b".")
            waiting.add(client.put(f"{PREFIX}{total % WATCHED_KEYS}", value))
            total += 1
            due += 1.0 / rate
            if total % WATCHED_KEYS == 0:
                waiting = {each for each in waiting if not each.done() or each.exception()}
        await asyncio.gather(*waiting)
    print(total, flush=True)


async def make_changes_at_once(endpoints: str, changes: int, in_flight: int, value_bytes: int) -> None:
    """So many, as fast as they go with so many unanswered; each says when it was sent."""
    async with AsyncClient(endpoints, timeout_seconds=ESTABLISH_SECONDS) as client:
        await client.put("/before", b"")
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)

        async def change_one_after_another(numbers: range) -> None:
            for number in numbers:
                value = f"{time.monotonic():.6f} ".encode().ljust(value_bytes, b".")
                await client.put(f"{PREFIX}{number % WATCHED_KEYS}", value)

        shares = [range(first, changes, in_flight) for first in range(in_flight)]
        await asyncio.gather(*map(change_one_after_another, shares))
    print(changes, flush=True)


if __name__ == "__main__":
    part, where, *rest = sys.argv[1:]
    if part == "bare":
        watch_bare(where, int(rest[0]))
    elif part == "clients":
        asyncio.run(watch_as_clients(where, int(rest[0])))
    elif part == "changes":
        asyncio.run(make_changes(where, float(rest[0]), int(rest[1])))
    else:
        asyncio.run(make_changes_at_once(where, *map(int, rest)))
