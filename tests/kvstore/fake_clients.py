"""Clients of a store in memory, for tests of the command line: the same methods, no cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from kvstore.client import (
    Child,
    ChildrenResult,
    ClusterEvent,
    CompactResult,
    DeleteResult,
    Event,
    KeyValue,
    NodeStatus,
    PutResult,
    RangeResult,
    TreeDeleted,
    WatchBatch,
)
from kvstore.client.saving import TakenSnapshot
from kvstore.errors import EmptyKey, Fenced
from kvstore.protocol import prefix_range

PAGE_KEYS = 3  # of a range; small, so that tests cross pages


class FakeCluster:
    """The store that all its clients share, and what was asked of them. Owned by one test."""

    def __init__(self) -> None:
        self.revision = 1
        self.records: dict[bytes, KeyValue] = {}
        self.batches: list[WatchBatch] = []
        self.statuses: dict[str, NodeStatus | None] = {}
        self.failure: Exception | None = None  # of every call
        self.before_page: Callable[[], None] = lambda: None
        self.opened_with: tuple[tuple[str, ...], float] | None = None
        self.consistencies: list[str] = []
        self.past: dict[int, dict[bytes, KeyValue]] = {}  # by revision, as far as a test has kept it
        self.compacted: list[int] = []
        self.snapshots: list[str] = []  # of these nodes, in the order in which they were taken
        self.watched_tree: tuple[bytes, int] | None = None
        self.asked_revisions: list[int] = []  # of children
        self.chosen: dict[str, Any] = {}  # the order and the bounds of the last pages
        self.is_cut = False  # pages end before all was told
        self.watched: tuple[bytes, bool, int] | None = None
        self.watch_options: dict[str, bool] = {}
        self.cluster_events: list[ClusterEvent] = []

    def put(self, key: bytes, value: bytes) -> PutResult:
        if not key:
            raise EmptyKey("a key has at least one byte")
        self.revision += 1
        before = self.records.get(key)
        created = before.create_revision if before else self.revision
        version = before.version + 1 if before else 1
        self.records[key] = KeyValue(key, value, created, self.revision, version, 0)
        return PutResult(self.revision, before)

    def at(self, revision: int) -> dict[bytes, KeyValue]:
        return self.past[revision] if revision else self.records

    # -- what the command line asks for

    def client(self, endpoints: tuple[str, ...], timeout_seconds: float) -> Any:
        self.opened_with = endpoints, timeout_seconds
        return FakeClient(self)

    def async_client(self, endpoints: tuple[str, ...], timeout_seconds: float) -> Any:
        self.opened_with = endpoints, timeout_seconds
        return FakeAsyncClient(self)


class FakeOperator:
    """`client.cluster`, as far as the command line takes snapshots with it."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._cluster = cluster

    def take_snapshot(self, endpoint: str, *, timeout_seconds: float) -> TakenSnapshot:
        found = self._cluster.statuses[endpoint]
        assert found is not None
        if found.fenced is not None:
            raise Fenced(f"{found.node} is fenced")
        self._cluster.snapshots.append(found.node)
        return TakenSnapshot("00ff", found.node, found.applied_index, found.term, 1000)


