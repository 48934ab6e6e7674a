"""The numbers that options and arguments may be: what the protocol can carry, and nothing that is no number.

May know click and the bounds of the protocol.
"""

from __future__ import annotations

from typing import Any

import click

from kvstore.codes import MAX_INTEGER

POSITIVE = click.IntRange(1, MAX_INTEGER)  # a revision, a limit, an id of a lease
NOT_NEGATIVE = click.IntRange(0, MAX_INTEGER)


class Seconds(click.FloatRange):
    """A time within its bounds. Click's own lets nan pass, which is within no bounds."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if number != number:
            self.fail(f"{value!r} is no number of seconds.", param, ctx)
        return number
