"""Messages to bytes and back: may know msgpack and the registered classes, nothing of sockets or actors.

A frame is a version byte and one msgpack array [tag, [field, ...], tag, [field, ...], ...]: all messages for
one destination share it. Frames of the own process are trusted and decoded at C speed. Frames of other nodes
are read field by field against their classes (see schema); the only error of that is MalformedFrame. A tag is
never reused.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import operator
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgpack

from actors.errors import MalformedFrame
from actors.schema import LARGEST_INTEGER, Reader, read_array_header, read_fields, read_integer, reader_for

FRAME_VERSION = 1
# Bounds what a frame of tiny messages can unfold to; a sender starts another frame beyond it.
MOST_MESSAGES_IN_FRAME = 4096
# The version byte and the array header of a frame with one message.
_LONE_PREFIX = bytes([FRAME_VERSION, 0x92])
# A message with no other fields than these can be read by msgpack itself and checked afterwards.
PLAIN_TYPES = (int, str, bytes, bool)
MOST_PLAIN_FIELDS = 32

Fields = Callable[[Any], Sequence[object]]
Build = Callable[..., object]


class _Kind:
    """How one class is written and read; owned by its Codec."""

    __slots__ = ("build", "converters", "fields", "plain", "readers", "tag")

    def __init__(
        self,
        tag: int,
        fields: Fields,
        build: Build,
        converters: tuple[tuple[int, Callable[[Any], object]], ...],
        readers: tuple[Reader, ...] | None,
    ) -> None:
        self.tag = tag
        self.fields = fields
        self.build = build
        self.converters = converters  # for local frames: what msgpack cannot give back as it was
        self.readers = readers  # None: not accepted from another node
        self.plain: tuple[type, ...] | None = None  # the fields' types, if each is a plain scalar


class _ArrayBudget:
    """A hook that ends msgpack's decoding at the third array; owned by its Codec.

    A plain message has two, and arrays in arrays are how a few bytes become a lot of memory."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = 0

    def __call__(self, items: list[object]) -> list[object]:
        self.left -= 1
        if self.left < 0:
            raise MalformedFrame("more arrays than a message has")
        return items


