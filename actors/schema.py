"""Reads the fields of one class out of msgpack bytes that a stranger wrote: may know annotations and the
msgpack format.

Rules: a reader follows the class, never the bytes, so nothing nests deeper than the class says and nothing is
allocated beyond a small multiple of what was received. A general decoder cannot promise that: a MiB of empty
arrays becomes 65 MiB of lists there. Every failure is MalformedFrame.
"""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Callable

from actors.errors import MalformedFrame

LARGEST_INTEGER = 2**63 - 1
# A list of one-byte integers costs eight bytes an element; this bounds what any list can take.
MOST_ELEMENTS = 65_536

# A reader takes the frame and an offset and gives the value and the offset behind it. It may raise
# MalformedFrame or, at the end of the frame, IndexError, which `read_fields` turns into MalformedFrame.
Reader = Callable[[bytes, int], tuple[object, int]]

_UNSIGNED_SIZES = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_BYTES_SIZES = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_STRING_SIZES = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_ARRAY_SIZES = {0xDC: 2, 0xDD: 4}
_NIL, _FALSE, _TRUE = 0xC0, 0xC2, 0xC3


def read_integer(frame: bytes, offset: int) -> tuple[int, int]:
    """An integer in 0..2**63-1; every quantity of the protocol is one."""
    lead = frame[offset]
    offset += 1
    if lead < 0x80:
        return lead, offset
    size = _UNSIGNED_SIZES.get(lead)
    if size is None:
        raise MalformedFrame("an unsigned integer was expected")
    value = _read_size(frame, offset, size)
    if value > LARGEST_INTEGER:
        raise MalformedFrame("an integer is out of range")
    return value, offset + size


def read_bytes(frame: bytes, offset: int) -> tuple[bytes, int]:
    size = _BYTES_SIZES.get(frame[offset])
    if size is None:
        raise MalformedFrame("bytes were expected")
    start = offset + 1 + size
    end = start + _read_size(frame, offset + 1, size)
    if end > len(frame):
        raise MalformedFrame("bytes end behind the frame")
    return frame[start:end], end


def read_string(frame: bytes, offset: int) -> tuple[str, int]:
    lead = frame[offset]
    if 0xA0 <= lead <= 0xBF:
        start = offset + 1
        end = start + (lead & 0x1F)
    else:
        size = _STRING_SIZES.get(lead)
        if size is None:
            raise MalformedFrame("a string was expected")
        start = offset + 1 + size
        end = start + _read_size(frame, offset + 1, size)
    if end > len(frame):
        raise MalformedFrame("a string ends behind the frame")
    try:
        return frame[start:end].decode("utf-8"), end
    except UnicodeDecodeError as error:
        raise MalformedFrame("a string is not UTF-8") from error


def read_boolean(frame: bytes, offset: int) -> tuple[bool, int]:
    lead = frame[offset]
    if lead != _TRUE and lead != _FALSE:
        raise MalformedFrame("a boolean was expected")
    return lead == _TRUE, offset + 1


def read_array_header(frame: bytes, offset: int) -> tuple[int, int]:
    """The number of elements of an array; bounded by the caller and by the bytes that are left."""
    lead = frame[offset]
    offset += 1
    if 0x90 <= lead <= 0x9F:
        return lead & 0x0F, offset
    size = _ARRAY_SIZES.get(lead)
    if size is None:
        raise MalformedFrame("an array was expected")
    count = _read_size(frame, offset, size)
    offset += size
    if count > len(frame) - offset:
        raise MalformedFrame("an array has more elements than the frame has bytes")
    return count, offset


def read_fields(frame: bytes, offset: int, readers: tuple[Reader, ...]) -> tuple[list[object], int]:
    """The fields of one message, which must be as many as its class has."""
    count, offset = read_array_header(frame, offset)
    if count != len(readers):
        raise MalformedFrame("a message has another number of fields than its class")
    fields: list[object] = []
    for reader in readers:
        value, offset = reader(frame, offset)
        fields.append(value)
    return fields, offset


def _read_size(frame: bytes, offset: int, size: int) -> int:
    digits = frame[offset : offset + size]
    if len(digits) != size:
        raise MalformedFrame("the frame ends within a number")
    return int.from_bytes(digits, "big")


_SCALARS: dict[object, Reader] = {
    int: read_integer,
    bytes: read_bytes,
    str: read_string,
    bool: read_boolean,
}


def reader_for(annotation: object) -> Reader:
    """The reader of a field with this annotation; TypeError for one that a peer's message may not have."""
    scalar = _scalar_reader(annotation)
    if scalar is not None:
        return scalar
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is list and len(arguments) == 1:
        return _list_reader(_element_reader(arguments[0], annotation))
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _tuple_reader(_list_reader(_element_reader(arguments[0], annotation)))
    raise TypeError(f"a field of a message to other nodes cannot be {annotation!r}")


def _element_reader(annotation: object, whole: object) -> Reader:
    scalar = _scalar_reader(annotation)
    if scalar is None:
        raise TypeError(f"elements of a list in a message to other nodes must be scalars, not {whole!r}")
    return scalar


def _scalar_reader(annotation: object) -> Reader | None:
    annotation = getattr(annotation, "__supertype__", annotation)  # a NewType is what it is made of
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        choices = typing.get_args(annotation)
        others = [choice for choice in choices if choice is not type(None)]
        if len(others) != 1 or len(choices) != 2:
            return None
        scalar = _scalar_reader(others[0])
        return None if scalar is None else _optional_reader(scalar)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        base = next((each for each in (int, str) if issubclass(annotation, each)), None)
        return None if base is None else _enum_reader(_SCALARS[base], annotation)
    return _SCALARS.get(annotation)


def _optional_reader(reader: Reader) -> Reader:
    def read_optional(frame: bytes, offset: int) -> tuple[object, int]:
        if frame[offset] == _NIL:
            return None, offset + 1
        return reader(frame, offset)

    return read_optional


def _enum_reader(reader: Reader, kind: type[enum.Enum]) -> Reader:
    def read_enum(frame: bytes, offset: int) -> tuple[object, int]:
        value, offset = reader(frame, offset)
        try:
            return kind(value), offset
        except ValueError as error:
            raise MalformedFrame("a value is not one of its enumeration") from error

    return read_enum


def _list_reader(reader: Reader) -> Reader:
    def read_list(frame: bytes, offset: int) -> tuple[object, int]:
        count, offset = read_array_header(frame, offset)
        if count > MOST_ELEMENTS:
            raise MalformedFrame("a list is too long")
        values: list[object] = []
        for _ in range(count):
            value, offset = reader(frame, offset)
            values.append(value)
        return values, offset

    return read_list


def _tuple_reader(reader: Reader) -> Reader:
    def read_tuple(frame: bytes, offset: int) -> tuple[object, int]:
        values, offset = reader(frame, offset)
        assert isinstance(values, list)
        return tuple(values), offset

    return read_tuple
