"""What must hold after every step, whatever befell the nodes.

Looks at the cores, at what their disks were asked to keep, at every message that leaves and every command
that is applied; changes nothing. Each check looks at what is new since the last step, so that a run costs no
more than a few times what its nodes cost. The first breach ends the run with a Violation.
"""

from __future__ import annotations

from typing import NamedTuple

import msgpack

from kvstore import protocol
from raft.core import Role
from raft.entries import EntryBatch, EntryKind, HardState, Index, Term
from raft.membership import Configuration
from raft.messages import AppendResponse, RequestVote, VoteResponse
from raft.storage import Recovered
from tests.simulator.cluster import CHECK_EVERY, Cluster, SimulatedNode
from tests.simulator.membership_oracle import MembershipOracle
from tests.simulator.model import StoreModel
from tests.simulator.timekeeping import Timekeeping
from tests.simulator.tracing import Trace, Violation


class KnownEntry(NamedTuple):
    """All that a (index, term) stands for, wherever it is met (Log Matching, Raft figure 3)."""

    previous_term: Term
    kind: int
    body: bytes


class Shadow:
    """What one node's storage was asked to keep, and what of it is promised. Survives its process."""

    def __init__(self) -> None:
        self.durable: list[Term] = []  # terms of the entries from index 1 on, as of the last sync
        self.durable_state = HardState()
        self.terms: list[Term] = []  # the same, with what was appended since
        self.state = HardState()
        self.pending: list[tuple[HardState | None, EntryBatch | None]] = []  # since the last sync
        self.snapshot_index: Index = 0  # of the newest snapshot that is promised
        # Of snapshots whose storing began and is not confirmed; the second replaces the log.
        self.pending_snapshot: Index = 0
        self.pending_install: Index = 0
        self.acknowledged: tuple[Term, Index] = (0, 0)  # the highest match that a leader of the term was told

    def holds(self, index: Index, term: Term) -> bool:
        return len(self.durable) >= index and self.durable[index - 1] == term


class Observed:
    """What a node's core was found to be after its last turn; a new one for each life."""

    def __init__(self) -> None:
        self.term = 0
        self.commit_index = 0
        self.applied_index = 0
        self.matches: dict[str, Index] = {}  # of a leader's peers, in `match_term`
        self.match_term = 0
        self.configuration: Configuration | None = None  # in force at the end of the turn


