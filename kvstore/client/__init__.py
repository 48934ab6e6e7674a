"""Clients of a cluster: `Client`, which blocks, and `AsyncClient`, for asyncio; with the same methods.

The asyncio face and transactions are imported when they are asked for: a short command should not wait for
what it does not use.
"""

from __future__ import annotations

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


def __getattr__(name: str) -> object:
    if name in ("AsyncClient", "AsyncLease", "AsyncWatch"):
        from kvstore.client import aio, aio_leases

        return aio_leases.AsyncLease if name == "AsyncLease" else getattr(aio, name)
    if name in ("Compare", "Operation", "Txn", "TxnResult"):
        from kvstore.client import transactions

        return getattr(transactions, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
