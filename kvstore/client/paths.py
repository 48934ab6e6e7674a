"""What takes more than one call: ranges page by page. The methods of both faces of the client.

May know: calls, pages and results. Each face has a class here, which its client is made of; neither keeps
anything of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Unpack

from kvstore.client import calls
from kvstore.client.calls import Call, Chosen, Consistency
from kvstore.client.paging import Pager
from kvstore.client.results import RangeResult

if TYPE_CHECKING:
    import asyncio


class BlockingPaths:
    """A part of Client."""

    def _ask(self, call: Call, timeout_seconds: float | None) -> Any:
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
            calls.key_prefix(prefix),
            consistency,
            limit=limit,
            revision=revision,
            keys_only=keys_only,
            **chosen,
        )
        return self._pages_of(pager, timeout_seconds)

    def _pages_of(self, pager: Pager, timeout_seconds: float | None) -> Iterator[RangeResult]:
        while (call := pager.next_call()) is not None:
            page: RangeResult = self._ask(call, timeout_seconds)
            pager.took(page)
            yield page


class AsyncPaths:
    """A part of AsyncClient."""

    def _submit(self, call: Call, timeout_seconds: float | None) -> asyncio.Future[Any]:
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
            calls.key_prefix(prefix),
            consistency,
            limit=limit,
            revision=revision,
            keys_only=keys_only,
            **chosen,
        )
        return self._pages_of(pager, timeout_seconds)

    async def _pages_of(self, pager: Pager, timeout_seconds: float | None) -> AsyncIterator[RangeResult]:
        while (call := pager.next_call()) is not None:
            page: RangeResult = await self._submit(call, timeout_seconds)
            pager.took(page)
            yield page
