"""The numbers of the protocol: kinds, operations, flags, codes and limits, each written once.

May know nothing. Everybody who speaks the protocol has them by way of `protocol`, which names them too.
docs/protocol.md tells the same to people.
"""

from __future__ import annotations

from typing import Final

PROTOCOL_VERSION: Final = 1
VERSION_BYTE: Final = b"\x01"

# Kinds of a request frame.
WRITE: Final = 1
READ: Final = 2  # linearizable
STALE_READ: Final = 3  # whatever the asked node has applied
STATUS: Final = 4
ADMIN: Final = 5  # protocol_admin has its bodies
SNAPSHOT: Final = 6  # protocol_snapshot has its bodies
REQUEST_KINDS: Final = {1: "write", 2: "read", 3: "stale_read", 4: "status", 5: "admin", 6: "snapshot"}
SINGLE_KINDS: Final = frozenset({ADMIN, SNAPSHOT})  # one body in each frame

# Kinds of a reply frame.
RESULTS: Final = 129
REFUSED: Final = 130

# Operations of a write body.
PUT: Final = 1
DELETE: Final = 2
OPEN_SESSION: Final = 3
CLOSE_SESSION: Final = 4
COMPACT: Final = 5
TXN: Final = 6
LEASE_GRANT: Final = 7
LEASE_REVOKE: Final = 8
LEASE_KEEPALIVE: Final = 9
# Operations of a read body.
RANGE: Final = 16
WATCH_HISTORY: Final = 17
CHILDREN: Final = 21
READ_TXN: Final = 18  # a transaction without writes, which needs no log
LEASE_TIME_TO_LIVE: Final = 19
LEASE_LIST: Final = 20
# Operations that a leader proposes by itself. Their bodies begin with a byte that no msgpack has, and that is
# refused in what clients send.
INTERNAL_BYTE: Final = b"\xc1"
LEASE_TICK: Final = 32
LEASE_EXPIRE: Final = 33
REMEMBERED: Final = 34  # a read, of the state of its own node: nobody else gets it

# Flags of PUT and DELETE.
PREV_KV: Final = 1
# Flags of PUT.
IGNORE_VALUE: Final = 2  # the key keeps the value that it has
IGNORE_LEASE: Final = 4  # the key keeps the lease that it has

# Of a compare in a transaction: what is compared, and how.
COMPARE_VERSION: Final = 1
COMPARE_CREATE: Final = 2
COMPARE_MOD: Final = 3
COMPARE_VALUE: Final = 4
COMPARE_LEASE: Final = 5
EQUAL: Final = 0
NOT_EQUAL: Final = 1
GREATER: Final = 2
LESS: Final = 3
# Flags of RANGE.
KEYS_ONLY: Final = 1
COUNT_ONLY: Final = 2
UNCOUNTED: Final = 4  # `count` is of the answer alone: nothing else is looked at for its sake

# What the long form of RANGE sorts by, and in which order.
SORT_NONE: Final = 0
SORT_KEY: Final = 1
SORT_VERSION: Final = 2
SORT_CREATE: Final = 3
SORT_MOD: Final = 4
SORT_VALUE: Final = 5
SORT_ASCENDING: Final = 0
SORT_DESCENDING: Final = 1
# Flags of LEASE_TIME_TO_LIVE.
LEASE_KEYS: Final = 1

EVENT_PUT: Final = 0
EVENT_DELETE: Final = 1

# First element of a result.
OK: Final = 0
BAD_REQUEST: Final = 1
SESSION_EXPIRED: Final = 2
SEQUENCE_FORGOTTEN: Final = 3
COMPACTED: Final = 4  # [code, message, the oldest revision that can be read; of COMPACT, the last one's]
FUTURE_REVISION: Final = 5  # [code, message, current_revision]
EMPTY_KEY: Final = 6
TOO_LARGE: Final = 7
WATCH_RANGE_EMPTY: Final = 8
CHANGE_REFUSED: Final = 9  # [code, message, reason]
CHANGE_UNFINISHED: Final = 10
SPACE_EXCEEDED: Final = 11  # a disk is nearly full: only what frees space is done
SNAPSHOT_GONE: Final = 12  # not open any more: the node forgot it, or is another one
KEY_NOT_FOUND: Final = 13  # a put was to keep what is not there
VALUE_PROVIDED: Final = 14
LEASE_PROVIDED: Final = 15
LEASE_NOT_FOUND: Final = 16
LEASE_EXISTS: Final = 17
LEASE_TTL_TOO_LARGE: Final = 18
DUPLICATE_KEY: Final = 19
TOO_MANY_OPERATIONS: Final = 20
# Codes of a REFUSED frame.
NOT_LEADER: Final = 32
NO_LEADER: Final = 33
OVERLOADED: Final = 34
SHUTTING_DOWN: Final = 35
CONFLICT_WITH_LEADER: Final = 36  # an OUTCOME_UNKNOWN: overwritten here, and maybe committed elsewhere
OUTCOME_UNKNOWN: Final = 37  # may or may not be applied
BAD_FRAME: Final = 38
DEADLINE_EXCEEDED: Final = 39  # of a read
EXPIRED: Final = 40  # of a write, before it was proposed
TRANSFERRING: Final = 42  # leadership is being handed to another node
FENCED: Final = 43  # the node's state is wrong: it serves nothing any more
NOT_MEMBER: Final = 41  # the node waits to be added to a cluster, or was removed from it

