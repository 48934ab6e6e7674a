"""What the current records add to a store's fingerprint.

May know: records. A sum, so that a change costs as much as what it changes; and the past is not in it.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

from kvstore.protocol import KeyValue

# A larger value costs more than its record: what it adds is kept, so that a command which takes away
# thousands of them, of a megabyte each, looks at none. That is about a tenth of a kilobyte for each.
LARGE_VALUE_BYTES: Final = 2048


def record_sum(record: KeyValue) -> int:
    """What a current record adds to the fingerprint: its key and creation, and its content.

    The content is what a put replaces, so that a put need not look at the key again. Each part is a product,
    so that what two records exchange does not cancel out.
    """
    return name_sum(record) + content_sum(record)


def name_sum(record: KeyValue) -> int:
    key, _, create_revision, _, _, _ = record
    return crc32(key, create_revision) * create_revision


def content_sum(record: KeyValue) -> int:
    _, value, _, revision, version, lease = record
    return crc32(value, revision + version + lease) * revision


class LargeSums:
    """Owned by one store: of its current records with large values, and of no others, the content sums.

    Of a small value it is computed from what is there, when it goes too: memory that has changed since it
    came shows so. Of a large one that only shows when a snapshot looks at it.
    """

    def __init__(self) -> None:
        self.by_key: dict[bytes, int] = {}

    def add(self, record: KeyValue) -> int:
        """The content sum of a record that comes."""
        content = content_sum(record)
        if len(record[1]) > LARGE_VALUE_BYTES:
            self.by_key[record[0]] = content
        return content

    def remove(self, record: KeyValue) -> int:
        """The content sum of one that goes."""
        kept = self.by_key.pop(record[0], None) if len(record[1]) > LARGE_VALUE_BYTES else None
        return content_sum(record) if kept is None else kept
