"""A state whose place another one has taken: given up bit by bit.

May know: what a store and sessions are made of. To free a million records takes a tenth of a second, if
nothing is done but to drop the last reference, and so do a thousand values of a megabyte; in small parts it
goes unnoticed between commands.
"""

from __future__ import annotations

from typing import Any, Final

from kvstore.sessions import Session, Sessions
from kvstore.store import Store

STEP_ITEMS: Final = 2048  # about half a millisecond
ITEM_BYTES: Final = 16 << 10  # of values; to free so many counts as an item


class Dismantling:
    """Owned by one state machine, which makes the steps. What it is given has no other owner any more."""

    def __init__(self, store: Store, sessions: Sessions) -> None:
        versions = store._versions
        # Each is emptied from its end on; what is in it and has items of its own becomes one of these then.
        self._tables: list[Any] = [
            sessions._by_nonce,
            sessions._sessions,
            store._large_sums.by_key,
            store._leased,
            store._records,
            versions.older,
            store.history.changes,
            # Each key is in one of the inner lists, of about a thousand.
            store._keys._lists,
            versions.gone._lists,
        ]

    def step(self) -> bool:
        """Give up a few thousand items; whether there are more."""
        tables, left = self._tables, STEP_ITEMS
        while tables and left > 0:
            table = tables[-1]
            if not table:
                tables.pop()
                left -= 1
                continue
            item = table.popitem()[1] if isinstance(table, dict) else table.pop()
            left -= 1
            if type(item) is tuple:
                if len(item) == 6:  # a version
                    left -= len(item[1]) // ITEM_BYTES
                else:  # a revision and its versions
                    tables.append(item[1])
            elif isinstance(item, (list, set)):
                tables.append(item)
            elif isinstance(item, Session):
                tables.append(item.results)
        return bool(tables)
