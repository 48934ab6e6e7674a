"""A network and disks in memory: what cores say is carried from one to the other, under the test's control.

Everything happens in the order that the test asks for; there is no time and no chance in here. A Disk keeps
what was written and not synced apart from what was, so that a crash can lose it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from raft.changes import Change, target_of
from raft.config import RaftConfig
from raft.core import Core
from raft.entries import Entry, EntryBatch, EntryKind, HardState, NodeId
from raft.leader import Leader
from raft.membership import Configuration
from raft.messages import Message, PreVoteResponse, VoteResponse
from raft.ready import Ready, Role
from raft.storage import Recovered

M = TypeVar("M")

Mail = tuple[NodeId, NodeId, Message]  # sender, receiver, message


def entry(term: int, body: bytes = b"") -> Entry:
    return (term, int(EntryKind.COMMAND), body)


def entries_of(terms: Iterable[int], first_index: int = 1) -> list[Entry]:
    """Entries with these terms; the body says term and index, so two of the same term and index are equal."""
    return [entry(term, b"%d@%d" % (index, term)) for index, term in enumerate(terms, first_index)]


def batch(first_index: int, terms: Iterable[int] = ()) -> EntryBatch:
    return EntryBatch(first_index, entries_of(terms, first_index))


def make_core(
    node_id: NodeId = "a",
    voters: Iterable[NodeId] = "abc",
    *,
    learners: Iterable[NodeId] = (),
    log: Sequence[int] = (),
    term: int | None = None,
    voted_for: NodeId | None = None,
    commit_index: int = 0,
    config: RaftConfig | None = None,
) -> Core:
    """A core just started, with a log of these terms; its term is that of the last entry if not given."""
    if term is None:
        term = log[-1] if log else 0
    recovered = Recovered(HardState(term, voted_for, commit_index), 1, entries_of(log))
    return Core(node_id, Configuration(voters, learners), recovered, config or RaftConfig())


def make_leader(
    node_id: NodeId = "a",
    voters: Iterable[NodeId] = "abc",
    *,
    learners: Iterable[NodeId] = (),
    log: Sequence[int] = (),
    term: int | None = None,
    config: RaftConfig | None = None,
) -> Core:
    """A leader, elected by all, whose first entry is on its disk and sent; nobody answered yet."""
    core = make_core(node_id, voters, learners=learners, log=log, term=term, config=config)
    become_candidate(core)
    for voter in sorted(core.configuration.voters - {node_id}):
        core.step(voter, VoteResponse(core.term, True))
    assert core.role is Role.LEADER
    drain(core)
    return core


def become_candidate(core: Core) -> None:
    """Through the pre-vote, with all in favour."""
    term = core.term + 1
    core.campaign()
    for voter in sorted(core.configuration.electorate - {core.node_id}):
        core.step(voter, PreVoteResponse(term, True))
    assert core.term == term
    drain(core)


def drain(core: Core) -> Ready:
    """One turn on a disk that never fails."""
    ready = core.ready()
    core.advance()
    return ready


def outgoing(ready: Ready, kind: type[M], to: NodeId | None = None) -> list[M]:
    """Messages of that kind, before and after the sync alike."""
    return [
        message
        for receiver, message in ready.messages + ready.messages_after_sync
        if type(message) is kind and to in (None, receiver)
    ]


def terms_of(core: Core) -> list[int]:
    return [term for term, _, _ in core.log.slice(core.log.first_index, core.last_index)]


def role_object(core: Core) -> Leader:
    assert isinstance(core._role, Leader)
    return core._role


def change(leader: Core, verb: str, *nodes: NodeId, force: bool = False) -> int:
    """Begin a change of membership, as an operator asks for it; the index of its first step."""
    target = target_of(leader.configuration, Change(verb, list(nodes)))
    return leader.propose_configuration(target, force=force)


class Disk:
    """The disk of one node: it outlives the node's core."""

    def __init__(self, hard_state: HardState | None = None, entries: Iterable[Entry] = ()) -> None:
        self.hard_state = hard_state or HardState()
        self.entries = list(entries)
        self._unsynced: list[tuple[HardState | None, EntryBatch | None]] = []

    def append(self, hard_state: HardState | None, new: EntryBatch | None) -> None:
        self._unsynced.append((hard_state, new))

    def sync(self) -> None:
        self.crash(len(self._unsynced))

    def crash(self, survivors: int) -> None:
        """Of what was not synced, the first writes survive. A write of hard state and entries is one."""
        for hard_state, new in self._unsynced[:survivors]:
            if hard_state is not None:
                self.hard_state = hard_state
            if new is not None:
                assert new.first_index <= len(self.entries) + 1, f"gap before {new.first_index}"
                self.entries[new.first_index - 1 :] = new.entries
        self._unsynced.clear()

    @property
    def unsynced_count(self) -> int:
        return len(self._unsynced)

    def load(self) -> Recovered:
        return Recovered(self.hard_state, 1, list(self.entries))


