"""The state machine against a plain model that keeps every revision whole: any operations, in any order."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.store import Store
from tests.kvstore.model_kinds import KINDS, NAMES, Pair

LEAST_KINDS = 40
# The model would prove little if these were never met.
EXPECTED_CODES = {
    "ok",
    "bad_request",
    "session_expired",
    "sequence_forgotten",
    "compacted",
    "future_revision",
    "key_not_found",
    "value_provided",
    "lease_provided",
    "lease_not_found",
    "lease_exists",
    "lease_ttl_too_large",
    "duplicate_key",
}

STEPS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.randoms(use_true_random=False, note_method_calls=True)),
    max_size=50,
)


def test_there_are_kinds_enough() -> None:
    assert len(KINDS) >= LEAST_KINDS


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_any_operations_have_the_results_of_a_plain_model(steps: list[tuple[str, Random]]) -> None:
    """Histories, compactions, retries and restored snapshots included."""
    pair = Pair()
    for name, chance in steps:
        KINDS[name](pair, chance)
    pair.check()


def played(seed: int, length: int) -> tuple[Pair, Counter[str]]:
    """A long story from a seed, with every kind in it."""
    chance, pair, kinds = Random(seed), Pair(), Counter[str]()
    for _ in range(length):
        name = chance.choice(NAMES)
        kinds[name] += 1
        KINDS[name](pair, chance)
    pair.check()
    return pair, kinds


@pytest.mark.parametrize("seed", range(4))
def test_long_stories_have_the_results_of_a_plain_model_and_meet_everything(seed: int) -> None:
    pair, kinds = played(seed, 1500)
    assert kinds.keys() == KINDS.keys()
    assert pair.codes.keys() >= EXPECTED_CODES
    assert pair.model.revision > 200 and pair.model.compact_revision > 100


def test_the_comparison_finds_a_version_that_does_not_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that was deleted and put again: its version is 1, whatever it was."""
    create = Store._create

    def with_memory(store: Store, key: bytes, value: bytes, lease: int) -> object:
        record = create(store, key, value, lease)
        return (*record[:4], 1 + len(store._older.get(key, ())), record[5])

    monkeypatch.setattr(Store, "_create", with_memory)
    with pytest.raises(AssertionError, match="instead of"):
        played(1, 1500)
