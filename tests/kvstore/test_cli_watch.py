"""The command line's watch."""

from __future__ import annotations

import json

import pytest

from kvstore.cli import exits
from kvstore.client import ClusterEvent, Event, KeyValue, WatchBatch
from tests.kvstore.fake_clients import FakeCluster, event
from tests.kvstore.test_cli import ENDPOINTS, run, status_of


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


def test_watch_writes_a_line_for_each_event(cluster: FakeCluster) -> None:
    cluster.batches = [
        WatchBatch(2, [event(0, b"/a", b"1", 2), event(0, b"/b", b"\xff", 2)]),
        WatchBatch(3, []),
        WatchBatch(4, [event(1, b"/a", b"", 4)]),
    ]
    shown = run(cluster, "watch", "--prefix", "/", "--rev", "2").stdout_bytes
    assert shown == b"2\tput\t/a\t1\n2\tput\t/b\t\xff\n4\tdelete\t/a\t\n"
    assert cluster.watched == (b"/", True, 2)


def test_watch_ends_after_so_many_events(cluster: FakeCluster) -> None:
    cluster.batches = [WatchBatch(2, [event(0, b"/a", b"1", 2), event(0, b"/b", b"2", 2)])]
    shown = run(cluster, "-w", "json", "watch", "/a", "--count", "1").stdout
    assert [json.loads(line)["type"] for line in shown.splitlines()] == ["put"]
    assert cluster.watched == (b"/a", False, 0)
    assert cluster.watch_options == {"previous": False, "puts": True, "deletes": True}


def test_watch_shows_what_was_there_before_and_filters(cluster: FakeCluster) -> None:
    before = KeyValue(b"/a", b"old", 2, 2, 1, 0)
    batches = [
        WatchBatch(3, [Event(0, b"/a", b"new", 2, 3, 2, 0, before), Event(0, b"/b", b"1", 3, 3, 1, 0)])
    ]
    cluster.batches = list(batches)
    shown = run(cluster, "watch", "--prefix", "/", "--previous", "--no-deletes").stdout_bytes
    assert shown == b"3\tput\t/a\tnew\told\n3\tput\t/b\t1\t\n"
    assert cluster.watch_options == {"previous": True, "puts": True, "deletes": False}
    cluster.batches = list(batches)
    lines = run(cluster, "-w", "json", "watch", "/a", "--previous", "--no-puts").stdout.splitlines()
    assert [json.loads(line)["previous"] for line in lines] == [
        {"key": "/a", "value": "old", "create_revision": 2, "mod_revision": 2, "version": 1, "lease": 0},
        None,
    ]
    assert cluster.watch_options == {"previous": True, "puts": False, "deletes": True}


def test_watch_of_the_cluster_writes_a_line_for_each_event(cluster: FakeCluster) -> None:
    events = [ClusterEvent("leader_lost", 3, ""), ClusterEvent("leader_elected", 4, "n2")]
    cluster.cluster_events = list(events)
    assert run(cluster, "watch", "--cluster").stdout == "3\tleader_lost\t\n4\tleader_elected\tn2\n"
    cluster.cluster_events = list(events)
    shown = run(cluster, "-w", "json", "watch", "--cluster", "--count", "1").stdout.splitlines()
    assert [json.loads(line) for line in shown] == [{"type": "leader_lost", "term": 3, "node": None}]


@pytest.mark.parametrize(
    "words", [[], ["--cluster", "/a"], ["--cluster", "--prefix"], ["--cluster", "--rev", "2"]]
)
def test_watch_is_of_a_key_or_of_the_cluster(cluster: FakeCluster, words: list[str]) -> None:
    assert run(cluster, "watch", *words, expect=exits.USAGE).stderr.startswith("Usage: ")


def test_status_in_json_tells_what_watchers_cost(cluster: FakeCluster) -> None:
    cluster.statuses = {ENDPOINTS[0]: status_of(1, "leader")._replace(watchers=3, memory_bytes=1 << 26)}
    [shown, *_] = json.loads(run(cluster, "-w", "json", "status").stdout)["nodes"]
    assert (shown["watchers"], shown["memory_bytes"]) == (3, 1 << 26)
