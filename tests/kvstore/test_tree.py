"""Trees as keys and back: equal in every bit, or refused with the place named."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.errors import TreeError
from kvstore.tree import Tree, decode_value, encode_value, flatten, rebuild


def keys(tree: Tree, prefix: str = "/") -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in flatten(tree, prefix)}


def same(one: Any, other: Any) -> bool:
    """Equal with equal types, so that 1, 1.0 and True are three things, and NaN is itself."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def test_a_configuration_becomes_readable_keys() -> None:
    tree: Tree = {
        "app": {"timeout": 30, "name": "shop", "debug": False, "ratio": 0.5, "owner": None},
        "servers": [{"host": "a", "port": 1}, {"host": "b", "port": 2}],
    }
    assert keys(tree, "/config/") == {
        "/config/app/timeout": "30",
        "/config/app/name": "shop",
        "/config/app/debug": "false",
        "/config/app/ratio": "0.5",
        "/config/app/owner": "null",
        "/config/servers/0/host": "a",
        "/config/servers/0/port": "1",
        "/config/servers/1/host": "b",
        "/config/servers/1/port": "2",
    }
    assert same(rebuild(flatten(tree, "config"), "/config"), tree)


@pytest.mark.parametrize(
    ("leaf", "text"),
    [
        ("plain", "plain"),
        ("", ""),
        ("1.10", "1.10"),
        ("2.36-9+deb12u4", "2.36-9+deb12u4"),
        (" 30", " 30"),
        ("yes", "yes"),
        ('say "hi"', 'say "hi"'),
        ('"quoted"', '"quoted"'),
        ("a\nb", "a\nb"),
        ("30", '"30"'),
        ("1.5", '"1.5"'),
        ("true", '"true"'),
        ("null", '"null"'),
        ("{}", '"{}"'),
        ("[]", '"[]"'),
        ("NaN", '"NaN"'),
        ('"30"', r'"\"30\""'),
        (30, "30"),
        (-7, "-7"),
        (10**40, "1" + "0" * 40),
        (1.0, "1.0"),
        (1e300, "1e+300"),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
        (True, "true"),
        (None, "null"),
        ({}, "{}"),
        ([], "[]"),
    ],
)
def test_a_leaf_is_kept_as_text_that_tells_its_type(leaf: Any, text: str) -> None:
    """Only strings that read exactly like something else need quotes."""
    assert encode_value(leaf) == text
    assert same(decode_value(text), leaf)


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.text(st.sampled_from('0123456789.-+eE"\\{}[]ntrufalse NIy\n'), max_size=8), st.text(max_size=8)
    )
)
def test_no_text_is_lost(text: str) -> None:
    """Whatever somebody has put by hand comes back as the same text after export and import."""
    assert encode_value(decode_value(text)) == text


@pytest.mark.parametrize(
    ("name", "segment"),
    [
        ("a/b", "a~1b"),
        ("~", "~"),
        ("~user", "~user"),
        ("~0", "~00"),
        ("~1", "~01"),
        ("~2", "~02"),
        ("~/", "~~1"),
        ("~~0", "~~00"),
        ("/", "~1"),
        ("", ""),
        ("ключ", "ключ"),
        ("0", "~20"),
        ("00", "00"),
        ("1", "1"),
    ],
)
def test_a_name_is_escaped_only_where_it_must_be(name: str, segment: str) -> None:
    tree: Tree = {"t": {name: "v"}}
    assert keys(tree) == {f"/t/{segment}": "v"}
    assert rebuild(flatten(tree)) == tree


def test_tables_and_lists_are_told_apart() -> None:
    tree: Tree = {
        "list": ["a", "b"],
        "table": {"1": "b", "0": "a"},
        "ports": {"80": "http", "443": "https"},
        "nested": [[], [[]], {}, [{}], {"0": {"0": []}}],
        "marked": {"~20": 1, "0": 2},
    }
    assert keys(tree)["/table/~20"] == "a"
    assert keys(tree)["/ports/80"] == "http"
    assert rebuild(flatten(tree)) == tree


def test_a_list_is_in_order_whatever_the_order_of_its_keys() -> None:
    tree: Tree = {"l": list(range(25))}
    assert rebuild(sorted(flatten(tree))) == tree
    assert rebuild(reversed(flatten(tree))) == tree


def test_what_is_left_of_a_list_after_a_delete_is_a_table() -> None:
    items = [item for item in flatten({"l": ["a", "b", "c"]}) if item[0] != b"/l/1"]
    assert rebuild(items) == {"l": {"0": "a", "2": "c"}}


