"""Keys as paths: `/`-separated names, each key below those whose names its own begins with.

Pure: knows keys as bytes. A path is "/a/b"; `/` at its ends matters nowhere, so "a/b/" is the same one, and
the root is "/" or nothing. What is below a path are the keys that begin with it and a further `/`.
"""

from __future__ import annotations

from typing import Final

SEPARATOR: Final = b"/"
AFTER: Final = b"0"  # the byte after the separator


def normal_path(path: bytes) -> bytes:
    """The form "/a/b" of "a/b", "/a/b" and "/a/b/"; empty for the root."""
    names = path.strip(SEPARATOR)
    return SEPARATOR + names if names else b""


def below(path: bytes) -> tuple[bytes, bytes]:
    """The range of the keys below a path in its normal form."""
    return path + SEPARATOR, path + AFTER


def is_at_or_below(key: bytes, path: bytes) -> bool:
    return key == path or key.startswith(path + SEPARATOR)
