"""Frames, bodies and topics: what is encoded is decoded, and nothing foreign gets through or costs much."""

from __future__ import annotations

import tracemalloc

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore import errors, protocol, protocol_lease, watch_frames
from kvstore.protocol import MAX_INTEGER, MalformedFrame

BODIES = [protocol.put_body(7, 1, 1, b"k", b"v"), protocol.range_body(b"k")]


def request(*items: object) -> bytes:
    packed: bytes = msgpack.packb(items)
    return protocol.VERSION_BYTE + packed


def test_a_request_survives_the_wire() -> None:
    frame = protocol.encode_request(protocol.WRITE, 5, 2500, BODIES)
    assert protocol.decode_request(frame) == (protocol.WRITE, 5, 2500, BODIES, 0)
    confirming = protocol.encode_request(protocol.READ, 5, 2500, BODIES, 3)
    assert protocol.decode_request(confirming) == (protocol.READ, 5, 2500, BODIES, 3)


def test_a_leaders_own_commands_are_taken_from_no_client() -> None:
    """They are read as nothing, among others that keep their places; the byte may be anywhere else."""
    harmless = protocol.put_body(0, 0, 0, b"k", b"\xc1")
    bodies = [harmless, protocol_lease.expire_body(1 << 60, [7]), b"\xc1", b"", harmless]
    frame = protocol.encode_request(protocol.WRITE, 5, 2500, bodies)
    assert protocol.decode_request(frame).bodies == [harmless, b"", b"", b"", harmless]


def test_a_status_request_has_no_bodies() -> None:
    assert protocol.decode_request(protocol.encode_request(protocol.STATUS, 1, 100, [])).bodies == []
    with pytest.raises(MalformedFrame):
        protocol.decode_request(protocol.encode_request(protocol.STATUS, 1, 100, BODIES))


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "version"),
        (b"\x02" + msgpack.packb([1, 1, 1, [b"x"]]), "version"),
        (b"\x01", "msgpack"),
        (b"\x01\xc1", "msgpack"),
        (b"\x01\x05", "msgpack array"),
        (request(1, 1, 1, [b"x"]) + b"\x00", "msgpack"),
        (request(1, 1, 1, [b"x"])[:-1], "msgpack"),
        (request(1, 1, 1), "4 or 5 elements"),
        (request(1, 1, 1, [b"x"], 0, 0), "4 or 5 elements"),
        (request(1, 1, 1, [b"x"], -1), "confirmed_below"),
        (request(1, 1, 1, [b"x"], b"1"), "confirmed_below"),
        (request(99, 1, 1, [b"x"]), "kind"),
        (request(True, 1, 1, [b"x"]), "kind"),
        (request([], 1, 1, 1), "kind"),
        (request("1", 1, 1, [b"x"]), "kind"),
        (request(1, -1, 1, [b"x"]), "request id"),
        (request(1, 2**63, 1, [b"x"]), "request id"),
        (request(1, MAX_INTEGER, 1, [b"x"]), "request id"),
        (request(1, 1.0, 1, [b"x"]), "request id"),
        (request(1, 1, -1, [b"x"]), "timeout"),
        (request(1, 1, 2**62, [b"x"]), "timeout"),
        (request(1, 1, None, [b"x"]), "timeout"),
        (request(1, 1, 1, b"x"), "not an array"),
        (request(1, 1, 1, []), "without bodies"),
        (request(1, 1, 1, ["x"]), "bin"),
        (request(1, 1, 1, [b"x", 5]), "bin"),
        (request(1, 1, 1, [b"x", []]), "msgpack"),
        (request(1, 1, 1, [{}]), "msgpack"),
        (request(1, 1, 1, [b"x"] * 16_385), "too many"),
        (request(1, 1, 1, [b"x" * 1_572_865]), "too large"),
        (request(1, 1, 1, [b"x" * 1_500_000] * 3), "too large"),
    ],
)
def test_what_is_no_request_is_refused_with_a_reason(frame: bytes, reason: str) -> None:
    with pytest.raises(MalformedFrame, match=reason):
        protocol.decode_request(frame)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused_or_decoded_and_nothing_else(data: bytes) -> None:
    for frame in (data, protocol.VERSION_BYTE + data):
        for decode in (protocol.decode_request, protocol.decode_reply, watch_frames.decode_path_header):
            try:
                decode(frame)
            except MalformedFrame as error:
                assert error.reason
    assert watch_frames.parse_stream_topic(data) is None or data[:2] in (b"\x00S", b"\x00P")


