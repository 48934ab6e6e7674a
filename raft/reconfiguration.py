"""A leader's work on the membership: which changes it takes, and how it brings one to its end.

Owned by a leader, and gone with it: what must outlive the leader is in the configuration itself. May know
the core, the log's configurations and the peers' progress. One change at a time; each step is an entry of the
log.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from raft.configuration_history import NEVER
from raft.entries import MAX_CONFIGURATION_BYTES, EntryKind, Index, NodeId
from raft.errors import ConfigurationReason, ConfigurationRefused
from raft.membership import Configuration, CorruptConfiguration
from raft.messages import Removed

if TYPE_CHECKING:
    from raft.core import Core
    from raft.leader import Leader

_CONFIGURATION = int(EntryKind.CONFIGURATION)
# A learner whose round takes so many election timeouts does not keep up, even if it once had caught up.
LATE_AFTER_TIMEOUTS = 2


class CatchUp:
    """How a learner follows the log, in rounds (dissertation 4.2.1); owned by one Reconfiguration.

    A round is over when the learner has all that the leader had when the round began. Once a round takes
    less than an election timeout, the learner is as near as any follower: making it a voter stalls nobody.
    """

    __slots__ = ("_target_index", "_timeouts", "has_caught_up")

    def __init__(self, last_index: Index) -> None:
        self.has_caught_up = False
        self._begin_round(last_index)

    def _begin_round(self, last_index: Index) -> None:
        self._target_index = last_index
        self._timeouts = 0  # election timeouts that have ended since the round began

    def note_timeout(self) -> None:
        self._timeouts += 1
        if self._timeouts >= LATE_AFTER_TIMEOUTS:
            self.has_caught_up = False

    def observe(self, match_index: Index, last_index: Index) -> None:
        if match_index >= self._target_index:
            self.has_caught_up = self._timeouts == 0
            self._begin_round(last_index)


class Reconfiguration:
    """For one term of one leader."""

    __slots__ = ("_catching_up", "_core", "_leader", "_leaving", "attention_index")

    def __init__(self, core: Core, leader: Leader) -> None:
        self._core = core
        self._leader = leader
        self._catching_up: dict[NodeId, CatchUp] = {}  # for each learner; see observe()
        self._leaving: frozenset[NodeId] = frozenset()  # removed by the change that is under way
        # Once this index is committed, on_commit() must look: at first the first entry of this term, then
        # the configuration that is under way.
        self.attention_index: Index = core.log.last_index + 1

    # -- changes that are asked for --------------------------------------------------------------------

    def propose(self, target: Configuration, *, force: bool) -> Index:
        """Begin the way to the members of `target`; returns the index of its first step.

        Raises ConfigurationRefused. `force` passes over who is alive and who has caught up, never over what
        safety rests on.
        """
        now = self._core.configuration
        self._refuse_unless_free()
        if not target.voters:
            raise ConfigurationRefused(ConfigurationReason.NO_VOTERS, "somebody must vote")
        used = now.removed & target.members
        if used:
            raise ConfigurationRefused(
                ConfigurationReason.NAME_USED_BEFORE, f"{sorted(used)} left, and names are never used again"
            )
        step = now.toward(target)
        _refuse_unless_readable(step)
        if step == now:
            raise ConfigurationRefused(ConfigurationReason.UNCHANGED, "it is so already")
        if not force:
            self._refuse_unless_safe_for_service(target)
        return self._append(step)

    def _refuse_unless_free(self) -> None:
        core = self._core
        history = core.configurations
        if self._leader.transfer is not None:
            raise ConfigurationRefused(
                ConfigurationReason.TRANSFERRING, f"leadership goes to {self._leader.transfer.target}"
            )
        # An entry of its own term must be committed first (the erratum of 2015 to dissertation 4.1): or two
        # leaders, each with a change of one that is not committed, could act on majorities that do not meet.
        if core.log.term_at(core.commit_index) != core.term:
            raise ConfigurationRefused(
                ConfigurationReason.NO_COMMIT_IN_TERM, f"nothing of term {core.term} is committed yet"
            )
        if history.last_index > core.commit_index:
            raise ConfigurationRefused(
                ConfigurationReason.IN_FLIGHT, f"the change at {history.last_index} is not committed yet"
            )
        if core.configuration.is_joint:
            raise ConfigurationRefused(
                ConfigurationReason.IN_FLIGHT, "the old voters and the new ones still decide together"
            )

    def _refuse_unless_safe_for_service(self, target: Configuration) -> None:
        late = {
            node_id
            for node_id in target.voters - self._core.configuration.voters
            if not self.has_caught_up(node_id)
        }
        if late:
            raise ConfigurationRefused(
                ConfigurationReason.NOT_CAUGHT_UP, f"{sorted(late)} must be learners and catch up first"
            )
        is_election_changed = target.voters != self._core.configuration.voters
        if is_election_changed and not target.has_quorum(self._live_nodes()):
            live = sorted(self._live_nodes() & target.voters)
            raise ConfigurationRefused(
                ConfigurationReason.LOSES_QUORUM, f"of {sorted(target.voters)} only {live} are alive"
            )

    def _live_nodes(self) -> set[NodeId]:
        peers = self._leader.progress.items()
        return {node_id for node_id, progress in peers if progress.is_live} | {self._core.node_id}

    def has_caught_up(self, node_id: NodeId) -> bool:
        """Of a learner: is it near enough to be a voter? A leader itself has everything."""
        catch_up = self._catching_up.get(node_id)
        return node_id == self._core.node_id or (catch_up is not None and catch_up.has_caught_up)

    def begin_with_initial(self) -> None:
        """The first leader's first entry: what every founding member was started with."""
        self._append(self._core.configuration)

    # -- what follows by itself ------------------------------------------------------------------------

    def _append(self, configuration: Configuration) -> Index:
        core = self._core
        self._leaving |= configuration.removed - core.configuration.removed
        core.log.append([(core.term, _CONFIGURATION, configuration.encode())])
        index = self.attention_index = core.log.last_index
        core.adopt([(index, configuration)])
        return index

    def on_commit(self) -> None:
        """An entry is committed that was waited for. The leader may be none any more after this."""
        core = self._core
        index, now = core.configurations.last_index, core.configuration
        if index > core.commit_index:
            self.attention_index = index  # of an earlier leader, or newer than what was waited for
            return
        self.attention_index = NEVER
        # So that who left knows. Should it not hear of it, it is told when it campaigns (raft/voting.py).
        for node_id in sorted(self._leaving - {core.node_id}):
            core.send(node_id, Removed(core.term))
        self._leaving = frozenset()
        if now.is_joint:
            self._append(now.left())  # Raft §6: both majorities have it, so the new one may go on alone
        elif core.node_id not in now.voters:
            # Dissertation 4.2.2: it managed a cluster that it is no voter of; that is done.
            self._leader.resign()

    def observe(self) -> None:
        """At each heartbeat: how do the learners follow, and is what was intended possible now?"""
        core = self._core
        if not core.configuration.learners:
            self._catching_up.clear()
            return
        catching_up: dict[NodeId, CatchUp] = {}
        last_index = core.log.last_index
        for node_id in core.configuration.learners & self._leader.progress.keys():
            catch_up = catching_up[node_id] = self._catching_up.get(node_id) or CatchUp(last_index)
            catch_up.observe(self._leader.progress[node_id].match_index, last_index)
        self._catching_up = catching_up
        if core.configuration.incoming:
            self._complete(core.configuration)

    def note_timeout(self) -> None:
        for catch_up in self._catching_up.values():
            catch_up.note_timeout()

    def _complete(self, now: Configuration) -> None:
        """Make voters of the incoming learners: each as it is ready, unless others retire for them."""
        ready: Collection[NodeId] = [
            node_id
            for node_id in sorted(now.incoming)
            if self.has_caught_up(node_id) and self._leader.progress[node_id].is_live
        ]
        if not ready or (now.retiring and len(ready) < len(now.incoming)):
            return
        try:
            self.propose(now.completed(ready), force=False)
        except ConfigurationRefused:
            return  # not yet: it is tried again at the next heartbeat


def _refuse_unless_readable(step: Configuration) -> None:
    """In the log it would stay: no node could take it, and none that has it could take a snapshot."""
    try:
        blob = step.encode()
        Configuration.decode(blob)
    except (CorruptConfiguration, UnicodeEncodeError) as error:
        raise ConfigurationRefused(ConfigurationReason.BAD_REQUEST, ascii(str(error))) from None
    if len(blob) > MAX_CONFIGURATION_BYTES // 2:  # the one after a joint one may be a little longer
        raise ConfigurationRefused(ConfigurationReason.BAD_REQUEST, f"it would have {len(blob)} bytes")
