"""What a client is asked for that takes more than one call: long ranges, trees, and watches. For both faces.

May know: calls, pages, results and watches, none of which waits. Each request stands here once; a face says
how pages follow one another, how steps are carried out, and how a watch is followed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar, Unpack

from kvstore.client import calls
from kvstore.client.calls import Chosen, Consistency
from kvstore.client.paging import Pager
from kvstore.client.requests import Asking
from kvstore.client.trees import (
    Steps,
    TreeWatch,
    children_call,
    delete_steps,
    spans_of,
    tree_pager,
    tree_path,
)
from kvstore.client.watch import Watch

Children = TypeVar("Children")
Pages = TypeVar("Pages")
Items = TypeVar("Items")
TreeGone = TypeVar("TreeGone")
Watching = TypeVar("Watching")


class PathRequests(Asking, Generic[Children, Pages, Items, TreeGone]):
    """A part of a client: all keys of a prefix or of a tree, however many."""

    @abstractmethod
    def _pages_of(self, pager: Pager, timeout_seconds: float | None) -> Pages:
        """Its pages, one after the other; each is asked for when it is wanted."""

    @abstractmethod
    def _items_of(self, pager: Pager, timeout_seconds: float | None) -> Items:
        """The keys in them."""

    @abstractmethod
    def _carry_out(self, steps: Steps, timeout_seconds: float | None) -> TreeGone:
        """One call after the other, to the end."""

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
    ) -> Pages:
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
    ) -> Children:
        """The names right below a path, in order, whether they have values or only keys below them.

        With `start_after`, a name, only those after it: so an answer that was cut is continued. An answer has
        about 32 000 names at most.
        """
        call = children_call(path, consistency, limit, start_after, revision)
        answer: Children = self._ask(call, timeout_seconds)
        return answer

    def walk(
        self,
        path: str | bytes,
        *,
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        consistency: Consistency = "linearizable",
        timeout_seconds: float | None = None,
    ) -> Items:
        """The key of the path, if it is there, and all below it, however many, all as of one revision."""
        pager = tree_pager(path, consistency, limit=limit, revision=revision, keys_only=keys_only)
        return self._items_of(pager, timeout_seconds)

    def delete_tree(self, path: str | bytes, *, timeout_seconds: float | None = None) -> TreeGone:
        """Deletes the key of the path and all below it, in one revision.

        If there are more than 20 000 keys: in pieces of as many, each in a revision of its own, so that
        whoever looks meanwhile sees a part gone. If that fails, what was deleted before stays deleted: do it
        again.
        """
        return self._carry_out(delete_steps(spans_of(tree_path(path))), timeout_seconds)

    def delete_all(self, prefix: str | bytes, *, timeout_seconds: float | None = None) -> TreeGone:
        """Deletes all keys that begin with `prefix`, however many: as delete_tree, in pieces if they are more
        than 20 000. delete_prefix() refuses these, and deletes none."""
        return self._carry_out(delete_steps([calls.key_prefix(prefix)]), timeout_seconds)


class WatchRequests(ABC, Generic[Watching]):
    """A part of a client: what changes."""

    @abstractmethod
    def _follow(self, watch: Watch, timeout_seconds: float | None) -> Watching:
        """The watch as its caller sees it."""

    def watch(
        self,
        key: str | bytes,
        *,
        prefix: bool = False,
        start_revision: int = 0,
        progress: bool = False,
        previous: bool = False,
        puts: bool = True,
        deletes: bool = True,
        timeout_seconds: float | None = None,
    ) -> Watching:
        """Follows a key or a prefix; nothing that is done after this returns is missed. Of asyncio: nothing
        that is done after the watch was awaited.

        It begins with `start_revision`, inclusive, or with now. With `progress`, a batch without events
        tells now and then up to which revision there is nothing more to come. With `previous`, an event has
        what was there before it. Without `puts` or `deletes`, there are none of these.
        """
        span = calls.watch_span(key, is_prefix=prefix, start_revision=start_revision)
        watch = Watch(*span, start_revision, progress=progress, previous=previous, puts=puts, deletes=deletes)
        return self._follow(watch, timeout_seconds)

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
    ) -> Watching:
        """Follows the key of the path and all below it, and nothing else; as watch() in everything else."""
        watch = TreeWatch(
            path, start_revision, progress=progress, previous=previous, puts=puts, deletes=deletes
        )
        return self._follow(watch, timeout_seconds)
