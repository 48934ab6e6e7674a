"""How results are written: `simple` for eyes and pipes, `table` for eyes, `json` for programs.

Keys and values are bytes. In `simple` and `table` they are written as they are; in JSON they are text where
they are UTF-8 and {"base64": "…"} where they are not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import BinaryIO


def json_bytes(data: bytes) -> object:
    """Bytes as JSON can hold them, without loss."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        import base64

        return {"base64": base64.b64encode(data).decode("ascii")}


def write_json(value: object, *, indent: int | None = None) -> None:
    """One JSON document and a newline."""
    import json

    write_line(json.dumps(value, ensure_ascii=False, indent=indent).encode())


def write_line(*parts: bytes) -> None:
    """The parts with tabs between them, and a newline; they leave at once when the reader waits for lines."""
    write_raw(b"\t".join(parts) + b"\n")


def write_raw(data: bytes) -> None:
    """Exactly these bytes, or an error."""
    stdout, rest = _binary_stdout(), memoryview(data)
    while rest:  # without a buffer (PYTHONUNBUFFERED) one write may take a part only
        rest = rest[stdout.write(rest) :]


def flush() -> None:
    """Hand over what is buffered, for a reader who follows a stream."""
    sys.stdout.flush()


def write_table(header: Sequence[str], rows: Iterable[Sequence[bytes | str]]) -> None:
    """Columns as wide as their widest cell; the last one is not padded."""
    cells = [[cell.encode() for cell in header]]
    cells += [[cell if isinstance(cell, bytes) else cell.encode() for cell in row] for row in rows]
    widths = [max(_width(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        padded = [cell + b" " * (width - _width(cell)) for cell, width in zip(row, widths)]
        write_raw(b"  ".join(padded).rstrip(b" ") + b"\n")


def _width(cell: bytes) -> int:
    return len(cell.decode("utf-8", "replace"))


def _binary_stdout() -> BinaryIO:
    # Whatever went through the text layer before has to come out first.
    sys.stdout.flush()
    return sys.stdout.buffer
