"""Election, alone with a clock: when it campaigns, when it frees the votes, and that no two draw alike."""

from __future__ import annotations

import random

from raft.actor_messages import (
    Campaign,
    CheckQuorumDue,
    HeartbeatDue,
    LeaderContact,
    LeaderSilent,
    RoleChanged,
    TransferBegun,
    TransferOverdue,
)
from raft.election_actor import ElectionActor
from tests.raft.lone_actor import Surroundings

# Powers of two, so that times add up exactly.
TIMEOUT = 0.25
BEAT = 0.0625


def make(seed: int = 1) -> Surroundings:
    actor = ElectionActor(
        election_timeout_seconds=TIMEOUT, heartbeat_interval_seconds=BEAT, rng=random.Random(seed)
    )
    world = Surroundings(actor)
    world.start()
    return world


def timeouts(seed: int, count: int) -> list[float]:
    world = make(seed)
    waited = []
    for _ in range(count):
        waited.append(world.wait())
        assert world.take(Campaign) == [Campaign(0)]
    return waited


def test_timeouts_are_spread_over_one_to_two_times_the_least() -> None:
    """Raft §5.2: a new one at each attempt, or a split vote repeats itself."""
    drawn = timeouts(seed=1, count=400)
    assert all(TIMEOUT <= seconds < 2 * TIMEOUT for seconds in drawn)
    assert len(set(drawn)) == len(drawn)
    for quarter in range(4):
        low = TIMEOUT * (1 + quarter / 4)
        assert 60 <= sum(low <= seconds < low + TIMEOUT / 4 for seconds in drawn) <= 140


def test_nodes_that_start_together_seldom_campaign_together() -> None:
    first = sorted(timeouts(seed, 1)[0] for seed in range(5))
    assert first[1] - first[0] > TIMEOUT / 100
    close = 0
    for round_number in range(100):
        drawn = sorted(timeouts(5 * round_number + seed, 1)[0] for seed in range(5))
        close += drawn[1] - drawn[0] < 0.01 * TIMEOUT
    assert close < 15  # about one in twenty, for five nodes


def test_a_leader_that_is_heard_is_not_stood_against() -> None:
    world = make()
    world.tell(RoleChanged("follower", 1, "b"))
    for _ in range(20):
        world.seconds += TIMEOUT * 0.9
        world.tell(LeaderContact(1, "b"))
    assert world.take(Campaign) == [] and world.take(LeaderSilent) == []


def test_votes_are_freed_before_the_own_campaign_begins() -> None:
    """Dissertation 4.2.3: after the least timeout, which is never more than the own one."""
    world = make()
    world.tell(RoleChanged("follower", 1, "b"))
    assert world.wait() == TIMEOUT
    assert world.take(LeaderSilent) == [LeaderSilent(1)]
    world.wait()
    assert world.take(Campaign) == [Campaign(1)]
    # Nobody is followed any more, so there is nothing left to free.
    world.wait()
    assert world.happened == [(world.happened[0][0], Campaign(1))]


def test_a_contact_of_another_term_moves_nothing() -> None:
    world = make()
    world.tell(RoleChanged("follower", 2, "b"))
    deadline = world.actor._deadline
    world.seconds += TIMEOUT / 2
    world.tell(LeaderContact(1, "c"))
    assert world.actor._deadline == deadline


def test_a_leader_beats_and_is_asked_for_its_quorum() -> None:
    """Raft §5.2, dissertation 6.2: a heartbeat each interval, a proof of the quorum each election timeout."""
    world = make()
    world.tell(RoleChanged("leader", 3, "a"))
    while world.seconds < 2.0:
        world.wait()
    told = [message for _, message in world.happened]
    assert told.count(HeartbeatDue(3)) == 32
    assert told.count(CheckQuorumDue(3)) == 8
    assert len(told) == 40


def test_a_leader_that_changes_nothing_but_its_view_does_not_beat_later() -> None:
    world = make()
    world.tell(RoleChanged("leader", 3, "a"))
    world.seconds += BEAT / 2
    world.tell(RoleChanged("leader", 3, "a"))
    assert world.wait() == BEAT / 2
    assert world.take(HeartbeatDue) == [HeartbeatDue(3)]


def test_a_transfer_is_given_up_after_an_election_timeout() -> None:
    """Dissertation 3.10: the target may be dead."""
    world = make()
    world.tell(RoleChanged("leader", 3, "a"))
    world.tell(TransferBegun(2))  # of an older leadership
    world.seconds = BEAT / 2
    world.tell(TransferBegun(3))
    overdue = []
    for _ in range(12):
        world.wait()
        overdue += [(world.seconds, message) for message in world.take(TransferOverdue)]
    assert overdue == [(BEAT / 2 + TIMEOUT, TransferOverdue(3))]


def test_a_transfer_that_succeeds_is_not_given_up() -> None:
    world = make()
    world.tell(RoleChanged("leader", 3, "a"))
    world.tell(TransferBegun(3))
    world.tell(RoleChanged("follower", 4, "b"))
    for _ in range(5):
        world.wait()
    assert world.take(TransferOverdue) == []


def test_who_is_deposed_waits_a_whole_timeout() -> None:
    world = make()
    world.tell(RoleChanged("leader", 3, "a"))
    world.wait()
    world.take(HeartbeatDue)
    world.tell(RoleChanged("follower", 4, None))
    assert TIMEOUT <= world.wait() < 2 * TIMEOUT
    assert world.take(Campaign) == [Campaign(4)]
