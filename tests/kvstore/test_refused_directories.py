"""`assent node` on directories that it must not serve from: code, place and remedy, as documented."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from kvstore.cli import cli, exits
from kvstore.client import Client
from tests.kvstore.damaged import (
    DAMAGES,
    ENTRIES,
    Damage,
    bent_state,
    later_state,
    make_directory,
    state_at,
)
from tests.kvstore.test_cli_node import WAIT_SECONDS, Node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.stop()


def make(node: Node, damage: Damage | None = None) -> Path:
    data = Path(node.flags["--data-dir"])
    members = {"n1": node.flags["--cluster"].removeprefix("n1=")}
    compacted_at, snapshot_at = (0, 0) if damage is None else (damage.compacted_at, damage.snapshot_at)
    make_directory(data, members, compacted_at=compacted_at, snapshot_at=snapshot_at)
    return data


def test_the_directory_would_be_served_from_if_it_were_whole(node: Node) -> None:
    make(node)
    node.start()
    with Client(node.client, timeout_seconds=WAIT_SECONDS) as client:
        found = client.get(f"/key/{ENTRIES}")
    assert found is not None and found.value.startswith(b"value 24")


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_a_node_refuses_it_and_changes_nothing(node: Node, damage: Damage) -> None:
    data = make(node, damage)
    damage.do(data)
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file() and path.name != "lock"}
    code, said = node.refused()
    assert code == damage.code, said
    [sentence] = [line for line in said.splitlines() if line.startswith("assent: ")]
    assert damage.reason in sentence and damage.remedy in sentence
    assert re.search(rf"{re.escape(str(data))}\S*", sentence) and damage.file in sentence
    assert re.search(damage.where, sentence), sentence
    after = {path: path.read_bytes() for path in data.rglob("*") if path.is_file() and path.name != "lock"}
    assert after == before


@pytest.mark.parametrize("what", ["name", "cluster_token"])
def test_the_directory_of_another_node_or_cluster_is_named_with_what_to_do(node: Node, what: str) -> None:
    make(node)
    changed = {"name": {"name": "n2", "cluster": node.flags["--cluster"].replace("n1=", "n2=")}}
    code, said = node.refused(**changed.get(what, {what: "other"}))
    assert code == exits.DATA_DIRECTORY
    assert node.flags["--data-dir"] in said and "Give this node the directory" in said


def test_a_directory_without_its_identity_is_not_taken_over(node: Node) -> None:
    data = make(node)
    (data / "identity").unlink()
    code, said = node.refused()
    assert code == exits.DATA_DIRECTORY and "log is" in said and "remove this member" in said


@pytest.mark.parametrize(
    "content", [b"something else", state_at(9), bent_state(20)], ids=["no state", "another moment", "bent"]
)
def test_an_intact_snapshot_that_the_store_cannot_restore_is_named_with_what_to_do(
    node: Node, content: bytes
) -> None:
    """By a start, and by `wal check` in the same words."""
    data = Path(node.flags["--data-dir"])
    members = {"n1": node.flags["--cluster"].removeprefix("n1=")}
    make_directory(data, members, snapshot_at=20, content=content)
    code, said = node.refused()
    assert code == exits.CORRUPT
    [sentence] = [line for line in said.splitlines() if line.startswith("assent: ")]
    [snapshot] = (data / "wal").glob("snapshot-*")
    assert f"the snapshot {snapshot} is whole" in sentence and "remove this member" in sentence
    assert "log index 20: " in sentence and (content != state_at(9) or "ends at index 9" in sentence)
    checked = CliRunner().invoke(cli, ["wal", "check", str(data)])
    assert checked.exit_code == exits.CORRUPT and sentence in checked.stderr


def test_a_snapshot_with_content_of_a_later_version_is_left_for_that_version(node: Node) -> None:
    """As one node of a cluster finds it whose upgrade is taken back: nothing is wrong with its disk."""
    data = Path(node.flags["--data-dir"])
    members = {"n1": node.flags["--cluster"].removeprefix("n1=")}
    make_directory(data, members, snapshot_at=20, content=later_state(20))
    code, said = node.refused()
    assert code == exits.DATA_DIRECTORY
    [sentence] = [line for line in said.splitlines() if line.startswith("assent: ")]
    [snapshot] = (data / "wal").glob("snapshot-*")
    assert f"the content of {snapshot} (log index 20) has format version 4" in sentence
    assert "Start this node with the version of Assent that wrote it, or with a later one" in sentence
    assert "remove this member" not in sentence
