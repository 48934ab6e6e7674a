"""The core of Raft: term, vote, log and commit index of one node, with one door in and one object out.

Pure: no clock, no socket, no thread, no file, no randomness. The owner calls step(), propose(),
read_index() and the calls of election, then carries out what ready() says and confirms it with advance().
Term rules are here and in voting.py, once; what a role does with a message is in follower.py, candidate.py
and leader.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, cast, get_args

from raft.candidate import Candidate, PreCandidate
from raft.compaction import Snapshots
from raft.config import RaftConfig
from raft.configuration_history import Logged, recovered_history
from raft.entries import EntryBatch, HardState, Index, NodeId, SnapshotMeta, Term
from raft.errors import NotLeader, Overloaded
from raft.follower import Follower
from raft.invariants import broken, check_configurations, check_state, check_succession, facts_of
from raft.leader import Leader
from raft.log import Log, fitting
from raft.membership import Configuration
from raft.messages import (
    AppendEntries,
    Heartbeat,
    InstallSnapshot,
    Message,
    ReadIndexRefused,
    ReadIndexRequest,
    RequestPreVote,
    RequestVote,
    TimeoutNow,
)
from raft.progress import Progress
from raft.ready import Forgotten, Ready, Role, RoleChange
from raft.stale import answer_stale
from raft.voting import HANDLERS as _ELECTION_HANDLERS

if TYPE_CHECKING:
    from raft.storage import Recovered

__all__ = ["MAX_TERM", "Core", "NotLeader", "Overloaded", "Ready", "Role", "RoleChange"]

# No cluster gets here by elections. A message that says so is broken, and must not use up the terms.
MAX_TERM = 1 << 62
# A term this far ahead of the own is no term of this cluster, so that one broken message cannot use them up.
MAX_TERM_JUMP = 1 << 32

_FROM_LEADERS = frozenset({AppendEntries, Heartbeat, InstallSnapshot, TimeoutNow})


class Core:
    """One for each node, owned by its replication actor. Not safe for use by two threads."""

    def __init__(
        self,
        node_id: NodeId,
        configuration: Configuration,
        storage_state: Recovered,
        config: RaftConfig | None = None,
    ) -> None:
        """`configuration` is for the time before the log has any: the founding members, or Configuration()
        for a node that waits to be added to a cluster."""
        self.node_id = node_id
        self.config = config or RaftConfig()
        self.log = Log(storage_state.first_index, storage_state.entries, storage_state.previous_term)
        self.snapshots = Snapshots(self, storage_state.snapshot)
        self.configurations = recovered_history(configuration, storage_state)
        # The last one in the log, committed or not (Raft §6); kept at hand, since everything asks for it.
        self.configuration: Configuration = self.configurations.in_force
        self.is_removed = False  # a member said so, or the committed configuration does
        self.is_withdrawn = False  # it hears nobody, and asks for nothing
        hard_state = storage_state.hard_state
        self.term: Term = hard_state.term  # never decreases
        self.voted_for: NodeId | None = hard_state.voted_for  # changes only with the term, or from None
        # The stored one is a hint, and clamped: what it counts was committed once, if it is here at all.
        self.commit_index: Index = max(
            self.snapshots.index, min(hard_state.commit_index, self.log.last_index)
        )
        # What ready() has given out to be applied. Applied state is volatile, so it begins at the snapshot.
        self.delivered_index: Index = self.snapshots.index
        self.leader_id: NodeId | None = None
        self.ignored_messages = 0  # unknown, malformed, from strangers, or against the rules
        # The vote gate (dissertation 4.2.3) is shut while a live leader is known.
        self.is_gate_open = True
        self._role: Follower | PreCandidate | Candidate | Leader = Follower(self)
        self.role: Role = Role.FOLLOWER  # that of _role
        self._read_requests = 0
        # Collected for the next Ready.
        self._messages: list[tuple[NodeId, Message]] = []
        self._messages_after_sync: list[tuple[NodeId, Message]] = []
        self._reads: list[tuple[int, Index]] = []
        self._refused_reads: list[int] = []
        self._truncated_from: Index | None = None
        # What was given out last, to know what is new.
        self._saved = hard_state
        self._announced = RoleChange(Role.FOLLOWER, self.term, None)
        self._awaits_advance = False
        self._forgotten: Forgotten | None = None
        check_state(self)
        self._facts = facts_of(self)

    # -- what others may look at -----------------------------------------------------------------------

    @property
    def last_index(self) -> Index:
        return self.log.last_index

    @property
    def stable_index(self) -> Index:
        return self.log.stable_index

    @property
    def progress(self) -> Mapping[NodeId, Progress]:
        """The leader's view of its peers; empty on any other role. Not to be changed."""
        return self._role.progress if isinstance(self._role, Leader) else {}

    @property
    def uncommitted_bytes(self) -> int:
        """Of this leader's proposals; 0 on any other role."""
        return self._role.uncommitted_bytes if isinstance(self._role, Leader) else 0

    # -- the door: messages ----------------------------------------------------------------------------

    def step(self, sender: NodeId, message: object) -> None:
        """Take in a message of a peer; its fields have the types that they are declared with.

        What cannot be is counted in ignored_messages. Only proof of lost safety raises (InvariantBroken).
        """
        kind = type(message)
        if kind not in _KINDS or sender == self.node_id or self.is_withdrawn:
            self.ignored_messages += 1
            return
        term = cast(Message, message).term
        if not 0 <= term <= min(self.term + MAX_TERM_JUMP, MAX_TERM):
            self.ignored_messages += 1
            return
        if (
            kind not in _OPEN_TO_STRANGERS
            and sender not in self.configuration.members
            and sender != self.leader_id
        ):
            # Dissertation 4.1: appends and votes are taken from anybody, since the configuration here may
            # be out of date. Answers come only from those who were asked: members, or whoever leads.
            self.ignored_messages += 1
            return
        election_handler = _ELECTION_HANDLERS.get(kind)
        if election_handler is not None:
            election_handler(self, sender, message)
            return
        if term > self.term:
            # Raft §5.1. This also ends a leadership whose follower has moved on, and so frees a candidate
            # that could not win and would not follow.
            self.become_follower(term, None)
        elif term < self.term:
            answer_stale(self, sender, message)
            return
        if kind in _FROM_LEADERS and not self._hear_leader(sender):
            self.ignored_messages += 1
            return
        handler = self._role.handlers.get(kind)
        if handler is not None:
            handler(self._role, sender, message)
        elif isinstance(message, ReadIndexRequest):
            self.send(sender, ReadIndexRefused(self.term, message.context))

    def _hear_leader(self, sender: NodeId) -> bool:
        """False if the sender cannot be the leader of this term."""
        if self.leader_id is None:
            self.become_follower(self.term, sender)  # Raft §5.2: a candidate returns to follower, too
        if self.leader_id != sender:
            return False  # Two cannot be (Election Safety). A forged or misrouted frame is not obeyed.
        self.is_gate_open = False
        return True

    def dispatch(self, sender: NodeId, message: Message) -> bool:
        """To the role, if it has anything to do with this kind of message."""
        handler = self._role.handlers.get(type(message))
        if handler is None:
            return False
        handler(self._role, sender, message)
        return True

    # -- the door: clients -----------------------------------------------------------------------------

    def propose(self, bodies: list[bytes]) -> Index:
        """Append one entry for each body; returns the index of the first. The list is not kept.

        Raises NotLeader, or Overloaded while max_uncommitted_bytes are under way.
        """
        return self._role.propose(bodies)

    def read_index(self, context: int) -> None:
        """Ask for an index at which a read is linearizable (dissertation 6.4). No context is used twice.

        The answer comes in Ready.reads or Ready.refused_reads. Raises NotLeader(None) if no leader is
        known, and Overloaded.
        """
        self._role.read_index(context)

    # -- the door: operators ---------------------------------------------------------------------------

    def propose_configuration(self, target: Configuration, *, force: bool = False) -> Index:
        """Begin a change of membership to `target`: in one step for one voter more or less, else by way of
        a joint configuration, which the leader leaves by itself. Returns the index of the first step.

        Raises NotLeader and ConfigurationRefused.
        """
        return self._leading().reconfiguration.propose(target, force=force)

    def transfer_leadership(self, target: NodeId | None) -> None:
        """Hand over to `target`, or to the most up-to-date voter that may lead (dissertation 3.10).

        Raises NotLeader and TransferRefused. Until it is done, or abort_transfer() is called, propose()
        raises Transferring.
        """
        self._leading().begin_transfer(target)

    def abort_transfer(self) -> None:
        """It took an election timeout, which is long enough: lead on."""
        if isinstance(self._role, Leader):
            self._role.transfer = None

    @property
    def transfer_target(self) -> NodeId | None:
        transfer = self._role.transfer if isinstance(self._role, Leader) else None
        return transfer.target if transfer is not None else None

    def _leading(self) -> Leader:
        if isinstance(self._role, Leader):
            return self._role
        raise NotLeader(self.leader_id)

    # -- the door: election ----------------------------------------------------------------------------

    def campaign(self) -> None:
        """Election timeout: find out whether to campaign, then campaign (Raft §5.2, dissertation 9.6)."""
        if self.role is not Role.LEADER and self.may_campaign():
            self.leader_id = None
            self.is_gate_open = True
            self._enter(PreCandidate(self))
        elif self.role is Role.FOLLOWER and self.leader_id is not None:
            self.become_follower(self.term, None)  # or it would send clients to a dead leader for ever

    def may_campaign(self) -> bool:
        """Not as a learner, not while it waits to be added, not after it was removed; not with priority 0."""
        if self.is_removed or self.is_withdrawn or self.config.priority == 0:
            return False
        if self.configuration.may_campaign(self.node_id):
            return True
        # Dissertation 4.2.2: while the configuration that leaves it out is not known to be committed, this
        # node may be the only one whose log is long enough to win. It asks the others, and has no vote.
        history = self.configurations
        is_committed = history.last_index <= self.commit_index
        return not is_committed and history.at(history.last_index - 1).may_campaign(self.node_id)

    def heartbeat(self) -> None:
        if isinstance(self._role, Leader):
            self._role.heartbeat_due()

    def is_commit_untold(self) -> bool:
        """Does a leader know of commits that some peer was not told of, and could be told of now?"""
        return isinstance(self._role, Leader) and self._role.is_commit_untold()

    def tell_commit(self) -> None:
        """Let the peers hear of the commit index, even if there is no entry to send along.

        Appends and heartbeats carry it anyway. When it deserves a message of its own is a question of time,
        so that it is the owner's to answer: the sooner, the sooner followers apply; the later, the fewer
        messages.
        """
        if isinstance(self._role, Leader):
            self._role.tell_commit()

    def check_quorum(self) -> None:
        """Once in each election timeout: a leader steps down unless it heard a quorum since the last call."""
        if isinstance(self._role, Leader):
            self._role.check_quorum()

    def leader_silent(self) -> None:
        """The leader was not heard for the least election timeout: until it is, votes may be granted."""
        if self.role is not Role.LEADER:
            self.is_gate_open = True

    # -- transitions, for this class and the roles -----------------------------------------------------

    def become_follower(self, term: Term, leader_id: NodeId | None) -> None:
        if term < self.term:
            raise broken("cannot go back to term", term, self.term)
        if term > self.term:
            self.term = term
            self.voted_for = None  # with a new term, and never else
        self.leader_id = leader_id
        self.is_gate_open = leader_id is None
        self._enter(Follower(self))

    def start_election(self, *, is_transfer: bool = False) -> None:
        """Raft §5.2: a new term, with the vote of this node for itself in it."""
        self.term += 1
        self.voted_for = self.node_id
        self.leader_id = None
        self.is_gate_open = True
        self._enter(Candidate(self, is_transfer=is_transfer))

    def become_leader(self, supporters: Collection[NodeId]) -> None:
        self.leader_id = self.node_id
        self.is_gate_open = False
        self._enter(Leader(self, supporters))

    def withdraw(self, forgotten: Forgotten | None = None) -> None:
        """Take part in nothing any more, as though it were down: less is here than was promised. What it was
        about to say remains unsaid."""
        self.is_withdrawn, self._forgotten = True, forgotten
        self.become_follower(self.term, None)
        self._messages, self._messages_after_sync = [], []

    def _enter(self, role: Follower | PreCandidate | Candidate | Leader) -> None:
        self._role.retire()
        self._role = role
        self.role = role.role
        role.begin()

    def commit_to(self, index: Index) -> None:
        if index > self.commit_index:
            if index > self.log.last_index:
                raise broken("cannot commit beyond the log:", index, self.log.last_index)
            self.commit_index = index

    def truncate_from(self, index: Index) -> None:
        # A committed entry is in every later leader's log (Raft §5.4.3). If not, all bets are off.
        if index <= self.commit_index:
            raise broken("cannot remove a committed entry:", index, self.commit_index)
        self.log.truncate_from(index)
        if self.configurations.truncate_from(index):
            self._configuration_changed()
        self._truncated_from = index if self._truncated_from is None else min(self._truncated_from, index)

    def compact(self, index: Index) -> None:
        """Entries up to `index` may go; a snapshot stands for them. To be done in steps, if it is far."""
        if index > self.snapshots.index:
            raise broken("no snapshot stands for the entries up to", index, self.snapshots.index)
        self.log.compact(max(index, self.log.snapshot_index))
        self.snapshots.note_compacted()

    def restore(self, snapshot: SnapshotMeta, configuration: Configuration) -> None:
        """It takes the place of the log (Raft figure 13, rules 7 and 8)."""
        if snapshot.index <= self.commit_index:
            raise broken("a snapshot of the past is installed:", snapshot.index, self.commit_index)
        self.log.restore(snapshot.index, snapshot.term)
        self.commit_index = self.delivered_index = snapshot.index
        self.configurations.restore(snapshot.index, configuration)
        self._configuration_changed()

    # -- membership, for the roles ---------------------------------------------------------------------

    @property
    def committed_configuration(self) -> Configuration:
        """The last one that is known to be committed; before there is any, what the node started with."""
        return self.configurations.at(self.commit_index)

    def adopt(self, logged: list[Logged]) -> None:
        """These were appended, and are in force from now on (Raft §6)."""
        for index, configuration in logged:
            check_configurations(self.configurations, configuration)
            self.configurations.append(index, configuration)
        self._configuration_changed()

    def _configuration_changed(self) -> None:
        self.configuration = self.configurations.in_force
        if isinstance(self._role, Leader):
            self._role.follow_configuration()

    def note_removed(self) -> None:
        """Its own removal from the cluster is committed."""
        if not self.is_removed:
            self.is_removed = self.configurations.has_news = True
            if self.role is not Role.FOLLOWER:
                self.become_follower(self.term, None)

    # -- outbox, for the roles -------------------------------------------------------------------------

    def send(self, to: NodeId, message: Message) -> None:
        """It promises nothing that must be on disk."""
        self._messages.append((to, message))

    def send_after_sync(self, to: NodeId, message: Message) -> None:
        self._messages_after_sync.append((to, message))

    def grant_reads(self, contexts: list[int], read_index: Index) -> None:
        self._reads += [(context, read_index) for context in contexts]

    def refuse_reads(self, contexts: list[int]) -> None:
        self._refused_reads += contexts

    def next_read_number(self) -> int:
        """A number that no earlier run of this node has used, if runs differ in `incarnation`."""
        self._read_requests += 1
        return self.config.incarnation << 32 | self._read_requests

    # -- the object out --------------------------------------------------------------------------------

    def has_ready(self) -> bool:
        """Would ready() say anything? No term, vote or truncation is new without one of these."""
        return bool(
            self._messages
            or self._messages_after_sync
            or self.log.has_unpersisted()
            or (self.delivered_index < self.commit_index and not self.snapshots.holds_back)
            or self._role.has_work()
            or self._reads
            or self._refused_reads
            or self._announced != (self.role, self.term, self.leader_id)
            or self.configurations.has_news
            or self.snapshots.has_work
            or self._forgotten is not None
        )

    def ready(self) -> Ready:
        """All that must happen now. advance() must follow before the next call."""
        if self._awaits_advance:
            raise broken("ready() again before advance() in term", self.term)
        if self.configurations.uncommitted_index <= self.commit_index:
            self.configurations.note_committed()
            if self.node_id in self.configuration.removed:
                self.note_removed()
        batch = self.log.take_unpersisted()
        self._role.collect(batch)
        is_vote_changed = self._is_vote_changed()
        hard_state = None
        # The commit index alone is not worth a write: it is a hint, and goes along with others.
        durable_commit = self.snapshots.durable_commit_index(self._saved.commit_index)
        if is_vote_changed or (batch is not None and durable_commit != self._saved.commit_index):
            hard_state = self._saved = HardState(self.term, self.voted_for, durable_commit)
        if is_vote_changed:
            # Nothing of a term leaves before the term is on disk. Else a lone voter could lead a term,
            # lose its memory of it, and lead it again with another log.
            self._messages_after_sync[:0] = self._messages
            self._messages = []
        role_change = None
        if self._announced != (self.role, self.term, self.leader_id):
            role_change = self._announced = RoleChange(self.role, self.term, self.leader_id)
        ready = Ready(
            hard_state=hard_state,
            batch=batch,
            must_sync=batch is not None or is_vote_changed,
            messages=self._messages,
            messages_after_sync=self._messages_after_sync,
            committed=self._take_committed(),
            reads=self._reads,
            refused_reads=self._refused_reads,
            truncated_from=self._truncated_from,
            role_change=role_change,
            configuration=self.configuration if self.configurations.has_news else None,
            snapshots=self.snapshots.take_work() if self.snapshots.has_work else None,
            forgotten=self._forgotten,
        )
        self.configurations.has_news = False
        self._messages, self._messages_after_sync = [], []
        self._reads, self._refused_reads, self._truncated_from, self._forgotten = [], [], None, None
        self._awaits_advance = True
        self._check()
        return ready

    def advance(self) -> None:
        """What the last ready() said is done: entries and hard state are durable, messages are sent."""
        if not self._awaits_advance:
            raise broken("advance() without ready() in term", self.term)
        self._awaits_advance = False
        self.log.confirm_persisted()
        if isinstance(self._role, Leader) and self.log.stable_index > self.commit_index:
            self._role.advance_commit()

    def _is_vote_changed(self) -> bool:
        return self.term != self._saved.term or self.voted_for != self._saved.voted_for

    def _take_committed(self) -> EntryBatch | None:
        """The next committed entries; they always follow those given out before."""
        first_index = self.delivered_index + 1
        if first_index > self.commit_index or self.snapshots.holds_back:
            return None
        last_index = min(self.commit_index, first_index + self.config.max_committed_entries_per_ready - 1)
        entries = self.log.slice(first_index, last_index)
        count, size = fitting(entries, self.config.max_committed_bytes_per_ready)
        self.delivered_index += count
        self.snapshots.log_bytes += size
        return EntryBatch(first_index, entries if count == len(entries) else entries[:count])

    def _check(self) -> None:
        check_state(self)
        facts = facts_of(self)
        check_succession(self._facts, facts)
        self._facts = facts


_OPEN_TO_STRANGERS = frozenset({RequestPreVote, RequestVote}) | _FROM_LEADERS
_KINDS = frozenset(get_args(Message))
