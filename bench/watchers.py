"""Many watchers on one prefix: is all delivered, what do they cost the nodes, and what do they cost writers?

`python -m bench.watchers`. Three nodes; `--watchers` clients in a few processes, each with connections of its
own, spread over the nodes and all on the same prefix; `--rate` changes a second there. Beside that, puts as
fast as they go on other keys, measured with the watchers and, before, without. The changes go on in both.
Exit code 1 if an event is missed, or if puts fall below `PUT_RATIO` of what they are without watchers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from bench.filling import puts, resident_bytes
from bench.harness import Row, data_directory, end_orderly, exit_code, row, say, write_rows
from bench.machine import machine
from bench.processes import ROOT, ClusterFailed, ProcessCluster
from kvstore.client import AsyncClient, Client
from kvstore.client.aio_watch import AsyncWatch

PREFIX = "/watched/"
WATCHERS = 1000
PROCESSES = 8  # of watchers
RATE = 100.0  # changes a second
SECONDS = 30.0
VALUE_BYTES = 100
WATCHED_KEYS = 100
PUT_RATIO = 0.7
PUT_KEYS = 10_000
ESTABLISH_SECONDS = 60.0
DRAIN_SECONDS = 10.0  # after the last change, before what has not come is missed


@dataclass(slots=True)
class Heard:
    """What the watchers of one process have to say, all together."""

    events: int  # delivered
    missed: int  # of those that every watcher should have had
    disorder: int  # revisions that came twice, or after a later one
    gaps: int  # holes in a stream that the history has filled
    delays: list[float]  # in seconds from when the change was due, sorted; a sample


class Changes:
    """Changes on the prefix at a fixed rate, by a thread of their own. Each says when it was due."""

    def __init__(self, endpoints: Sequence[str], rate: float, value_bytes: int) -> None:
        self.total = 0
        self._interval = 1.0 / rate
        self._value_bytes = value_bytes
        self._client = Client(endpoints)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="changes")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._client.close()

    def _go_on(self) -> None:
        due = time.monotonic()
        while not self._is_over.wait(max(0.0, due - time.monotonic())):
            value = f"{due:.6f} ".encode().ljust(self._value_bytes, b".")
            self._client.put(f"{PREFIX}{self.total % WATCHED_KEYS}", value)
            self.total += 1
            due += self._interval


class Crowd:
    """Processes full of watchers; owned by one run, which ends them."""

    def __init__(self, endpoints: Sequence[str], watchers: int, processes: int) -> None:
        self._children: list[subprocess.Popen[str]] = []
        self._shares = [len(range(number, watchers, processes)) for number in range(processes)]
        self._endpoints = endpoints

    def __enter__(self) -> Self:
        try:
            for number, share in enumerate(filter(None, self._shares)):
                # Each process begins at another node.
                turned = [*self._endpoints[number % len(self._endpoints) :], *self._endpoints]
                endpoints = list(dict.fromkeys(turned))
                command = [sys.executable, "-m", "bench.watchers", "--child", ",".join(endpoints)]
                command += ["--watchers", str(share)]
                child = subprocess.Popen(
                    command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
                self._children.append(child)
            for child in self._children:
                if self._line(child) != "ready":
                    raise ClusterFailed("watchers could not be established")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()
        self._children.clear()

    def heard(self, total: int) -> list[Heard]:
        """What they have heard once each has had `total` changes, or had its time to."""
        for child in self._children:
            assert child.stdin is not None, "a child without standard input"
            child.stdin.write(f"{total}\n")
            child.stdin.flush()
        return [Heard(**json.loads(self._line(child))) for child in self._children]

    @staticmethod
    def _line(child: subprocess.Popen[str]) -> str:
        assert child.stdout is not None, "a child without standard output"
        return child.stdout.readline().strip()


# ---------------------------------------------------------------- one process of watchers


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
            now = time.monotonic()
            self.disorder += batch.revision <= self._revision
            self._revision = batch.revision
            self.events += len(batch.events)
            if self.events % 10 == 0:
                self.delays.append(now - float(batch.events[0].value.split()[0]))


async def watch_all(endpoints: str, count: int) -> None:
    """Says when all watch; is then told how many changes there were, and says what it has of them."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        watchers = []
        for _ in range(count):
            client = await stack.enter_async_context(AsyncClient(endpoints))
            watch = client.watch(PREFIX, prefix=True, timeout_seconds=ESTABLISH_SECONDS)
            watchers.append(Watcher(client, await stack.enter_async_context(watch)))
        tasks = [asyncio.create_task(watcher.follow()) for watcher in watchers]
        print("ready", flush=True)
        total = int(await loop.run_in_executor(None, sys.stdin.readline))
        ends_at = loop.time() + DRAIN_SECONDS
        while min(watcher.events for watcher in watchers) < total and loop.time() < ends_at:
            await asyncio.sleep(0.05)
        print(json.dumps(asdict(_heard(watchers, total))), flush=True)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _heard(watchers: Sequence[Watcher], total: int) -> Heard:
    return Heard(
        events=sum(watcher.events for watcher in watchers),
        missed=sum(max(0, total - watcher.events) for watcher in watchers),
        disorder=sum(watcher.disorder for watcher in watchers),
        gaps=sum(watcher.client.counters["watch_gaps"] for watcher in watchers),
        delays=sorted(delay for watcher in watchers for delay in watcher.delays),
    )


