"""Where a message goes: may know nothing else.

An address says which actor on which node, and nothing of how to get there: `inproc://` and `tcp://` look the
same.
"""

from __future__ import annotations

from typing import NamedTuple


class Address(NamedTuple):
    """The name of an actor in the whole cluster."""

    node: str
    actor: str
