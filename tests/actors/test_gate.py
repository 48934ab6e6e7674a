"""The gate: which headers are let in, and what is counted of the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import Address, Counters, MalformedFrame, ManualClock
from actors.gate import MOST_LIVES, MOST_STRANGERS, SILENCE_SECONDS, Gate, Prefixes
from actors.header import Header, decode_prefix, encode_prefix

HERE = Address("n1", "replication")
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)


class Lives:
    """A gate of node n1 with peer n2, and writers of headers for any number of lives of n2."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.counters = Counters(self.clock)
        self.gate = Gate("n1", 7, self.counters)
        self.gate.allow("n2")
        self._writers: dict[int, Prefixes] = {}

    def header(self, incarnation: int) -> bytes:
        writer = self._writers.setdefault(incarnation, Prefixes("n2", 7, incarnation))
        return writer.header("replication", HERE)

    def admits(self, header: bytes) -> bool:
        return self.gate.admit(header, self.clock.now()) is not None


WORDS = st.integers(0, 2**64 - 1)


@given(WORDS, WORDS, WORDS, NAMES, NAMES, NAMES, NAMES)
def test_a_header_comes_back(
    cluster_id: int, incarnation: int, storage_id: int, a: str, b: str, c: str, d: str
) -> None:
    header = Header(cluster_id, incarnation, Address(a, b), Address(c, d), storage_id)
    assert decode_prefix(encode_prefix(header)) == header


@given(st.binary(max_size=100))
def test_any_bytes_give_a_header_or_malformed_frame(noise: bytes) -> None:
    for prefix in (noise, b"AP\x02" + noise):
        try:
            assert encode_prefix(decode_prefix(prefix)) == prefix
        except MalformedFrame:
            pass


def test_frames_are_let_in_once_and_in_order() -> None:
    """What is doubled or overtaken on the way is not received again."""
    lives = Lives()
    first, second, third = (lives.header(1) for _ in range(3))
    assert lives.admits(first)
    assert not lives.admits(first)
    assert lives.admits(third)  # a gap is no reason to refuse
    assert not lives.admits(second)
    assert lives.counters["peer_stale_sequence"] == 2


def test_frames_of_a_former_life_are_refused() -> None:
    """The old process's frames, still in a queue, mix with those of the new one."""
    lives = Lives()
    assert lives.admits(lives.header(1))
    left_over = lives.header(1)
    assert lives.admits(lives.header(2))
    assert not lives.admits(left_over)
    assert lives.admits(lives.header(2))
    assert lives.counters["peer_stale_incarnation"] == 1


def test_a_life_first_seen_before_a_former_one_is_heard_again_after_a_silence() -> None:
    """Whoever restarts may meet the new life first and the old one's left-overs after it."""
    lives = Lives()
    assert lives.admits(lives.header(2))
    assert lives.admits(lives.header(1))  # taken for the newer one, as nothing tells them apart
    assert not lives.admits(lives.header(2))
    lives.clock.advance(SILENCE_SECONDS)
    assert lives.admits(lives.header(2))
    assert not lives.admits(lives.header(1))


def test_a_life_heard_again_goes_on_with_its_sequence() -> None:
    lives = Lives()
    doubled = lives.header(1)
    assert lives.admits(doubled)
    assert lives.admits(lives.header(2))
    lives.clock.advance(SILENCE_SECONDS)
    assert not lives.admits(doubled)
    assert lives.counters["peer_stale_sequence"] == 1


def test_what_is_remembered_is_bounded() -> None:
    lives = Lives()
    for incarnation in range(10 * MOST_LIVES):
        assert lives.admits(lives.header(incarnation))
    assert len(lives.gate._sources["n2"].lives) == MOST_LIVES
    for number in range(5000):
        lives.gate.admit(Prefixes("n2", 7, 1).header(f"actor{number}", HERE), 0.0)
    assert len(lives.gate._known) <= 4096


