"""A small file of fields: one line of JSON, whose last field is a checksum of all before it.

May know the disk, and nothing of what the fields mean. It is written whole or not at all, and read to the
last bit: a file with any other byte in it than those that were written says nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from zlib import crc32

from raft.files import FailStop


def encode_fields(content: Mapping[str, object]) -> bytes:
    """The line. The same fields in the same order give the same bytes."""
    line = json.dumps(content)[:-1].encode()
    return line + _end(line)


def decode_fields(data: bytes) -> dict[str, object] | None:
    """The fields without the checksum; None if these are not the bytes that were written."""
    line = data[: -len(_end(b""))]
    if data != line + _end(line):
        return None
    return _parse(line + b"}")


def decode_plain_fields(data: bytes) -> dict[str, object] | None:
    """Of a file of before there were checksums; None if no program wrote it as it is. Of damage, that finds
    what is no JSON, a space too many, a name that is there twice: not another letter."""
    content = _parse(data)
    if content is None or json.dumps(content).encode() + b"\n" != data:
        return None
    return content


def write_fields(disk: FailStop, directory: Path, name: str, content: Mapping[str, object]) -> None:
    """Durable when it returns, under that name; a crash before leaves none, or a draft called `name`.tmp."""
    files, path, draft = disk.files, directory / name, directory / f"{name}.tmp"
    descriptor = disk.call(draft, files.create, draft)
    disk.write(draft, descriptor, encode_fields(content), 0)
    disk.call(draft, files.fdatasync, descriptor)
    disk.close(descriptor)
    disk.call(draft, files.rename, draft, path)
    disk.call(directory, files.fsync_directory, directory)


def _end(line: bytes) -> bytes:
    return b', "checksum": "%08x"}\n' % crc32(line)


def _parse(data: bytes) -> dict[str, object] | None:
    try:
        content = json.loads(data.decode())
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