# ---------------------------------------------------------------- the whole


@dataclass(slots=True)
class Run:
    """Puts with or without watchers, and what the nodes came to."""

    puts_per_second: float
    memory: list[int]  # resident bytes of each node at the end
    changes: int
    heard: list[Heard]


def run(cluster: ProcessCluster, *, watchers: int, chosen: argparse.Namespace) -> Run:
    with ExitStack() as stack:
        crowd = None
        if watchers:
            crowd = stack.enter_context(Crowd(cluster.endpoints, watchers, chosen.processes))
        with Changes(cluster.endpoints, chosen.rate, chosen.value_size) as changes:
            began, done = time.monotonic(), 0
            while time.monotonic() - began < chosen.seconds:
                load = puts(
                    cluster.endpoints, total=chosen.puts, keys=PUT_KEYS, value_bytes=chosen.value_size
                )
                done += load.completed
            seconds = time.monotonic() - began
        heard = crowd.heard(changes.total) if crowd is not None else []
        return Run(done / seconds, resident_bytes(cluster), changes.total, heard)


def percentile(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


def rows_of(without: Run, having: Run) -> list[Row]:
    delays = sorted(delay for each in having.heard for delay in each.delays)
    growth = max(late - early for early, late in zip(without.memory, having.memory, strict=True))
    return [
        row("watchers events missed", sum(each.missed for each in having.heard), "events", limit=0),
        row("watchers out of order", sum(each.disorder for each in having.heard), "events", limit=0),
        row("watchers gaps filled", sum(each.gaps for each in having.heard), "gaps"),
        row("watchers delay p50", percentile(delays, 0.5) * 1000, "ms"),
        row("watchers delay p99", percentile(delays, 0.99) * 1000, "ms"),
        row("watchers node memory", growth / 2**20, "MiB"),
        row(
            "put beside watchers",
            having.puts_per_second,
            "ops/s",
            peer="without watchers",
            peer_value=without.puts_per_second,
            target=PUT_RATIO,
        ),
    ]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.watchers")
    parser.add_argument("--watchers", type=int, default=WATCHERS)
    parser.add_argument("--processes", type=int, default=PROCESSES, help="that the watchers are spread over")
    parser.add_argument("--rate", type=float, default=RATE, help="changes a second on the watched prefix")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each of the two runs")
    parser.add_argument("--puts", type=int, default=20_000, help="of one load; loads follow each other")
    parser.add_argument("--value-size", type=int, default=VALUE_BYTES)
    parser.add_argument(
        "--directory", type=Path, help="where the nodes' data go while it runs (default: temporary)"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.child:
        asyncio.run(watch_all(chosen.child, chosen.watchers))
        return 0
    end_orderly()
    with data_directory(chosen.directory) as directory, ProcessCluster(directory / "nodes") as cluster:
        facts = machine(directory)
        without = run(cluster, watchers=0, chosen=chosen)
        say(f"without watchers: {without.puts_per_second:,.0f} puts/s")
        having = run(cluster, watchers=chosen.watchers, chosen=chosen)
        say(f"with {chosen.watchers:,} watchers: {having.puts_per_second:,.0f} puts/s")
    rows = rows_of(without, having)
    write_rows(rows)
    events = sum(each.events for each in having.heard)
    print(f"{facts}\n{chosen.watchers:,} watchers, {having.changes:,} changes, {events:,} events delivered")
    for each in rows:
        print(f"{each.name:32} {each.value:12.2f} {each.unit:7} {each.goal}")
    return exit_code(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
