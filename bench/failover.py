"""How long a cluster without its leader: from `kill -9` to the next acknowledged put, many times over.

`python -m bench.failover --kills 20`. One client of the library, with its defaults and every endpoint, puts
one key after the other; the leader's process is killed between two puts, and is started again and caught up
before the next kill. With `--clean` it gets SIGTERM and may hand over, and what counts is the slowest put
while that goes on. With `--etcd` etcd is killed as well, through its JSON front, asking each node in turn.
Exit code 1 if the median is above its limit.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from itertools import count, cycle
from pathlib import Path
from statistics import median

from bench.harness import Row, data_directory, end_orderly, exit_code, row, say, write_rows
from bench.machine import machine
from bench.peers.etcd_cluster import EtcdCluster, EtcdFailed, etcd_version, find_etcd, put_once
from bench.processes import ProcessCluster
from kvstore.client import Client

KILLS = 20
MEDIAN_LIMIT_MS = 500.0
CLEAN_MEDIAN_LIMIT_MS = 100.0
PUT_SECONDS = 15.0
RECOVERY_SECONDS = 30.0
_SETTLE_SECONDS = 1.0
_AFTERMATH_SECONDS = 0.3
_ETCD_TRY_SECONDS = 0.1  # a put that a node took while there was no leader is lost, so it is soon asked again


def assent_outages(kills: int, directory: Path) -> list[float]:
    """Seconds from each kill to the next acknowledged put."""
    outages = []
    with (
        ProcessCluster(directory) as cluster,
        Client(cluster.endpoints, timeout_seconds=PUT_SECONDS) as client,
    ):
        for number in range(kills):
            client.put(b"/bench/failover", b"before %d" % number)
            leader = cluster.wait_for_leader(RECOVERY_SECONDS)
            begun = time.perf_counter()
            cluster.kill(leader)
            client.put(b"/bench/failover", b"after %d" % number)
            outages.append(time.perf_counter() - begun)
            say(f"kill {number + 1}/{kills}: {1e3 * outages[-1]:.0f} ms")
            cluster.start(leader)
            cluster.wait_until_caught_up(leader, RECOVERY_SECONDS)
            cluster.wait_for_leader(RECOVERY_SECONDS)
            time.sleep(_SETTLE_SECONDS)
    return outages


def clean_outages(restarts: int, directory: Path) -> list[float]:
    """Seconds that the slowest put took while the leader was told to stop, stopped, and shortly after.

    The first put after the signal may still be the old leader's, so it is not the one to look at.
    """
    outages = []
    with (
        ProcessCluster(directory) as cluster,
        Client(cluster.endpoints, timeout_seconds=PUT_SECONDS) as client,
    ):
        for number in range(restarts):
            leader = cluster.wait_for_leader(RECOVERY_SECONDS)
            client.put(b"/bench/failover", b"before %d" % number)
            cluster.ask_to_end(leader)
            outages.append(_slowest_put(client, lambda leader=leader: cluster.is_running(leader)))  # type: ignore[misc]
            say(f"restart {number + 1}/{restarts}: {1e3 * outages[-1]:.1f} ms")
            cluster.terminate(leader)
            cluster.start(leader)
            cluster.wait_until_caught_up(leader, RECOVERY_SECONDS)
            cluster.wait_for_leader(RECOVERY_SECONDS)
            time.sleep(_SETTLE_SECONDS)
    return outages


def _slowest_put(client: Client, goes_on: Callable[[], bool]) -> float:
    slowest, until = 0.0, float("inf")
    while time.monotonic() < until:
        if until == float("inf") and not goes_on():
            until = time.monotonic() + _AFTERMATH_SECONDS
        begun = time.perf_counter()
        client.put(b"/bench/failover", b"meanwhile")
        slowest = max(slowest, time.perf_counter() - begun)
    return slowest


def etcd_outages(kills: int, binary: Path, directory: Path) -> list[float]:
    """The same; a put is asked of each node in turn, until one acknowledges it."""
    outages = []
    with EtcdCluster(binary, directory) as cluster:
        for number in range(kills):
            leader = cluster.wait_for_leader(RECOVERY_SECONDS)
            others = [url for name, url in cluster.urls.items() if name != leader]
            begun = time.perf_counter()
            cluster.kill(leader)
            _put_somewhere(others, number)
            outages.append(time.perf_counter() - begun)
            say(f"etcd, kill {number + 1}/{kills}: {1e3 * outages[-1]:.0f} ms")
            cluster.start(leader)
            _wait_until_it_serves(cluster.urls[leader])
            time.sleep(_SETTLE_SECONDS)
    return outages


def _put_somewhere(urls: Sequence[str], number: int) -> None:
    deadline = time.monotonic() + PUT_SECONDS
    for url in cycle(urls):
        if put_once(url, b"/bench/failover", b"after %d" % number, _ETCD_TRY_SECONDS):
            return
        if time.monotonic() > deadline:
            raise EtcdFailed(f"no put was acknowledged within {PUT_SECONDS} s of the kill")


def _wait_until_it_serves(url: str) -> None:
    deadline = time.monotonic() + RECOVERY_SECONDS
    for number in count():
        if put_once(url, b"/bench/failover", b"again %d" % number, _ETCD_TRY_SECONDS):
            return
        if time.monotonic() > deadline:
            raise EtcdFailed(f"{url} does not serve {RECOVERY_SECONDS} s after its start")
        time.sleep(0.1)


def rows_of(
    outages: Sequence[float], peers: Sequence[float], peer: str | None, *, is_clean: bool = False
) -> list[Row]:
    """Median, nine tenths and the longest, in ms."""
    name_of, median_limit_ms = ("failover", MEDIAN_LIMIT_MS)
    if is_clean:
        name_of, median_limit_ms = ("clean restart", CLEAN_MEDIAN_LIMIT_MS)
    rows = []
    figures: dict[str, Callable[[Sequence[float]], float]] = {"median": median, "p90": _p90, "max": max}
    for name, of in figures.items():
        value, peer_value = 1e3 * of(outages), 1e3 * of(peers) if peers else None
        limit = median_limit_ms if name == "median" else None
        rows.append(row(f"{name_of} {name}", value, "ms", peer=peer, peer_value=peer_value, limit=limit))
    return rows


def _p90(seconds: Sequence[float]) -> float:
    return sorted(seconds)[min(len(seconds) - 1, int(len(seconds) * 0.9))]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.failover")
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument(
        "--directory", type=Path, help="where the nodes' data go while it runs (default: temporary)"
    )
    parser.add_argument("--clean", action="store_true", help="SIGTERM instead of kill -9")
    parser.add_argument("--etcd", action="store_true", help="do the same to etcd afterwards")
    chosen = parser.parse_args(arguments)
    end_orderly()
    binary = find_etcd() if chosen.etcd else None
    if chosen.clean and chosen.etcd:
        parser.error("--etcd is for kill -9 only")
    if chosen.etcd and binary is None:
        print("etcd was not found: see bench/README.md", file=sys.stderr)
        return 1
    with data_directory(chosen.directory) as directory:
        facts = machine(directory)
        outages_of = clean_outages if chosen.clean else assent_outages
        outages = outages_of(chosen.kills, directory / "assent")
        peers = etcd_outages(chosen.kills, binary, directory / "etcd") if binary else []
    rows = rows_of(outages, peers, etcd_version(binary) if binary else None, is_clean=chosen.clean)
    write_rows(rows)
    what = "kills of the leader, ms to the next acknowledged put:"
    if chosen.clean:
        what = "clean restarts of the leader, ms that the slowest put meanwhile took:"
    print(f"{facts}\n{chosen.kills} {what}")
    for each in rows:
        beside = f", {each.peer} {each.peer_value:.0f}" if each.peer_value else ""
        print(f"{each.name.rpartition(' ')[2]:7} {each.value:.0f}{beside}  {each.goal}".rstrip())
    return exit_code(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
