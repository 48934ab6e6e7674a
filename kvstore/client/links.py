"""Links to nodes, and the search for the leader among them.

May know: endpoints, STATUS answers, time as it is passed in, and a Wire to act on; nothing of sockets,
sessions or what the calls say. Rules: no call is sent to a node before its first STATUS answer told its
cluster; while no leader is reachable, every known endpoint is tried, and asked again after some milliseconds.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Final, Protocol

from kvstore import protocol
from kvstore.client.calls import ANYWHERE, CHANGES, Call
from kvstore.client.errors import ClusterMismatch
from kvstore.client.results import NodeStatus
from kvstore.endpoints import parse_endpoint
from kvstore.errors import (
    AssentError,
    DeadlineExceeded,
    Expired,
    NoLeader,
    NotMember,
    OutcomeUnknown,
    Overloaded,
    Unreachable,
)

# A new leader is noticed half an interval after it exists, on average. The interval stays short while an
# election is what is being waited for, and grows when it must be something longer.
POLL_SECONDS: Final = 0.012
SEARCH_IS_LONG_SECONDS: Final = 1.0
MAX_POLL_SECONDS: Final = 0.05
MAX_IDLE_POLL_SECONDS: Final = 0.5  # while nobody waits for an answer
GRACE_SECONDS: Final = 0.1  # the first endpoint may answer before the others are tried
LEARN_AFTER_SECONDS: Final = 0.5  # then endpoints that nodes told of one another are tried as well
PROBE_LOST_SECONDS: Final = 0.25  # an unanswered STATUS does not keep the next one back for longer
GREETING_SECONDS: Final = 1.0  # a connected node that does not answer its first STATUS is given up
BARRED_SECONDS: Final = 5.0  # a node of another cluster is not tried again before
CHECK_SECONDS: Final = 0.1  # how often links with something pending are judged
SLOW_SECONDS: Final = 0.3  # an answer that takes longer makes the client ask around
SLOW_PROBE_SECONDS: Final = 0.5
SILENT_SECONDS: Final = 1.0  # a link that says nothing for longer, while others answer, is given up
DEAD_SECONDS: Final = 3.0  # and after this one, whatever the others do
RECLAIM_SECONDS: Final = 0.1  # what a former leader may still take to answer
REFRESH_SECONDS: Final = 5.0  # after this a leader in use is asked who the members are by now
MAX_LINKS: Final = 32
PROBE_TIMEOUT_MILLISECONDS: Final = 1000


class Wire(Protocol):
    """What moves bytes. A connection is a number that is never used twice."""

    def open(self, connection: int, endpoint: str) -> None: ...

    def close(self, connection: int) -> None: ...

    def send(self, connection: int, frame: bytes) -> bool:
        """False: it cannot be taken now, and nothing of it was sent."""
        ...


class LinkState(Enum):
    CLOSED = "closed"
    OPENING = "opening"  # trying to connect, or connected and not yet known to be of our cluster
    READY = "ready"


class Verdict(Enum):
    KEEP = "keep"
    RECLAIM = "reclaim"  # what is pending there is to be sent elsewhere
    DROP = "drop"  # and the connection closed as well


class Link:
    """One node as one endpoint names it; owned by Links. Its connection changes, the link stays."""

    __slots__ = (
        "barred_until",
        "connected_at",
        "connection",
        "endpoint",
        "heard_at",
        "is_member",
        "node",
        "pending",
        "probe_id",
        "probed_at",
        "reclaim_at",
        "refused",
        "state",
        "waiting",
        "watch_endpoint",
    )

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.state = LinkState.CLOSED
        self.connection = 0  # 0 if and only if CLOSED
        self.connected_at: float | None = None  # None unless connected
        self.refused = False  # the last attempt to connect failed
        self.barred_until = float("-inf")
        self.node: str | None = None
        self.is_member = True  # unless it says that it waits to be added, was removed, or is fenced
        self.watch_endpoint: str | None = None
        self.pending: dict[int, Call] = {}  # by request id, ascending; all sent on this connection
        self.waiting: list[Call] = []  # pinned to this link, to be sent when it is READY
        self.heard_at = 0.0
        self.probe_id = 0  # request id of the STATUS in flight, 0 if none
        self.probed_at = 0.0
        self.reclaim_at: float | None = None  # no longer the leader's: pending calls move on at this time


class Links:
    """Owned by the core."""

    def __init__(self, endpoints: Sequence[str], wire: Wire, rng: random.Random) -> None:
        self.configured = tuple(dict.fromkeys(endpoints))
        if not self.configured or len(self.configured) > MAX_LINKS:
            raise ValueError(f"endpoints: expected 1 to {MAX_LINKS}, got {len(self.configured)}")
        for endpoint in self.configured:
            try:
                parse_endpoint(endpoint)
            except ValueError as error:
                raise ValueError(f"endpoints: {endpoint!r} {error}") from None
        self.links = [Link(endpoint) for endpoint in self.configured]  # configured ones first
        self.by_connection: dict[int, Link] = {}
        self.target: Link | None = None  # believed to be the leader's; may not be READY
        self.leader_term = 0  # highest term in which a leader was reported
        self.cluster_id: str | None = None  # that of the first node that answered
        self.mismatch: ClusterMismatch | None = None  # the last one met
        self.trouble: str | None = None  # why this very process cannot connect, until it could again
        self.poll_at: float | None = None  # None: not searching
        self.counters: Counter[str] = Counter()
        self._wire = wire
        self._rng = rng
        self._learned: dict[str, str] = {}  # node to client endpoint, as nodes tell
        self._next_connection = 1
        self._next_request_id = 1
        self._rotation = 0
        self._search_began_at = 0.0
        self._interval_seconds = POLL_SECONDS

    # -- who is there ----------------------------------------------------------------------------------

    def leader(self) -> Link | None:
        """The link to the leader, if it can be used."""
        target = self.target
        return target if target is not None and target.state is LinkState.READY else None

    def ready(self) -> Iterator[Link]:
        """Usable links, in the order of the endpoints given."""
        return (link for link in self.links if link.state is LinkState.READY and link.is_member)

    def home(self) -> Link | None:
        """Where local reads go: the first endpoint given that answers."""
        return next(self.ready(), None)

    def find(self, endpoint: str) -> Link | None:
        """The link of an endpoint, made if need be; None when there are too many."""
        for link in self.links:
            if link.endpoint == endpoint:
                return link
        if len(self.links) >= MAX_LINKS:
            self.counters["endpoints_ignored"] += 1
            return None
        link = Link(endpoint)
        self.links.append(link)
        return link

    def pin(self, endpoint: str) -> Link:
        """The link of an endpoint that a caller wants to speak to. Raises ValueError if it is none."""
        try:
            parse_endpoint(endpoint)
        except ValueError as error:
            raise ValueError(f"endpoint: {endpoint!r} {error}") from None
        link = self.find(endpoint)
        if link is None:
            raise ValueError(f"endpoint: {endpoint!r} would be one more than {MAX_LINKS}")
        return link

    def _find_node(self, name: str | None, endpoint: str | None) -> Link | None:
        """A link to a node that another one named. One that was given to us goes first: it may be a proxy."""
        named = [link for link in self.links if link.node == name and name is not None]
        for link in named:
            if link.state is LinkState.READY:
                return link
        if named:
            return named[0]
        return self.find(endpoint) if endpoint is not None and self._is_usable(endpoint) else None

    def _is_usable(self, endpoint: str) -> bool:
        try:
            return not parse_endpoint(endpoint).is_wildcard
        except ValueError:
            self.counters["endpoints_ignored"] += 1
            return False

    # -- connections -----------------------------------------------------------------------------------

    def take_request_ids(self, count: int) -> int:
        first = self._next_request_id
        self._next_request_id = first + count
        return first

    def take_connection(self) -> int:
        """A number for a connection of whatever kind; each is taken once."""
        self._next_connection += 1
        return self._next_connection - 1

    def open(self, link: Link, now: float) -> None:
        assert link.state is LinkState.CLOSED, f"{link.endpoint} is {link.state.value}"
        link.connection = self.take_connection()
        link.state = LinkState.OPENING
        link.connected_at = None
        link.refused = False
        link.probe_id = 0
        self.by_connection[link.connection] = link
        self._wire.open(link.connection, link.endpoint)
        self.probe(link, now)

    def close(self, link: Link) -> None:
        """The caller has taken care of what is pending there."""
        if link.state is LinkState.CLOSED:
            return
        assert not link.pending, f"{len(link.pending)} calls pending on {link.endpoint}"
        self._wire.close(link.connection)
        del self.by_connection[link.connection]
        link.connection = 0
        link.state = LinkState.CLOSED
        link.connected_at = None
        link.reclaim_at = None

    def probe(self, link: Link, now: float) -> None:
        """Asks for the node's STATUS, whose answer is for the links themselves."""
        request_id = self.take_request_ids(1)
        frame = protocol.encode_request(protocol.STATUS, request_id, PROBE_TIMEOUT_MILLISECONDS, [])
        if self._wire.send(link.connection, frame):
            link.probe_id = request_id
            link.probed_at = now

    def may_probe(self, link: Link, now: float) -> bool:
        if link.connected_at is None:
            return False
        return link.probe_id == 0 or now - link.probed_at >= PROBE_LOST_SECONDS

    # -- what the nodes say ----------------------------------------------------------------------------

    def on_status(self, link: Link, status: NodeStatus, now: float) -> bool:
        """False if the node is of another cluster, and its link is to be closed."""
        link.is_member = status.member not in ("waiting", "removed") and status.fenced is None
        if not link.is_member:
            self.set_aside(link, status)
            if self.cluster_id in (None, status.cluster_id):
                self._learn_more(status.peers)  # it knows by whom its cluster goes on
            return True
        if self.cluster_id is None:
            self.cluster_id = status.cluster_id
        elif self.cluster_id != status.cluster_id:
            self.counters["cluster_mismatch"] += 1
            self.mismatch = ClusterMismatch(link.endpoint, self.cluster_id, status.cluster_id)
            link.barred_until = now + BARRED_SECONDS
            return False
        link.state = LinkState.READY
        link.node = status.node
        link.watch_endpoint = status.watch_endpoint
        if status.role == "leader" and status.term >= self.leader_term:
            self.learn(status.peers)
        else:
            self._learn_more(status.peers)
        if status.role == "leader":
            if status.term >= self.leader_term:
                self.follow(link, status.term, now)
        elif status.leader is not None:
            is_news = status.term > self.leader_term
            if is_news or (status.term == self.leader_term and self.leader() is None):
                named = self._find_node(status.leader, status.leader_client)
                if named is not None and named is not link:
                    self.follow(named, status.term, now)
        elif link is self.target and status.term >= self.leader_term:
            self.target = None
        return True

    def learn(self, endpoints: Mapping[str, str]) -> None:
        """All members, as a leader names them: who left is not to be asked any more. An empty endpoint is
        one that the leader has not heard yet."""
        if len(endpoints) <= 2 * MAX_LINKS:
            known = {node: endpoint or self._learned.get(node, "") for node, endpoint in endpoints.items()}
            self._learned = {node: endpoint for node, endpoint in known.items() if endpoint}

    def _learn_more(self, endpoints: Mapping[str, str]) -> None:
        """Some members, as one of them knows them."""
        if len(self._learned) + len(endpoints) <= 2 * MAX_LINKS:
            self._learned.update(endpoints)

    def set_aside(self, link: Link, status: NodeStatus | None = None) -> None:
        """The node answers, and takes no part: only who asks for this very node is sent there."""
        link.is_member = False
        if status is not None:
            link.state = LinkState.READY
            link.node = status.node
        if self.target is link:
            self.target = None

    def on_hint(self, refusing: Link, name: str | None, endpoint: str | None, now: float) -> bool:
        """A refusal that names the leader. True if there is now someone else to turn to."""
        if self.target is not refusing and self.leader() is not None:
            return True  # it was sent before we knew better
        if self.target is refusing:
            self.target = None
        named = self._find_node(name, endpoint)
        if named is None or named is refusing:
            return False
        self.follow(named, self.leader_term, now)
        return True

    def follow(self, link: Link, term: int, now: float) -> None:
        self.leader_term = term
        self.target = link
        if link.state is LinkState.CLOSED and now >= link.barred_until:
            self.open(link, now)

    # -- the search ------------------------------------------------------------------------------------

    def search(self, now: float, *, after_seconds: float = 0.0) -> None:
        """Begins to look for the leader, unless that is being done."""
        if self.poll_at is None:
            self._search_began_at = now
            self._interval_seconds = POLL_SECONDS
            self.poll_at = now + after_seconds

    def hasten(self, now: float) -> None:
        """Something changed: the next question is due now."""
        if self.poll_at is not None:
            self.poll_at = min(self.poll_at, now)

    def poll(self, now: float, *, is_awaited: bool) -> None:
        """One step of the search: open what is closed, ask one node, and say when to come again."""
        self.open_all(now)
        count = len(self.links)
        for step in range(count):
            position = (self._rotation + step) % count
            link = self.links[position]
            if link.state is not LinkState.CLOSED and self.may_probe(link, now):
                self.probe(link, now)
                self._rotation = position + 1
                break
        if now - self._search_began_at > SEARCH_IS_LONG_SECONDS:
            limit_seconds = MAX_POLL_SECONDS if is_awaited else MAX_IDLE_POLL_SECONDS
            self._interval_seconds = min(self._interval_seconds * 1.3, limit_seconds)
        self.poll_at = now + self._interval_seconds * self._rng.uniform(0.75, 1.25)

    def open_all(self, now: float) -> None:
        if self.poll_at is not None and now - self._search_began_at > LEARN_AFTER_SECONDS:
            for endpoint in self._learned.values():
                if self._is_usable(endpoint):
                    self.find(endpoint)
        for link in self.links:
            if link.state is LinkState.CLOSED and now >= link.barred_until:
                self.open(link, now)

    def why_unserved(self, kind: int = protocol.STALE_READ) -> AssentError:
        """What to say to whoever has waited for a node in vain."""
        if self.trouble is not None:
            return Unreachable(self.configured, self.trouble)
        if self.home() is None:
            if any(link.state is LinkState.READY for link in self.links):
                return NotMember("every node that answers is fenced, was removed, or waits to be added")
            return self.mismatch or Unreachable(self.configured)
        if kind not in ANYWHERE and self.leader() is None:
            return NoLeader("nodes answer, but no leader could be reached before the deadline")
        if kind in CHANGES:
            return Expired("the deadline passed before the request was sent")
        return DeadlineExceeded("no answer came before the deadline")

    def why_expired(self, call: Call, *, was_in_flight: bool) -> AssentError:
        """What to say of a call whose deadline has passed."""
        if call.may_be_applied:
            return OutcomeUnknown("the deadline passed before the outcome was known")
        if call.refusal == protocol.OVERLOADED:
            return Overloaded("the cluster had too much to do until the deadline passed")
        if was_in_flight:
            return DeadlineExceeded("no answer came before the deadline")
        return self.why_unserved(call.kind)

    def why_lost(self, call: Call, link: Link) -> AssentError:
        """What to say of a pinned call that was sent along a link that then ended."""
        if call.may_be_applied:
            return OutcomeUnknown(f"the connection to {link.endpoint} ended before the outcome was known")
        return Unreachable((link.endpoint,))

    def refresh(self, now: float) -> None:
        """While the leader is in use, learn now and then of members that came or went."""
        leader = self.leader()
        if leader is not None and now - leader.probed_at > REFRESH_SECONDS and self.may_probe(leader, now):
            self.probe(leader, now)

    def search_seconds(self, now: float) -> float:
        return now - self._search_began_at if self.poll_at is not None else 0.0

    def settle(self) -> None:
        """A leader was found: what could not be connected to is not tried any longer."""
        self.poll_at = None
        for link in self.links:
            if link.state is LinkState.OPENING and link.connected_at is None and not link.waiting:
                self.close(link)

    # -- links that are connected and yet of no use ------------------------------------------------------

    def reclaim_time(self, link: Link, now: float) -> float:
        """When what is pending on a former leader's link moves on: at once if nothing comes from there."""
        return now if now - link.heard_at > RECLAIM_SECONDS else now + RECLAIM_SECONDS

    def judge(self, link: Link, now: float) -> Verdict:
        """For a link that owes answers. A slow one makes the client ask around, and ask the link itself."""
        if link.state is LinkState.OPENING:
            is_late = link.connected_at is not None and now - link.connected_at > GREETING_SECONDS
            return Verdict.DROP if is_late else Verdict.KEEP
        if not link.pending:
            return Verdict.KEEP
        if link.reclaim_at is not None and now >= link.reclaim_at:
            return Verdict.RECLAIM
        oldest = next(iter(link.pending.values())).sent_at
        silent_seconds = now - max(oldest, link.heard_at)
        others_answer = any(
            other is not link and now - other.heard_at < SILENT_SECONDS for other in self.ready()
        )
        if silent_seconds > (SILENT_SECONDS if others_answer else DEAD_SECONDS):
            return Verdict.DROP
        if now - oldest > SLOW_SECONDS:
            self.ask_around(now, CHECK_SECONDS if silent_seconds > SLOW_SECONDS else SLOW_PROBE_SECONDS)
        return Verdict.KEEP

    def ask_around(self, now: float, wait_seconds: float) -> None:
        """All nodes who and where they are, but those that were asked less than so long ago."""
        self.open_all(now)
        for link in self.links:
            if now - link.probed_at >= wait_seconds and self.may_probe(link, now):
                self.probe(link, now)
