"""The command line and the past: get --rev and compact."""

from __future__ import annotations

import json

import pytest

from kvstore import errors
from kvstore.cli import exits
from tests.kvstore.fake_clients import FakeCluster
from tests.kvstore.test_cli import run


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
