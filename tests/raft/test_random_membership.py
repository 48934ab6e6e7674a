"""Members come and go, snapshots are taken and leaders hand over, on a network that loses and reorders.

Seeded: a failure names its seed, and the seed repeats it. What must hold: one leader in a term, one history
for all state machines, no read from the past; and once the network is good, a cluster that works again,
whatever configuration the run has left it in.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from raft.changes import Verb
from raft.config import RaftConfig
from raft.core import Core
from raft.entries import Entry, Index, NodeId, Term
from raft.errors import RaftError
from raft.invariants import check_log
from raft.ready import Role
from tests.raft.network import change
from tests.raft.snapshot_network import SnapshotDisk, SnapshotNetwork

NAMES = "abcdef"
VERBS = (Verb.ADD_LEARNER, Verb.ADD_VOTER, Verb.PROMOTE, Verb.DEMOTE, Verb.REPLACE, Verb.SET, Verb.SET)
STEPS = 2500


class GrowingNetwork(SnapshotNetwork):
    """Nodes may join."""

    def new_disk(self) -> SnapshotDisk:
        return SnapshotDisk()


def tight(rng: random.Random) -> RaftConfig:
    """Small limits, so that every window is filled and every snapshot has chunks."""
    return RaftConfig(
        max_append_entries=rng.choice([1, 3, 8]),
        max_inflight_messages=rng.choice([1, 2, 5]),
        max_committed_entries_per_ready=rng.choice([2, 9]),
        snapshot_chunk_bytes=rng.choice([20, 100, 1000]),
        trailing_entries=rng.choice([0, 0, 3]),
        max_inflight_snapshot_chunks=rng.choice([1, 3]),
    )


class Chaos:
    """One run. a, b and c begin; the others wait to be added."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.network = GrowingNetwork("abc", config=tight(self.rng))
        self.network.join(*NAMES[3:])
        self.leaders: dict[Term, NodeId] = {}
        self.history: list[Entry] = []  # the longest that any state machine has applied
        self.read_floors: dict[tuple[NodeId, int], Index] = {}
        self.count = 0  # of proposals and reads
        self.done: Counter[str] = Counter()
        self.events = [
            (self.deliver, 120.0),
            (self.turn, 100.0),
            (self.propose, 8.0),
            (self.read, 3.0),
            (self.campaign, 4.0),
            (self.heartbeat, 8.0),
            (self.check_quorum, 3.0),
            (self.change, 12.0),
            (self.transfer, 2.0),
            (self.snapshot, 3.0),
            (self.restart, 1.5),
            (self.cut, 1.5),
        ]

    def run(self) -> None:
        actions = [action for action, _ in self.events]
        # No two runs are alike: in some hardly anything arrives, in others members change all the time.
        weights = [weight * self.rng.choice([0.3, 1.0, 3.0]) for _, weight in self.events]
        for action in self.rng.choices(actions, weights, k=STEPS):
            action()

    def any(self) -> Core:
        return self.network[self.rng.choice(NAMES)]

    def leading(self) -> list[Core]:
        return [core for core in self.network.cores.values() if core.role is Role.LEADER]

    def leader_or_any(self) -> Core:
        return self.rng.choice(self.leading() or [self.any()])

    # -- what may happen -------------------------------------------------------------------------------

    def deliver(self) -> None:
        """Mostly the oldest; sometimes any, sometimes twice, sometimes never."""
        mail, chance = self.network.mail, self.rng.random()
        if mail:
            position = 0 if chance < 0.7 else self.rng.randrange(len(mail))
            each = mail[position] if chance > 0.96 else mail.pop(position)
            if not 0.7 <= chance < 0.74:
                self.network.deliver(each)

    def turn(self) -> None:
        waiting = [name for name in NAMES if self.network[name].has_ready()]
        if waiting:
            name = self.rng.choice(waiting)
            self.network.turn(name)
            self.look(name)

    def propose(self) -> None:
        self.count += 1
        try:
            self.leader_or_any().propose([b"%d" % self.count])
        except RaftError as refusal:
            self.done[type(refusal).__name__] += 1

    def read(self) -> None:
        core = self.any()
        self.count += 1
        try:
            core.read_index(self.count)
        except RaftError:
            return
        self.read_floors[(core.node_id, self.count)] = len(self.history)

    def campaign(self) -> None:
        if self.rng.random() < 0.7:  # a timeout that all of them have run into
            for core in self.network.cores.values():
                core.leader_silent()
        self.any().campaign()

    def heartbeat(self) -> None:
        self.leader_or_any().heartbeat()

    def check_quorum(self) -> None:
        self.leader_or_any().check_quorum()

    def change(self) -> None:
        core, rng = self.leader_or_any(), self.rng
        now = core.configuration
        verb = rng.choice(VERBS if rng.random() < 0.88 else (Verb.REMOVE,))
        strangers = sorted(set(NAMES) - now.members - now.removed)
        voters, learners = sorted(now.voters), sorted(now.learners)
        nodes = {
            Verb.ADD_LEARNER: strangers,
            Verb.ADD_VOTER: strangers + learners,
            Verb.PROMOTE: learners,
            Verb.DEMOTE: voters,
            Verb.REMOVE: voters + learners,
            Verb.SET: sorted(set(NAMES) - now.removed),
            Verb.REPLACE: [rng.choice(voters), rng.choice(strangers)] if voters and strangers else [],
        }[verb]
        if verb is not Verb.REPLACE:
            nodes = rng.sample(nodes, min(len(nodes), rng.randint(1, 3)))
        try:
            change(core, verb, *nodes, force=rng.random() < 0.5)
            self.done["changes"] += 1
        except RaftError:
            self.done["refused changes"] += 1

    def transfer(self) -> None:
        core = self.leader_or_any()
        core.abort_transfer()
        try:
            core.transfer_leadership(self.rng.choice([None, *NAMES]))
            self.done["transfers"] += 1
        except RaftError:
            pass

    def snapshot(self) -> None:
        name = self.rng.choice(NAMES)
        snapshots = self.network[name].snapshots
        is_free = not snapshots.is_restoring and not snapshots.installation.is_under_way
        if is_free and len(self.network.applied[name]) > snapshots.index:
            self.network.snapshot(name)
            self.done["snapshots"] += 1

    def restart(self) -> None:
        name = self.rng.choice(NAMES)
        self.network.restart(name)
        self.read_floors = {key: floor for key, floor in self.read_floors.items() if key[0] != name}

    def cut(self) -> None:
        if self.network.cut_links:
            self.network.heal()
        else:
            self.network.isolate(*self.rng.sample(NAMES, self.rng.randint(1, 3)))

    # -- what must hold --------------------------------------------------------------------------------

    def look(self, name: NodeId) -> None:
        core, applied = self.network[name], self.network.applied[name]
        check_log(core)
        if core.role is Role.LEADER:
            known = self.leaders.setdefault(core.term, name)
            assert known == name, f"term {core.term} has leaders {known} and {name}"
        shared = min(len(applied), len(self.history))
        assert applied[:shared] == self.history[:shared], f"{name} applied another history"
        if len(applied) > len(self.history):
            self.history = list(applied)
        for context, read_index in self.network.reads[name]:
            floor = self.read_floors.pop((name, context), 0)
            assert read_index >= floor, f"{name} reads at {read_index}, but {floor} was applied before"

    def recover(self) -> None:
        """The network is good from now on; heartbeats and timeouts go on as ever."""
        self.network.heal()
        self.network.settle()
        for attempt in range(40):
            if not self.leading():
                for core in self.network.cores.values():
                    core.leader_silent()
                self.network[NAMES[attempt % len(NAMES)]].campaign()
                self.network.settle()
            for core in self.network.cores.values():
                core.abort_transfer()
                core.heartbeat()
            self.network.settle()
            if attempt % 3 == 2:
                for core in self.network.cores.values():
                    core.check_quorum()
                self.network.settle()
            for name in NAMES:
                self.look(name)
        (leader,) = self.leading()
        assert leader.commit_index == leader.last_index and not leader.configuration.is_joint
        for name in leader.configuration.members:
            assert self.network[name].configuration == leader.configuration, name
            assert self.network.applied[name] == self.history, name


@pytest.mark.parametrize("first_seed", range(0, 80, 20))
def test_a_cluster_whose_members_change_stays_one_cluster(first_seed: int) -> None:
    total: Counter[str] = Counter()
    for seed in range(first_seed, first_seed + 20):
        chaos = Chaos(seed)
        try:
            chaos.run()
            chaos.recover()
        except (AssertionError, ValueError) as failure:
            raise AssertionError(f"seed {seed}: {failure}") from failure
        total += chaos.done
        total["applied"] += len(chaos.history)
    # A run in which nothing happens proves nothing.
    least = {"applied": 200, "changes": 15, "transfers": 15, "snapshots": 50}
    assert all(total[kind] >= count for kind, count in least.items()), total