CODE_NAMES: Final = {
    OK: "ok",
    BAD_REQUEST: "bad_request",
    SESSION_EXPIRED: "session_expired",
    SEQUENCE_FORGOTTEN: "sequence_forgotten",
    COMPACTED: "compacted",
    FUTURE_REVISION: "future_revision",
    EMPTY_KEY: "empty_key",
    TOO_LARGE: "too_large",
    WATCH_RANGE_EMPTY: "watch_range_empty",
    CHANGE_REFUSED: "change_refused",
    CHANGE_UNFINISHED: "change_unfinished",
    SPACE_EXCEEDED: "space_exceeded",
    SNAPSHOT_GONE: "snapshot_gone",
    KEY_NOT_FOUND: "key_not_found",
    VALUE_PROVIDED: "value_provided",
    LEASE_PROVIDED: "lease_provided",
    LEASE_NOT_FOUND: "lease_not_found",
    LEASE_EXISTS: "lease_exists",
    LEASE_TTL_TOO_LARGE: "lease_ttl_too_large",
    DUPLICATE_KEY: "duplicate_key",
    TOO_MANY_OPERATIONS: "too_many_operations",
    NOT_LEADER: "not_leader",
    NO_LEADER: "no_leader",
    OVERLOADED: "overloaded",
    SHUTTING_DOWN: "shutting_down",
    CONFLICT_WITH_LEADER: "conflict_with_leader",
    OUTCOME_UNKNOWN: "outcome_unknown",
    BAD_FRAME: "bad_frame",
    DEADLINE_EXCEEDED: "deadline_exceeded",
    EXPIRED: "expired",
    TRANSFERRING: "transferring",
    NOT_MEMBER: "not_member",
    FENCED: "fenced",
}

# ---------------------------------------------------------------- limits

MAX_INTEGER: Final = 2**63 - 1  # every integer of the protocol is in 0..MAX_INTEGER
MAX_KEY_BYTES: Final = 4096
MAX_BOUND_BYTES: Final = MAX_KEY_BYTES + 1  # of a range that is read or deleted: what follows the longest key
MAX_VALUE_BYTES: Final = 1 << 20
MAX_BODY_BYTES: Final = 1_572_864  # 1.5 MiB: one command or read
MAX_FRAME_BYTES: Final = 4 << 20  # a request frame: many bodies
MAX_REQUESTS_PER_FRAME: Final = 16_384
MAX_TIMEOUT_MILLISECONDS: Final = 86_400_000
NONCE_BYTES: Final = 16
MAX_UNACKNOWLEDGED: Final = 4096  # sequences which a session remembers; a client keeps fewer in flight
MAX_RANGE_REPLY_BYTES: Final = 16 << 20  # a longer range is cut here, with `more` set
MAX_PREV_KVS_BYTES: Final = 1 << 20  # a delete that would answer with more is refused, nothing deleted
MAX_PREVIOUS_BYTES: Final = 16 << 20  # of the records that the events of one revision replaced
MAX_DELETE_KEYS: Final = 100_000  # a longer delete is refused: nothing could interrupt it
# In each list; a nested transaction has what its parent's longest list leaves.
MAX_TXN_OPERATIONS: Final = 128
MAX_TXN_DEPTH: Final = 8  # of transactions, the outermost included
MAX_TXN_ITEMS: Final = 8192  # compares and operations in all, those of nested transactions included
MAX_TXN_KEYS: Final = 100_000  # that one with writes looks at: nothing could interrupt it
MAX_TXN_REPLY_BYTES: Final = 2 << 20  # keys and values in the result of one with writes, which is remembered
MAX_TTL_SECONDS: Final = 9_000_000_000
MAX_KEEPALIVES: Final = 1000  # leases that one command renews
MAX_TOPIC_BYTES: Final = 2 * MAX_KEY_BYTES + 6  # the longest stream topic

# ---------------------------------------------------------------- watch plane constants

MAX_PUBLISHED_BYTES: Final = (
    64 << 10
)  # of the events or the value of one message; what is larger is asked for

STREAM_TOPIC_PREFIX: Final = b"\x00S"
PREVIOUS_TOPIC_PREFIX: Final = b"\x00P"  # of a stream whose events have the record before
CLUSTER_TOPIC: Final = b"\x00C"
RESERVED_TOPIC_BYTE: Final = 0  # a topic that starts with it is never a path topic

WATCH_HEARTBEAT_SECONDS: Final = 0.5
WATCH_SILENCE_SECONDS: Final = 2.0  # a stream silent for longer is lost: ask for the history again