class Network:
    """Some cores, their disks, and the mail between them."""

    def __init__(
        self,
        voters: Iterable[NodeId],
        *,
        learners: Iterable[NodeId] = (),
        disks: dict[NodeId, Disk] | None = None,
        config: RaftConfig | None = None,
    ) -> None:
        self.configuration = Configuration(voters, learners)
        self.config = config or RaftConfig()
        self.configs: dict[NodeId, RaftConfig] = {}  # of nodes that have one of their own
        self.disks = {name: Disk() for name in sorted(self.configuration.members)} | (disks or {})
        self.cores: dict[NodeId, Core] = {}
        self.applied: dict[NodeId, list[Entry]] = {}
        self.reads: dict[NodeId, list[tuple[int, int]]] = {}
        self.refused_reads: dict[NodeId, list[int]] = {}
        self.mail: list[Mail] = []
        self.seen: list[Mail] = []  # all that was ever sent
        self.cut_links: set[tuple[NodeId, NodeId]] = set()  # (from, to): lost on the way
        self.joining: set[NodeId] = set()  # started without a cluster, to be added to this one
        self._starts = 0  # of any node: each run of a core differs in its incarnation
        for name in self.disks:
            self.start(name)

    def __getitem__(self, name: NodeId) -> Core:
        return self.cores[name]

    def start(self, name: NodeId) -> Core:
        """Start or restart a node from its disk. What it had applied is lost; what was sent is on its way."""
        self._starts += 1
        config = replace(self.configs.get(name, self.config), incarnation=self._starts)
        configuration = Configuration() if name in self.joining else self.configuration
        self.cores[name] = Core(name, configuration, self.disks[name].load(), config)
        self.applied[name], self.reads[name], self.refused_reads[name] = [], [], []
        return self.cores[name]

    def join(self, *names: NodeId) -> None:
        """Start nodes that no cluster has yet: they wait until one adds them."""
        for name in names:
            self.joining.add(name)
            self.disks[name] = self.new_disk()
            self.start(name)

    def new_disk(self) -> Disk:
        return Disk()

    def restart(self, name: NodeId) -> Core:
        self.disks[name].crash(0)
        return self.start(name)

    # -- links -----------------------------------------------------------------------------------------

    def isolate(self, *names: NodeId) -> None:
        """These hear the others no more, nor are they heard; among themselves they are connected."""
        for name in names:
            for other in self.cores.keys() - set(names):
                self.cut_links |= {(name, other), (other, name)}

    def heal(self) -> None:
        self.cut_links.clear()

    # -- progress --------------------------------------------------------------------------------------

    def turn(self, name: NodeId) -> Ready:
        """One turn of a node, with a sync that succeeds."""
        core, disk = self.cores[name], self.disks[name]
        ready = core.ready()
        self.post(name, ready.messages)
        disk.append(ready.hard_state, ready.batch)
        disk.sync()
        self.post(name, ready.messages_after_sync)
        core.advance()
        self.take(name, ready)
        return ready

    def post(self, sender: NodeId, messages: Iterable[tuple[NodeId, Message]]) -> None:
        for receiver, message in messages:
            self.seen.append((sender, receiver, message))
            if (sender, receiver) not in self.cut_links:
                self.mail.append((sender, receiver, message))

    def take(self, name: NodeId, ready: Ready) -> None:
        """What a node's applier would get."""
        if ready.committed is not None:
            assert ready.committed.first_index == len(self.applied[name]) + 1
            self.applied[name] += ready.committed.entries
        self.reads[name] += ready.reads
        self.refused_reads[name] += ready.refused_reads

    def deliver(self, mail: Mail) -> None:
        sender, receiver, message = mail
        if (sender, receiver) not in self.cut_links and receiver in self.cores:
            self.cores[receiver].step(sender, message)

    def settle(self) -> None:
        """Turns and deliveries, in order, until there is nothing more to do."""
        for _ in range(10_000):
            for name, core in self.cores.items():
                while core.has_ready():
                    self.turn(name)
            if not self.mail:
                if not any(core.is_commit_untold() for core in self.cores.values()):
                    return
                for core in self.cores.values():
                    core.tell_commit()
                if not any(core.has_ready() for core in self.cores.values()):
                    return
                continue
            mail, self.mail = self.mail, []
            for each in mail:
                self.deliver(each)
        raise AssertionError("the cores talk without end")

    def heartbeats(self, times: int = 1) -> None:
        """So many heartbeats of whoever leads, with all that follows from each."""
        for _ in range(times):
            for core in self.cores.values():
                core.heartbeat()
            self.settle()

    def leader(self) -> Core:
        (leader,) = [core for core in self.cores.values() if core.role is Role.LEADER]
        return leader

    def elect(self, name: NodeId) -> Core:
        """That node campaigns and wins; the others have not heard a leader for long."""
        for core in self.cores.values():
            core.leader_silent()
        self.cores[name].campaign()
        self.settle()
        assert self.cores[name].role is Role.LEADER, f"{name} is {self.cores[name].role}"
        return self.cores[name]

    def sent(self, kind: type[M], sender: NodeId | None = None, to: NodeId | None = None) -> list[M]:
        """All messages of that kind that were ever sent, lost ones too."""
        return [
            message
            for by, receiver, message in self.seen
            if type(message) is kind and sender in (None, by) and to in (None, receiver)
        ]
