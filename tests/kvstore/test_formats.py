"""Trees as JSON and TOML: what is written is read back as the same tree, whatever the tree."""

from __future__ import annotations

import json
import math
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.cli import formats
from kvstore.errors import TreeError
from kvstore.tree import Tree, flatten, rebuild

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = st.one_of(TEXT, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False))
TREES = st.dictionaries(
    TEXT,
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=12,
    ),
    max_size=4,
)


@settings(max_examples=300, deadline=None)
@given(TREES)
def test_any_tree_without_null_survives_toml(tree: Tree) -> None:
    text = formats.dump(tree, "toml").decode()
    assert formats.parse(text, "toml") == tree
    assert tomllib.loads(text) == tree


@settings(max_examples=200, deadline=None)
@given(TREES)
def test_any_tree_survives_json(tree: Tree) -> None:
    assert formats.parse(formats.dump(tree, "json").decode(), "json") == tree


@settings(max_examples=200, deadline=None)
@given(TREES, st.sampled_from(formats.FORMATS))
def test_file_to_keys_to_file(tree: Tree, format_name: str) -> None:
    read = formats.parse(formats.dump(tree, format_name).decode(), format_name)
    assert rebuild(flatten(read, "/p"), "/p") == tree


def test_toml_is_written_as_a_person_would() -> None:
    tree: Tree = {
        "debug": False,
        "db": {"host": "a", "pool": {"size": 3}, "empty": {}},
        "only": {"below": {"x": 1}},
    }
    assert formats.dump(tree, "toml").decode() == (
        'debug = false\n\n[db]\nhost = "a"\n\n[db.pool]\nsize = 3\n\n[db.empty]\n\n[only.below]\nx = 1\n'
    )


def test_numbers_that_are_none_in_json_survive_both() -> None:
    for format_name in formats.FORMATS:
        again = formats.parse(
            formats.dump({"a": math.inf, "b": -math.inf, "c": math.nan}, format_name).decode(), format_name
        )
        assert isinstance(again, dict)
        assert (again["a"], again["b"]) == (math.inf, -math.inf) and again["c"] != again["c"]


def test_bytes_that_are_not_utf8_survive_json_and_are_refused_by_toml() -> None:
    tree = rebuild([(b"/p/a", b"\xff")], "/p")
    again = formats.parse(formats.dump(tree, "json").decode(), "json")
    assert flatten(again, "/p") == [(b"/p/a", b"\xff")]
    with pytest.raises(TreeError, match="not UTF-8"):
        formats.dump(tree, "toml")


@pytest.mark.parametrize("tree", [1, "text", ["list"], None])
def test_toml_has_a_table_at_its_root(tree: Tree) -> None:
    assert json.loads(formats.dump(tree, "json")) == tree
    with pytest.raises(TreeError, match="a table at its root"):
        formats.dump(tree, "toml")
