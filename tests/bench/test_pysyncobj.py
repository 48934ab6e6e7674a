"""PySyncObj beside Assent: how its load keeps its window, who of its replicas counts, and what is judged."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench import pysyncobj, run
from bench.harness import exit_code
from bench.peers import pysyncobj_load
from bench.peers.etcd_load import EtcdLoadResult

FIGURES = {"ops_per_second": 5.0, "p50_ms": 1.0, "p99_ms": 2.0, "p999_ms": 3.0, "errors": 0}

# A package of the same name: the replica of the lowest port leads, and every put is done at once.
REPLICA = """
class SyncObj:
    def __init__(self, me, others, consumers):
        self.otherNodes = others
        self.leader = min([me, *others])
        self.leads = me == self.leader
    def isReady(self): return True
    def _getLeader(self): return self.leader
    def _isLeader(self): return self.leads
    def isNodeConnected(self, node): return True
    def destroy(self): pass
"""
STORE = """
class ReplDict:
    def set(self, key, value, callback): callback(None, 0)
"""


class SlowStore:
    """Answers the oldest put only when the window is full, or when nobody asks for more."""

    def __init__(self, outstanding: int, failing: int) -> None:
        self.waiting: list[Callable[[None, int], None]] = []
        self.most = 0
        self._outstanding = outstanding
        self._failing = failing

    def set(self, key: str, value: str, callback: Callable[[None, int], None]) -> None:
        self.waiting.append(callback)
        self.most = max(self.most, len(self.waiting))
        if len(self.waiting) == self._outstanding:
            while self.waiting:
                self._failing -= 1
                self.waiting.pop(0)(None, int(self._failing >= 0))


def test_the_window_is_full_and_never_more_and_a_failed_put_is_an_error() -> None:
    store = SlowStore(outstanding=8, failing=3)
    figures = pysyncobj_load.load(store, 100, 8)
    assert (store.most, store.waiting, figures["errors"]) == (8, [], 3)
    assert figures["ops_per_second"] > 0 and figures["p50_ms"] <= figures["p99_ms"]


@pytest.fixture
def interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    package = tmp_path / "modules" / "pysyncobj"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(REPLICA)
    (package / "batteries.py").write_text(STORE)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    yield Path(sys.executable)


def test_the_one_that_leads_makes_the_puts(interpreter: Path, tmp_path: Path) -> None:
    work = run.Workload("put", 2, 2, 1_000)
    with pysyncobj.pysyncobj_side(interpreter)(tmp_path) as measure:
        assert [measure(work).errors, measure(work).errors] == [0, 0]
        assert measure(work).ops_per_second > 0


def test_figures_are_of_exactly_one_replica() -> None:
    told = json.dumps(FIGURES)
    assert pysyncobj.led(["null\n", told, "null\n"]).p99_ms == 2.0
    for answers in (["null", "null", "null"], [told, told, "null"], [told, "null", ""]):
        with pytest.raises(pysyncobj.PySyncObjFailed):
            pysyncobj.led(answers)


def test_an_interpreter_without_it_is_passed_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 0.3.17\n")
    python.chmod(0o755)
    monkeypatch.setenv("PYSYNCOBJ_PYTHON", str(python))
    assert pysyncobj.find_pysyncobj() == (python, "PySyncObj 0.3.17")
    python.write_text("#!/bin/sh\nexit 1\n")
    assert pysyncobj.find_pysyncobj() is None
    monkeypatch.setenv("PYSYNCOBJ_PYTHON", str(tmp_path / "nowhere"))
    assert pysyncobj.find_pysyncobj() is None


@pytest.mark.parametrize(("rate", "code"), [(100.0, 0), (99.0, 1)])
def test_only_the_rate_is_judged_and_only_beside_the_peer(rate: float, code: int) -> None:
    ours = [EtcdLoadResult(each, 9.0, 9.0, 9.0, 9.0, 1, 0) for each in (1.0, rate, 900.0)]
    theirs = [pysyncobj.PySyncObjResult(**FIGURES)]  # type: ignore[arg-type]
    rows = pysyncobj.rows_of({"assent": ours, "pysyncobj": theirs}, "PySyncObj 0.3.17")
    assert rows[0].name == "put 16x16 beside PySyncObj"
    assert exit_code(rows) == code
    assert exit_code(pysyncobj.rows_of({"assent": ours}, None)) == 0
