"""The command line on ranges and trees of keys, against a store in memory."""

from __future__ import annotations

import json

from kvstore.client import WatchBatch
from tests.kvstore.fake_clients import FakeCluster, event
from tests.kvstore.test_cli import cluster as cluster
from tests.kvstore.test_cli import fill, run


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


def test_ls_shows_the_names_right_below_a_path(cluster: FakeCluster) -> None:
    fill(cluster, "/a/b", "/a/b/c", "/a/d", "/a/e/f", "/a/g", "/x")
    assert run(cluster, "ls", "/a").stdout == "b/\nd\ne/\ng\n"
    assert cluster.asked_revisions == [0, 7], "the second page is of the revision of the first"
    assert run(cluster, "ls").stdout == "a/\nx\n"
    assert run(cluster, "ls", "a/e/").stdout == "f\n"
    assert run(cluster, "ls", "/none").stdout == ""
    shown = json.loads(run(cluster, "-w", "json", "ls", "/a/e").stdout)
    assert shown == {"revision": 7, "items": [{"name": "f", "has_value": True, "has_children": False}]}
    table = run(cluster, "-w", "table", "ls", "/a").stdout.splitlines()
    assert [line.split() for line in table[:3]] == [
        ["NAME", "VALUE", "BELOW"], ["b", "yes", "yes"], ["d", "yes", "-"]
    ]  # fmt: skip
    cluster.past[3] = {b"/a/b": cluster.records[b"/a/b"]}
    assert run(cluster, "ls", "/a", "--rev", "3").stdout == "b\n"


def test_tree_shows_each_name_once_below_its_parent(cluster: FakeCluster) -> None:
    """The key of b-c comes between that of b and what is below b."""
    fill(cluster, "/a", "/a/b", "/a/b-c", "/a/b/d", "/a/e/f", "/ab")
    assert run(cluster, "tree", "/a").stdout == "/a\n  b\n    d\n  b-c\n  e\n    f\n"
    assert run(cluster, "tree", "a/e/", "--values").stdout == "f\tv/a/e/f\n"
    assert run(cluster, "tree").stdout.splitlines()[0] == "a"
    assert run(cluster, "tree", "/none").stdout == ""
    shown = json.loads(run(cluster, "-w", "json", "tree", "/a/e").stdout)
    assert shown == {"path": "/a/e", "items": [{"path": "/a/e/f", "depth": 0, "has_value": True}]}


def test_del_recursive_takes_a_path_and_not_the_root(cluster: FakeCluster) -> None:
    fill(cluster, "/a", "/a/b", "/a/b/c", "/ab", "/a-b")
    assert run(cluster, "del", "--recursive", "/a/").stdout == "deleted 3\n"
    assert sorted(cluster.records) == [b"/a-b", b"/ab"]
    shown = json.loads(run(cluster, "-w", "json", "del", "--recursive", "/ab").stdout)
    assert shown == {"revision": 8, "deleted": 1, "pieces": 1}
    for root in ("", "/", "//"):
        assert "everything" in run(cluster, "del", "--recursive", root, expect=5).stderr
    run(cluster, "del", "--recursive", "--prefix", "/a", expect=2)
    assert sorted(cluster.records) == [b"/a-b"]


def test_watch_recursive_follows_a_path(cluster: FakeCluster) -> None:
    cluster.batches = [WatchBatch(7, [event(0, b"/a/b", b"1", 7)])]
    assert run(cluster, "watch", "--recursive", "/a", "--rev", "3").stdout == "7\tput\t/a/b\t1\n"
    assert cluster.watched_tree == (b"/a", 3)
    run(cluster, "watch", "--recursive", "--prefix", "/a", expect=2)