@pytest.mark.parametrize("filler", [b"\x90", b"\x80", b"\x91\x90", b"\x91" * 500 + b"\x90"])
def test_a_megabyte_of_empty_arrays_costs_no_memory(filler: bytes) -> None:
    """Unguarded, a frame of one MiB becomes some sixty MiB of lists or maps."""
    frame = b"\x01\xdd\x00\x10\x00\x00" + filler * ((1 << 20) // len(filler))
    tracemalloc.start()
    try:
        with pytest.raises(MalformedFrame):
            protocol.decode_request(frame)
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()


def test_replies_survive_the_wire() -> None:
    results = [[0, 5, None], [4, "required revision has been compacted", 3]]
    blob = b"".join(map(msgpack.packb, results))
    reply = protocol.decode_reply(protocol.encode_results(9, 2, blob))
    assert isinstance(reply, protocol.Results)
    assert (reply.first_request_id, reply.request_count) == (9, 2)
    assert protocol.split_results(reply.blob, 2) == results

    refused = protocol.encode_refused(9, 2, protocol.NOT_LEADER, "another node leads", "n2", "tcp://h:1")
    assert protocol.decode_reply(refused) == (9, 2, 32, "another node leads", "n2", "tcp://h:1")
    unknown_leader = protocol.decode_reply(protocol.encode_refused(9, 2, protocol.NO_LEADER, "none"))
    assert unknown_leader == (9, 2, 33, "none", None, None)


@pytest.mark.parametrize(
    "frame",
    [
        request(129, 1, 1),
        request(129, 1, 0, b""),
        request(129, 1, 1, "text"),
        request(130, 1, 1, 32, "m", None),
        request(130, 1, 1, 32, b"m", None, None),
        request(130, 1, 1, 32, "m", 5, None),
        request(131, 1, 1, b""),
        request(129, -1, 1, b""),
    ],
)
def test_what_is_no_reply_is_refused(frame: bytes) -> None:
    with pytest.raises(MalformedFrame):
        protocol.decode_reply(frame)


@pytest.mark.parametrize(
    ("blob", "count"),
    [
        (b"\x91\x00", 2),
        (b"\x91\x00\x91\x00", 1),
        (b"\x91\x00\x92", 1),
        (b"\x00", 1),
        (b"\x90", 1),
        (b"\x91\xa1x", 1),
        (b"\xc1", 1),
        (b"", 1),
    ],
)
def test_results_which_do_not_add_up_are_refused(blob: bytes, count: int) -> None:
    with pytest.raises(MalformedFrame):
        protocol.split_results(blob, count)


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        (b"/app/", (b"/app/", b"/app0")),
        (b"a\xff", (b"a\xff", b"b")),
        (b"a\xff\xff", (b"a\xff\xff", b"b")),
        (b"\xff", (b"\xff", b"\x00")),
        (b"\xff\xff", (b"\xff\xff", b"\x00")),
        (b"", (b"\x00", b"\x00")),
    ],
)
def test_the_range_of_a_prefix(prefix: bytes, expected: tuple[bytes, bytes]) -> None:
    assert protocol.prefix_range(prefix) == expected


@given(st.binary(min_size=1, max_size=40), st.binary(max_size=40))
def test_a_stream_topic_can_be_read_back(key: bytes, range_end: bytes) -> None:
    assert watch_frames.parse_stream_topic(watch_frames.stream_topic(key, range_end)) == (key, range_end)


@given(*[st.binary(max_size=6) for _ in range(4)])
def test_no_stream_topic_is_a_prefix_of_another(key: bytes, end: bytes, key2: bytes, end2: bytes) -> None:
    """Else a subscriber of one range would receive the messages of another."""
    one, other = watch_frames.stream_topic(key, end), watch_frames.stream_topic(key2, end2)
    assert (key, end) == (key2, end2) or not other.startswith(one)


@pytest.mark.parametrize(
    "topic",
    [
        b"",
        b"/app/",
        b"\x00",
        b"\x00S",
        b"\x00C",
        watch_frames.stream_topic(b"", b""),
        watch_frames.stream_topic(b"k", b"")[:-1],
        watch_frames.stream_topic(b"k", b"") + b"\x00",
        watch_frames.stream_topic(b"k" * 4097, b""),
        watch_frames.stream_topic(b"k", b"e" * 4097),
        b"\x00S\xff\xffk\x00\x00",
        b"\x00S" + b"\xff" * 20_000,
    ],
)
def test_what_is_no_stream_topic_is_none(topic: bytes) -> None:
    assert watch_frames.parse_stream_topic(topic) is None