class Codec:
    """The registered message classes; shared by every actor of a system, immutable once it runs."""

    def __init__(self) -> None:
        self._by_class: dict[type, _Kind] = {}
        self._by_tag: dict[int, _Kind] = {}
        # One growing buffer for all frames. IntEnum and StrEnum are packed as the numbers and strings that
        # they are.
        self._packer = msgpack.Packer(autoreset=False, use_bin_type=True)
        self._budget = _ArrayBudget()

    def register(
        self,
        tag: int,
        cls: type,
        *,
        remote: bool = False,
        encode: Callable[[Any], tuple[Any, ...]] | None = None,
        decode: Callable[..., Any] | None = None,
    ) -> None:
        """Make `cls` known under `tag`; with `remote=True` it is also accepted from other nodes.

        By default the fields are those of a dataclass or NamedTuple. `encode` gives the fields as a tuple,
        `decode` takes them as positional arguments. For a remote class every field needs an annotation of
        int, str, bytes, bool, an int or str enumeration, one of these or None, or a list or tuple of these;
        where there is a `decode`, its parameters' annotations count.
        """
        assert 0 <= tag < 2**31, f"tag {tag} of {cls.__name__} is out of range"
        assert tag not in self._by_tag, f"tag {tag} of {cls.__name__} is taken"
        assert cls not in self._by_class, f"{cls.__name__} is registered twice"
        assert (encode is None) == (decode is None), (
            f"{cls.__name__} needs both encode and decode, or neither"
        )
        fields: Fields
        build: Build
        if encode is not None and decode is not None:
            hints = _parameter_hints(decode) if remote else {}
            fields, build, names = encode, decode, tuple(hints)
        else:
            names = _field_names(cls)
            hints = _class_hints(cls, must_resolve=remote)
            fields, build = _field_getter(cls, names), cls
        readers = tuple(reader_for(hints[name]) for name in names) if remote else None
        kind = _Kind(tag, fields, build, () if decode else _converters(names, hints), readers)
        if remote and all(hints[name] in PLAIN_TYPES for name in names) and len(names) <= MOST_PLAIN_FIELDS:
            kind.plain = tuple(hints[name] for name in names)  # type: ignore[misc]
        self._by_class[cls] = self._by_tag[tag] = kind

    def encode(self, messages: Iterable[object]) -> bytes:
        """One frame with all the messages; TypeError for a class that was not registered."""
        packer = self._packer
        packer.reset()
        pairs: list[object] = []
        for message in messages:
            kind = self._by_class.get(type(message))
            if kind is None:
                raise TypeError(f"{type(message).__name__} is not registered with the codec")
            pairs.append(kind.tag)
            pairs.append(kind.fields(message))
        packer.pack(FRAME_VERSION)
        packer.pack(pairs)
        frame: bytes = packer.bytes()
        if len(frame) > 1 << 20:  # do not keep the buffer of a rare giant
            self._packer = msgpack.Packer(autoreset=False, use_bin_type=True)
        return frame

    @staticmethod
    def join(frames: Sequence[bytes]) -> bytes:
        """One frame out of frames with a single message each, so that a message for several nodes is encoded
        once."""
        header = msgpack.Packer().pack_array_header(2 * len(frames))
        pieces = [bytes([FRAME_VERSION]), header]
        for frame in frames:
            assert frame.startswith(_LONE_PREFIX), "only frames with one message can be joined"
            pieces.append(frame[len(_LONE_PREFIX) :])
        return b"".join(pieces)

    def decode_local(self, frame: bytes) -> list[object]:
        """The messages of a frame that this process wrote; what is wrong with it is a bug and raises
        anything.

        Lists and dicts within a field come back as msgpack gives them: a tuple in a list is a list.
        """
        pairs = msgpack.unpackb(memoryview(frame)[1:])
        messages: list[object] = []
        for position in range(0, len(pairs), 2):
            kind = self._by_tag[pairs[position]]
            fields = pairs[position + 1]
            for place, convert in kind.converters:
                fields[place] = convert(fields[place])
            messages.append(kind.build(*fields))
        return messages

    def decode_remote(self, frame: bytes) -> list[object]:
        """The messages of a frame that another node wrote; raises MalformedFrame and nothing else."""
        try:
            return self._read_frame(frame)
        except MalformedFrame:
            raise
        except IndexError as error:
            raise MalformedFrame("the frame ends too early") from error
        except Exception as error:
            # A class refuses values that have the right types: whatever it raises, the sender is to blame.
            raise MalformedFrame(f"a message was refused with {type(error).__name__}") from error

    def _read_frame(self, frame: bytes) -> list[object]:
        if frame[0] != FRAME_VERSION:
            raise MalformedFrame("a frame of another version")
        if frame.startswith(_LONE_PREFIX):
            message = self._read_plain(frame)
            if message is not None:
                return [message]
        count, offset = read_array_header(frame, 1)
        if count % 2 or count > 2 * MOST_MESSAGES_IN_FRAME:
            raise MalformedFrame("a frame has a wrong number of messages")
        messages: list[object] = []
        for _ in range(count // 2):
            tag, offset = read_integer(frame, offset)
            kind = self._by_tag.get(tag)
            if kind is None or kind.readers is None:
                raise MalformedFrame("a message of an unknown kind")
            fields, offset = read_fields(frame, offset, kind.readers)
            messages.append(kind.build(*fields))
        if offset != len(frame):
            raise MalformedFrame("bytes behind the last message")
        return messages

    def _read_plain(self, frame: bytes) -> object | None:
        """The only message of a frame, at C speed. None unless all is well and its fields are plain scalars:
        then it is read field by field, and if it is wrong that finds out how."""
        self._budget.left = 2
        try:
            tag, fields = msgpack.unpackb(
                memoryview(frame)[1:],
                list_hook=self._budget,
                max_array_len=MOST_PLAIN_FIELDS,
                max_map_len=0,
                max_ext_len=0,
            )
            kind = self._by_tag[tag]
            if type(fields) is not list or tuple(map(type, fields)) != kind.plain:
                return None
        except Exception:
            return None
        for value in fields:
            if type(value) is int and not 0 <= value <= LARGEST_INTEGER:
                return None
        return kind.build(*fields)


def _field_names(cls: type) -> tuple[str, ...]:
    if dataclasses.is_dataclass(cls):
        return tuple(field.name for field in dataclasses.fields(cls) if field.init)
    names = getattr(cls, "_fields", None)
    if issubclass(cls, tuple) and isinstance(names, tuple):
        return names
    raise TypeError(f"{cls.__name__} is neither a dataclass nor a NamedTuple; give encode and decode")


def _field_getter(cls: type, names: tuple[str, ...]) -> Fields:
    if issubclass(cls, tuple):
        return tuple
    if not names:
        return lambda message: ()
    if len(names) == 1:
        get_one = operator.attrgetter(names[0])
        return lambda message: (get_one(message),)
    return operator.attrgetter(*names)


@functools.cache
def _class_hints(cls: type, *, must_resolve: bool) -> dict[str, object]:
    try:
        return typing.get_type_hints(cls)
    except NameError:
        # Names that only a type checker imports: harmless unless a stranger's bytes are to be checked against
        # them.
        if must_resolve:
            raise
        return {}


def _parameter_hints(decode: Callable[..., Any]) -> dict[str, object]:
    """The annotations of a decode function's parameters, in their order."""
    hints: dict[str, object] = {}
    for name, parameter in inspect.signature(decode, eval_str=True).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            raise TypeError(f"parameter {name} of {decode!r} must be positional")
        if parameter.annotation is parameter.empty:
            raise TypeError(
                f"parameter {name} of {decode!r} needs an annotation: peers' bytes are checked against it"
            )
        hints[name] = parameter.annotation
    return hints


def _converters(
    names: tuple[str, ...], hints: dict[str, object]
) -> tuple[tuple[int, Callable[[Any], object]], ...]:
    found: list[tuple[int, Callable[[Any], object]]] = []
    for position, name in enumerate(names):
        hint = hints.get(name)
        if isinstance(hint, type) and issubclass(hint, enum.Enum):
            found.append((position, hint))
        elif typing.get_origin(hint) is tuple:
            found.append((position, tuple))
    return tuple(found)
