"""The codec: what goes in comes out, and a stranger's bytes give messages or MalformedFrame, nothing else."""

from __future__ import annotations

import enum
import tracemalloc
from dataclasses import dataclass
from typing import NamedTuple, NewType

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import Codec, MalformedFrame

Term = NewType("Term", int)


class Kind(enum.IntEnum):
    NOOP = 0
    COMMAND = 1


class Word(enum.StrEnum):
    YES = "yes"
    NO = "no"


@dataclass(slots=True)
class Everything:
    number: int
    text: str
    body: bytes
    flag: bool
    maybe: str | None
    bodies: list[bytes | None]
    numbers: tuple[int, ...]
    kind: Kind
    word: Word
    term: Term


class Pair(NamedTuple):
    left: int
    right: bytes


@dataclass(slots=True)
class Empty:
    pass


@dataclass(slots=True)
class Lone:
    body: bytes


class Batch:
    """Encoded by functions of its own."""

    def __init__(self, first: int, blob: bytes) -> None:
        if not blob:
            raise ValueError("a batch is never empty")
        self.first = first
        self.blob = blob


def take_apart(batch: Batch) -> tuple[int, bytes]:
    return batch.first, batch.blob


def put_together(first: int, blob: bytes) -> Batch:
    return Batch(first, blob)


@dataclass(slots=True)
class Inner:
    slices: list[tuple[int, int]]
    fields: dict[str, object]


def make_codec() -> Codec:
    codec = Codec()
    codec.register(1, Everything, remote=True)
    codec.register(2, Pair, remote=True)
    codec.register(3, Empty, remote=True)
    codec.register(300, Lone, remote=True)
    codec.register(5, Batch, remote=True, encode=take_apart, decode=put_together)
    codec.register(6, Inner)
    return codec


CODEC = make_codec()
NUMBERS = st.integers(0, 2**63 - 1)
EVERYTHING = st.builds(
    Everything,
    NUMBERS,
    st.text(),
    st.binary(),
    st.booleans(),
    st.none() | st.text(),
    st.lists(st.none() | st.binary()),
    st.lists(NUMBERS).map(tuple),
    st.sampled_from(Kind),
    st.sampled_from(Word),
    NUMBERS.map(Term),
)
MESSAGES = (
    EVERYTHING | st.builds(Pair, NUMBERS, st.binary()) | st.just(Empty()) | st.builds(Lone, st.binary())
)


@given(st.lists(MESSAGES, max_size=8))
@settings(max_examples=60, deadline=None)
def test_messages_come_back_as_they_were_by_both_ways(messages: list[object]) -> None:
    frame = CODEC.encode(messages)
    for decoded in (CODEC.decode_local(frame), CODEC.decode_remote(frame)):
        assert decoded == messages
        assert [type(message) for message in decoded] == [type(message) for message in messages]
        for message in decoded:
            if isinstance(message, Everything):
                assert type(message.kind) is Kind
                assert type(message.word) is Word
                assert type(message.numbers) is tuple
                assert type(message.bodies) is list


