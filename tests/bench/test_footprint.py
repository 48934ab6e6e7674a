"""The footprint of a node: what etcd is filled with, which figures are judged, and a small run."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from bench import filling, footprint
from bench.filling import key_of
from bench.footprint import Footprint
from bench.harness import exit_code, keep_bytecode
from bench.peers.etcd_load import KEY, NO_KEY, request_body
from bench.restart import PATIENCE_SECONDS

MIB = 2**20


def test_etcd_is_given_every_key_once_in_transactions_that_it_takes() -> None:
    puts = []
    for transaction in footprint.transactions(300, 100):
        operations = json.loads(json.dumps(transaction))["success"]
        assert 1 <= len(operations) <= footprint.PUTS_IN_TRANSACTION
        puts += [operation["requestPut"] for operation in operations]
    assert [base64.b64decode(put["key"]) for put in puts] == [key_of(number, 300) for number in range(300)]
    assert {len(base64.b64decode(put["value"])) for put in puts} == {100}


@pytest.mark.parametrize(
    ("ours", "code"),
    [
        (Footprint(90, 90, 2.0, 900, 70), 0),
        (Footprint(91, 90, 2.0, 900, 70), 1),
        (Footprint(90, 91, 2.0, 900, 70), 1),
        (Footprint(90, 90, 2.1, 900, 70), 1),
        (Footprint(90, 90, 2.0, 900, 71), 1),
    ],
)
def test_medians_are_judged_beside_etcd_except_for_the_disk_before_a_compaction(
    ours: Footprint, code: int
) -> None:
    theirs = Footprint(100, 100, 1.0, 100, 100)
    outlier = Footprint(1 << 40, 1 << 40, 1e9, 1 << 40, 1 << 40)
    rounds = [_mebibytes(each) for each in (Footprint(1, 1, 0.1, 1, 1), ours, outlier)]
    rows = footprint.rows_of(rounds, [_mebibytes(theirs)], "etcd 3.5.1")
    assert exit_code(rows) == code
    assert rows[0].value == ours.memory and rows[0].ratio == ours.memory / 100
    assert exit_code(footprint.rows_of(rounds, [], None)) == 0


def _mebibytes(each: Footprint) -> Footprint:
    sizes = (each.memory * MIB, each.memory_restarted * MIB)
    return Footprint(*sizes, each.restart_seconds, each.disk * MIB, each.disk_compacted * MIB)


def test_a_small_node_has_a_footprint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(filling, "QUIET_SECONDS", 0.2)
    found = footprint.assent_footprint(tmp_path, 50, 10)
    assert min(found.memory, found.memory_restarted) > 1 * MIB
    assert 0 < found.restart_seconds < PATIENCE_SECONDS
    assert list((tmp_path / "nodes" / "n1" / "wal").glob("snapshot-*"))
    assert min(found.disk, found.disk_compacted) > 0


def test_nodes_may_keep_what_was_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    keep_bytecode()
    keep_bytecode()
    assert "PYTHONDONTWRITEBYTECODE" not in os.environ


def test_what_lengthens_the_log_of_etcd_deletes_a_key_that_nobody_writes() -> None:
    message = request_body("nothing", 0)[5:]
    assert message == bytes([0x0A, len(NO_KEY)]) + NO_KEY
    assert NO_KEY != KEY and NO_KEY not in (key_of(1, keys) for keys in (10, 10**6, 10**7))