class FakeClient:
    """Blocking."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._cluster = cluster
        self.cluster = FakeOperator(cluster)

    def __enter__(self) -> FakeClient:
        if self._cluster.failure is not None:
            raise self._cluster.failure
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def put(self, key: bytes, value: bytes, *, previous: bool = False, lease: int = 0) -> PutResult:
        revision, before = self._cluster.put(key, value)
        return PutResult(revision, before if previous else None)

    def get(self, key: bytes, *, revision: int = 0, consistency: str = "linearizable") -> KeyValue | None:
        self._cluster.consistencies.append(consistency)
        return self._cluster.at(revision).get(key)

    def range(
        self, key: bytes, end: bytes, *, limit: int = 0, revision: int = 0, keys_only: bool = False
    ) -> RangeResult:
        self._cluster.before_page()
        records = self._cluster.at(revision)
        found = [records[name] for name in sorted(records) if key <= name and (end == b"\0" or name < end)]
        shown = found[: limit or PAGE_KEYS]
        if keys_only:
            shown = [item._replace(value=b"") for item in shown]
        return RangeResult(self._cluster.revision, len(found), len(shown) < len(found), shown)

    def prefix(
        self,
        prefix: bytes,
        *,
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        consistency: str = "linearizable",
    ) -> RangeResult:
        self._cluster.consistencies.append(consistency)
        return self.range(*prefix_range(prefix), limit=limit, revision=revision, keys_only=keys_only)

    def pages(
        self,
        prefix: bytes,
        *,
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        consistency: str = "linearizable",
        **chosen: Any,
    ) -> Iterator[RangeResult]:
        """As of the first page's revision, though the store may change between two of them."""
        self._cluster.consistencies.append(consistency)
        self._cluster.chosen = chosen
        key, end = prefix_range(prefix)
        records = dict(self._cluster.at(revision))
        found = [records[name] for name in sorted(records) if key <= name and (end == b"\0" or name < end)]
        if keys_only:
            found = [item._replace(value=b"") for item in found]
        shown = found[: limit or None]
        at = self._cluster.revision
        for start in range(0, len(shown) or 1, PAGE_KEYS):
            page = shown[start : start + PAGE_KEYS]
            more = self._cluster.is_cut or start + len(page) < len(found)
            yield RangeResult(at, len(found), more, page)
            self._cluster.before_page()

    def compact(self, revision: int) -> CompactResult:
        self._cluster.compacted.append(revision)
        return CompactResult(self._cluster.revision)

    def delete(self, key: bytes) -> DeleteResult:
        gone = [] if self._cluster.records.pop(key, None) is None else [key]
        self._cluster.revision += bool(gone)
        return DeleteResult(self._cluster.revision, len(gone), [])

    def delete_prefix(self, prefix: bytes) -> DeleteResult:
        gone = [key for key in self._cluster.records if key.startswith(prefix)]
        for key in gone:
            del self._cluster.records[key]
        self._cluster.revision += bool(gone)
        return DeleteResult(self._cluster.revision, len(gone), [])

    def delete_all(self, prefix: bytes) -> TreeDeleted:
        gone = self.delete_prefix(prefix)
        return TreeDeleted(gone.revision, gone.deleted, int(gone.deleted > 0))

    def children(self, path: bytes, *, start_after: bytes = b"", revision: int = 0) -> ChildrenResult:
        """Pages of a few names each."""
        root = b"/" + path.strip(b"/") if path.strip(b"/") else b""
        records = self._cluster.at(revision if revision in self._cluster.past else 0)
        rests = [key[len(root) + 1 :] for key in records if key.startswith(root + b"/")]
        names = sorted({rest.partition(b"/")[0] for rest in rests})
        found = [
            Child(name, name in rests, any(rest.startswith(name + b"/") for rest in rests))
            for name in names
            if name > start_after
        ]
        self._cluster.asked_revisions.append(revision)
        return ChildrenResult(self._cluster.revision, len(found) > PAGE_KEYS, found[:PAGE_KEYS])

    def walk(self, path: bytes, *, revision: int = 0, keys_only: bool = False) -> Iterator[KeyValue]:
        records = dict(self._cluster.at(revision))
        for key in sorted(records):
            if key == path or key.startswith(path + b"/"):
                self._cluster.before_page()
                yield records[key]._replace(value=b"") if keys_only else records[key]

    def delete_tree(self, path: bytes) -> TreeDeleted:
        gone = [item.key for item in self.walk(b"/" + path.strip(b"/"))]
        for key in gone:
            del self._cluster.records[key]
        self._cluster.revision += bool(gone)
        return TreeDeleted(self._cluster.revision, len(gone), int(bool(gone)))

    def watch(
        self, key: bytes, *, prefix: bool = False, start_revision: int = 0, **options: bool
    ) -> FakeWatch:
        self._cluster.watched = key, prefix, start_revision
        self._cluster.watch_options = options
        return FakeWatch(self._cluster.batches)

    def watch_cluster(self) -> FakeWatch:
        return FakeWatch(self._cluster.cluster_events)

    def watch_tree(self, path: bytes, *, start_revision: int = 0, **options: bool) -> FakeWatch:
        self._cluster.watched_tree = path, start_revision
        return FakeWatch(self._cluster.batches)

    def status_all(self, *, timeout_seconds: float) -> dict[str, NodeStatus | None]:
        assert self._cluster.opened_with is not None
        return {endpoint: self._cluster.statuses.get(endpoint) for endpoint in self._cluster.opened_with[0]}

    def status(self, endpoint: str, *, timeout_seconds: float) -> NodeStatus:
        found = self._cluster.statuses.get(endpoint)
        if found is None:
            from kvstore.errors import Unreachable

            raise Unreachable((endpoint,))
        return found


class FakeWatch:
    """Ends after its batches, as a cancelled one does."""

    def __init__(self, batches: list[Any]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self._batches)

    def cancel(self) -> None:
        self._batches.clear()


class FakeAsyncClient:
    """For asyncio."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._cluster = cluster

    async def __aenter__(self) -> FakeAsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def put(self, key: bytes, value: bytes) -> PutResult:
        if self._cluster.failure is not None:
            raise self._cluster.failure
        return self._cluster.put(key, value)


def event(kind: int, key: bytes, value: bytes, revision: int) -> Event:
    return Event(kind, key, value, revision if kind == 0 else 0, revision, 1 - kind, 0)
