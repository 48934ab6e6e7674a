"""The messages that a node's own actors send one another: the ring of one put, and election's few words.

Plain data. Bodies are opaque bytes from the client's encode to the state machine's decode. A *ticket* is the
gateway's number for one client frame of `count` requests; it rides the whole ring, so that no actor has to
look anything up by log index. None of these types is accepted from another node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from raft.ready import Forgotten
from raft.space_messages import ApplierBehind as ApplierBehind
from raft.space_messages import SpaceChanged as SpaceChanged
from raft.space_messages import StateSize as StateSize


class Reason(StrEnum):
    """Why requests came back undone, as far as this node can know."""

    NOT_LEADER = "not_leader"  # another node leads: go there
    NO_LEADER = "no_leader"  # nobody leads that this node knows of: try again
    TRANSFERRING = "transferring"  # leadership is being handed over: try again, in a moment
    OVERLOADED = "overloaded"  # a bound was reached: try again later
    SHUTTING_DOWN = "shutting_down"  # this node is about to end: go to another
    EXPIRED = "expired"  # the deadline passed before it was proposed
    FENCED = "fenced"  # this node's state differs from the others': go to another node
    # What follows is said of what was proposed: it may have been applied, or may yet be.
    CONFLICT_WITH_LEADER = "conflict_with_leader"  # a new leader overwrote it here (Raft figure 8)
    OUTCOME_UNKNOWN = "outcome_unknown"  # leadership was lost, or time was up, before anybody knew


@dataclass(slots=True)
class Propose:
    """gateway to replication: commands to replicate; `counts[i]` bodies belong to `tickets[i]`.

    From the applier it has no tickets: what becomes of these is told to nobody.
    With `wants_notices`, replication tells of each stage: Queued, CommitNotice.
    """

    tickets: list[int]
    counts: list[int]
    bodies: list[bytes]
    wants_notices: bool = False


@dataclass(slots=True)
class Queued:
    """replication to gateway, if asked for: in this leader's log of `term`, from `first_index` on."""

    first_index: int
    term: int
    tickets: list[int]
    counts: list[int]


@dataclass(slots=True)
class CommitNotice:
    """replication to gateway, if asked for: of each ticket, how many more entries are committed."""

    tickets: list[int]
    counts: list[int]


@dataclass(slots=True)
class Read:
    """gateway to replication: queries to be answered no older than now (linearizable)."""

    tickets: list[int]
    counts: list[int]
    bodies: list[bytes]


@dataclass(slots=True)
class LocalRead:
    """gateway to applier: queries to be answered from whatever this node has applied."""

    tickets: list[int]
    counts: list[int]
    bodies: list[bytes]


@dataclass(slots=True)
class Committed:
    """replication to applier: committed entries in log order, each at most once, with no gap.

    `slices` names the tickets of this node's own proposals among them: (ticket, offset within the
    ticket, count), in log order. A slice's entries begin at `starts[i]`, counted from `first_index`.
    `arrivals`: up to which index the log had come when, by this node's clock.
    """

    first_index: int
    bodies: list[bytes | None]
    slices: list[tuple[int, int, int]]
    starts: list[int]
    arrivals: Sequence[tuple[int, float]] = ()


@dataclass(slots=True)
class ReadReady:
    """replication to applier: queries that may be answered once `read_index` is applied."""

    read_index: int
    tickets: list[int]
    counts: list[int]
    bodies: list[bytes]


@dataclass(slots=True)
class Applied:
    """applier to gateway: encoded results, one slice per (part of a) ticket.

    Each slice is (ticket, offset, count, results); results are `count` complete encoded results, joined.
    """

    slices: list[tuple[int, int, int, bytes]]


@dataclass(slots=True)
class Refused:
    """replication to gateway: the whole tickets were never proposed, or never read."""

    tickets: list[int]
    reason: str
    leader_id: str | None


@dataclass(slots=True)
class Abandoned:
    """replication to gateway: what is left of these tickets will not be answered by the applier.

    Whatever the reason, they were proposed: nobody may conclude that they were not applied.
    """

    tickets: list[int]
    reason: str


