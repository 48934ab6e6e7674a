"""Errors that only a client can notice, beside those of kvstore.errors: answers that contradict one another.

May know: nothing but their base classes.
"""

from __future__ import annotations

from kvstore.errors import MaybeApplied, NotApplied


class ClusterMismatch(NotApplied):
    """The node at `endpoint` belongs to another cluster than the first one this client spoke to."""

    __slots__ = ("endpoint", "expected_cluster_id", "found_cluster_id")

    def __init__(self, endpoint: str, expected_cluster_id: str, found_cluster_id: str) -> None:
        super().__init__(
            f"{endpoint} is of cluster {found_cluster_id}, but this client began with {expected_cluster_id}"
        )
        self.endpoint = endpoint
        self.expected_cluster_id = expected_cluster_id
        self.found_cluster_id = found_cluster_id


class RevisionWentBack(MaybeApplied):
    """A linearizable answer of `found_revision`, though `known_revision` had been seen before the question.

    The store has lost history, or is another one: nothing that was read from it may be relied on.
    """

    __slots__ = ("found_revision", "known_revision")

    def __init__(self, known_revision: int, found_revision: int) -> None:
        super().__init__(f"the store answered at revision {found_revision}, after {known_revision} was seen")
        self.known_revision = known_revision
        self.found_revision = found_revision


class SnapshotBroken(NotApplied):
    """The node at `endpoint` ceased to give its snapshot, because of `cause`; `read_bytes` of it had come."""

    __slots__ = ("cause", "endpoint", "read_bytes", "size_bytes")

    def __init__(self, endpoint: str, read_bytes: int, size_bytes: int, cause: Exception) -> None:
        how_far = f"{read_bytes} of {size_bytes} bytes" if size_bytes else "it was begun"
        super().__init__(f"the snapshot of {endpoint} broke off after {how_far}: {cause}. Save it again")
        self.endpoint = endpoint
        self.read_bytes = read_bytes
        self.size_bytes = size_bytes
        self.cause = cause


class SnapshotDamaged(NotApplied):
    """What came from the node at `endpoint` is not what it said it would be."""

    __slots__ = ("endpoint", "reason")

    def __init__(self, endpoint: str, reason: str) -> None:
        super().__init__(f"the snapshot of {endpoint} is damaged: {reason}. Save it from another member")
        self.endpoint = endpoint
        self.reason = reason


class SnapshotOfLaterVersion(NotApplied):
    """The node at `endpoint` is of a later version, and so is what it keeps in its snapshot."""

    __slots__ = ("endpoint", "version")

    def __init__(self, endpoint: str, version: int, newest: int) -> None:
        super().__init__(
            f"the snapshot of {endpoint} has content of version {version}, this program reads versions up to "
            f"{newest}. Save it with the version of Assent that this node has, or with a later one"
        )
        self.endpoint = endpoint
        self.version = version
