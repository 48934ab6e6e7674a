"""One log, one state: whoever applies it, in whatever process, and however often it went through a snapshot.

The logs are those which the kinds of model_operations.py write: every command there is, retries and nonsense
included. After every entry the results, the fingerprint and the digest of all replicated state are compared.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from random import Random

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore import protocol
from kvstore.state_machine import StoreMachine
from tests.kvstore.model_kinds import EVERYTHING, KINDS, NAMES, Pair, new_machine, restored
from tests.project.tree import ROOT

State = tuple[str, int, str]  # result, fingerprint and digest behind one entry


def state_behind(machine: StoreMachine, body: bytes | None) -> State:
    [result] = machine.apply(machine.applied_index + 1, [body])
    return ("" if result is None else result.hex(), machine.fingerprint(), machine.digest().hex())


def states_of(log: Sequence[bytes | None], chance: Random | None) -> list[State]:
    """Behind each entry of the log. With a source of chance, the machine is replaced by its snapshot now and
    then, tidies its memory, and is asked for what nobody needs: none of that may show."""
    machine, states = new_machine(), []
    for body in log:
        if chance is not None and chance.random() < 0.2:
            machine = restored(list(machine.snapshot()), chance)
        if chance is not None and chance.random() < 0.2:
            machine.tidy()
            machine.query([msgpack.packb([protocol.RANGE, *EVERYTHING, 0, 0, 0])])
        states.append(state_behind(machine, body))
    return states


def check_equal(one: list[State], other: list[State]) -> None:
    assert len(one) == len(other)
    for index, (left, right) in enumerate(zip(one, other), 1):
        assert left == right, f"the replicas differ behind entry {index}"


def played(seed: int, length: int, names: Sequence[str] = NAMES) -> Pair:
    pair, chance = Pair(), Random(seed)
    for _ in range(length):
        KINDS[chance.choice(names)](pair, chance)
    return pair


def log_of(seed: int, length: int) -> list[bytes | None]:
    return played(seed, length).log


STEPS = st.lists(st.tuples(st.sampled_from(NAMES), st.randoms(use_true_random=False)), max_size=40)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.randoms(use_true_random=False))
def test_g14_a_replica_that_is_restored_at_random_points_is_the_same_after_every_entry(
    steps: list[tuple[str, Random]], chance: Random
) -> None:
    pair = Pair()
    for name, drawn in steps:
        KINDS[name](pair, drawn)
    check_equal(states_of(pair.log, None), states_of(pair.log, chance))


@pytest.mark.parametrize("seed", range(3))
def test_g14_so_it_is_with_a_long_log(seed: int) -> None:
    log = log_of(seed, 500)
    assert len(log) > 150
    check_equal(states_of(log, None), states_of(log, Random(seed)))


@pytest.mark.parametrize("seed", range(3))
def test_g14_in_whatever_pieces_it_is_applied_it_is_the_same(seed: int) -> None:
    """The time may be up behind any command but a put, at another one on each node."""
    log, chance = log_of(seed, 500), Random(seed)
    whole, in_pieces = new_machine(), new_machine()
    results: list[bytes | None] = []
    shortened = 0
    while len(results) < len(log):
        piece = log[len(results) : len(results) + chance.randint(1, 64)]
        some = in_pieces.apply_some(len(results) + 1, piece, is_time_up=lambda: chance.random() < 0.3)
        assert 1 <= len(some) <= len(piece)
        shortened += len(some) < len(piece)
        results += some
    assert shortened > 5
    assert results == whole.apply(1, log)
    assert (in_pieces.fingerprint(), in_pieces.digest()) == (whole.fingerprint(), whole.digest())


SCRIPT = """
import sys, msgpack
from random import Random
from tests.kvstore.test_determinism import states_of
log = msgpack.unpackb(sys.stdin.buffer.read())
sys.stdout.buffer.write(msgpack.packb(states_of(log, Random(5))))
"""


def states_elsewhere(log: Sequence[bytes | None], hash_seed: str) -> list[State]:
    """In a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=msgpack.packb(log),
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        cwd=ROOT,
        capture_output=True,
        timeout=120,
        check=True,
    )
    return [tuple(state) for state in msgpack.unpackb(done.stdout)]


@pytest.mark.parametrize("hash_seed", ["1", "4711"])
def test_g14_so_it_is_in_processes_with_other_hashes(hash_seed: str) -> None:
    """The order of a set, and hash() of anything, show nowhere."""
    log = log_of(11, 300)
    check_equal(states_of(log, None), states_elsewhere(log, hash_seed))


def test_g3_the_same_sessions_end_in_every_process() -> None:
    """Those that make room for others go by the log alone, not by anything that a process has of its own."""
    pair = played(3, 200, ["open_session", "open_session", "put", "put", "retry"])
    assert pair.codes["session_expired"] > 20, "none had to make room"
    check_equal(states_of(pair.log, None), states_elsewhere(pair.log, "4711"))


def test_a_state_that_a_snapshot_does_not_carry_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it would be with sessions that are not part of it."""
    snapshot = StoreMachine.snapshot

    def without_sessions(machine: StoreMachine) -> object:
        machine._sessions, kept = machine._sessions.empty(), machine._sessions
        pieces = list(snapshot(machine))
        machine._sessions = kept
        return iter(pieces)

    log = log_of(1, 200)
    plain = states_of(log, None)
    monkeypatch.setattr(StoreMachine, "snapshot", without_sessions)
    with pytest.raises(AssertionError, match="the replicas differ"):
        check_equal(plain, states_of(log, Random(1)))