@dataclass(slots=True)
class QueryStatus:
    """gateway to replication to applier: each adds what it knows to `fields`."""

    ticket: int
    fields: dict[str, object]


@dataclass(slots=True)
class StatusReport:
    """applier to gateway: the answer to QueryStatus."""

    ticket: int
    fields: dict[str, object]


@dataclass(slots=True)
class RoleChanged:
    """replication to election, applier and gateway: this node's role, term or known leader changed."""

    role: str
    term: int
    leader_id: str | None
    last_index: int = 0  # of a leader: all that earlier leaders left in its log is before that


@dataclass(slots=True)
class LeaderContact:
    """replication to election: the leader of `term` was heard in this turn."""

    term: int
    leader_id: str


@dataclass(slots=True)
class Campaign:
    """election to replication: nobody has led for an election timeout of mine; try to."""

    term: int


@dataclass(slots=True)
class LeaderSilent:
    """election to replication: the leader was not heard for the least election timeout; votes are free."""

    term: int


@dataclass(slots=True)
class HeartbeatDue:
    """election to replication: a leader's heartbeat interval has passed."""

    term: int


@dataclass(slots=True)
class CheckQuorumDue:
    """election to replication: a leader's election timeout has passed; is a quorum still there?"""

    term: int


@dataclass(slots=True)
class ChangeConfiguration:
    """gateway to replication: change the membership; `verb` and what it takes are those of raft/changes.py.

    Answered by ConfigurationChanged, ChangeRefused, Refused (another node leads) or Abandoned.
    """

    ticket: int
    verb: str
    nodes: list[str]
    addresses: dict[str, str]  # peer endpoints of nodes that are new, or have moved
    force: bool


@dataclass(slots=True)
class ConfigurationChanged:
    """replication to gateway: the change is committed. If it takes more steps, this comes again when done.

    `configuration` is the committed one, encoded (raft/membership.py).
    """

    ticket: int
    index: int  # of its first step
    configuration: bytes
    is_complete: bool


@dataclass(slots=True)
class TransferLeadership:
    """gateway to replication: have another node lead; the fittest if `target` is None.

    Answered by LeadershipTransferred, ChangeRefused or Refused.
    """

    ticket: int
    target: str | None


@dataclass(slots=True)
class LeadershipTransferred:
    """replication to gateway: another node leads now, as a rule the one that was asked for."""

    ticket: int
    leader_id: str


@dataclass(slots=True)
class ChangeRefused:
    """replication to gateway: nothing was done. `reason` is a ConfigurationReason or TransferReason."""

    ticket: int
    reason: str
    detail: str


@dataclass(slots=True)
class MembershipChanged:
    """replication to election, applier and gateway: another configuration is in force, or it is committed.

    Told at the start too. One that is not committed may be taken back.
    """

    index: int  # of the entry with this configuration; 0 if it is what the node was started with
    configuration: bytes  # encoded (raft/membership.py)
    is_committed: bool
    is_removed: bool  # this node was a member, and is none any more: that is final


@dataclass(slots=True)
class TransferBegun:
    """replication to election: leadership is being handed over; give it one election timeout."""

    term: int


@dataclass(slots=True)
class TransferOverdue:
    """election to replication: an election timeout has passed since TransferBegun."""

    term: int


@dataclass(slots=True)
class TakeSnapshot:
    """replication to applier: take one of the state as it is now, and send its first slice."""


@dataclass(slots=True)
class NextSlice:
    """replication to applier: send the next slice of the snapshot at `index`.

    As long as `count` of them, if that takes no longer than so many seconds.
    """

    index: int
    count: int = 1
    seconds: float = 0.0


@dataclass(slots=True)
class SnapshotSlice:
    """applier to replication: a slice of a snapshot of all up to `index`; one for each that was asked for."""

    index: int
    offset: int
    data: bytes
    is_last: bool


@dataclass(slots=True)
class SnapshotGivenUp:
    """replication to applier: no more slices of the snapshot at `index` are wanted."""

    index: int


@dataclass(slots=True)
class RestoreSnapshot:
    """replication to applier: the leader's snapshot takes the place of the state. Ask for its parts."""

    index: int
    size_bytes: int
    term: int = 0  # of the entry at the index: the two name its file


