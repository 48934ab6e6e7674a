"""Clients of a cluster: `Client`, which blocks, and `AsyncClient`, for asyncio; with the same methods."""

from kvstore.client.aio import AsyncClient, AsyncWatch
from kvstore.client.blocking import BlockingWatch, Client
from kvstore.client.errors import ClusterMismatch, RevisionWentBack
from kvstore.client.results import (
    DeleteResult,
    Event,
    KeyValue,
    NodeStatus,
    PutResult,
    RangeResult,
    State,
    WatchBatch,
)

__all__ = [
    "AsyncClient",
    "AsyncWatch",
    "BlockingWatch",
    "Client",
    "ClusterMismatch",
    "DeleteResult",
    "Event",
    "KeyValue",
    "NodeStatus",
    "PutResult",
    "RangeResult",
    "RevisionWentBack",
    "State",
    "WatchBatch",
]
