"""The command line on ranges and trees of keys, against a store in memory."""

from __future__ import annotations

import json

from tests.kvstore.fake_clients import FakeCluster
from tests.kvstore.test_cli import cluster as cluster, fill, run


def test_get_prefix_goes_through_all_pages_of_one_revision(cluster: FakeCluster) -> None:
    """Only what fitted into one answer was shown, and nobody was told."""
    names = [f"/a/{number}" for number in range(8)]
    fill(cluster, *names)
    cluster.before_page = lambda: cluster.records.clear()
    expected = "".join(f"{name}\n" for name in names)
    assert run(cluster, "get", "--prefix", "/a/", "--keys-only").stdout == expected
    fill(cluster, *names)
    shown = json.loads(run(cluster, "-w", "json", "get", "--prefix", "/a/").stdout)
    assert [item["key"] for item in shown["items"]] == names
    assert (shown["count"], shown["more"]) == (8, False)
    fill(cluster, *names)
    assert len(run(cluster, "-w", "table", "get", "--prefix", "/a/", "--limit", "7").stdout.splitlines()) == 8


def test_get_prefix_sorts_and_chooses(cluster: FakeCluster) -> None:
    fill(cluster, "/a/2", "/a/1")
    run(cluster, "get", "--prefix", "/a/", "--sort-by", "mod", "--order", "descending", "--min-mod-rev", "2")
    assert cluster.chosen == {"sort_by": "mod", "descending": True, "min_mod_revision": 2}
    run(cluster, "get", "--prefix", "/a/", "--max-create-rev", "7", "--order", "ascending")
    assert cluster.chosen == {"max_create_revision": 7}
    run(cluster, "get", "/a/1", "--sort-by", "key", expect=2)


def test_a_sorted_answer_that_was_cut_fails_after_what_there_is(cluster: FakeCluster) -> None:
    fill(cluster, "/a/2", "/a/1")
    cluster.is_cut = True
    result = run(cluster, "get", "--prefix", "/a/", "--sort-by", "mod", expect=10)
    assert result.stdout == "/a/1\tv/a/1\n/a/2\tv/a/2\n" and "only the first 2" in result.stderr
    run(cluster, "get", "--prefix", "/a/", "--sort-by", "mod", "--limit", "2")
