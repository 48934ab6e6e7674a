"""The command line and the past: get --rev and compact."""

from __future__ import annotations

import json

import pytest

from kvstore import errors
from kvstore.cli import exits
from tests.kvstore.fake_clients import FakeCluster
from tests.kvstore.test_cli import ENDPOINTS, run, status_of


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


def test_get_of_a_past_revision(cluster: FakeCluster) -> None:
    run(cluster, "put", "/a", "old")
    cluster.past[2] = dict(cluster.records)
    run(cluster, "put", "/a", "new")
    run(cluster, "put", "/b", "later")
    assert run(cluster, "get", "/a", "--rev", "2").stdout == "old\n"
    assert run(cluster, "get", "--prefix", "/", "--rev", "2").stdout == "/a\told\n"
    assert run(cluster, "get", "/a").stdout == "new\n"
    run(cluster, "get", "/b", "--rev", "2", expect=exits.KEY_NOT_FOUND)
    run(cluster, "get", "/a", "--rev", "0", expect=exits.USAGE)


def test_compact_names_the_revision(cluster: FakeCluster) -> None:
    run(cluster, "put", "/a", "1")
    assert run(cluster, "compact", "2").stdout == "compacted 2\n"
    assert json.loads(run(cluster, "compact", "2", "-w", "json").stdout) == {
        "revision": 2,
        "compact_revision": 2,
    }
    assert cluster.compacted == [2, 2]
    for nonsense in ("0", "-1", "x", ""):
        run(cluster, "compact", nonsense, expect=exits.USAGE)


def test_a_revision_that_is_gone_or_not_there_yet_has_its_code(cluster: FakeCluster) -> None:
    cluster.failure = errors.Compacted("required revision has been compacted", 9)
    assert "compacted" in run(cluster, "compact", "3", expect=exits.COMPACTED).stderr
    run(cluster, "get", "/a", "--rev", "3", expect=exits.COMPACTED)
    cluster.failure = errors.FutureRevision("required revision is a future revision", 9)
    assert "future" in run(cluster, "compact", "30", expect=exits.REFUSED).stderr


def test_compact_log_has_every_node_take_a_snapshot(cluster: FakeCluster) -> None:
    for number, endpoint in enumerate(ENDPOINTS, 1):
        cluster.statuses[endpoint] = status_of(number, "follower")
    shown = run(cluster, "compact", "--log").stdout.splitlines()
    assert cluster.snapshots == ["n1", "n2", "n3"] and cluster.compacted == []
    assert [line.split()[0] for line in shown] == cluster.snapshots
    told = json.loads(run(cluster, "compact", "2", "--log", "--node", "n2", "-w", "json").stdout)
    assert cluster.snapshots[3:] == ["n2"] and cluster.compacted == [2], "first the history, then the log"
    [log] = told["logs"]
    assert (log["node"], log["snapshot_bytes"], told["compact_revision"]) == ("n2", 1000, 2)


def test_a_node_whose_log_is_not_compacted_is_named_and_the_others_are_done(cluster: FakeCluster) -> None:
    """Compacting logs: one node is gone, and one is fenced."""
    cluster.statuses[ENDPOINTS[0]] = None
    cluster.statuses[ENDPOINTS[1]] = status_of(2, "follower")._replace(fenced={"reason": "another state"})
    cluster.statuses[ENDPOINTS[2]] = status_of(3, "leader")
    result = run(cluster, "compact", "--log", expect=exits.UNREACHABLE)
    assert cluster.snapshots == ["n3"]
    assert "n2 is fenced" in result.stderr and ENDPOINTS[0] in result.stderr
    run(cluster, "compact", "--log", "--node", "n2", expect=exits.NO_LEADER)


def test_what_to_compact_must_be_said(cluster: FakeCluster) -> None:
    cluster.statuses[ENDPOINTS[0]] = status_of(1, "leader")
    for words in ((), ("--node", "n1"), ("2", "--node", "n1"), ("--log", "--node", "n9")):
        run(cluster, "compact", *words, expect=exits.USAGE)
    assert not cluster.snapshots and not cluster.compacted