def test_the_longest_stream_topic_is_one() -> None:
    key, range_end = b"\xfe" * 4096, b"\xff" * 4096
    topic = watch_frames.stream_topic(key, range_end)
    assert len(topic) == protocol.MAX_TOPIC_BYTES
    assert watch_frames.parse_stream_topic(topic) == (key, range_end)


def test_watch_messages_survive_the_wire() -> None:
    events = [(0, b"a", b"1", 2, 3, 2, 0), (1, b"b", b"", 0, 3, 0, 0)]
    header, packed = watch_frames.encode_stream_header(11, 4, 3), watch_frames.encode_events(events)
    assert watch_frames.decode_stream_message(header, packed) == ((11, 4, 3), events)
    assert watch_frames.decode_path_header(watch_frames.encode_path_header(events[0])) == (0, 2, 3, 2, 0)
    cluster = watch_frames.encode_cluster_event("leader_elected", 7, "n1")
    assert watch_frames.decode_cluster_event(cluster) == ("leader_elected", 7, "n1")


@pytest.mark.parametrize(
    "header",
    [
        msgpack.packb([2, 1, 1, 1]),
        msgpack.packb([1, 1, 1]),
        msgpack.packb([1, 1, 1, -1]),
        msgpack.packb([1, 1, 1, [1]]),
        msgpack.packb({}),
        b"",
        b"\xc1",
    ],
)
def test_a_damaged_stream_header_is_refused(header: bytes) -> None:
    with pytest.raises(MalformedFrame):
        watch_frames.decode_stream_message(header, watch_frames.encode_events([]))


@pytest.mark.parametrize(
    "events",
    [
        5,
        [5],
        [[0, b"k", b"v", 1, 1, 1]],
        [[2, b"k", b"v", 1, 1, 1, 0]],
        [[0, "k", b"v", 1, 1, 1, 0]],
        [[0, b"k", None, 1, 1, 1, 0]],
        [[0, b"k", b"v", 1, 1, 1, -1]],
        [[[], b"k", b"v", 1, 1, 1, 0]],
    ],
)
def test_damaged_events_are_refused(events: object) -> None:
    with pytest.raises(MalformedFrame):
        watch_frames.decode_stream_message(watch_frames.encode_stream_header(1, 1, 1), msgpack.packb(events))


# ---------------------------------------------------------------- codes and their exceptions


def test_every_code_of_a_result_has_its_exception() -> None:
    for code, name in protocol.CODE_NAMES.items():
        if code == protocol.OK:
            continue
        if code < protocol.NOT_LEADER:
            error = errors.error_of_result([code, "why", 12])
        else:
            error = errors.error_of_refusal(protocol.Refusal(1, 1, code, "why", "n2", "tcp://h:1"))
            assert isinstance(error, errors.RequestRefused)
            assert (error.leader_name, error.leader_endpoint) == ("n2", "tcp://h:1")
        assert error.code == code
        assert type(error).__name__.lower() == name.replace("_", "")
        assert str(error) == "why"


def test_an_exception_carries_the_revision_of_its_result() -> None:
    compacted = errors.error_of_result([protocol.COMPACTED, "gone", 40])
    assert isinstance(compacted, errors.Compacted)
    assert compacted.compact_revision == 40
    future = errors.error_of_result([protocol.FUTURE_REVISION, "not yet", 41])
    assert isinstance(future, errors.FutureRevision)
    assert future.current_revision == 41


def test_only_these_errors_leave_open_whether_a_write_was_applied() -> None:
    known = [errors.error_of_result([code, "why"]) for code in range(1, 9)]
    known += [
        errors.error_of_refusal(protocol.Refusal(1, 1, code, "why", None, None)) for code in range(32, 41)
    ]
    open_outcome = {type(error).__name__ for error in known if error.may_be_applied}
    assert open_outcome == {
        "SessionExpired",
        "SequenceForgotten",
        "ConflictWithLeader",
        "OutcomeUnknown",
    }


@pytest.mark.parametrize("result", [[77], [77, b"no text"], [4], [4, "m", "x"], [5, None, -1]])
def test_a_strange_result_still_becomes_an_exception(result: list[object]) -> None:
    assert isinstance(errors.error_of_result(result), errors.AssentError)
