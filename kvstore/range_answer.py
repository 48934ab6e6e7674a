"""What a store answers to a read of a range, cut to what fits.

May know: records.
"""

from __future__ import annotations

from typing import NamedTuple

from kvstore.protocol import KeyValue


class RangeAnswer(NamedTuple):
    total: int  # of all keys in the range, whatever the limit
    more: bool  # `records` was cut
    records: list[KeyValue]  # in key order


def cut(total: int, records: list[KeyValue], max_bytes: int, keys_only: bool) -> RangeAnswer:
    """As many as fit into `max_bytes` of keys and of values, where these are wanted, and always the first."""
    if max_bytes:
        size_bytes = 0
        for position, record in enumerate(records):
            size_bytes += len(record[0]) if keys_only else len(record[0]) + len(record[1])
            if size_bytes > max_bytes and position:
                del records[position:]
                break
    if keys_only:
        records = [(record[0], b"", *record[2:]) for record in records]
    return RangeAnswer(total, len(records) < total, records)
