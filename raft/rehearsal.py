"""A rehearsal: replicas of one's own machine in one thread, with a clock, a network and disks to bend.

For tests of a state machine under loss, delay, crashes and cuts, and for examples. May know replicas and the
network of memory. All chance comes from the seed: the same calls give the same history.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Generic, TypeVar, overload

from actors import ManualClock, MemoryFrame, MemoryNetwork
from raft.entries import NodeId
from raft.errand import Errand
from raft.life import Command, Query
from raft.membership import Configuration
from raft.replica import Hooks, Replica, ReplicaSettings
from raft.state_machine import StateMachine
from raft.storage import MemoryStorage

STEP_SECONDS = 0.005
# The longest delay of a frame: so that later ones overtake it.
MAX_DELAY_SECONDS = 0.05

Machine = TypeVar("Machine", bound=StateMachine)


class Rehearsal(Generic[Machine]):
    """Owns its replicas, named n1, n2, …; owned by one test, which changes the public fields as it likes."""

    def __init__(
        self,
        make_machine: Callable[[], Machine],
        *,
        seed: int,
        size: int = 3,
        settings: ReplicaSettings | None = None,
        hooks: Callable[[NodeId], Hooks] | None = None,
    ) -> None:
        self.rng = Random(seed)
        self.clock = ManualClock()
        self.network = MemoryNetwork()
        self.network.route = self._route
        # What befalls a frame between replicas: each a probability.
        self.loss = 0.0
        self.delay = 0.0
        self.repetition = 0.0
        self.cut_off: set[NodeId] = set()  # they neither hear nor are heard
        self.mute: set[NodeId] = set()  # they hear, and are not heard
        self.frames_lost = 0
        self.founders = {f"n{number}": f"memory://n{number}" for number in range(1, size + 1)}
        self.members = dict(self.founders)  # and who joined since
        self.disks = {name: MemoryStorage() for name in self.members}
        self.machines: dict[NodeId, Machine] = {}
        self.replicas: dict[NodeId, Replica] = {}  # those that run
        self._make_machine = make_machine
        self._settings = settings
        self._hooks = hooks
        self._late: list[tuple[float, MemoryFrame]] = []
        for name in self.members:
            self.start(name)

    def start(self, name: NodeId) -> Replica:
        """Start a replica, with a new machine on the disk that it had; under a new name, one that joins.

        For the second, a leader has to add it: `finish(leader.change(Verb.ADD_VOTER, "n4", …))`.
        """
        self.members.setdefault(name, f"memory://{name}")
        self.disks.setdefault(name, MemoryStorage())
        machine = self.machines[name] = self._make_machine()
        replica = self.replicas[name] = Replica(
            name,
            machine,
            members=self.members,
            joins=name not in self.founders,
            storage=self.disks[name],
            transport=self.network.transport(),
            settings=self._settings,
            hooks=self._hooks(name) if self._hooks is not None else None,
            clock=self.clock,
            rng=Random(self.rng.getrandbits(64)),
        )
        return replica

    def crash(self, name: NodeId) -> None:
        """It is gone, with all that it had not synced."""
        self.replicas.pop(name).crash()

    def step(self) -> None:
        """One turn of every replica, and a moment of time."""
        for replica in list(self.replicas.values()):
            replica.turn()
        self.clock.advance(STEP_SECONDS)
        now = self.clock.now()
        due = [frame for at, frame in self._late if at <= now]
        self._late = [(at, frame) for at, frame in self._late if at > now]
        for frame in due:
            self._deliver(frame)

    def run(self, seconds: float) -> None:
        """Step for so long."""
        until = self.clock.now() + seconds
        while self.clock.now() < until:
            self.step()

    def run_until(self, is_reached: Callable[[], object], *, seconds: float = 10.0) -> bool:
        """Step until it is reached, or for so long; whether it was."""
        until = self.clock.now() + seconds
        while not is_reached():
            if self.clock.now() >= until:
                return False
            self.step()
        return True

    def leader(self) -> Replica:
        """The one whom all members within reach know for their leader, as soon as there is one."""
        assert self.run_until(lambda: self._leader() is not None), "no leader in ten seconds"
        found = self._leader()
        assert found is not None
        return found

    @overload
    def finish(self, request: Command | Query) -> bytes: ...

    @overload
    def finish(self, request: Errand) -> Configuration | NodeId: ...

    def finish(self, request: Command | Query | Errand) -> bytes | Configuration | NodeId:
        """Step until a request is over: its result, or the error of its abandonment."""
        limit = request.deadline - self.clock.now() + 1.0
        assert self.run_until(lambda: request.is_over, seconds=limit), "it outlived its deadline"
        return request.outcome()

    def _leader(self) -> Replica | None:
        far = self.cut_off | self.mute
        near = [
            replica
            for name, replica in self.replicas.items()
            if name not in far and name in replica.members.members
        ]
        known = {replica.leader_id for replica in near}
        return next((replica for replica in near if replica.is_leader and len(known) == 1), None)

    def _route(self, frame: MemoryFrame) -> None:
        luck = self.rng.random
        if luck() < self.loss:
            self.frames_lost += 1
            return
        times = 2 if luck() < self.repetition else 1
        for _ in range(times):
            if luck() < self.delay:
                self._late.append((self.clock.now() + luck() * MAX_DELAY_SECONDS, frame))
            else:
                self._deliver(frame)

    def _deliver(self, frame: MemoryFrame) -> None:
        if frame.source not in self.cut_off | self.mute and frame.destination not in self.cut_off:
            self.network.deliver(frame)
