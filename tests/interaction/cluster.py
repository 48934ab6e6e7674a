"""The cluster of a scenario: cores, their disks and the mail between them, and a record of what happens.

On top of the network of the core's own tests, with storage in memory: here a disk may be slow, so that a node
can crash between a write and its sync, and everything that happens is noted in words. Knows cores; nothing of
commands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from raft.config import RaftConfig
from raft.entries import NodeId
from raft.invariants import check_log
from raft.membership import Configuration
from raft.messages import Message
from raft.ready import Ready, Role, RoleChange
from raft.storage import MemoryStorage, Recovered
from tests.interaction.words import batch_text, configuration_text, entries_text, message_text
from tests.raft.network import Mail
from tests.raft.snapshot_network import SnapshotDisk, SnapshotNetwork

MAX_ROUNDS = 1000


class Cluster(SnapshotNetwork):
    """Owned by one run of one scenario."""

    def __init__(
        self, voters: Iterable[NodeId], learners: Iterable[NodeId] = (), config: RaftConfig | None = None
    ) -> None:
        self.notes: list[str] = []  # what happened since the command began
        self.shows_messages = True
        self.slow_disks: set[NodeId] = set()
        self.writing: dict[NodeId, Ready] = {}  # at most one write to each disk is not synced
        self.read_names: dict[int, str] = {}  # context of a read -> its name in the scenario
        self._leaders: dict[int, NodeId] = {}
        self._members: dict[NodeId, Configuration] = {}  # what each node was last seen to work with
        super().__init__(voters, learners=learners, config=config or RaftConfig())

    def note(self, line: str) -> None:
        self.notes.append(line)

    def start(self, name: NodeId) -> None:  # type: ignore[override]  # nobody here needs the core
        super().start(name)
        self._members[name] = self.cores[name].configuration

    def new_disk(self) -> SnapshotDisk:
        return SnapshotDisk()

    def give(self, name: NodeId, recovered: Recovered) -> None:
        """Start that node from a disk with this on it."""
        disk = self.disks[name] = SnapshotDisk()
        disk.storage = MemoryStorage(recovered)
        self.start(name)

    # -- turns -----------------------------------------------------------------------------------------

    def take_turns(self) -> None:
        """Every node carries out what its core wants, until none wants anything. Mail stays in the mail."""
        for name in sorted(self.cores):
            while name not in self.writing and self.cores[name].has_ready():
                self.turn(name)
        self.check()

    def turn(self, name: NodeId) -> Ready:
        core = self.cores[name]
        ready = core.ready()
        if ready.role_change is not None:
            self.note(f"{name} {role_text(name, ready.role_change)}")
        if ready.configuration is not None and ready.configuration != self._members[name]:
            self._members[name] = ready.configuration
            self.note(f"{name} works with {configuration_text(ready.configuration)}")
        if ready.truncated_from is not None:
            self.note(f"{name} drops its entries from {ready.truncated_from} on")
        self.post(name, ready.messages)
        self.disks[name].append(ready.hard_state, None)
        if ready.snapshots is not None:
            self._carry_out(name, ready.snapshots)
        self.disks[name].append(None, ready.batch)
        self.writing[name] = ready
        if name not in self.slow_disks or not ready.must_sync:
            self.finish_write(name)
        else:
            self.note(f"{name} waits for its disk: {_write_text(ready)}")
        return ready

    def finish_write(self, name: NodeId) -> None:
        """The disk has synced: what waited for it may leave, and what is committed may be applied."""
        ready = self.writing.pop(name)
        self.disks[name].sync()
        self.post(name, ready.messages_after_sync)
        self.cores[name].advance()
        self.take(name, ready)

    def take(self, name: NodeId, ready: Ready) -> None:
        super().take(name, ready)
        if ready.committed is not None:
            self.note(f"{name} applies {batch_text(ready.committed)}")
        for context, read_index in ready.reads:
            self.note(f"{name} may serve {self.read_names[context]} once it has applied {read_index}")
        for context in ready.refused_reads:
            self.note(f"{name} refuses {self.read_names[context]}")

    def restore(self, name: NodeId) -> None:
        super().restore(name)
        newest = self.cores[name].snapshots.newest
        assert newest is not None, f"{name} has no snapshot"
        self.note(f"{name} takes its state from the snapshot up to {newest.index}@{newest.term}")

    def crash(self, name: NodeId, *, writes_survive: bool = False) -> None:
        """What was not synced is lost, or luckily was not."""
        if writes_survive:
            self.disks[name].sync()
        self.disks[name].crash(0)
        self.writing.pop(name, None)
        del self.cores[name]

    # -- mail ------------------------------------------------------------------------------------------

    def post(self, sender: NodeId, messages: Iterable[tuple[NodeId, Message]]) -> None:
        for receiver, message in messages:
            if self.shows_messages:
                lost = " (lost)" if (sender, receiver) in self.cut_links else ""
                self.note(f"{sender} -> {receiver} {message_text(message)}{lost}")
            super().post(sender, [(receiver, message)])

    def take_from_mail(self, wanted: Callable[[Mail], bool]) -> list[Mail]:
        taken = [mail for mail in self.mail if wanted(mail)]
        self.mail = [mail for mail in self.mail if not wanted(mail)]
        return taken

    def deliver_all(self, mails: list[Mail]) -> None:
        """All of these arrive, then every node takes its turn: so it is in a node under load, too."""
        for mail in mails:
            self.deliver(mail)
        self.take_turns()

    def deliver(self, mail: Mail) -> None:
        sender, receiver, message = mail
        core = self.cores.get(receiver)
        if core is None:
            self.note(f"{receiver} is down, and does not get {message_text(message)}")
            return
        ignored = core.ignored_messages
        super().deliver(mail)
        if core.ignored_messages > ignored:
            self.note(f"{receiver} ignores {message_text(message)} of {sender}")

    def settle(self) -> None:
        """Until there is no mail and nobody has anything to say; commit news are told without being asked."""
        self.take_turns()
        for _ in range(MAX_ROUNDS):
            if self.mail:
                self.deliver_all(self.take_from_mail(lambda mail: True))
                continue
            told = [core for core in self.cores.values() if core.is_commit_untold()]
            for core in told:
                core.tell_commit()
            self.take_turns()
            if not self.mail:
                return
        raise AssertionError("the nodes talk without end")

    # -- what must always hold -------------------------------------------------------------------------

    def check(self) -> None:
        """Two leaders in a term, or a log that contradicts itself, is no scenario but a bug."""
        for name, core in self.cores.items():
            check_log(core)
            if core.role is Role.LEADER:
                known = self._leaders.setdefault(core.term, name)
                assert known == name, f"term {core.term} has two leaders, {known} and {name}"


def role_text(name: NodeId, change: RoleChange) -> str:
    if change.role is Role.LEADER:
        return f"leads term {change.term}"
    if change.role is not Role.FOLLOWER:
        return f"is {change.role.value} in term {change.term}"
    if change.leader_id is None:
        return f"is follower in term {change.term}, and knows no leader"
    return f"follows {change.leader_id} in term {change.term}"


def _write_text(ready: Ready) -> str:
    parts = []
    if ready.hard_state is not None:
        parts.append(f"term {ready.hard_state.term}, vote for {ready.hard_state.voted_for or 'nobody'}")
    if ready.batch is not None:
        parts.append(entries_text(ready.batch.first_index, ready.batch.entries))
    return "; ".join(parts)
