"""`python -m tests.cluster.other_content_node node --name NAME …`: a node with snapshots of its own.

The node `later` is of a later version: its snapshots have the next version of the content. `bent` has bad
memory: one bit of what it writes into a snapshot is another one before the checksums are made.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Final

import kvstore.snapshots
import kvstore.state_machine
from kvstore.cli import main
from kvstore.snapshots import FORMAT_VERSION, StateHeader, encode_state

LATER: Final = FORMAT_VERSION + 1


def be_of_a_later_version() -> None:
    headers = (*kvstore.snapshots._HEADERS, ((LATER,), len(StateHeader._fields) + 1))
    setattr(kvstore.snapshots, "_HEADERS", headers)  # noqa: B010
    setattr(kvstore.snapshots, "FORMAT_VERSION", LATER)  # noqa: B010


def have_bad_memory() -> None:
    def encode(header: StateHeader, *rest: Any) -> Iterator[bytes]:
        assert header.fingerprint is not None, "no present snapshot is without"
        return encode_state(header._replace(fingerprint=header.fingerprint ^ 1), *rest)

    setattr(kvstore.state_machine, "encode_state", encode)  # noqa: B010


if __name__ == "__main__":
    name = sys.argv[sys.argv.index("--name") + 1]
    {"later": be_of_a_later_version, "bent": have_bad_memory}[name]()
    main()
