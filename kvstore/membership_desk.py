"""Changes of membership and leadership, from an operator's request to the answer.

May know: requests, configurations, the messages to replication, and time as it is passed in; nothing of
connections. A request says what is to be: it is answered once that is so and committed, however it came
about. Until then it is asked of replication, again where the obstacle goes away by itself. What was begun
goes on without the one who asked, also under another leader.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kvstore.protocol_admin import (
    ALREADY_INITIALISED,
    AddMember,
    AdminRequest,
    DemoteMember,
    Initialise,
    ListMembers,
    Member,
    Membership,
    MoveLeader,
    PromoteMember,
    RemoveMember,
    ReplaceMember,
    SetMembers,
    cluster_id_of,
    encode_change_refused,
    encode_change_unfinished,
    encode_membership,
    join_address,
    split_address,
)
from raft import Configuration
from raft.actor_messages import (
    ChangeConfiguration,
    ChangeRefused,
    ConfigurationChanged,
    LeadershipTransferred,
    TransferLeadership,
)
from raft.changes import Verb
from raft.errors import ConfigurationReason as Because

RETRY_SECONDS: Final = 0.05
# Answered so long before the client's own deadline, so that it hears why.
MARGIN_SECONDS: Final = 0.1
MAX_OPEN: Final = 64
NOTE_TICKET: Final = 0  # of the desk's own changes, which nobody waits for

# These pass by themselves.
_PASSING: Final = frozenset(
    {Because.IN_FLIGHT, Because.NO_COMMIT_IN_TERM, Because.NOT_CAUGHT_UP, Because.TRANSFERRING}
)
_REMEDIES: Final = {
    Because.IN_FLIGHT: "wait for it, or call it off by removing who is to join",
    Because.NOT_CAUGHT_UP: "wait until it has the log, or see whether it runs and is reachable",
    Because.LOSES_QUORUM: "start the others first; or, if they are lost for good, repeat it with --force",
    Because.NAME_USED_BEFORE: "give the node a name that was never a member's, and an empty data directory",
    Because.UNKNOWN_MEMBER: "see `assent member list`",
    Because.NO_VOTERS: "add another member first",
}


@dataclass(slots=True)
class _Case:
    """One request that waits for its answer; owned by the desk."""

    request: AdminRequest
    answer_by: float
    ask_at: float | None  # None: it is under way
    is_begun: bool = False
    refusal: str = ""  # the last one, if it passes
    reason: str = ""


class MembershipDesk:
    """Owned by the gateway, which hands in requests of clients once it believes that this node leads."""

    def __init__(
        self,
        node: str,
        cluster_id: int,
        *,
        send: Callable[[object], None],
        answer: Callable[[int, bytes], None],
        client_endpoint: Callable[[str], str | None],
    ) -> None:
        self._node = node
        self._cluster_id = cluster_id
        self._send = send  # to replication
        self._answer = answer
        self._client_endpoint = client_endpoint
        self._cases: dict[int, _Case] = {}  # by ticket
        self.configuration = Configuration()  # in force
        self.is_committed = False
        self.is_removed = False

    # -- what is so ------------------------------------------------------------------------------------

    def role_of(self, node: str) -> str:
        """Of a member, and of this node: what it is to the cluster."""
        now = self.configuration
        if node == self._node and self.is_removed:
            return "removed"  # it was told so: its own log may have missed it
        if node in now.voters:
            return "voter"
        if node in now.learners:
            return "learner"
        if node in now.members or (node in now.removed and not self.is_committed):
            return "leaving"
        return "removed" if node in now.removed else "waiting"

    def has_removed(self, node: str) -> bool:
        """Its removal is committed, as far as this node knows: so it is for good."""
        return self.is_committed and node in self.configuration.removed

    @property
    def is_joint(self) -> bool:
        """Do old and new voters decide together, as far as this node takes part? Who is removed by a joint
        change is sent nothing after its first step, so that its own log never says that it ended."""
        return self.configuration.is_joint and self.role_of(self._node) != "removed"

    def members(self) -> dict[str, str]:
        return {node: self.role_of(node) for node in sorted(self.configuration.members)}

    def membership(self) -> Membership:
        addresses = self.configuration.addresses
        members = [
            Member(node, role, split_address(addresses.get(node, ""))[0], self._client_endpoint(node) or "")
            for node, role in self.members().items()
        ]
        return Membership(f"{self._cluster_id:016x}", self._node, self.is_joint, members)

    # -- requests --------------------------------------------------------------------------------------

    def open(self, ticket: int, request: AdminRequest, now: float, expires_at: float) -> None:
        """The answer comes by then, by way of `answer`."""
        if isinstance(request, Initialise):
            self._initialise(ticket, request)
        elif len(self._cases) >= MAX_OPEN:
            self._refuse(ticket, "too many changes wait already: ask again later", "overloaded")
        else:
            answer_by = expires_at - min(MARGIN_SECONDS, (expires_at - now) / 4)
            self._cases[ticket] = _Case(request, answer_by, now)
            self.sweep(now)

    def _initialise(self, ticket: int, request: Initialise) -> None:
        if cluster_id_of(request.nonce) == self._cluster_id:
            self._answer(ticket, encode_membership(self.membership()._replace(leader="")))
            return
        members = ", ".join(sorted(self.configuration.members)) or "none yet"
        text = f"{self._node} is of cluster {self._cluster_id:016x} already, whose members are {members}"
        self._refuse(ticket, f"{text}: add nodes with `assent member add`", ALREADY_INITIALISED)

    def drop(self, ticket: int) -> None:
        """Nobody waits for it any more."""
        self._cases.pop(ticket, None)

    def __contains__(self, ticket: int) -> bool:
        return ticket in self._cases

    def stranded(self) -> list[int]:
        """Tickets that only a leader can answer. A transfer is answered when there is another one."""
        return [ticket for ticket, case in self._cases.items() if not isinstance(case.request, MoveLeader)]

    def next_deadline(self) -> float | None:
        times = [min(case.answer_by, case.ask_at or case.answer_by) for case in self._cases.values()]
        return min(times, default=None)

    def sweep(self, now: float) -> None:
        for ticket, case in list(self._cases.items()):
            if self._is_so(case.request):
                self._close(ticket, encode_membership(self.membership()))
            elif now >= case.answer_by:
                self._give_up(ticket, case)
            elif case.ask_at is not None and now >= case.ask_at:
                case.ask_at = None
                self._ask(ticket, case)

    def _is_so(self, request: AdminRequest) -> bool:
        now = self.configuration
        if isinstance(request, ListMembers):
            return True
        if not self.is_committed or now.is_joint:
            return False
        match request:
            case AddMember(name, address, stays_learner):
                known = split_address(now.addresses.get(name, ""))[0] == address
                return known and name in (now.members if stays_learner else now.voters)
            case PromoteMember(name):
                return name in now.voters
            case DemoteMember(name, _):
                return name in now.learners and name not in now.incoming
            case RemoveMember(name, _):
                return name in now.removed and name not in now.members
            case ReplaceMember(old, new, _):
                return new in now.voters and old in now.removed
            case SetMembers(members, _):
                return now.voters == {name for name, _ in members} and not now.incoming
            case MoveLeader(target):
                return target == self._node
        return False

    def _ask(self, ticket: int, case: _Case) -> None:
        request, now = case.request, self.configuration
        if isinstance(request, MoveLeader):
            self._send(TransferLeadership(ticket, request.target or None))
            return
        verb, nodes, addresses, is_forced = Verb.SET, [""], dict[str, str](), False
        match request:
            case AddMember(name, address, stays_learner):
                if name in now.members and split_address(now.addresses.get(name, ""))[0] != address:
                    known = split_address(now.addresses.get(name, "nowhere"))[0]
                    self._refuse(ticket, f"{name} takes part already, at {known}", Because.BAD_REQUEST)
                    return
                verb, nodes = (Verb.ADD_LEARNER if stays_learner else Verb.ADD_VOTER), [name]
                addresses = {} if name in now.members else {name: address}
            case PromoteMember(name):
                # As an intention, it is carried out as soon as the learner has caught up. Of no member it
                # would be made a new one.
                verb, nodes = (Verb.ADD_VOTER if name in now.learners else Verb.PROMOTE), [name]
            case DemoteMember(name, is_forced):
                verb, nodes = Verb.DEMOTE, [name]
            case RemoveMember(name, is_forced):
                verb, nodes = Verb.REMOVE, [name]
            case ReplaceMember(old, new, address):
                verb, nodes = Verb.REPLACE, [old, new]
                addresses = {} if new in now.members else {new: address}
                if now.retiring == {old} and now.incoming == {new}:
                    return  # somebody asked for it before, and it is under way
            case SetMembers(members, is_forced):
                nodes = [name for name, _ in members]
                addresses = {
                    name: address
                    for name, address in members
                    if address and split_address(now.addresses.get(name, ""))[0] != address
                }
                homeless = [name for name in nodes if name not in now.members and name not in addresses]
                if homeless:
                    text = f"{', '.join(homeless)} would be new: say where, as in {homeless[0]}=tcp://…"
                    self._refuse(ticket, text, Because.BAD_REQUEST)
                    return
        self._send(ChangeConfiguration(ticket, verb, nodes, addresses, is_forced))

    def _give_up(self, ticket: int, case: _Case) -> None:
        if case.refusal and not case.is_begun:
            self._refuse(ticket, case.refusal, case.reason)
        else:
            late = self.configuration.incoming
            why = f" ({', '.join(sorted(late))} must catch up first)" if late else ""
            text = (
                f"the change is begun and not done yet{why}; it goes on by itself: see `assent member list`"
            )
            self._close(ticket, encode_change_unfinished(text))

    def _refuse(self, ticket: int, text: str, reason: str) -> None:
        remedy = _REMEDIES.get(reason)  # type: ignore[call-overload]  # reasons are words
        self._close(ticket, encode_change_refused(f"{text}: {remedy}" if remedy else text, reason))

    def _close(self, ticket: int, result: bytes) -> None:
        self._cases.pop(ticket, None)
        self._answer(ticket, result)

    # -- what replication says -------------------------------------------------------------------------

    def follow(self, configuration: Configuration, *, is_committed: bool, is_removed: bool) -> None:
        self.configuration = configuration
        self.is_committed = is_committed
        self.is_removed = is_removed

    def on_changed(self, message: ConfigurationChanged) -> None:
        """Its first step is committed. Whether all is done shows in the membership."""
        case = self._cases.get(message.ticket)
        if case is not None:
            case.is_begun = True

    def on_refused(self, message: ChangeRefused, now: float) -> None:
        case = self._cases.get(message.ticket)
        if case is None:
            return
        if message.reason in _PASSING or message.reason == Because.UNCHANGED:
            # If it is so already, the commit is what is waited for.
            case.refusal, case.reason = message.detail, message.reason
            case.ask_at = now + RETRY_SECONDS
        else:
            self._refuse(message.ticket, message.detail, message.reason)

    def on_transferred(self, message: LeadershipTransferred) -> None:
        if message.ticket in self._cases:
            membership = self.membership()._replace(leader=message.leader_id)
            self._close(message.ticket, encode_membership(membership))

    # -- its own ---------------------------------------------------------------------------------------

    def knows_storages(self) -> bool:
        """Does the configuration say of each member which data directory it has?"""
        now = self.configuration
        return all(split_address(now.addresses.get(node, ""))[1] for node in now.members)

    def note_storages(self, storage_of: Callable[[str], int]) -> None:
        """Write down, in the configuration, which data directory each member has: so that one which comes
        back without it is refused by all who have the configuration, whoever they met themselves."""
        now = self.configuration
        if self._cases or not self.is_committed or now.is_joint or now.retiring:
            return
        news = {}
        for node, address in now.addresses.items():
            endpoint, storage_id = split_address(address)
            if storage_id == 0 and (found := storage_of(node)):
                news[node] = join_address(endpoint, found)
        if news:
            self._send(ChangeConfiguration(NOTE_TICKET, Verb.MOVE, sorted(news), news, False))
