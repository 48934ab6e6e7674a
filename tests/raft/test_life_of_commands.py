"""No end of a command lies: what is told as not applied is in no log, what is told as applied is in all once.

Whole replicas by hand, under loss, delay, repetition, cuts, crashes, stops, hand-overs, snapshots and tight
deadlines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from raft.config import RaftConfig
from raft.errors import NotApplied, Transferring
from raft.life import Command, Stage
from raft.rehearsal import Rehearsal
from raft.replica import ReplicaSettings
from raft.state_machine import Restorer, WholeRestorer

ORDER = [Stage.SUBMITTED, Stage.QUEUED, Stage.COMMITTED, Stage.APPLIED]
SETTINGS = ReplicaSettings(
    max_open=20, raft=RaftConfig(max_uncommitted_bytes=600, snapshot_interval_entries=15, trailing_entries=3)
)


class Witness:
    """Remembers every command in the order of the log, and answers with its place."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def apply(self, first_index: int, bodies: Sequence[bytes | None]) -> list[bytes | None]:
        return [None if body is None else self._note(body) for body in bodies]

    def _note(self, body: bytes) -> bytes:
        self.seen.append(body)
        return b"%d" % len(self.seen)

    def query(self, bodies: Sequence[bytes]) -> list[bytes]:
        return [b"%d" % len(self.seen) for _ in bodies]

    def status(self) -> dict[str, object]:
        return {}

    def snapshot(self) -> Iterator[bytes]:
        return iter([b"\n".join(self.seen)])

    def restorer(self) -> Restorer:
        return WholeRestorer(self.restore)

    def restore(self, content: bytes) -> None:
        self.seen = content.splitlines()


class Story:
    """One seed: what was proposed, what was told of it, and what became of it."""

    def __init__(self, seed: int) -> None:
        self.world = Rehearsal(Witness, seed=seed, settings=SETTINGS)
        self.rng = self.world.rng
        self.commands: dict[bytes, Command] = {}
        self.told: dict[bytes, list[Stage]] = {}

    def propose(self) -> None:
        name = self.rng.choice(sorted(self.world.replicas))
        body = b"command %d" % len(self.commands) + b"." * self.rng.randrange(100)
        self.told[body] = told = []
        self.commands[body] = self.world.replicas[name].propose(
            body,
            timeout_seconds=self.rng.choice([0.0, 0.02, 0.2, 2.0, 2.0]),
            on_queued=lambda command: told.append(command.stage),
            on_committed=lambda command: told.append(command.stage),
            on_applied=lambda command: told.append(command.stage),
            on_abandoned=lambda command: told.append(command.stage),
        )

    def disturb(self) -> None:
        world, rng = self.world, self.rng
        name = rng.choice(sorted(world.members))
        match rng.randrange(8):
            case 0:
                world.loss, world.delay, world.repetition = (rng.choice([0.0, 0.1, 0.3]) for _ in range(3))
            case 1:
                world.cut_off = {name}
            case 2:
                world.mute = {name}
            case 3 | 4:
                world.cut_off, world.mute = set(), set()
            case 5 if name in world.replicas:
                world.crash(name)
            case 6 if name in world.replicas:
                world.replicas.pop(name).stop()
            case 7 if name in world.replicas:
                world.replicas[name].transfer_leadership()
        for name in world.members.keys() - world.replicas.keys():
            if rng.random() < 0.5:
                world.start(name)

    def unfold(self) -> None:
        for _ in range(60):
            for _ in range(self.rng.randrange(12)):
                if self.world.replicas:
                    self.propose()
            self.world.run(self.rng.choice([0.005, 0.02, 0.1]))
            if self.rng.random() < 0.3:
                self.disturb()
        self.heal()

    def heal(self) -> None:
        world = self.world
        world.loss = world.delay = world.repetition = 0.0
        world.cut_off, world.mute = set(), set()
        for name in sorted(world.members.keys() - world.replicas.keys()):
            world.start(name)
        assert world.run_until(lambda: all(command.is_over for command in self.commands.values()))
        # A leader that still hands over, as the last disturbance asked it to, refuses what comes meanwhile.
        assert any(self._is_applied(b"last") for _ in range(20))
        assert world.run_until(lambda: all(b"last" in machine.seen for machine in world.machines.values()))

    def _is_applied(self, body: bytes) -> bool:
        try:
            self.world.finish(self.world.leader().propose(body))
        except Transferring:
            self.world.run(0.1)
            return False
        return True


@pytest.mark.parametrize("seed", range(12))
def test_every_command_ends_once_and_its_end_is_true(seed: int) -> None:
    story = Story(seed)
    story.unfold()
    logs = [machine.seen for machine in story.world.machines.values()]
    assert logs[0] == logs[1] == logs[2]
    times = Counter(logs[0])
    ends = Counter[str]()
    for body, command in story.commands.items():
        *before, end = story.told[body]
        assert before == [stage for stage in ORDER if stage in before], body
        assert command.stage is end
        if end is Stage.APPLIED:
            ends["applied"] += 1
            assert times[body] == 1
            assert command.outcome() == b"%d" % (logs[0].index(body) + 1)
        else:
            assert end is Stage.ABANDONED and command.abandonment is not None
            if isinstance(command.abandonment.error(), NotApplied):
                ends["not applied"] += 1
                assert times[body] == 0, command.abandonment
                assert before == []
            else:
                ends["unknown, applied" if times[body] else "unknown, not applied"] += 1
                assert times[body] <= 1
        if Stage.COMMITTED in before:
            assert times[body] == 1, body
    assert sum(ends.values()) == len(story.commands) > 200
    assert ends["applied"] > 5 and ends["not applied"] > 20, ends


def test_the_stories_have_every_kind_of_end() -> None:
    """Or the test above would hold of a program that says "unknown" to everything."""
    reasons = Counter[str]()
    for seed in range(12):
        story = Story(seed)
        story.unfold()
        for command in story.commands.values():
            if command.abandonment is not None:
                reasons[command.abandonment.reason] += 1
    assert {"not_leader", "no_leader", "overloaded", "expired", "outcome_unknown"} <= set(reasons), reasons
    assert {"shutting_down", "conflict_with_leader"} & set(reasons), reasons
