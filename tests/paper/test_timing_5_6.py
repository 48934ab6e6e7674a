"""Raft §5.6 and §9.3: timing. Without randomness elections may repeat; with it, and room, they are short."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import accumulate, pairwise

from actors import Actor, Address, Codec, ManualClock, MemoryNetwork, System
from bench.elections import SPREADS_MS, Trial, measure, percentile, svg, table
from raft.actor_messages import Campaign, LeaderContact
from raft.election_actor import ElectionActor
from raft.wire import register_messages

TIMEOUT = 1.0


class Replication(Actor):
    """Stands in for replication: notes when it is told to campaign."""

    name = "replication"

    def __init__(self) -> None:
        super().__init__()
        self.campaigns: list[float] = []

    def receive(self, batch: list[tuple[Address, object]]) -> None:
        self.campaigns += [self.now() for _, message in batch if type(message) is Campaign]


def campaigns_of(seed: int, seconds: float, contacts: Sequence[float] = ()) -> list[float]:
    """When an election actor campaigns that hears a leader at these times, and never wins."""
    codec = Codec()
    register_messages(codec)
    clock, replication = ManualClock(), Replication()
    system = System("a", MemoryNetwork().transport(), clock, codec, incarnation=1)
    system.add(replication)
    system.add(
        ElectionActor(
            election_timeout_seconds=TIMEOUT, heartbeat_interval_seconds=0.1, rng=random.Random(seed)
        )
    )
    system.start()
    due = list(contacts)
    while clock.now() < seconds:
        clock.advance(0.01)
        while due and due[0] <= clock.now():
            del due[0]
            system.post("election", LeaderContact(0, "b"))
        system.turn(0.0)
    system.close()
    return replication.campaigns


def test_timeouts_are_spread_over_an_interval_and_drawn_anew_each_time() -> None:
    """Raft §5.2: timeouts are random in [T, 2T), so that most often one node is alone with its campaign."""
    campaigns = [campaigns_of(seed, 30.0) for seed in range(5)]
    for times in campaigns:
        waits = [after - before for before, after in pairwise([0.0, *times])]
        assert all(0.99 * TIMEOUT <= wait <= 2.02 * TIMEOUT for wait in waits)
        assert max(waits) - min(waits) > TIMEOUT / 2  # a new one for each attempt
    # Five nodes: the first of each round is rarely followed by another within a tenth of the spread.
    firsts = [sorted(times[0] for times in campaigns)]
    firsts += [sorted(campaigns_of(seed, 2.5)[0] for seed in range(n, n + 5)) for n in range(10, 60, 5)]
    assert sum(second - first < TIMEOUT / 50 for first, second, *_ in firsts) <= 4


def test_a_leader_is_steady_while_its_heartbeats_come_within_the_timeout() -> None:
    """Raft §5.6: delays may vary as they like below the election timeout."""
    rng = random.Random(7)
    times = list(accumulate(rng.uniform(0.1, 0.9) * TIMEOUT for _ in range(100)))
    assert campaigns_of(1, times[-1], times) == []
    # Where one of them is late by more than the timeout may be, there is an election.
    late = [time + 2 * TIMEOUT * (number >= 50) for number, time in enumerate(times)]
    assert campaigns_of(1, times[49] + 2 * TIMEOUT, late)


def test_the_time_without_a_leader_falls_with_the_spread_of_the_timeouts() -> None:
    """Raft §9.3, figure 16: with hardly any randomness elections take seconds, with enough a few messages.

    `docs/elections.md` has the figure, of more trials.
    """
    none, little, enough = (measure(spread, 30) for spread in (SPREADS_MS[0], SPREADS_MS[3], SPREADS_MS[5]))
    assert percentile(none, 50) > 3 * percentile(little, 50)
    assert percentile(none, 90) > 1000
    # The earliest of four timeouts, and two rounds of messages.
    assert 150 < percentile(enough, 50) < 250 and enough[-1] < 1000


def test_the_figure_is_drawn_from_a_seed_alone() -> None:
    """Raft §9.3, figure 16: who makes it again gets the same."""
    times = {(150, 300): measure((150, 300), 3)}
    assert times[(150, 300)] == sorted(Trial((150, 300), f"150-300-{trial}").run_ms() for trial in range(3))
    assert table(times) == table({(150, 300): measure((150, 300), 3)})
    assert table(times).splitlines()[2].startswith("| 150 to 300 |")
    assert svg(times).count("<polyline") == 1
