"""The policy of compaction: what is kept at least, what is not worth a command, whose clock counts."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.compactor import PATIENCE_SECONDS, SAMPLES, Compactor, HistoryPolicy, KeptHistory
from kvstore.protocol import COMPACT

TICK_SECONDS = 0.25
OFF = HistoryPolicy(revisions=0, size_bytes=0, seconds=0)


class PretendedStore:
    """Revisions of a given size, and a history that forgets them; the clock, too."""

    def __init__(self) -> None:
        self.revision = 1
        self.oldest = 0
        self.sizes: list[int] = [0, 0]  # by revision
        self.is_sweeping = False
        self.seconds = 100.0
        self.revision_at: list[tuple[float, int]] = []  # what each tick saw
        self.commands: list[int] = []

    def look(self) -> KeptHistory:
        return KeptHistory(self.revision, self.oldest, sum(self.sizes[self.oldest + 1 :]), self.is_sweeping)

    def write(self, count: int, size_bytes: int = 100) -> None:
        self.revision += count
        self.sizes += [size_bytes] * count

    def tick(self, compactor: Compactor, *, is_lost: bool = False) -> None:
        """As the applier of a leader does it; a command is applied at once unless it gets lost."""
        self.seconds += TICK_SECONDS
        self.revision_at.append((self.seconds, self.revision))
        commands = [wanted(body) for body in compactor.due_commands(self.seconds)]
        assert len(commands) <= 1
        for revision in commands:
            assert self.oldest < revision <= self.revision, "the store would refuse it"
            if not is_lost:
                self.oldest = revision
        self.commands += commands

    def run(self, compactor: Compactor, seconds: float, *, per_tick: int = 0) -> None:
        for _ in range(round(seconds / TICK_SECONDS)):
            self.write(per_tick)
            self.tick(compactor)


def wanted(body: bytes) -> int:
    *header, revision = msgpack.unpackb(body)
    assert header == [0, 0, 0, COMPACT]
    assert isinstance(revision, int)
    return revision


def make(policy: HistoryPolicy) -> tuple[PretendedStore, Compactor]:
    store = PretendedStore()
    return store, Compactor(policy, store.look)


def test_without_any_bound_nothing_is_ever_forgotten() -> None:
    store, compactor = make(OFF)
    store.run(compactor, 600, per_tick=100)
    assert store.commands == []


def test_an_empty_store_wants_nothing() -> None:
    store, compactor = make(HistoryPolicy(1, 1, 1))
    store.run(compactor, 60)
    assert store.commands == []


def test_so_many_revisions_are_kept_and_a_tenth_more_is_worth_a_command() -> None:
    store, compactor = make(OFF._replace(revisions=1000))
    store.write(1098)  # with the first one 1099 revisions
    store.tick(compactor)
    assert store.commands == []
    store.write(1)
    store.tick(compactor)
    assert store.commands == [101]  # 101 to 1100 can be read
    store.write(99)
    store.tick(compactor)
    assert store.commands == [101]
    store.write(1)
    store.tick(compactor)
    assert store.commands == [101, 201]


def test_one_revision_may_be_all_that_is_kept() -> None:
    store, compactor = make(OFF._replace(revisions=1))
    store.write(5)
    store.tick(compactor)
    store.tick(compactor)
    assert store.commands == [6]


def test_so_many_bytes_are_kept_and_a_tenth_more_is_worth_a_command() -> None:
    store, compactor = make(OFF._replace(size_bytes=10_000))
    store.write(109)
    store.tick(compactor)
    assert store.commands == []
    store.write(1)
    store.tick(compactor)
    assert store.look().size_bytes == 10_000
    assert len(store.commands) == 1


@pytest.mark.parametrize(
    "sizes", [[1] * 900 + [1000] * 100, [1000] * 100 + [1] * 900, [200_000], [0, 200_000]]
)
def test_revisions_of_very_different_size_come_within_the_bound_in_a_few_steps(sizes: list[int]) -> None:
    store, compactor = make(OFF._replace(size_bytes=10_000))
    for size_bytes in sizes:
        store.write(1, size_bytes)
    for _ in range(40):
        store.tick(compactor)
    assert store.look().size_bytes < 11_000
    assert store.oldest <= store.revision


def test_what_is_forgotten_and_not_given_back_yet_asks_for_no_further_command() -> None:
    """Else the size, which falls little by little, would make it forget more and more."""
    store, compactor = make(OFF._replace(size_bytes=10_000))
    store.write(1000)
    store.is_sweeping = True
    store.run(compactor, 60)
    assert store.commands == []
    store.is_sweeping = False
    store.tick(compactor)
    assert len(store.commands) == 1


def test_the_bound_that_is_reached_first_counts() -> None:
    store, compactor = make(HistoryPolicy(revisions=100, size_bytes=1 << 30, seconds=3600))
    store.run(compactor, 60, per_tick=10)
    assert store.revision - store.oldest < 110
    store, compactor = make(HistoryPolicy(revisions=1 << 30, size_bytes=5_000, seconds=3600))
    store.run(compactor, 60, per_tick=10)
    assert store.look().size_bytes < 5_500 + 1000


def test_what_is_older_than_the_time_is_forgotten_and_nothing_younger() -> None:
    store, compactor = make(OFF._replace(seconds=60))
    store.run(compactor, 59, per_tick=10)
    assert store.commands == []
    store.run(compactor, 600, per_tick=10)
    assert store.commands
    for seconds, revision in store.revision_at:
        if store.seconds - seconds <= 60:
            assert revision >= store.oldest, "a moment within the time cannot be read any more"
    # A tenth of the time may wait for the next command, and a sample is not taken at each tick.
    slack_seconds = 60 / 10 + 60 / SAMPLES + 2 * TICK_SECONDS
    too_old = [
        revision for seconds, revision in store.revision_at if store.seconds - seconds > 60 + slack_seconds
    ]
    assert max(too_old) <= store.oldest
    assert len(store.commands) <= 600 / 6 + 1


def test_after_the_last_write_all_of_the_past_goes_once_it_is_old_enough() -> None:
    store, compactor = make(OFF._replace(seconds=60))
    store.run(compactor, 5, per_tick=10)
    last = store.revision
    store.run(compactor, 120)
    assert store.oldest == last
    store.run(compactor, 600)
    assert store.commands[-1] == last and len(store.commands) < 15


def test_a_new_leader_has_not_seen_the_time_pass_and_keeps_longer_never_shorter() -> None:
    store, compactor = make(OFF._replace(seconds=60))
    store.run(compactor, 50, per_tick=10)
    successor = Compactor(OFF._replace(seconds=60), store.look)
    elected_at, seen_then = store.seconds, store.revision
    store.run(successor, 60, per_tick=10)
    assert store.commands == []
    store.run(successor, 10, per_tick=10)
    assert seen_then <= store.oldest < store.revision
    assert store.seconds - elected_at > 60


def test_who_leads_again_relies_only_on_what_it_saw_itself() -> None:
    """What it saw in its earlier term is true still: what was current then is older than that."""
    store, compactor = make(OFF._replace(seconds=60))
    store.run(compactor, 10, per_tick=10)
    seen = store.revision
    store.seconds += 300  # another leads, whose writes it applied
    store.write(5000)
    store.tick(compactor)
    assert store.oldest <= seen
    store.run(compactor, 59, per_tick=10)
    assert store.oldest <= seen


def test_memory_of_the_time_is_bounded() -> None:
    store, compactor = make(OFF._replace(seconds=30 * 86_400))
    for _ in range(5000):
        store.seconds += 3600
        store.write(1)
        compactor.due_commands(store.seconds)
    assert len(compactor._samples) <= SAMPLES + 2


def test_a_command_that_was_lost_is_wanted_again_and_not_at_each_tick() -> None:
    store, compactor = make(OFF._replace(revisions=100))
    store.write(500)
    ticks = round(10 / TICK_SECONDS)
    for _ in range(ticks):
        store.write(10)
        store.tick(compactor, is_lost=True)
    assert len(store.commands) == 10 / PATIENCE_SECONDS
    store.seconds += PATIENCE_SECONDS
    store.tick(compactor)
    assert store.oldest == store.revision - 99


def test_what_somebody_else_compacted_counts() -> None:
    store, compactor = make(HistoryPolicy(revisions=100, size_bytes=10_000, seconds=10))
    store.write(5000)
    store.oldest = store.revision
    store.run(compactor, 60)
    assert store.commands == []


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 500), st.booleans()), max_size=60),
    st.sampled_from([0, 1, 7, 100]),
    st.sampled_from([0, 1, 1000, 20_000]),
    st.sampled_from([0, 1, 3]),
)
def test_never_less_is_kept_than_the_bounds_say_and_no_command_is_refused(
    steps: list[tuple[int, int, bool]], revisions: int, size_bytes: int, seconds: int
) -> None:
    store, compactor = make(HistoryPolicy(revisions, size_bytes, seconds))
    for count, size, is_lost in steps:
        store.write(count, size)
        before = store.oldest
        store.tick(compactor, is_lost=is_lost)
        if store.oldest > before:
            by_count = revisions and store.oldest <= store.revision - revisions + 1
            by_size = size_bytes and sum(store.sizes[before + 1 :]) >= size_bytes
            by_time = seconds and any(
                store.seconds - at >= seconds and revision >= store.oldest
                for at, revision in store.revision_at
            )
            assert by_count or by_size or by_time
