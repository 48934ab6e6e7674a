"""Real processes: the past of a cluster is compacted by policy and by command, and survives kill -9."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.processes import ProcessCluster
from kvstore import errors
from kvstore.client import Client

KEPT = 100
ARGUMENTS = [
    "--history-revisions",
    str(KEPT),
    "--snapshot-interval-entries",
    "150",
    "--trailing-entries",
    "20",
]


def oldest_revision(cluster: ProcessCluster) -> int:
    """That all nodes agree upon, with nothing more to be compacted."""

    def agreed() -> int | None:
        found = [cluster.status(name) for name in cluster.names]
        states = {(status["revision"], status["compact_revision"]) for status in found if status is not None}
        if None in found or len(states) != 1:
            return None
        [(revision, oldest)] = states
        return int(oldest) if revision - oldest < KEPT + KEPT // 10 else None

    oldest = cluster.wait_for("one compact_revision on all nodes", agreed)
    assert isinstance(oldest, int)
    return oldest


def check_every_node(cluster: ProcessCluster, oldest: int, newest: int) -> None:
    for name in cluster.names:
        with Client([cluster.client_endpoints[name]], timeout_seconds=10) as client:
            for revision in (oldest, (oldest + newest) // 2, newest):
                found = client.prefix("/k/", revision=revision, consistency="local").items
                assert [int(item.value) for item in found if item.mod_revision == revision] == [revision], (
                    name
                )
                assert {item.mod_revision for item in found} == set(range(revision - 2, revision + 1)), name
            with pytest.raises(errors.Compacted) as read:
                client.get("/k/1", revision=oldest - 1, consistency="local")
            with (
                pytest.raises(errors.Compacted) as watched,
                client.watch("/k/", prefix=True, start_revision=oldest - 1) as watch,
            ):
                watch.next(timeout_seconds=5)
            assert read.value.compact_revision == watched.value.compact_revision == oldest, name
            with client.watch("/k/", prefix=True, start_revision=oldest) as watch:
                batch = watch.next(timeout_seconds=5)
                assert batch is not None and [event.value for event in batch.events] == [b"%d" % oldest]


def assent(cluster: ProcessCluster, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kvstore.cli", "--endpoints", ",".join(cluster.endpoints), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_the_past_is_compacted_alike_everywhere_and_kept_over_a_loss_of_all_processes(tmp_path: Path) -> None:
    newest = 501
    with (
        ProcessCluster(tmp_path, arguments=ARGUMENTS) as cluster,
        Client(cluster.endpoints, timeout_seconds=10) as client,
    ):
        for revision in range(2, newest + 1):
            client.put(f"/k/{revision % 3}", str(revision))
        oldest = oldest_revision(cluster)
        assert oldest > newest - KEPT - KEPT // 10
        check_every_node(cluster, oldest, newest)
        for name in cluster.names:
            cluster.kill(name)
        for name in cluster.names:
            cluster.start(name)
        cluster.wait_for_leader()
        assert oldest_revision(cluster) == oldest
        check_every_node(cluster, oldest, newest)

        by_command = newest - 5
        done = assent(cluster, "compact", str(by_command))
        assert (done.returncode, done.stdout) == (0, f"compacted {by_command}\n"), done.stderr
        assert oldest_revision(cluster) == by_command
        check_every_node(cluster, by_command, newest)
        again = assent(cluster, "compact", str(by_command))
        assert (again.returncode, again.stdout) == (8, "") and "compacted" in again.stderr
        shown = assent(cluster, "get", "--rev", str(by_command), f"/k/{by_command % 3}")
        assert shown.stdout == f"{by_command}\n"
        assert assent(cluster, "get", "--rev", str(by_command - 1), "/k/1").returncode == 8
        assert assent(cluster, "compact", str(newest + 1)).returncode == 10
