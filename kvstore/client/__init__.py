"""Clients of a cluster: `Client`, which blocks, and `AsyncClient`, for asyncio; with the same methods.

The asyncio face and transactions are imported when they are asked for: a short command should not wait for
what it does not use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from kvstore.client.blocking import Client
from kvstore.client.blocking_watch import BlockingClusterWatch, BlockingWatch
from kvstore.client.cluster import Cluster
from kvstore.client.errors import ClusterMismatch, RevisionWentBack
from kvstore.client.lease_results import LeaseGranted, LeaseInfo, LeaseList, LeaseRevoked, LeasesRenewed
from kvstore.client.leases import Lease
from kvstore.client.results import (
    Child,
    ChildrenResult,
    CompactResult,
    DeleteResult,
    Event,
    KeyValue,
    NodeStatus,
    PutResult,
    RangeResult,
    State,
    TreeDeleted,
    WatchBatch,
)
from kvstore.protocol_admin import Member, Membership
from kvstore.watch_frames import ClusterEvent

if TYPE_CHECKING:
    from kvstore.client.aio import AsyncClient
    from kvstore.client.aio_leases import AsyncLease
    from kvstore.client.aio_watch import AsyncWatch
    from kvstore.client.transactions import Compare, Operation, Txn, TxnResult

__all__ = [
    "AsyncClient",
    "AsyncLease",
    "AsyncWatch",
    "BlockingClusterWatch",
    "BlockingWatch",
    "Child",
    "ChildrenResult",
    "Client",
    "Cluster",
    "ClusterEvent",
    "ClusterMismatch",
    "CompactResult",
    "Compare",
    "DeleteResult",
    "Event",
    "KeyValue",
    "Lease",
    "LeaseGranted",
    "LeaseInfo",
    "LeaseList",
    "LeaseRevoked",
    "LeasesRenewed",
    "Member",
    "Membership",
    "NodeStatus",
    "Operation",
    "PutResult",
    "RangeResult",
    "RevisionWentBack",
    "State",
    "TreeDeleted",
    "Txn",
    "TxnResult",
    "WatchBatch",
]

_LATER = {
    "AsyncClient": "aio",
    "AsyncLease": "aio_leases",
    "AsyncWatch": "aio_watch",
    "Compare": "transactions",
    "Operation": "transactions",
    "Txn": "transactions",
    "TxnResult": "transactions",
}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"kvstore.client.{_LATER[name]}"), name)
