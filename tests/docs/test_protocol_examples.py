"""docs/protocol.md against the code: every example byte for byte, every code, limit and operation."""

from __future__ import annotations

import re

import pytest

from kvstore import codes, hierarchy, lease_commands, protocol, range_select, watch_frames
from tests.docs.markdown import ROOT, blocks
from tests.docs.protocol_examples import examples

PATH = ROOT / "docs" / "protocol.md"
TEXT = PATH.read_text(encoding="utf-8")


def documented() -> dict[str, list[bytes]]:
    """The examples of the document: name to parts."""
    found: dict[str, list[bytes]] = {}
    for block in blocks(PATH):
        if block.info == "frame":
            name, *lines = block.text.splitlines()
            assert name not in found, f"{PATH.name}:{block.line}: {name} is there twice"
            plain = " ".join(line.partition(";")[0].strip() for line in lines)
            found[name] = [bytes.fromhex(part) for part in plain.split("+")]
    return found


def test_the_document_has_every_example_and_no_other() -> None:
    assert sorted(documented()) == sorted(examples())


@pytest.mark.parametrize("name", sorted(examples()))
def test_an_example_is_what_the_service_makes(name: str) -> None:
    assert [part.hex(" ") for part in documented()[name]] == [part.hex(" ") for part in examples()[name]]


def test_the_examples_are_read_back_by_the_decoders() -> None:
    parts = documented()
    for name, (frame, *rest) in parts.items():
        if name.endswith("request"):
            assert protocol.decode_request(frame).timeout_milliseconds in (1000, 5000)
        elif name.endswith(("reply", "refused")):
            protocol.decode_reply(frame)
        elif name in ("stream message", "stream heartbeat"):
            header, _events = watch_frames.decode_stream_message(*rest)
            assert header.sequence == 1
    assert watch_frames.decode_path_header(parts["path message"][1]).mod_revision == 2
    assert watch_frames.decode_cluster_event(parts["cluster message"][1]).node == "n2"


def test_every_code_is_in_the_table_with_its_name() -> None:
    rows = re.findall(r"^\| (\d+) \| (?:result|refused) \| (\w+) \|", TEXT, re.MULTILINE)
    assert {int(code): name for code, name in rows} == protocol.CODE_NAMES


def test_every_operation_and_kind_is_in_a_table_with_its_number() -> None:
    names = [
        "PUT",
        "DELETE",
        "OPEN_SESSION",
        "CLOSE_SESSION",
        "COMPACT",
        "TXN",
        "RANGE",
        "WATCH_HISTORY",
        "READ_TXN",
        "CHILDREN",
    ]
    for name in names:
        assert f"| {getattr(protocol, name)} {name} |" in TEXT
    for name in ("WRITE", "READ", "STALE_READ", "STATUS"):
        assert f"| {getattr(protocol, name)} | {name} |" in TEXT
    assert f"[{protocol.RESULTS}, first_request_id" in TEXT
    assert f"[{protocol.REFUSED}, first_request_id" in TEXT


def _grouped(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def test_the_limits_are_those_of_the_code() -> None:
    assert f"A **key** has 1 to {protocol.MAX_KEY_BYTES} bytes." in TEXT
    assert f"has 0 to {_grouped(protocol.MAX_VALUE_BYTES)} bytes" in TEXT
    assert (
        f"at most {protocol.MAX_FRAME_BYTES >> 20} MiB: the version byte `{protocol.PROTOCOL_VERSION:02x}`"
        in TEXT
    )
    assert f"up to {_grouped(protocol.MAX_REQUESTS_PER_FRAME)} bodies" in TEXT
    assert f"at most {_grouped(protocol.MAX_TIMEOUT_MILLISECONDS)}, is how long" in TEXT
    assert f"remembers at most {protocol.MAX_UNACKNOWLEDGED} sequences" in TEXT
    assert f"at {protocol.MAX_RANGE_REPLY_BYTES >> 20} MiB, and a client" in TEXT
    assert f"exceed {protocol.MAX_PREV_KVS_BYTES >> 20} MiB is then refused with {protocol.TOO_LARGE}" in TEXT
    assert f"It comes every {protocol.WATCH_HEARTBEAT_SECONDS} s" in TEXT
    assert f"Without one for {protocol.WATCH_SILENCE_SECONDS:.0f} s" in TEXT
    assert f"a lease has at most {_grouped(lease_commands.MAX_LEASE_KEYS)} keys" in TEXT.lower()
    assert f"a cluster has at most {_grouped(lease_commands.MAX_LEASES)} leases" in TEXT.lower()
    assert protocol.MAX_BODY_BYTES == 1.5 * (1 << 20) and "at most 1.5 MiB" in TEXT


def test_the_limits_and_numbers_of_long_reads_are_those_of_the_code() -> None:
    assert f"of more than {_grouped(range_select.MAX_SORTED_RECORDS)} records" in TEXT
    assert f"at most the first {_grouped(range_select.MAX_SORTED_LIMIT)} are given" in TEXT
    assert range_select.MAX_HELD_RECORDS == 1 << 20 and "all reads that sort hold 2²⁰ records" in TEXT
    assert f"an answer has {_grouped(hierarchy.MAX_CHILDREN)} names at most" in TEXT
    targets = (codes.SORT_NONE, "none"), (codes.SORT_KEY, "key"), (codes.SORT_VERSION, "version")
    others = (
        (codes.SORT_CREATE, "create_revision"),
        (codes.SORT_MOD, "mod_revision"),
        (codes.SORT_VALUE, "value"),
    )
    assert "`sort_target`: " + ", ".join(f"{number} {name}" for number, name in (*targets, *others)) in TEXT
    flags = (
        (protocol.KEYS_ONLY, "keys only"),
        (protocol.COUNT_ONLY, "count only"),
        (codes.UNCOUNTED, "uncounted"),
    )
    for number, name in flags:
        assert f"bit {number.bit_length() - 1} {name}" in TEXT


def test_the_limits_and_numbers_of_transactions_are_those_of_the_code() -> None:
    assert f"Each list has at most {protocol.MAX_TXN_OPERATIONS} elements" in TEXT
    assert f"nest at most {protocol.MAX_TXN_DEPTH} deep" in TEXT
    assert f"operations together are at most {protocol.MAX_TXN_ITEMS}" in TEXT
    assert f"looks at no more than {_grouped(protocol.MAX_TXN_KEYS)} keys" in TEXT
    assert f"at most {protocol.MAX_TXN_REPLY_BYTES >> 20} MiB of keys and values" in TEXT
    assert f"values of no more than {protocol.MAX_TXN_KEPT_BYTES >> 20} MiB together" in TEXT
    fields = {
        protocol.COMPARE_VERSION: "version",
        protocol.COMPARE_CREATE: "create_revision",
        protocol.COMPARE_MOD: "mod_revision",
        protocol.COMPARE_VALUE: "value",
        protocol.COMPARE_LEASE: "lease",
    }
    for number, name in fields.items():
        assert f"\n| {number} | {name}" in TEXT
    signs = ((protocol.EQUAL, "equal"), (protocol.NOT_EQUAL, "not equal"))
    for number, name in (*signs, (protocol.GREATER, "greater"), (protocol.LESS, "less")):
        assert f"| {number} | {name}" in TEXT
    assert f"bit {protocol.IGNORE_VALUE.bit_length() - 1}\nkeeps the value" in TEXT
    assert f"bit {protocol.IGNORE_LEASE.bit_length() - 1} keeps the lease" in TEXT