@dataclass(slots=True)
class PartWanted:
    """applier to replication: the part of the installed snapshot that begins at `offset`."""

    index: int
    offset: int


@dataclass(slots=True)
class SnapshotPart:
    """replication to applier: the answer to PartWanted."""

    index: int
    offset: int
    data: bytes


@dataclass(slots=True)
class SnapshotRestored:
    """applier to replication: the state is that of the snapshot at `index`; entries may follow."""

    index: int


@dataclass(slots=True)
class OpenSnapshot:
    """gateway to replication: begin to read a snapshot that is no older than now, or ask how far it is.

    `stream` is the reader's own name for what it reads. Answered by SnapshotOpened, or before long by
    SnapshotPending: ask again; or by Refused, after which nothing is open.
    """

    ticket: int
    stream: bytes

    @property
    def tickets(self) -> list[int]:
        return [self.ticket]


@dataclass(slots=True)
class SnapshotPending:
    """replication to gateway: the snapshot is being taken; so much of it is written."""

    ticket: int
    written_bytes: int


@dataclass(slots=True)
class SnapshotOpened:
    """replication to gateway: the snapshot is there and stays, as long as it is read."""

    ticket: int
    index: int
    term: int
    configuration: bytes  # encoded (raft/membership.py)
    size_bytes: int
    checksum: int  # CRC-32 of all of it


@dataclass(slots=True)
class ReadSnapshot:
    """gateway to replication: the slice at `offset`. Answered by SnapshotData, SnapshotGone or Refused."""

    ticket: int
    stream: bytes
    offset: int


@dataclass(slots=True)
class SnapshotData:
    """replication to gateway: empty at the end of the snapshot and behind it."""

    ticket: int
    offset: int
    data: bytes


@dataclass(slots=True)
class CloseSnapshot:
    """gateway to replication: it is read, or given up. Answered by SnapshotClosed, always."""

    ticket: int
    stream: bytes


@dataclass(slots=True)
class SnapshotClosed:
    """replication to gateway: the answer to CloseSnapshot."""

    ticket: int


@dataclass(slots=True)
class SnapshotGone:
    """replication to gateway: what was asked of is not open (any more), or has no room on this disk."""

    ticket: int
    is_for_want_of_room: bool = False


@dataclass(slots=True)
class NodeFenced:
    """applier to replication and gateway: this node's state is wrong. It serves nothing and leads never more.

    `own` and `theirs` are fingerprints of the state at `index`; 0 if it found out by itself. If it
    `has_forgotten`, it is its log that is wrong: it had acknowledged that up to `index`.
    """

    index: int
    own: int
    theirs: int
    reason: str
    has_forgotten: bool = False


@dataclass(slots=True)
class LogForgotten:
    """replication to applier, which has the fence: this node has lost what it had acknowledged."""

    forgotten: Forgotten


LOCAL_MESSAGES: tuple[type, ...] = (
    Propose,
    Queued,
    CommitNotice,
    Read,
    LocalRead,
    Committed,
    ReadReady,
    Applied,
    Refused,
    Abandoned,
    QueryStatus,
    StatusReport,
    RoleChanged,
    LeaderContact,
    Campaign,
    LeaderSilent,
    HeartbeatDue,
    CheckQuorumDue,
    TakeSnapshot,
    NextSlice,
    SnapshotSlice,
    RestoreSnapshot,
    PartWanted,
    SnapshotPart,
    SnapshotRestored,
    ChangeConfiguration,
    ConfigurationChanged,
    TransferLeadership,
    LeadershipTransferred,
    ChangeRefused,
    MembershipChanged,
    TransferBegun,
    TransferOverdue,
    OpenSnapshot,
    SnapshotPending,
    SnapshotOpened,
    ReadSnapshot,
    SnapshotData,
    CloseSnapshot,
    SnapshotClosed,
    SnapshotGone,
    NodeFenced,
    LogForgotten,
    SnapshotGivenUp,
    SpaceChanged,
    StateSize,
    ApplierBehind,
)