@given(st.lists(MESSAGES, min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_frames_of_single_messages_join_to_the_frame_of_all(messages: list[object]) -> None:
    joined = CODEC.join([CODEC.encode([message]) for message in messages])
    assert joined == CODEC.encode(messages)


def test_the_bytes_of_a_frame_are_fixed() -> None:
    """Another version of the software, or another language, must find the same bytes."""
    frame = CODEC.encode([Pair(258, b"ab"), Empty()])
    assert frame == bytes.fromhex("01 94 02 92 cd0102 c4026162 03 90")
    assert frame == b"\x01" + msgpack.packb([2, [258, b"ab"], 3, []])


def test_a_class_with_functions_of_its_own_is_checked_by_its_decode_function() -> None:
    [batch] = CODEC.decode_remote(CODEC.encode([Batch(9, b"xyz")]))
    assert isinstance(batch, Batch)
    assert (batch.first, batch.blob) == (9, b"xyz")
    for fields in ([9, "xyz"], [9], [-1, b"xyz"], [9, b"xyz", 1], [9, b""]):
        with pytest.raises(MalformedFrame):
            CODEC.decode_remote(b"\x01" + msgpack.packb([5, fields]))


def test_messages_of_the_own_node_may_nest() -> None:
    frame = CODEC.encode([Inner([(1, 2)], {"term": 5, "peers": {"n1": "tcp://"}, "lag": 0.5, "below": -1})])
    assert CODEC.decode_local(frame) == [
        Inner([[1, 2]], {"term": 5, "peers": {"n1": "tcp://"}, "lag": 0.5, "below": -1})  # type: ignore[list-item]
    ]


def test_a_message_of_the_own_node_only_is_refused_from_another() -> None:
    with pytest.raises(MalformedFrame):
        CODEC.decode_remote(CODEC.encode([Inner([], {})]))


GOOD = [7, "text", b"body", True, None, [b"x", None], [1, 2], 1, "yes", 3]


@pytest.mark.parametrize(
    ("position", "value"),
    [
        (0, -1),
        (0, 2**63),
        (0, True),
        (0, None),
        (0, 1.0),
        (0, "7"),
        (0, [7]),
        (1, b"text"),
        (1, 7),
        (2, "body"),
        (2, None),
        (3, 1),
        (3, None),
        (4, 5),
        (4, b"x"),
        (5, b"x"),
        (5, {"x": 1}),
        (5, ["x"]),
        (5, [[b"x"]]),
        (5, None),
        (6, [1, "2"]),
        (6, [-1]),
        (7, 2),
        (7, "NOOP"),
        (8, "perhaps"),
        (8, 1),
        (9, float("nan")),
        (9, msgpack.ExtType(1, b"x")),
        (9, msgpack.Timestamp(1)),
        (9, {}),
    ],
)
def test_a_field_of_another_type_is_refused(position: int, value: object) -> None:
    """Every field of a peer's message has the type that its class says."""
    assert CODEC.decode_remote(b"\x01" + msgpack.packb([1, GOOD]))
    fields = [*GOOD[:position], value, *GOOD[position + 1 :]]
    with pytest.raises(MalformedFrame):
        CODEC.decode_remote(b"\x01" + msgpack.packb([1, fields]))


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x01",
        b"\x02" + msgpack.packb([3, []]),  # another version
        b"\x01" + msgpack.packb([99, []]),  # an unknown kind
        b"\x01" + msgpack.packb(["3", []]),
        b"\x01" + msgpack.packb([3]),  # a tag without fields
        b"\x01" + msgpack.packb([3, [], 3]),
        b"\x01" + msgpack.packb([3, [1]]),  # a field too many
        b"\x01" + msgpack.packb([2, [1]]),  # a field too few
        b"\x01" + msgpack.packb([3, {}]),
        b"\x01" + msgpack.packb([3, None]),
        b"\x01" + msgpack.packb({3: []}),
        b"\x01" + msgpack.packb([3, []]) + b"\x00",  # bytes behind the last message
        b"\x01" + msgpack.packb([300, [b"x"]])[:-1],  # cut
        b"\x01\x92\xcd\x01\x2c\x91\xc6\xff\xff\xff\xffx",  # a length of 4 GiB
        b"\x01\xdd\xff\xff\xff\xff",  # an array of four milliards
        b"\x01\x92\x01\x9a\x07\xa2\xff\xfe",  # not UTF-8
        b"\x01" + msgpack.packb([3, []] * 4097),  # more messages than a frame may have
    ],
)
def test_a_malformed_frame_is_refused(frame: bytes) -> None:
    with pytest.raises(MalformedFrame):
        CODEC.decode_remote(frame)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_frame_gives_messages_or_malformed_frame(data: st.DataObject) -> None:
    """Bytes changed, cut, put in: no other exception comes out, and what comes out encodes again."""
    frame = bytearray(CODEC.encode(data.draw(st.lists(MESSAGES, min_size=1, max_size=3))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(frame) - 1))
        match data.draw(st.sampled_from(["change", "cut", "insert"])):
            case "change":
                frame[at] = data.draw(st.integers(0, 255))
            case "cut":
                del frame[max(1, at) :]
            case _:
                frame.insert(at, data.draw(st.integers(0, 255)))
    try:
        messages = CODEC.decode_remote(bytes(frame))
    except MalformedFrame:
        return
    assert CODEC.decode_remote(CODEC.encode(messages)) == messages


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_random_bytes_give_messages_or_malformed_frame(noise: bytes) -> None:
    """What is taken for messages is messages: they can be written and read again."""
    for frame in (noise, b"\x01" + noise):
        try:
            messages = CODEC.decode_remote(frame)
        except MalformedFrame:
            continue
        assert CODEC.decode_remote(CODEC.encode(messages)) == messages


