"""The logger of the client library, for all its files.

`logging` is loaded when there is something to say: a short command is over before that would be done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logging import Logger


def client_log() -> Logger:
    from logging import getLogger

    return getLogger("assent.client")