class Oracles:
    """Owned by one simulation; implements cluster.Watcher."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self.cluster: Cluster  # set once, by the simulation
        self.model = StoreModel()
        self.membership = MembershipOracle(trace)
        self.times = Timekeeping(self.model)
        self._shadows: dict[str, Shadow] = {}  # by node
        self._observed: dict[str, Observed] = {}  # by node; of its present life
        self._copies: set[str] = set()  # nodes whose disk is an old copy, from their first start with it on
        self.leaders: dict[Term, str] = {}
        self._entries: dict[tuple[Index, Term], KnownEntry] = {}
        # By index - 1: the term of the committed entry, and the term in which it was first seen committed.
        self.committed: list[tuple[Term, Term]] = []
        # By index - 1: the body that was applied, and the result that it had everywhere.
        self.applied_bodies: list[bytes | None] = []
        self._results: list[bytes | None] = []
        self._revisions: list[int] = []  # of the store, behind each
        self._hashes: dict[Index, bytes] = {}  # of the state machine, by applied index

    def shadow(self, node: SimulatedNode) -> Shadow:
        shadow = self._shadows.get(node.name)
        if shadow is None:
            shadow = self._shadows[node.name] = Shadow()
        return shadow

    # -- the disk --------------------------------------------------------------------------------------

    def recovered(self, node: SimulatedNode, recovered: Recovered) -> None:
        """A restart finds all that was synced, and nothing that was never written."""
        self._observed[node.name] = Observed()
        self.times.recovered(node, recovered.last_index)
        if node.copy_of_term and node.name not in self._copies:
            self._copies.add(node.name)
            self._take_for_granted(node, recovered)
            return
        shadow = self.shadow(node)
        terms = self._terms_committed(recovered.first_index - 1)
        terms += [term for term, _, _ in recovered.entries]
        kept = len(shadow.durable)
        for _, batch in shadow.pending:
            if batch is not None:
                kept = min(kept, batch.first_index - 1)
        is_installed = shadow.pending_install and terms == self._terms_committed(shadow.pending_install)
        if terms[:kept] != shadow.durable[:kept] and not is_installed:
            raise Violation(f"{node.name} forgot entries: {terms[:kept]} instead of {shadow.durable[:kept]}")
        self._check_recovered_snapshot(node, shadow, recovered)
        for index, entry in enumerate(recovered.entries, recovered.first_index):
            known = self._entries.get((index, entry[0]))
            if known is None or (known.kind, known.body) != (entry[1], entry[2]):
                raise Violation(f"{node.name} recovered an entry that nobody wrote: {index} of {entry[0]}")
        promised = [(shadow.durable_state.term, shadow.durable_state.voted_for)]
        promised += [(state.term, state.voted_for) for state, _ in shadow.pending if state is not None]
        found = (recovered.hard_state.term, recovered.hard_state.voted_for)
        if found not in promised:
            raise Violation(f"{node.name} recovered term and vote {found}, and had promised {promised}")
        if terms != shadow.durable:
            self._trace.counts["recovery differs from the last sync"] += 1
        shadow.durable, shadow.terms = terms, terms.copy()
        shadow.durable_state = shadow.state = recovered.hard_state
        shadow.pending = []
        shadow.pending_snapshot = shadow.pending_install = 0
        if is_installed:
            self.membership.replaced(node.name, len(terms))
        self.membership.recovered(node.name, len(terms))

    def _take_for_granted(self, node: SimulatedNode, recovered: Recovered) -> None:
        """The disk is an old copy: what it has forgotten is the trouble, and no breach of a promise."""
        shadow = self._shadows[node.name] = Shadow()
        shadow.durable = self._terms_committed(recovered.first_index - 1)
        shadow.durable += [term for term, _, _ in recovered.entries]
        shadow.terms = shadow.durable.copy()
        shadow.durable_state = shadow.state = recovered.hard_state
        shadow.snapshot_index = recovered.snapshot.index if recovered.snapshot is not None else 0
        self.membership.recovered(node.name, len(shadow.terms))

    def _terms_committed(self, index: Index) -> list[Term]:
        return [term for term, _ in self.committed[:index]]

    def _check_recovered_snapshot(self, node: SimulatedNode, shadow: Shadow, recovered: Recovered) -> None:
        index = recovered.snapshot.index if recovered.snapshot is not None else 0
        if index:
            self._trace.counts["restart from a snapshot"] += 1
        promised = (shadow.snapshot_index, shadow.pending_snapshot, shadow.pending_install)
        if index not in promised or index < shadow.snapshot_index:
            raise Violation(f"{node.name} recovered a snapshot at {index}, and had promised {promised}")
        if not recovered.first_index - 1 <= index <= recovered.last_index and index:
            raise Violation(
                f"{node.name} recovered a log from {recovered.first_index}, a snapshot at {index}"
            )
        shadow.snapshot_index = index

    def snapshot_begun(self, node: SimulatedNode, index: Index, *, replaces_log: bool) -> None:
        if index > len(self.applied_bodies) and not node.is_bent:
            raise Violation(f"{node.name} has a snapshot at {index}; nobody has applied so much")
        shadow = self.shadow(node)
        if replaces_log:
            self._trace.say(node.name, "snapshot installed", f"index={index}")
            shadow.pending_install = index
        else:
            self._trace.say(node.name, "snapshot taken", f"index={index}")
            shadow.pending_snapshot = index

    def snapshot_stored(self, node: SimulatedNode, index: Index) -> None:
        self.synced(node)
        shadow = self.shadow(node)
        if shadow.pending_install:
            shadow.durable = self._terms_committed(index)
            shadow.terms = shadow.durable.copy()
            self.membership.replaced(node.name, index)
        shadow.snapshot_index = index
        shadow.pending_snapshot = shadow.pending_install = 0

    def appended(self, node: SimulatedNode, hard_state: HardState | None, batch: EntryBatch | None) -> None:
        shadow = self.shadow(node)
        shadow.pending.append((hard_state, batch))
        if hard_state is not None:
            self._check_state(node, shadow.state, hard_state)
            shadow.state = hard_state
        if batch is not None:
            self._check_batch(node, shadow, batch)
            shadow.terms[batch.first_index - 1 :] = [term for term, _, _ in batch.entries]
            self.membership.appended(node.name, batch)
            self.times.appended(node, batch, self.leaders.get(batch.entries[-1][0]))

    def _check_state(self, node: SimulatedNode, old: HardState, new: HardState) -> None:
        if new.term < old.term:
            raise Violation(f"{node.name} wrote term {new.term} after {old.term}")
        if new.term == old.term and old.voted_for not in (None, new.voted_for):
            raise Violation(f"{node.name} votes twice in term {new.term}: {old.voted_for}, {new.voted_for}")

    def _check_batch(self, node: SimulatedNode, shadow: Shadow, batch: EntryBatch) -> None:
        first, last = batch.first_index, len(shadow.terms)
        if first > last + 1:
            raise Violation(f"{node.name} wrote entry {first} after {last}")
        if first <= last:
            self._trace.say(node.name, "truncation", f"from={first} last={last}")
            self._check_truncation(node, shadow, batch)
            if node.leads:
                raise Violation(f"{node.name} leads term {node.core.term} and overwrites its entry {first}")
        previous = shadow.terms[first - 2] if first > 1 else 0
        for index, (term, kind, body) in enumerate(batch.entries, first):
            entry = KnownEntry(previous, kind, body)
            known = self._entries.setdefault((index, term), entry)
            if known != entry:
                raise Violation(f"{node.name} has another entry {index} of term {term} than was known")
            if term < previous:
                raise Violation(f"{node.name} has term {term} at {index} after {previous}")
            previous = term

    def _check_truncation(self, node: SimulatedNode, shadow: Shadow, batch: EntryBatch) -> None:
        """Nothing goes that was committed, or that the leader of this very term was told is here."""
        in_term, through = shadow.acknowledged
        for index in range(batch.first_index, len(shadow.terms) + 1):
            term = shadow.terms[index - 1]
            if index <= batch.last_index and batch.entries[index - batch.first_index][0] == term:
                continue
            # Compared with what was committed before: the overwriting entries may be committed by now.
            if index <= len(self.committed) and self.committed[index - 1][0] == term:
                raise Violation(f"{node.name} removes the committed entry {index} of term {term}")
            if node.core.term == in_term and index <= through:
                raise Violation(f"{node.name} removes entry {index} that it acknowledged in term {in_term}")

    def synced(self, node: SimulatedNode) -> None:
        shadow = self.shadow(node)
        unsynced = node.disk.unsynced_log()
        if unsynced and (shadow.pending or shadow.pending_snapshot or shadow.pending_install):
            raise Violation(f"{node.name} says that it has synced; {unsynced} is not on the disk")
        for state, batch in shadow.pending:
            if state is not None:
                shadow.durable_state = state
            if batch is not None:
                shadow.durable[batch.first_index - 1 :] = [term for term, _, _ in batch.entries]
        shadow.pending = []

    # -- messages --------------------------------------------------------------------------------------

    def sent(self, node: SimulatedNode, to: str, message: object) -> None:
        """What promises durability leaves after the sync that makes it true, never before."""
        shadow = self.shadow(node)
        if isinstance(message, AppendResponse):
            if message.match_index > len(shadow.durable):
                raise Violation(
                    f"{node.name} acknowledges {message.match_index}; on its disk is {len(shadow.durable)}"
                )
            shadow.acknowledged = max(shadow.acknowledged, (message.term, message.match_index))
        elif isinstance(message, VoteResponse):
            # In a later term nobody is voted for in this one any more, so that keeps the promise too.
            promised = HardState(message.term, to)[:2]
            # A later term on the disk keeps the promise as well: it will not vote in the former one again.
            is_kept = shadow.durable_state.term > message.term or shadow.durable_state[:2] == promised
            if message.granted and not is_kept:
                raise Violation(f"{node.name} grants {promised}; on its disk is {shadow.durable_state}")
        elif isinstance(message, RequestVote):
            promised = HardState(message.term, node.name)[:2]
            if shadow.durable_state.term <= message.term and shadow.durable_state[:2] != promised:
                raise Violation(f"{node.name} asks as {promised}; on its disk is {shadow.durable_state}")

    # -- the state machine -----------------------------------------------------------------------------

    def applied(
        self, node: SimulatedNode, first_index: int, bodies: list[bytes | None], results: list[bytes | None]
    ) -> None:
        """Every node applies the same commands, at the same index, with the same results and state."""
        if node.is_fenced:
            raise Violation(f"{node.name} applies {first_index} behind its fence")
        if node.is_bent:
            return
        if first_index + len(bodies) - 1 > node.core.commit_index:
            raise Violation(f"{node.name} applies from {first_index}; committed is {node.core.commit_index}")
        for index, (body, result) in enumerate(zip(bodies, results), first_index):
            if index > len(self.applied_bodies) + 1:
                raise Violation(f"{node.name} applies {index}; nobody has applied what is before it")
            if index == len(self.applied_bodies) + 1:
                self._apply_first(node, index, body, result)
            elif self.applied_bodies[index - 1] != body:
                raise Violation(f"{node.name} applies another command at {index} than others did")
            elif self._results[index - 1] != result:
                raise Violation(f"{node.name} gives another result at {index} than others did")
        self.times.applied(node, first_index, bodies)
        last = first_index + len(bodies) - 1
        if (last + 1) % node.machine.PIECE == 0:
            self._check_hash(node, last, node.machine.inner.digest())

    def _apply_first(self, node: SimulatedNode, index: int, body: bytes | None, result: bytes | None) -> None:
        self.applied_bodies.append(body)
        self._results.append(result)
        self._revisions.append(self.model.revision)
        if body is None or result is None:
            if body is not result:
                raise Violation(
                    f"{node.name}: a command without result, or a result without command: {index}"
                )
            return
        self.times.check(index, body, self.cluster.swarm)
        expected = self.model.apply(index, body)
        self._revisions[-1] = self.model.revision
        given = msgpack.unpackb(result)
        # An error has a text behind its code, for people; of a success all counts.
        if given[0] != expected[0] or (given[0] == 0 and given != expected):
            raise Violation(f"{node.name} answers {given} at {index}, expected {expected}")

    def installed(self, node: SimulatedNode) -> None:
        """A running node has the state of a snapshot that it was sent."""
        self._trace.counts["state of an installed snapshot"] += 1
        self.restored(node)

    def restored(self, node: SimulatedNode) -> None:
        """A snapshot's state is the one that everybody had at its index."""
        machine = node.machine.inner
        index = machine.applied_index
        self.times.restored(node, index)
        if index > len(self._revisions) or machine.revision != self._revisions[index - 1]:
            raise Violation(f"{node.name} restored revision {machine.revision} from a snapshot at {index}")
        records = [list(record) for record in machine._store.range(b"\x00", b"\x00").records]
        if records != self.model.contents(machine.revision):
            raise Violation(f"{node.name} restored {records} from a snapshot at {index}")
        self._check_hash(node, index, machine.digest())

    def _check_hash(self, node: SimulatedNode, index: Index, digest: bytes) -> None:
        if self._hashes.setdefault(index, digest) != digest:
            raise Violation(f"{node.name} has another state at {index} than others had")

    # -- after each turn -------------------------------------------------------------------------------

    def turned(self, node: SimulatedNode) -> None:
        core = node.core
        seen = self._observed[node.name]
        if core.term < seen.term:
            raise Violation(f"{node.name} went back from term {seen.term} to {core.term}")
        seen.term = core.term
        self._check_log(node)
        if core.role is Role.LEADER and self.leaders.get(core.term) != node.name:
            if node.is_fenced:
                raise Violation(f"{node.name} leads term {core.term} behind its fence")
            self._check_new_leader(node)
        if core.commit_index != seen.commit_index:
            self._check_commit(node, seen)
        self.membership.check_uncommitted(node.name, len(self.committed))
        seen.configuration = core.configuration
        applied = node.applier.applied_index
        # Behind its fence a node passes over what is committed; in this very turn it may have put it up.
        is_fence_due = node.is_fenced or node.is_bent or bool(node.copy_of_term)
        is_in_machine = node.machine.inner.applied_index == applied or is_fence_due
        if applied < seen.applied_index or not is_in_machine:
            raise Violation(f"{node.name} has applied {applied} after {seen.applied_index}")
        seen.applied_index = applied
        self._trace.counts["applier behind"] += bool(node.applier._unapplied.waiting)
        self._check_turn(node)
        if not self.cluster.swarm.bends and (suspects := node.applier._guard.status()["divergence"]):
            raise Violation(f"{node.name} takes others for different: {suspects}")
        if core.role is Role.LEADER:
            self._check_progress(node, seen)
            self.times.turned(node)

    def _check_turn(self, node: SimulatedNode) -> None:
        """A node that applies for long is silent meanwhile. Actors run twice in a turn; and between two
        fingerprints the applier asks for the time whatever the machine does."""
        share_seconds = node.applier._share._seconds / node.clock.rate
        most_seconds = 2 * (share_seconds + CHECK_EVERY * self.cluster.swarm.busy_apply)
        if node.applied_seconds > most_seconds:
            took = f"{node.applied_seconds:.3f} s in one turn, and may for {most_seconds:.3f}"
            raise Violation(f"{node.name} applied for {took}")

    def fenced(self, node: SimulatedNode) -> None:
        """Only a node whose memory went bad, or whose disk is an old copy; whatever befell the others."""
        if not node.is_bent and not node.copy_of_term:
            raise Violation(f"{node.name} is fenced, and right: {node.applier._guard.fence.mark}")
        self.cluster.network.gagged.discard(node.name)

    def answered(self, node: SimulatedNode, payload: bytes) -> None:
        """Nothing is answered behind the fence, but who the node is and that it serves nothing."""
        reply = protocol.decode_reply(payload)
        if not isinstance(reply, protocol.Results):
            return
        results = protocol.split_results(reply.blob, reply.request_count)
        if any(len(result) < 2 or type(result[1]) is not dict for result in results):
            raise Violation(f"{node.name} answers behind its fence")

    def died(self, node: SimulatedNode) -> None:
        """In the middle of a turn: what it had committed by then is committed."""
        seen = self._observed[node.name]
        if node.core.commit_index > len(self.committed):
            self._check_commit(node, seen)

    def _check_log(self, node: SimulatedNode) -> None:
        """What the core holds is what it gave to the disk."""
        core, shadow = node.core, self.shadow(node)
        if core.has_ready():
            return  # the turn ended before all was said; the next one will
        last_term = shadow.terms[-1] if shadow.terms else 0
        if (core.last_index, core.log.last_term) != (len(shadow.terms), last_term):
            raise Violation(f"{node.name} has log end {core.last_index}, its disk {len(shadow.terms)}")
        if (core.term, core.voted_for) != shadow.state[:2]:
            raise Violation(f"{node.name} has term {core.term}, vote {core.voted_for}; disk: {shadow.state}")

    def _check_new_leader(self, node: SimulatedNode) -> None:
        """Election Safety, and Leader Completeness (Raft figure 3)."""
        core = node.core
        known = self.leaders.setdefault(core.term, node.name)
        if known != node.name:
            raise Violation(f"{node.name} and {known} lead term {core.term}")
        self._trace.say(node.name, "leader", f"term={core.term} last={core.last_index}")
        for index in range(len(self.committed), 0, -1):
            term, in_term = self.committed[index - 1]
            if in_term < core.term:
                if core.log.term_at(index) not in (term, None) or core.last_index < index:
                    raise Violation(f"{node.name} leads term {core.term} without committed entry {index}")
                return

    def _check_commit(self, node: SimulatedNode, seen: Observed) -> None:
        core = node.core
        first, last = seen.commit_index + 1, core.commit_index
        if last < seen.commit_index:
            raise Violation(f"{node.name} went back from commit {seen.commit_index} to {last}")
        seen.commit_index = last
        for index in range(first, min(last, len(self.committed)) + 1):
            term = core.log.term_at(index)
            if term is not None and term != self.committed[index - 1][0]:
                raise Violation(f"{node.name} committed another entry {index} than others did")
        if last <= len(self.committed):
            return
        new_from = len(self.committed) + 1
        given = self.shadow(node).terms
        for index in range(new_from, last + 1):
            term = core.log.term_at(index)
            if term is None and index <= min(len(given), core.snapshots.index):
                term = given[index - 1]  # committed, put into a snapshot and compacted, all in this turn
            if term is None:
                raise Violation(f"{node.name} committed {index}, which nobody has seen committed")
            self.committed.append((term, core.term))
        self.membership.committed_up_to(node.name, new_from, last)
        term = self.committed[-1][0]
        holders = [name for name, shadow in self._shadows.items() if shadow.holds(last, term)]
        # What was committed in this turn may have brought the next configuration into force.
        configurations = [core.configuration, seen.configuration or core.configuration]
        if not any(configuration.has_quorum(holders) for configuration in configurations):
            raise Violation(f"{node.name} committed {last}; it is on the disks of {holders} only")

    def _check_progress(self, node: SimulatedNode, seen: Observed) -> None:
        """What a leader knows of its peers only grows, and what it sends ahead has a bound."""
        core = node.core
        if seen.match_term != core.term:
            seen.match_term, seen.matches = core.term, {}
        for peer, progress in core.progress.items():
            match = progress.match_index
            if match < seen.matches.get(peer, 0):
                raise Violation(f"{node.name} goes back from match {seen.matches[peer]} to {match} of {peer}")
            seen.matches[peer] = match
            if len(progress.inflights) > core.config.max_inflight_messages:
                raise Violation(f"{node.name} has {len(progress.inflights)} appends on the way to {peer}")
            sizes = [size for _, size in progress.inflights._appends]
            if sum(sizes) != progress.inflights.bytes or sum(sizes[:-1]) > core.config.max_inflight_bytes:
                raise Violation(f"{node.name} has appends of {sizes} bytes on the way to {peer}")

    # -- at the end ------------------------------------------------------------------------------------

    def check_equal_states(self, nodes: list[SimulatedNode]) -> None:
        """All of these have applied the same; so they are the same, and are what the model is."""
        for node in nodes:
            self._check_hash(node, node.machine.inner.applied_index, node.machine.inner.digest())
            store = node.machine.inner._store
            records = [list(record) for record in store.range(b"\x00", b"\x00").records]
            if records != self.model.contents():
                raise Violation(f"{node.name} holds {records}, expected {self.model.contents()}")

    def command_of(self, index: Index, term: Term) -> bytes | None:
        entry = self._entries[index, term]
        return entry.body if entry.kind == EntryKind.COMMAND else None
