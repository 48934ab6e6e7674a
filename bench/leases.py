"""Many leases, kept alive by a few clients: what do they cost the leader, and is any of them lost?

`python -m bench.leases`. Three nodes and nothing else to do; processor time of each while they are idle, and
again while `--leases` leases, each with one key, are renewed each third of their TTL. Exit code 1 if a lease
is lost, or if they cost the leader more than `MAX_PERCENT` of one core.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from bench.harness import Row, data_directory, end_orderly, exit_code, row, say, write_rows
from bench.machine import machine
from bench.processes import ClusterFailed, ProcessCluster
from kvstore.client import AsyncClient, AsyncLease

LEASES = 10_000
CLIENTS = 10
TTL_SECONDS = 10
SECONDS = 30.0
MAX_PERCENT = 10.0
AT_ONCE = 200  # grants, and puts, that wait together


def cpu_seconds(cluster: ProcessCluster) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in cluster.names:
        status = cluster.status(name)
        if status is None:
            raise ClusterFailed(f"{name} does not answer")
        found[name] = float(status["cpu_seconds"])
    return found


async def percent_of_a_core(cluster: ProcessCluster, seconds: float) -> dict[str, float]:
    """Of each node, from now on for so long."""
    before, began = cpu_seconds(cluster), time.monotonic()
    await asyncio.sleep(seconds)
    after, lasted = cpu_seconds(cluster), time.monotonic() - began
    return {name: 100 * (after[name] - before[name]) / lasted for name in after}


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


async def measure(cluster: ProcessCluster, chosen: argparse.Namespace) -> list[Row]:
    idle = await percent_of_a_core(cluster, chosen.seconds / 3)
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
        await asyncio.sleep(chosen.ttl / 3)
        busy = await percent_of_a_core(cluster, chosen.seconds)
        lost = sum(lease.lost.is_set() for leases in held for lease in leases)
        there = len((await clients[0].leases()).ids)
    leader = cluster.leader()
    if leader is None:
        raise ClusterFailed("no leader at the end")
    return [
        row("leases lost", max(lost, chosen.leases - there), "leases", limit=0),
        row("leases on the leader", busy[leader] - idle[leader], "% of a core", limit=MAX_PERCENT),
        row("leader with leases", busy[leader], "% of a core"),
        row("leader without", idle[leader], "% of a core"),
    ]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.leases")
    parser.add_argument("--leases", type=int, default=LEASES)
    parser.add_argument("--clients", type=int, default=CLIENTS, help="that hold them")
    parser.add_argument("--ttl", type=int, default=TTL_SECONDS, help="of each, in seconds")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of the measurement")
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
