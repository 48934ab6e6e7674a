"""Raft figure 3 on a network that loses, repeats and reorders, with nodes that crash within a turn.

Seeded: a failure names its seed, and the seed repeats it. The Oracle knows what no node knows, and looks
after each event.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from raft.config import RaftConfig
from raft.core import Core
from raft.entries import Entry, Index, NodeId, Term
from raft.errors import NotLeader, Overloaded
from raft.invariants import check_log
from raft.messages import Message, VoteResponse
from raft.quorum import majority
from raft.ready import Ready, Role
from tests.raft.network import Disk, Network


def tight(rng: random.Random) -> RaftConfig:
    """Small limits, so that every window, batch and part is filled now and then."""
    return RaftConfig(
        max_append_entries=rng.choice([1, 3, 8]),
        max_append_bytes=rng.choice([20, 90]),
        max_inflight_messages=rng.choice([1, 2, 5]),
        max_committed_entries_per_ready=rng.choice([2, 9]),
        max_committed_bytes_per_ready=rng.choice([30, 90]),
        max_uncommitted_bytes=rng.choice([200, 800]),
    )


class Oracle:
    """What must hold over all nodes and all time."""

    def __init__(self, voter_count: int) -> None:
        self.majority = majority(voter_count)
        self.leaders: dict[Term, NodeId] = {}
        self.votes: dict[tuple[Term, NodeId], NodeId] = {}
        self.entries: dict[tuple[Index, Term], tuple[Entry, Term]] = {}  # with the term of the one before
        self.committed: dict[Index, tuple[Entry, Term]] = {}  # with the term in which it was committed
        self.commit_index: dict[NodeId, Index] = {}
        self.read_floor: dict[tuple[NodeId, int], Index] = {}
        self.counts: Counter[str] = Counter()

    @property
    def highest_commit(self) -> Index:
        return len(self.committed)

    def look(self, name: NodeId, core: Core, disks: dict[NodeId, Disk]) -> None:
        check_log(core)
        if core.role is Role.LEADER:
            self._election_safety(name, core)
        self._log_matching(core)
        self._commit(name, core, disks)

    def _election_safety(self, name: NodeId, core: Core) -> None:
        known = self.leaders.setdefault(core.term, name)
        assert known == name, f"term {core.term} has leaders {known} and {name}"
        # Leader Completeness: all that was committed in earlier terms is in its log.
        for index, (entry, term) in self.committed.items():
            if term < core.term:
                assert core.last_index >= index, f"leader {name} of {core.term} lacks {index}"
                assert core.log.slice(index, index) == [entry], f"leader {name} differs at {index}"

    def _log_matching(self, core: Core) -> None:
        """By induction: equal index and term have equal entries, and equal terms before them."""
        before = 0
        for index, entry in enumerate(core.log.slice(1, core.last_index), 1):
            assert self.entries.setdefault((index, entry[0]), (entry, before)) == (entry, before)
            before = entry[0]

    def _commit(self, name: NodeId, core: Core, disks: dict[NodeId, Disk]) -> None:
        last = self.commit_index.get(name, 0)
        assert core.commit_index >= last, f"{name}: commit index went from {last} to {core.commit_index}"
        self.commit_index[name] = core.commit_index
        for index, entry in enumerate(core.log.slice(last + 1, core.commit_index), last + 1):
            if index not in self.committed:
                holders = sum(disk.entries[index - 1 : index] == [entry] for disk in disks.values())
                assert holders >= self.majority, f"{index} is committed and on {holders} disks"
                self.counts["commits"] += 1
            assert self.committed.setdefault(index, (entry, core.term))[0] == entry, f"{name} at {index}"

    def vote(self, voter: NodeId, candidate: NodeId, message: Message) -> None:
        if isinstance(message, VoteResponse) and message.granted:
            known = self.votes.setdefault((message.term, voter), candidate)
            assert known == candidate, f"{voter} voted for {known} and {candidate} in {message.term}"

    def applied(self, name: NodeId, ready: Ready) -> None:
        """State Machine Safety."""
        if ready.committed is not None:
            for index, entry in enumerate(ready.committed.entries, ready.committed.first_index):
                assert self.committed[index][0] == entry, f"{name} applies another {index}"

    def read(self, name: NodeId, ready: Ready) -> None:
        for context, read_index in ready.reads:
            self.counts["reads"] += 1
            floor = self.read_floor[(name, context)]
            assert read_index >= floor, f"{name} reads at {read_index}, but {floor} was committed before"


class Chaos:
    """One run: the network, what it does next by chance, and the oracle that watches."""

    def __init__(self, seed: int, voters: str) -> None:
        self.rng = random.Random(seed)
        self.network = Network(voters, config=tight(self.rng))
        self.names = sorted(voters)
        self.oracle = Oracle(len(voters))
        self.in_turn: dict[NodeId, Ready] = {}  # a turn has begun: its Ready is not carried out yet
        self.contexts = 0
        self.proposals = 0
        self.events: list[tuple[Callable[[], NodeId | None], float]] = [
            (self.deliver, 35 * len(voters)),
            (self.begin_turn, 50),
            (self.end_turn, 50),
            (self.propose, 6),
            (self.read, 8),
            (self.heartbeat, 3),
            (self.silence, 3),
            (self.campaign, 5),
            (self.check_quorum, 1),
            (self.crash, 0.3),
            (self.cut, 2),
        ]

    def run(self, steps: int) -> None:
        actions = [action for action, _ in self.events]
        # No two runs are alike: in some hardly anything arrives, in others there is hardly a pause.
        weights = [weight * self.rng.choice([0.3, 1.0, 3.0]) for _, weight in self.events]
        while steps > 0:
            for action in self.rng.choices(actions, weights, k=steps):
                name = action()
                if name is not None:
                    steps -= action in (self.deliver, self.begin_turn, self.end_turn)
                    self.oracle.look(name, self.network[name], self.network.disks)

    # -- what may happen -------------------------------------------------------------------------------

    def any_name(self) -> NodeId:
        return self.rng.choice(self.names)

    def leader_or_any(self) -> NodeId:
        leaders = [name for name in self.names if self.network[name].role is Role.LEADER]
        return self.rng.choice(leaders or self.names)

    def deliver(self) -> NodeId | None:
        """Mostly the oldest; sometimes any, sometimes twice, sometimes never."""
        mail = self.network.mail
        if not mail:
            return None
        chance = self.rng.random()
        position = 0 if chance < 0.7 else self.rng.randrange(len(mail))
        each = mail[position] if chance > 0.95 else mail.pop(position)
        if 0.7 <= chance < 0.75:
            return None
        self.network.deliver(each)
        return each[1]

    def begin_turn(self) -> NodeId | None:
        waiting = [name for name in self.names if name not in self.in_turn and self.network[name].has_ready()]
        if not waiting:
            return None
        name = self.rng.choice(waiting)
        ready = self.in_turn[name] = self.network[name].ready()
        self.post(name, ready, ready.messages)
        self.network.disks[name].append(ready.hard_state, ready.batch)
        return name

    def end_turn(self) -> NodeId | None:
        if not self.in_turn:
            return None
        name = self.rng.choice(sorted(self.in_turn))
        ready = self.in_turn.pop(name)
        self.network.disks[name].sync()
        self.post(name, ready, ready.messages_after_sync)
        if self.rng.random() < 0.003:
            self.restart(name)  # before it could note that the write is done
            return name
        self.network[name].advance()
        self.oracle.look(name, self.network[name], self.network.disks)
        self.oracle.applied(name, ready)
        self.oracle.read(name, ready)
        self.oracle.counts["truncations"] += ready.truncated_from is not None
        self.network.take(name, ready)
        return name

    def post(self, name: NodeId, ready: Ready, messages: list[tuple[NodeId, Message]]) -> None:
        for receiver, message in messages:
            self.oracle.vote(name, receiver, message)
        self.network.post(name, messages)

    def propose(self) -> NodeId | None:
        name = self.leader_or_any()
        try:
            bodies = [b"%d" % (self.proposals + n) for n in range(self.rng.randint(1, 4))]
            self.network[name].propose(bodies)
            self.proposals += len(bodies)
        except NotLeader:
            return None
        except Overloaded:
            self.oracle.counts["overloads"] += 1
        return name

    def read(self) -> NodeId | None:
        name = self.any_name()
        self.contexts += 1
        try:
            self.network[name].read_index(self.contexts)
        except NotLeader:
            return None
        self.oracle.read_floor[(name, self.contexts)] = self.oracle.highest_commit
        return name

    def heartbeat(self) -> NodeId:
        name = self.leader_or_any()
        self.network[name].heartbeat()
        return name

    def silence(self) -> NodeId:
        name = self.any_name()
        self.network[name].leader_silent()
        return name

    def campaign(self) -> NodeId:
        name = self.rng.choice([name for name in self.names if self.network[name].role is not Role.LEADER])
        if self.rng.random() < 0.7:  # a timeout that all of them have run into
            for core in self.network.cores.values():
                core.leader_silent()
        self.network[name].campaign()
        return name

    def check_quorum(self) -> NodeId:
        name = self.any_name()
        self.network[name].check_quorum()
        return name

    def crash(self) -> NodeId:
        name = self.any_name()
        self.restart(name)
        return name

    def restart(self, name: NodeId) -> None:
        disk = self.network.disks[name]
        disk.crash(self.rng.randint(0, disk.unsynced_count))
        self.in_turn.pop(name, None)
        self.oracle.commit_index.pop(name, None)
        self.oracle.counts["restarts"] += 1
        self.network.start(name)

    def cut(self) -> None:
        if self.network.cut_links:
            self.network.heal()
        else:
            self.network.isolate(self.leader_or_any())

    # -- the end ---------------------------------------------------------------------------------------

    def recover(self) -> None:
        """Once the network is good, all nodes agree, whatever state the run has left them in."""
        self.network.heal()
        for name in sorted(self.in_turn):
            self.restart(name)
        self.network.settle()
        leader = self.leader_after_heartbeats()
        for name in self.names * 2:
            if leader is None:
                for core in self.network.cores.values():
                    core.leader_silent()
                self.network[name].campaign()
                self.network.settle()
                leader = self.leader_after_heartbeats()
        assert leader is not None, [core.role for core in self.network.cores.values()]
        # No further election was needed for that: heartbeats alone bring everybody to the leader's log.
        for name, core in self.network.cores.items():
            self.oracle.look(name, core, self.network.disks)
            assert core.leader_id == leader.node_id, f"{name} follows {core.leader_id}"
            assert core.commit_index == leader.last_index == len(self.network.applied[name]), name
        assert len({tuple(applied) for applied in self.network.applied.values()}) == 1

    def leader_after_heartbeats(self) -> Core | None:
        for _ in range(3):
            for core in self.network.cores.values():
                core.heartbeat()
            self.network.settle()
        leaders = [core for core in self.network.cores.values() if core.role is Role.LEADER]
        assert len(leaders) <= 1, f"{len(leaders)} lead, though all hear each other"
        return leaders[0] if leaders else None


@pytest.mark.parametrize("voters", ["abc", "abcde"])
@pytest.mark.parametrize("first_seed", range(0, 150, 50))
def test_p22_the_five_properties_of_figure_3_hold(voters: str, first_seed: int) -> None:
    total: Counter[str] = Counter()
    for seed in range(first_seed, first_seed + 50):
        chaos = Chaos(seed, voters)
        try:
            chaos.run(600)
            chaos.recover()
        except AssertionError as failure:
            raise AssertionError(f"seed {seed}, voters {voters}: {failure}") from failure
        total += chaos.oracle.counts
        total["leaders"] += len(chaos.oracle.leaders)
    # A run in which nothing happens proves nothing.
    least = {"commits": 300, "leaders": 80, "reads": 40, "restarts": 100, "truncations": 8}
    assert all(total[kind] >= count for kind, count in least.items()), total
