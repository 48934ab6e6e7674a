"""How a result that is an error is encoded.

May know: msgpack. Everybody who refuses something has it from here, so that all errors have one shape.
"""

from __future__ import annotations

import msgpack


def error_result(code: int, message: str, *data: int) -> bytes:
    packed: bytes = msgpack.packb((code, message, *data))
    return packed
