"""What takes more than one call: ranges page by page, and trees. The methods of both faces of the client.

May know: calls, pages and results. Each face has a class here, which its client is made of; neither keeps
anything of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Unpack

from kvstore.client import calls
from kvstore.client.calls import Call, Chosen, Consistency
from kvstore.client.paging import Pager
from kvstore.client.results import ChildrenResult, KeyValue, RangeResult, TreeDeleted
from kvstore.client.trees import TreeWatch, children_call, delete_tree_steps, tree_pager
from kvstore.client.watch import Watch
from kvstore.errors import AssentError

if TYPE_CHECKING:
    import asyncio

    from kvstore.client.aio_watch import AsyncWatch
    from kvstore.client.blocking_watch import BlockingWatch


class BlockingPaths:
    """A part of Client."""

    def _ask(self, call: Call, timeout_seconds: float | None) -> Any:
        raise NotImplementedError

    def _follow(self, watched: Watch, timeout_seconds: float | None) -> BlockingWatch:
        raise NotImplementedError

    def pages(
        self,
        prefix: str | bytes,
        *,
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        consistency: Consistency = "linearizable",
        timeout_seconds: float | None = None,
        **chosen: Unpack[Chosen],
    ) -> Iterator[RangeResult]:
        """All keys that begin with `prefix`, however many: page by page, as of the first page's revision.

        There is always one page, and `count` of the first one is of them all. In another order than that of
        the keys there is one page only; its `more` tells that it was cut. The deadline is each page's.
        """
        pager = Pager(
            [calls.key_prefix(prefix)],
            consistency,
            limit=limit,
            revision=revision,
            keys_only=keys_only,
            **chosen,
        )
        return self._pages_of(pager, timeout_seconds)

    def children(
        self,
        path: str | bytes,
        *,
        limit: int = 0,
        start_after: str | bytes = b"",
        revision: int = 0,
        consistency: Consistency = "linearizable",
        timeout_seconds: float | None = None,
    ) -> ChildrenResult:
        """The names right below a path, in order, whether they have values or only keys below them.

        With `start_after`, a name, only those after it: so an answer that was cut is continued. An answer has
        about 32 000 names at most.
        """
        call = children_call(path, consistency, limit, start_after, revision)
        result: ChildrenResult = self._ask(call, timeout_seconds)
        return result

    def walk(
        self,
        path: str | bytes,
        *,
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        consistency: Consistency = "linearizable",
        timeout_seconds: float | None = None,
    ) -> Iterator[KeyValue]:
        """The key of the path, if it is there, and all below it, however many, all as of one revision."""
        pager = tree_pager(path, consistency, limit=limit, revision=revision, keys_only=keys_only)
        return (item for page in self._pages_of(pager, timeout_seconds) for item in page.items)

    def delete_tree(self, path: str | bytes, *, timeout_seconds: float | None = None) -> TreeDeleted:
        """Deletes the key of the path and all below it, in one revision.

        If there are more than 100 000 keys: in pieces of as many, each in a revision of its own, so that
        whoever looks meanwhile sees a part gone. If that fails, what was deleted before stays deleted: do it
        again.
        """
        steps = delete_tree_steps(path)
        try:
            call = next(steps)
            while True:
                try:
                    result = self._ask(call, timeout_seconds)
                except AssentError as error:
                    call = steps.throw(error)
                else:
                    call = steps.send(result)
        except StopIteration as end:
            deleted: TreeDeleted = end.value
            return deleted

    def watch_tree(
        self,
        path: str | bytes,
        *,
        start_revision: int = 0,
        progress: bool = False,
        previous: bool = False,
        puts: bool = True,
        deletes: bool = True,
        timeout_seconds: float | None = None,
    ) -> BlockingWatch:
        """Follows the key of the path and all below it, and nothing else; as watch() in everything else."""
        watch = TreeWatch(
            path, start_revision, progress=progress, previous=previous, puts=puts, deletes=deletes
        )
        return self._follow(watch, timeout_seconds)

    def _pages_of(self, pager: Pager, timeout_seconds: float | None) -> Iterator[RangeResult]:
        while (call := pager.next_call()) is not None:
            page: RangeResult = self._ask(call, timeout_seconds)
            pager.took(page)
            yield page


class AsyncPaths:
    """A part of AsyncClient."""

    def _submit(self, call: Call, timeout_seconds: float | None) -> asyncio.Future[Any]:
        raise NotImplementedError

    def _follow(self, watch: Watch, timeout_seconds: float | None) -> AsyncWatch:
        raise NotImplementedError

    def pages(
        self,
        prefix: str | bytes,
        *,
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        consistency: Consistency = "linearizable",
        timeout_seconds: float | None = None,
        **chosen: Unpack[Chosen],
    ) -> AsyncIterator[RangeResult]:
        """As that of the client that blocks: all keys that begin with `prefix`, page by page."""
        pager = Pager(
            [calls.key_prefix(prefix)],
            consistency,
            limit=limit,
            revision=revision,
            keys_only=keys_only,
            **chosen,
        )
        return self._pages_of(pager, timeout_seconds)

    def children(
        self,
        path: str | bytes,
        *,
        limit: int = 0,
        start_after: str | bytes = b"",
        revision: int = 0,
        consistency: Consistency = "linearizable",
        timeout_seconds: float | None = None,
    ) -> asyncio.Future[ChildrenResult]:
        """As that of the client that blocks: the names right below a path."""
        return self._submit(children_call(path, consistency, limit, start_after, revision), timeout_seconds)

    async def walk(
        self,
        path: str | bytes,
        *,
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        consistency: Consistency = "linearizable",
        timeout_seconds: float | None = None,
    ) -> AsyncIterator[KeyValue]:
        """The key of the path, if it is there, and all below it, however many, all as of one revision."""
        pager = tree_pager(path, consistency, limit=limit, revision=revision, keys_only=keys_only)
        async for page in self._pages_of(pager, timeout_seconds):
            for item in page.items:
                yield item

    async def delete_tree(self, path: str | bytes, *, timeout_seconds: float | None = None) -> TreeDeleted:
        """As that of the client that blocks: the key of the path and all below it."""
        steps = delete_tree_steps(path)
        try:
            call = next(steps)
            while True:
                try:
                    result = await self._submit(call, timeout_seconds)
                except AssentError as error:
                    call = steps.throw(error)
                else:
                    call = steps.send(result)
        except StopIteration as end:
            deleted: TreeDeleted = end.value
            return deleted

    def watch_tree(
        self,
        path: str | bytes,
        *,
        start_revision: int = 0,
        progress: bool = False,
        previous: bool = False,
        puts: bool = True,
        deletes: bool = True,
        timeout_seconds: float | None = None,
    ) -> AsyncWatch:
        """Follows the key of the path and all below it, and nothing else; as watch() in everything else."""
        watch = TreeWatch(
            path, start_revision, progress=progress, previous=previous, puts=puts, deletes=deletes
        )
        return self._follow(watch, timeout_seconds)

    async def _pages_of(self, pager: Pager, timeout_seconds: float | None) -> AsyncIterator[RangeResult]:
        while (call := pager.next_call()) is not None:
            page: RangeResult = await self._submit(call, timeout_seconds)
            pager.took(page)
            yield page
