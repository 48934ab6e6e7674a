"""The same seed is the same run, to the byte: or a failing seed could not be replayed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

from tests.project.tree import ROOT
from tests.simulator.run import run_seed

SEED, SECONDS = 11, 3.0


def test_a_seed_has_one_trace() -> None:
    first = run_seed(SEED, SECONDS, keep_trace=True)
    second = run_seed(SEED, SECONDS, keep_trace=True)
    assert len(first.lines) > 500
    assert first.lines == second.lines
    assert first.counts == second.counts


def test_the_trace_changes_nothing_about_the_run() -> None:
    with_trace = run_seed(SEED, SECONDS, keep_trace=True)
    without = run_seed(SEED, SECONDS)
    assert with_trace.counts == without.counts
    assert not without.lines


def test_another_seed_is_another_run() -> None:
    assert run_seed(1, SECONDS).swarm != run_seed(2, SECONDS).swarm


def test_the_order_of_sets_and_hashes_does_not_matter() -> None:
    """Each process of Python orders its sets of strings differently, unless it is told how."""
    digests = set()
    for hash_seed in ("0", "4711"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.simulator", "--seed", str(SEED), "--seconds", "3", "--trace"],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        assert done.stdout.count(b"\n") > 500
        digests.add(hashlib.sha256(done.stdout).hexdigest())
    assert len(digests) == 1