@pytest.mark.parametrize(
    "filling", [b"\x90", b"\x80", b"\x91", b"\x81", b"\xdd\xff\xff\xff\xff", b"\xa1a", b"\x01"]
)
@pytest.mark.parametrize(
    "prefix", [b"\x01", b"\x01\x92\x01\x9a", b"\x01\x92\x01\x9a\x07\xa0\xc4\x00\xc2\xc0\xdd\x00\x07\xff\xff"]
)
def test_a_frame_unfolds_to_a_small_multiple_of_its_size_at_most(filling: bytes, prefix: bytes) -> None:
    """A mebibyte of empty or nested containers, wherever it is put, is not built."""
    frame = prefix + filling * ((1 << 20) // len(filling))
    tracemalloc.start()
    try:
        with pytest.raises(MalformedFrame) as caught:
            CODEC.decode_remote(frame)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 4 << 20
    assert len(repr(caught.value)) < 200


def test_a_list_at_its_bound_is_taken_and_one_beyond_is_not() -> None:
    most = 65_536

    def with_numbers(count: int) -> bytes:
        packed: bytes = msgpack.packb([1, [*GOOD[:6], [1] * count, *GOOD[7:]]])
        return b"\x01" + packed

    assert CODEC.decode_remote(with_numbers(most))
    with pytest.raises(MalformedFrame):
        CODEC.decode_remote(with_numbers(most + 1))


@dataclass(slots=True)
class Unchecked:
    anything: object


@dataclass(slots=True)
class Nested:
    pairs: list[list[int]]


@pytest.mark.parametrize("cls", [Unchecked, Nested, Inner])
def test_a_class_whose_fields_cannot_be_checked_is_not_let_in_from_other_nodes(cls: type) -> None:
    with pytest.raises(TypeError):
        Codec().register(1, cls, remote=True)


def test_a_decode_function_for_other_nodes_needs_annotations() -> None:
    with pytest.raises(TypeError, match="annotation"):
        Codec().register(
            1, Batch, remote=True, encode=take_apart, decode=lambda first, blob: Batch(first, blob)
        )


@dataclass(slots=True)
class Unresolved:
    batch: NeverImported  # type: ignore[name-defined]  # noqa: F821


def test_an_annotation_that_only_a_type_checker_knows_will_do_within_the_node() -> None:
    codec = Codec()
    codec.register(1, Unresolved)
    assert codec.decode_local(codec.encode([Unresolved(b"x")])) == [Unresolved(b"x")]
    with pytest.raises(NameError):
        Codec().register(1, Unresolved, remote=True)


def test_a_class_without_known_fields_needs_functions() -> None:
    with pytest.raises(TypeError, match="Batch"):
        Codec().register(1, Batch)


def test_a_tag_or_class_registered_twice_is_a_mistake() -> None:
    codec = make_codec()
    with pytest.raises(AssertionError, match="tag 2"):
        codec.register(2, Unchecked)
    with pytest.raises(AssertionError, match="Pair"):
        codec.register(77, Pair)


def test_an_unregistered_class_is_named_and_leaves_the_codec_usable() -> None:
    with pytest.raises(TypeError, match="Unchecked"):
        CODEC.encode([Empty(), Unchecked(1)])
    with pytest.raises(TypeError):
        CODEC.encode([Lone(object())])  # type: ignore[arg-type]
    assert CODEC.decode_local(CODEC.encode([Empty()])) == [Empty()]


def test_a_giant_frame_comes_back() -> None:
    body = bytes(range(256)) * 8192
    assert CODEC.decode_remote(CODEC.encode([Lone(body)])) == [Lone(body)]
    assert CODEC.decode_remote(CODEC.encode([Lone(b"after")])) == [Lone(b"after")]
