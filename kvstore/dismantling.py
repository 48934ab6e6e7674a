"""A store whose place another one has taken: given up bit by bit.

May know: what a store is made of. To free a million records takes a tenth of a second, if nothing is done but
to drop the last reference; in small parts it goes unnoticed between commands.
"""

from __future__ import annotations

from typing import Any, Final

from kvstore.store import Store

STEP_ITEMS: Final = 2048  # about half a millisecond


class Dismantling:
    """Owned by one state machine, which makes the steps. The store must have no other owner any more."""

    def __init__(self, store: Store) -> None:
        versions = store._versions
        tables = [store._records, versions.older, store.history.changes]
        # Each key is in one of the inner lists too, of about a thousand.
        self._tables: list[Any] = [*tables, *store._keys._lists, *versions.gone._lists]

    def step(self) -> bool:
        """Give up a few thousand items; whether there are more."""
        tables, left = self._tables, STEP_ITEMS
        while tables and left > 0:
            table = tables[-1]
            count = min(left, len(table))
            if isinstance(table, dict):
                for _ in range(count):
                    table.popitem()
            else:
                del table[len(table) - count :]
            left -= max(1, count)
            if not table:
                tables.pop()
        return bool(tables)
