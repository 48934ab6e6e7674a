"""Many leases that are kept alive: what do they cost the nodes, and is any of them lost?

`python -m bench.leases`. Three nodes and nothing else to do; processor time of each while they are idle, and
again while `--leases` leases, each with one key, are renewed each third of their TTL, in two ways: together,
as the client library does it, all leases of one client with one command; then alone, each with a request of
its own, evenly over the time, as if each were held by a program of its own. Both are measured for a third
of the TTL at least, in which each lease is renewed once. A figure is what a node needs beyond what it needs
idle; what the load itself needs is told beside it. Exit code 1 if a lease is lost, or if the client library's
way costs the leader more than `MAX_PERCENT` of one core.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.harness import Row, data_directory, end_orderly, exit_code, row, say, write_rows
from bench.machine import machine
from bench.processes import ClusterFailed, ProcessCluster
from kvstore.client import AsyncClient, AsyncLease, LeasesRenewed

LEASES = 10_000
CLIENTS = 10
TTL_SECONDS = 60
SECONDS = 10.0
RENEWALS = 3  # in the time of a TTL
MAX_PERCENT = 10.0
UNIT = "% of a core"
AT_ONCE = 200  # grants, and puts, that wait together


def cpu_seconds(cluster: ProcessCluster) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in cluster.names:
        status = cluster.status(name)
        if status is None:
            raise ClusterFailed(f"{name} does not answer")
        found[name] = float(status["cpu_seconds"])
    return found


@dataclass(slots=True)
class Usage:
    """Percent of a core that was in use for a while."""

    nodes: dict[str, float]
    load: float  # this process


async def usage(cluster: ProcessCluster, seconds: float) -> Usage:
    """From now on for so long."""
    before, load_before, began = cpu_seconds(cluster), time.process_time(), time.monotonic()
    await asyncio.sleep(seconds)
    load_after, after, lasted = time.process_time(), cpu_seconds(cluster), time.monotonic() - began
    nodes = {name: 100 * (after[name] - before[name]) / lasted for name in after}
    return Usage(nodes, 100 * (load_after - load_before) / lasted)


async def take(client: AsyncClient, count: int, ttl_seconds: int) -> list[AsyncLease]:
    leases: list[AsyncLease] = []
    while len(leases) < count:
        more = min(AT_ONCE, count - len(leases))
        some = await asyncio.gather(*(_grant(client, ttl_seconds) for _ in range(more)))
        await asyncio.gather(*(client.put(f"/leased/{each.id}", "x", lease=each) for each in some))
        leases += some
    return leases


async def _grant(client: AsyncClient, ttl_seconds: int) -> AsyncLease:
    return await client.lease(ttl_seconds)


async def renew_alone(client: AsyncClient, leases: Sequence[int], period_seconds: float) -> None:
    """Each once a period, one request after the other at equal distances, until it is cancelled."""
    waiting: set[asyncio.Future[LeasesRenewed]] = set()
    due = time.monotonic() + random.random() * period_seconds / len(leases)
    while True:
        for lease in leases:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due += period_seconds / len(leases)
            answer = client.keep_alive(lease)
            waiting.add(answer)
            answer.add_done_callback(waiting.discard)
            answer.add_done_callback(asyncio.Future.exception)  # one that fails shows in the leases lost


async def measure(cluster: ProcessCluster, chosen: argparse.Namespace) -> list[Row]:
    idle = await usage(cluster, chosen.seconds)
    period_seconds = chosen.ttl / RENEWALS
    seconds = max(chosen.seconds, period_seconds)
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(AsyncClient(cluster.endpoints, timeout_seconds=10))
            for _ in range(chosen.clients)
        ]
        shares = [len(range(number, chosen.leases, chosen.clients)) for number in range(chosen.clients)]
        began = time.monotonic()
        held = await asyncio.gather(
            *(take(client, share, chosen.ttl) for client, share in zip(clients, shares, strict=True))
        )
        say(f"{chosen.leases:,} leases in {time.monotonic() - began:.1f} s")
        await asyncio.sleep(period_seconds)
        together = await usage(cluster, seconds)
        for lease in itertools.chain(*held):
            lease.release()
        tasks = [
            asyncio.create_task(renew_alone(client, [lease.id for lease in leases], period_seconds))
            for client, leases in zip(clients, held, strict=True)
        ]
        alone = await usage(cluster, seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        lost = sum(lease.lost.is_set() for lease in itertools.chain(*held))
        there = len((await clients[0].leases()).ids)
    leader = cluster.leader()
    if leader is None:
        raise ClusterFailed("no leader at the end")
    rows = [row("leases lost", max(lost, chosen.leases - there), "leases", limit=0)]
    for name, used, limit in (("together", together, MAX_PERCENT), ("alone", alone, None)):
        extra = {node: used.nodes[node] - idle.nodes[node] for node in cluster.names}
        follower = max(extra[node] for node in cluster.names if node != leader)
        rows += [
            row(f"leases {name}, leader", extra[leader], UNIT, limit=limit),
            row(f"leases {name}, follower", follower, UNIT),
            row(f"leases {name}, load", used.load, UNIT),
        ]
    return [*rows, row("leases none, leader", idle.nodes[leader], UNIT)]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.leases")
    parser.add_argument("--leases", type=int, default=LEASES)
    parser.add_argument("--clients", type=int, default=CLIENTS, help="that hold them")
    parser.add_argument("--ttl", type=int, default=TTL_SECONDS, help="of each, in seconds")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each measurement, at least")
    parser.add_argument(
        "--directory", type=Path, help="where the nodes' data go while it runs (default: temporary)"
    )
    chosen = parser.parse_args(arguments)
    end_orderly()
    with data_directory(chosen.directory) as directory, ProcessCluster(directory / "nodes") as cluster:
        facts = machine(directory)
        cluster.wait_for_leader()
        rows = asyncio.run(measure(cluster, chosen))
    write_rows(rows)
    print(f"{facts}\n{chosen.leases:,} leases of {chosen.ttl} s, held by {chosen.clients} clients")
    for each in rows:
        print(f"{each.name:32} {each.value:12.2f} {each.unit:12} {each.goal}")
    return exit_code(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