@pytest.mark.parametrize(
    ("writer", "destination", "reason"),
    [
        (Prefixes("n2", 8, 1), HERE, "peer_wrong_cluster"),
        (Prefixes("n3", 7, 1), HERE, "peer_unknown_source"),
        (Prefixes("n1", 7, 1), HERE, "peer_unknown_source"),
        (Prefixes("n2", 7, 1), Address("n3", "replication"), "peer_wrong_destination"),
    ],
)
def test_a_stranger_is_refused_with_a_reason(writer: Prefixes, destination: Address, reason: str) -> None:
    """Another cluster's node, or one that is not configured, is counted under what is wrong."""
    lives = Lives()
    assert not lives.admits(writer.header("replication", destination))
    assert lives.counters == {reason: 1}


def test_another_version_is_refused_with_a_reason() -> None:
    lives = Lives()
    header = bytearray(lives.header(1))
    header[2] += 1
    assert not lives.admits(bytes(header))
    assert lives.counters == {"peer_wrong_version": 1}


@pytest.mark.parametrize("header", [b"", b"AP", b"XX" + bytes(40), bytes(9 << 20)])
def test_a_header_that_is_none_is_refused(header: bytes) -> None:
    lives = Lives()
    assert not lives.admits(header)
    assert lives.counters == {"peer_malformed_header": 1}


def test_a_cut_header_is_refused() -> None:
    lives = Lives()
    whole = lives.header(1)
    for length in range(len(whole)):
        assert not lives.admits(whole[:length])
    assert lives.admits(whole)


def test_a_peer_taken_from_the_configuration_is_refused() -> None:
    lives = Lives()
    assert lives.admits(lives.header(1))
    lives.gate.refuse("n2")
    assert not lives.admits(lives.header(1))
    assert lives.counters == {"peer_unknown_source": 1}


def test_a_peer_that_lost_its_data_directory_is_refused_and_the_one_that_has_it_is_not() -> None:
    """Whatever was heard first, or was told with `allow`, is what its name stands for."""
    lives = Lives()
    kept, wiped = Prefixes("n2", 7, 1, storage_id=11), Prefixes("n2", 7, 2, storage_id=12)
    assert lives.gate.storage_of("n2") == 0
    assert lives.admits(kept.header("replication", HERE))
    assert lives.gate.storage_of("n2") == 11
    assert not lives.admits(wiped.header("replication", HERE))
    assert lives.admits(kept.header("replication", HERE))
    assert lives.gate.turned_away is not None and lives.gate.turned_away.storage_id == 12
    lives.gate.allow("n2", 12)  # the cluster knows better than what was heard first
    lives.clock.advance(2 * SILENCE_SECONDS)
    assert lives.admits(wiped.header("replication", HERE))
    assert not lives.admits(kept.header("replication", HERE))
    assert lives.counters == {"peer_other_storage": 2}


def test_strangers_are_bounded_and_one_that_becomes_a_peer_stays_what_it_was() -> None:
    gate = Gate("n1", 7, Counters(ManualClock()), welcomes_strangers=True)
    writer = Prefixes("n0", 7, 1, storage_id=5)
    assert gate.admit(writer.header("gateway", HERE), 0.0) is not None
    gate.allow("n0")
    assert gate.storage_of("n0") == 5
    for number in range(3 * MOST_STRANGERS):
        assert gate.admit(Prefixes(f"x{number}", 7, 1).header("gateway", HERE), 0.0) is not None
    assert len(gate._strangers) == MOST_STRANGERS
    assert gate.admit(writer.header("gateway", HERE), 0.0) is not None


def test_losses_are_logged_at_most_once_in_an_interval(caplog: pytest.LogCaptureFixture) -> None:
    lives = Lives()
    for _ in range(1000):
        lives.admits(b"noise")
    lives.clock.advance(60.0)
    lives.admits(b"noise")
    assert [record.getMessage().split(" reason")[0] for record in caplog.records] == [
        "event=peer_malformed_header count=1 since_last=1",
        "event=peer_malformed_header count=1001 since_last=1000",
    ]