def test_slashes_around_a_prefix_matter_nowhere() -> None:
    for prefix in ("/app", "app", "/app/", "app/"):
        assert flatten({"x": 1}, prefix) == [(b"/app/x", b"1")]
        assert rebuild([(b"/app/x", b"1")], prefix) == {"x": 1}
    for prefix in ("", "/", "//"):
        assert flatten({"x": 1}, prefix) == [(b"/x", b"1")]


def test_a_leaf_or_an_empty_tree_at_the_prefix_is_one_key() -> None:
    leaves: list[Tree] = [5, "text", {}, []]
    for leaf in leaves:
        [(key, _)] = flatten(leaf, "/a")
        assert key == b"/a"
        assert rebuild(flatten(leaf, "/a"), "/a") == leaf
    assert flatten({}, "/") == []
    assert rebuild([], "/") == {}
    assert rebuild([], "/a") == {}


def test_bytes_that_are_no_text_survive_export_and_import() -> None:
    items = [(b"/a/\xff\xfe", b"\x80binary"), (b"/a/b", "é".encode())]
    tree = json.loads(json.dumps(rebuild(items, "/a")))
    assert sorted(flatten(tree, "/a")) == sorted(items)


def test_toml_comes_back_as_it_was_but_for_its_dates() -> None:
    text = 'title = "x"\nwhen = 2024-05-06T07:08:09Z\nday = 2024-05-06\n[a.b]\nc = [1, 2.5, inf]\n'
    tree = tomllib.loads(text)
    expected = {**tree, "when": "2024-05-06T07:08:09+00:00", "day": "2024-05-06"}
    assert rebuild(flatten(tree)) == expected


@pytest.mark.parametrize(
    ("tree", "where"),
    [
        ({"a": {"b": b"bytes"}}, "/a/b"),
        ({"a": {1: 2}}, "/a"),
        ({"a": {"b"}}, "/a"),
        ({"a": 1j}, "/a"),
        ({"a": "\ud800"}, "/a"),
        ({"\udcc3\udca9": 1}, "udcc3"),
        ({"a": 10**5000}, "/a"),
        (5, "/"),
        ([], "/"),
        (None, "/"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_place(tree: Any, where: str) -> None:
    with pytest.raises(TreeError) as caught:
        flatten(tree)
    assert where in caught.value.where


@pytest.mark.parametrize(
    ("items", "where"),
    [
        ([(b"/a", b"1"), (b"/a/b", b"2")], "/a/b"),
        ([(b"/a/b", b"2"), (b"/a", b"1")], "/a"),
        ([(b"/a", b"{}"), (b"/a/b", b"2")], "/a/b"),
        ([(b"/a", b"null"), (b"/a/b", b"2")], "/a/b"),
        ([(b"a", b"1")], "a"),
        ([(b"/t/~0x", b"1")], "/t/~0x"),
        ([(b"/t/~2x", b"1")], "/t/~2x"),
    ],
)
def test_keys_that_are_no_tree_are_refused_never_changed(
    items: list[tuple[bytes, bytes]], where: str
) -> None:
    with pytest.raises(TreeError) as caught:
        rebuild(items)
    assert where in caught.value.where


def test_a_key_beside_the_prefix_is_refused() -> None:
    with pytest.raises(TreeError):
        rebuild([(b"/apple", b"1")], "/app")


def test_a_deep_tree_needs_no_deep_stack() -> None:
    tree: Tree = 1
    for _ in range(2000):
        tree = {"d": tree}
    again = rebuild(flatten(tree))
    for _ in range(2000):
        assert isinstance(again, dict)
        again = again["d"]
    assert again == 1


NAMES = st.one_of(
    st.text("~/012ab", max_size=4), st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text('0123456789."trué{}[]', max_size=6)
)
TREES = st.dictionaries(
    NAMES,
    st.recursive(
        LEAVES,
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=4)),
        max_leaves=20,
    ),
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(TREES, st.sampled_from(["/", "/app/config"]))
def test_any_tree_comes_back_equal_from_its_keys(tree: dict[str, Tree], prefix: str) -> None:
    items = flatten(tree, prefix)
    assert len(dict(items)) == len(items)
    assert same(rebuild(sorted(items), prefix), tree)


SEGMENTS = st.lists(st.text("~012/", max_size=3), min_size=1, max_size=3)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(SEGMENTS.map("/".join), st.sampled_from(["1", "x", "{}", '"1"']), max_size=5))
def test_any_keys_come_back_equal_or_are_refused(found: dict[str, str]) -> None:
    items = {f"/{path}".encode(): value.encode() for path, value in found.items()}
    try:
        tree = rebuild(items.items())
    except TreeError:
        return
    assert dict(flatten(tree)) == items
