"""Bytes: a client's request and its answer, a command within an entry, and an append between nodes."""

from __future__ import annotations

from pathlib import Path

from bench.layers.material import KEYS, SESSION, TERM, VALUE, bodies, entries, node_codec, overwritten_key
from bench.layers.timing import Laps, Layer
from kvstore.operations import decode_write
from kvstore.protocol import (
    WRITE,
    decode_reply,
    decode_request,
    encode_request,
    encode_results,
    put_body,
    split_results,
)
from kvstore.state_machine import StoreMachine
from kvstore.watch_plane import WatchPlane
from raft.entries import EntryBatch
from raft.messages import AppendEntries

APPENDED = 100
TIMEOUT_MILLISECONDS = 5000


def encode_requests(count: int) -> Layer:
    """What a client does: the body of each put, and the frame around them."""
    keys = [overwritten_key(number) for number in range(KEYS)]

    def laps(_: Path, calls: int) -> Laps:
        def lap() -> None:
            for call in range(calls):
                first = 1 + call * count
                packed = [
                    put_body(SESSION, first + place, first, keys[place % KEYS], VALUE)
                    for place in range(count)
                ]
                encode_request(WRITE, first, TIMEOUT_MILLISECONDS, packed)

        while True:
            yield lap

    return Layer(f"codec request of {count}, encode", 30_000, laps, count)


def decode_requests(count: int) -> Layer:
    """What the gateway does; a body stays closed."""
    frame = encode_request(WRITE, 1, TIMEOUT_MILLISECONDS, bodies(1, count))

    def laps(_: Path, calls: int) -> Laps:
        def lap() -> None:
            for _ in range(calls):
                decode_request(frame)

        while True:
            yield lap

    return Layer(f"codec request of {count}, decode", 30_000, laps, count)


def decode_commands(_: Path, calls: int) -> Laps:
    """What the state machine does with a body before anything else."""
    packed = bodies(1, KEYS)

    def lap() -> None:
        for call in range(calls):
            decode_write(packed[call % KEYS])

    while True:
        yield lap


def encode_appends(_: Path, calls: int) -> Laps:
    """An append with its entries, which nobody has encoded yet."""
    codec, held = node_codec(), entries(2, APPENDED)
    while True:
        # Encoded bytes are kept with a batch, so each is new.
        messages = [AppendEntries(TERM, 1, TERM, 1, EntryBatch(2, held)) for _ in range(calls)]

        def lap(messages: list[AppendEntries] = messages) -> None:
            for message in messages:
                codec.encode((message,))

        yield lap


def decode_appends(_: Path, calls: int) -> Laps:
    """As a follower does: field by field, and every entry."""
    codec = node_codec()
    frame = codec.encode((AppendEntries(TERM, 1, TERM, 1, EntryBatch(2, entries(2, APPENDED))),))

    def lap() -> None:
        for _ in range(calls):
            codec.decode_remote(frame)

    while True:
        yield lap


def results_of(count: int) -> bytes:
    """What the state machine answers to so many puts, joined."""
    results = StoreMachine(WatchPlane(1)).apply(
        1, [put_body(0, 0, 0, overwritten_key(number), VALUE) for number in range(count)]
    )
    return b"".join(result for result in results if result is not None)


def encode_answers(count: int) -> Layer:
    """The frame around results, which are bytes already."""
    results = results_of(count)

    def laps(_: Path, calls: int) -> Laps:
        def lap() -> None:
            for call in range(calls):
                encode_results(call, count, results)

        while True:
            yield lap

    return Layer(f"codec results of {count}, encode", 30_000, laps, count)


def decode_answers(count: int) -> Layer:
    """As a client does, each result by itself."""
    frame = encode_results(1, count, results_of(count))

    def laps(_: Path, calls: int) -> Laps:
        def lap() -> None:
            for _ in range(calls):
                answer = decode_reply(frame)
                split_results(answer[2], count)  # type: ignore[arg-type]

        while True:
            yield lap

    return Layer(f"codec results of {count}, decode", 30_000, laps, count)


LAYERS = [
    *(make(count) for make in (encode_requests, decode_requests) for count in (1, 32)),
    Layer("codec command, decode", 30_000, decode_commands),
    Layer(f"codec append of {APPENDED}, encode", 50_000, encode_appends, APPENDED),
    Layer(f"codec append of {APPENDED}, decode", 50_000, decode_appends, APPENDED),
    *(make(count) for make in (encode_answers, decode_answers) for count in (1, 32)),
]
