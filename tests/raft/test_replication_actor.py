"""What replication tells the gateway of proposals that a new leader overwrote: never "not applied".

The core is real; its peers are played. Raft Figure 8: what this node truncates, another may still commit.
"""

from __future__ import annotations

import random

import pytest

from actors import Actor, Address, Codec, ManualClock, MemoryNetwork, System
from raft import Configuration, Core, RaftConfig
from raft.actor_messages import (
    Abandoned,
    Applied,
    Campaign,
    CommitNotice,
    Committed,
    Propose,
    Queued,
    Reason,
)
from raft.entries import EntryBatch, EntryKind
from raft.errors import OutcomeUnknown
from raft.life import Abandonment
from raft.messages import AppendEntries, AppendResponse, PreVoteResponse, VoteResponse
from raft.replication_actor import ReplicationActor
from raft.storage import MemoryStorage
from raft.wire import register_messages


class Listener(Actor):
    """Stands in for one of the other actors and keeps what it is told."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.heard: list[object] = []

    def receive(self, batch: list[tuple[Address, object]]) -> None:
        self.heard += [message for _, message in batch]

    def told(self, kind: type) -> list[object]:
        return [message for message in self.heard if type(message) is kind]


class Bench:
    """A replication actor that leads in term 1, with its no-op at index 1 committed; b and c are played."""

    def __init__(self) -> None:
        codec = Codec()
        register_messages(codec)
        storage = MemoryStorage()
        core = Core("a", Configuration(["a", "b", "c"]), storage.load(), RaftConfig(max_append_entries=5))
        self.actor = ReplicationActor(core, storage)
        self.gateway, self.applier = Listener("gateway"), Listener("applier")
        self.system = System("a", MemoryNetwork().transport(), ManualClock(), codec, incarnation=1)
        for actor in (self.gateway, self.actor, self.applier, Listener("election")):
            self.system.add(actor)
        self.system.start()
        self.hear("a", Campaign(0))
        self.hear("b", PreVoteResponse(1, True))
        self.hear("b", VoteResponse(1, True))
        self.hear("b", AppendResponse(1, 1))

    def hear(self, node: str, message: object) -> None:
        self.actor.receive([(Address(node, "replication"), message)])
        self.actor.flush()
        self.system.turn()


def overwrite(from_index: int, term: int) -> AppendEntries:
    entries = [(term, int(EntryKind.NOOP), b"")]
    return AppendEntries(term, from_index - 1, 1, 0, EntryBatch(from_index, entries))


def test_a_ticket_truncated_in_its_middle_has_an_unknown_outcome() -> None:
    """Its first entries reached the next leader, which commits them: "not applied" would be a lie."""
    bench = Bench()
    bench.hear("a", Propose([7], [10], [b"%d" % number for number in range(10)]))  # indexes 2 to 11
    bench.hear("c", overwrite(7, term=2))
    assert bench.gateway.told(Abandoned) == [Abandoned([7], Reason.CONFLICT_WITH_LEADER)]


def test_a_part_that_was_committed_is_handed_over_and_the_rest_is_of_unknown_outcome() -> None:
    bench = Bench()
    bench.hear("a", Propose([7], [10], [b"%d" % number for number in range(10)]))
    bench.hear("b", AppendResponse(1, 6))
    committed = [message for message in bench.applier.told(Committed) if isinstance(message, Committed)]
    assert [tuple(part) for message in committed for part in message.slices] == [(7, 0, 5)]
    bench.hear("c", overwrite(7, term=2))
    assert bench.gateway.told(Abandoned) == [Abandoned([7], Reason.CONFLICT_WITH_LEADER)]


def test_what_is_kept_when_leadership_is_lost_has_an_unknown_outcome_too() -> None:
    bench = Bench()
    bench.hear("a", Propose([7, 8], [1, 1], [b"x", b"y"]))  # indexes 2 and 3
    bench.hear("c", overwrite(3, term=2))
    assert bench.gateway.told(Abandoned) == [
        Abandoned([8], Reason.CONFLICT_WITH_LEADER),
        Abandoned([7], Reason.OUTCOME_UNKNOWN),
    ]


@pytest.mark.parametrize("reason", list(Reason))
def test_no_end_of_what_was_proposed_is_told_as_not_applied(reason: Reason) -> None:
    """Raft figure 8: for those who wait for an abandoned command, whatever the reason says."""
    assert isinstance(Abandonment(reason, True).error(), OutcomeUnknown)
    truncated = Abandonment(Reason.CONFLICT_WITH_LEADER, False)
    assert isinstance(truncated.error(), OutcomeUnknown)


def test_who_asks_for_notices_hears_of_every_stage_and_nobody_else_does() -> None:
    bench = Bench()
    bench.hear("a", Propose([7], [2], [b"x", b"y"], wants_notices=True))  # indexes 2 and 3
    bench.hear("a", Propose([8], [1], [b"z"]))  # index 4
    assert bench.gateway.told(Queued) == [Queued(2, 1, [7], [2])]
    bench.hear("b", AppendResponse(1, 2))
    bench.hear("b", AppendResponse(1, 4))
    assert bench.gateway.told(CommitNotice) == [CommitNotice([7], [1]), CommitNotice([7], [1])]
    assert not bench.actor._noticed


def test_notices_of_what_was_abandoned_are_forgotten() -> None:
    bench = Bench()
    bench.hear("a", Propose([7, 8], [1, 1], [b"x", b"y"], wants_notices=True))
    bench.hear("c", overwrite(3, term=2))
    assert not bench.actor._noticed
    assert bench.gateway.told(CommitNotice) == []


def test_no_schedule_of_commits_and_overwrites_answers_a_request_twice() -> None:
    for seed in range(30):
        rng = random.Random(seed)
        bench = Bench()
        last = 1
        for ticket in range(1, 6):
            size = rng.randint(1, 8)
            bench.hear("a", Propose([ticket], [size], [b"x"] * size))
            last += size
            if rng.random() < 0.5:
                bench.hear("b", AppendResponse(1, rng.randint(1, last)))
        committed = bench.actor._core.commit_index
        bench.hear("c", overwrite(rng.randint(committed + 1, last + 1), term=2))
        slices = [
            tuple(part)
            for message in bench.applier.told(Committed)
            if isinstance(message, Committed)
            for part in message.slices
        ]
        answered = [(ticket, offset + step) for ticket, offset, size in slices for step in range(size)]
        assert len(answered) == len(set(answered)) == committed - 1, seed
        abandoned = [
            ticket
            for message in bench.gateway.told(Abandoned)
            if isinstance(message, Abandoned)
            for ticket in message.tickets
        ]
        assert len(abandoned) == len(set(abandoned)), seed
        assert not bench.gateway.told(Applied)
