"""A long range page by page, all of it as of one revision.

May know: calls and their results. Pure: whoever reads makes the calls; both faces of the client do.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Unpack

from kvstore.client.calls import Call, Chosen, Consistency, range_call
from kvstore.client.results import RangeResult

PAGE_KEYS: Final = 10_000  # at most; a node cuts a page at 16 MiB, too


class Pager:
    """What is read next, of one range or of several. Owned by one reader; as of the first page's revision.

    Pages follow one another by their keys. In any other order there is one page, which a node may have cut.
    """

    def __init__(
        self,
        spans: list[tuple[bytes, bytes]],
        consistency: Consistency,
        *,
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        **chosen: Unpack[Chosen],
    ) -> None:
        self._spans = deque(spans)  # what is left
        self._consistency = consistency
        self._left = limit  # 0: no limit
        self._revision = revision
        self._is_first = True
        self._keys_only = keys_only
        self._chosen = chosen

    def next_call(self) -> Call | None:
        """None when all was read."""
        if not self._spans:
            return None
        limit = self._left
        if self._chosen.get("sort_by", "key") == "key":
            limit = min(limit or PAGE_KEYS, PAGE_KEYS)
        return range_call(
            self._spans[0],
            self._consistency,
            limit=limit,
            revision=self._revision,
            keys_only=self._keys_only,
            uncounted=not self._is_first,
            **self._chosen,
        )

    def took(self, page: RangeResult) -> None:
        assert self._spans, "a page after the last one"
        self._is_first = False
        self._revision = self._revision or page.revision
        key, end = self._spans.popleft()
        if self._left:
            self._left -= len(page.items)
            if not self._left:
                self._spans.clear()
                return
        if not page.more or not page.items:
            return
        last = page.items[-1].key
        if self._chosen.get("sort_by", "key") != "key":
            return
        if not self._chosen.get("descending", False):
            self._spans.appendleft((last + b"\0", end))
        elif last > key:
            self._spans.appendleft((key, last))
