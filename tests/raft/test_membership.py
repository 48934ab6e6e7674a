"""Configurations by themselves: what makes sense, their bytes, and majorities that share a node."""

from __future__ import annotations

import json
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft.changes import Change, Verb, target_of
from raft.entries import MAX_CONFIGURATION_BYTES, EntryBatch, EntryKind
from raft.errors import ConfigurationReason, ConfigurationRefused
from raft.membership import Configuration, CorruptConfiguration
from raft.messages import AppendEntries, InstallSnapshot
from tests.raft.network import drain, make_core

NAMES = "abcdefg"
names = st.sets(st.sampled_from(NAMES))


@st.composite
def configurations(draw: st.DrawFn) -> Configuration:
    """Any that is not joint, with some voter."""
    roles = {name: draw(st.sampled_from("vvlxr")) for name in NAMES}
    roles["a"] = "v"
    learners = [name for name, role in roles.items() if role == "l"]
    incoming = [name for name in learners if draw(st.booleans())]
    voters = [name for name, role in roles.items() if role == "v"]
    retiring = [name for name in voters if draw(st.booleans())] if incoming else []
    return Configuration(
        voters,
        learners,
        addresses={name: f"tcp://{name}:1" for name in voters if draw(st.booleans())},
        removed=[name for name, role in roles.items() if role == "r"],
        incoming=incoming,
        retiring=retiring,
    )


GROUPS = [frozenset(group) for n in range(len(NAMES) + 1) for group in combinations(NAMES, n)]


def always_overlap(one: Configuration, other: Configuration) -> bool:
    """Is there no way to decide under one of them while all the rest decide under the other?"""
    return not any(one.has_quorum(group) and other.has_quorum(set(NAMES) - group) for group in GROUPS)


# -- majorities ------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(configurations(), configurations())
def test_any_majorities_of_two_successive_configurations_share_a_node(
    now: Configuration, target: Configuration
) -> None:
    """Raft §6 and dissertation 4.1, 4.3: over each step from any configuration to any other."""
    target = Configuration(target.voters - now.removed or now.voters)
    step = now.toward(target)
    assert step.is_joint == (len(now.voters ^ target.voters) > 1)
    assert always_overlap(now, step)
    if step.is_joint:
        assert always_overlap(step, step.left())
        step = step.left()
    assert step.voters == target.voters


def test_figure_10_a_direct_switch_has_two_majorities_that_share_nobody() -> None:
    """Raft figure 10: three servers to five, if it were done at once."""
    assert not always_overlap(Configuration("abc"), Configuration("abcde"))
    joint = Configuration("abc").toward(Configuration("abcde"))
    assert joint.quorums == (frozenset("abcde"), frozenset("abc"))
    assert always_overlap(Configuration("abc"), joint) and always_overlap(joint, Configuration("abcde"))


def test_4_1_one_server_at_a_time_from_one_to_seven_and_back() -> None:
    for size in range(1, 7):
        smaller, larger = Configuration(NAMES[:size]), Configuration(NAMES[: size + 1])
        assert always_overlap(smaller, larger)
        assert not smaller.toward(larger).is_joint and not larger.toward(smaller).is_joint


def test_figure_11_a_joint_configuration_needs_both_majorities() -> None:
    joint = Configuration("def", outgoing="abc")
    assert not joint.has_quorum("abc") and not joint.has_quorum("def")
    assert joint.has_quorum("abde")
    assert joint.members == joint.electorate == set("abcdef")
    assert joint.may_campaign("a") and joint.may_campaign("d")


# -- what is kept from one to the next -------------------------------------------------------------------


@settings(deadline=None)
@given(configurations(), configurations())
def test_who_left_is_remembered_and_addresses_are_those_of_members(
    now: Configuration, other: Configuration
) -> None:
    target = Configuration(other.voters - now.removed or now.voters, addresses={})
    step = now.toward(target)
    last = step.left() if step.is_joint else step
    assert last.removed == now.removed | (now.members - target.members)
    assert last.addresses == {k: v for k, v in now.addresses.items() if k in target.members}
    assert not step.removed & step.members  # not before they have left


def test_a_voter_may_become_a_learner_by_way_of_a_joint_configuration() -> None:
    joint = Configuration("abc").toward(Configuration("ade", "bc"))
    assert joint.outgoing == set("abc") and joint.learners == set("bc")
    assert joint.left() == Configuration("ade", "bc")


# -- what makes no sense ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parts",
    [
        {"voters": "ab", "learners": "b"},
        {"outgoing": "ab"},
        {"voters": "ab", "removed": "b"},
        {"voters": "a", "learners": "b", "removed": "b"},
        {"voters": "a", "outgoing": "bc", "removed": "c"},
        {"voters": "a", "addresses": {"b": "tcp://b:1"}},
        {"voters": "ab", "incoming": "b"},
        {"voters": "a", "incoming": "b"},
        {"voters": "ab", "retiring": "b"},
        {"voters": "ab", "learners": "c", "incoming": "c", "retiring": "c"},
        {"voters": "ab", "learners": "c", "incoming": "c", "retiring": "x"},
    ],
)
def test_sets_that_make_no_sense_are_refused_in_any_form(parts: dict[str, object]) -> None:
    with pytest.raises(AssertionError):
        Configuration(**parts)  # type: ignore[arg-type]
    listed = {name: sorted(part) if isinstance(part, str) else part for name, part in parts.items()}
    with pytest.raises(CorruptConfiguration):
        Configuration.decode(json.dumps(listed, sort_keys=True, separators=(",", ":")).encode())


# -- bytes -----------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(configurations(), names)
def test_bytes_and_back(configuration: Configuration, old: set[str]) -> None:
    again = Configuration.decode(configuration.encode())
    assert again == configuration and hash(again) == hash(configuration)
    joint = configuration.toward(Configuration((old - configuration.removed) | {"a"}))
    assert Configuration.decode(joint.encode()) == joint
    assert repr(joint) == repr(Configuration.decode(joint.encode()))


def test_equal_configurations_have_equal_bytes() -> None:
    one = Configuration(["c", "a", "b"], addresses={"b": "2", "a": "1"})
    other = Configuration("abc", addresses={"a": "1", "b": "2"})
    assert one == other and one.encode() == other.encode()
    assert one.encode() == b'{"addresses":{"a":"1","b":"2"},"voters":["a","b","c"]}'
    assert Configuration().encode() == b"{}"
    assert one != Configuration("abc") and one != "abc"


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"nothing",
        b"[]",
        b"7",
        b'"voters"',
        b"\xff\xfe",
        b'{"voters":"abc"}',
        b'{"voters":[1]}',
        b'{"voters":{"a":1}}',
        b'{"voters":["b","a"]}',
        b'{"voters":["a","a"]}',
        b'{"voters": ["a"]}',
        b'{"learners":[],"voters":["a"]}',
        b'{"addresses":["a"],"voters":["a"]}',
        b'{"addresses":{"a":1},"voters":["a"]}',
        b'{"voters":["a"],"members":["a"]}',
        b'{"quorums":[["a"]]}',
        b"[" * 100_000,
    ],
)
def test_bytes_that_are_no_configuration_are_refused(blob: bytes) -> None:
    with pytest.raises(CorruptConfiguration):
        Configuration.decode(blob)


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_else(blob: bytes) -> None:
    try:
        configuration = Configuration.decode(blob)
    except CorruptConfiguration:
        return
    assert configuration.encode() == blob


# -- verbs -----------------------------------------------------------------------------------------------


def after(now: Configuration, verb: str, *nodes: str, **addresses: str) -> Configuration:
    return target_of(now, Change(verb, list(nodes), addresses))


def refusal(now: Configuration, verb: str, *nodes: str, **addresses: str) -> ConfigurationReason:
    with pytest.raises(ConfigurationRefused) as refused:
        after(now, verb, *nodes, **addresses)
    assert refused.value.detail
    return refused.value.reason


ABC = Configuration("abc", "l")


def test_what_each_verb_aims_at() -> None:
    assert after(ABC, Verb.ADD_LEARNER, "d", d="1") == Configuration("abc", "ld", addresses={"d": "1"})
    assert after(ABC, Verb.ADD_VOTER, "d") == Configuration("abc", "ld", incoming="d")
    assert after(ABC, Verb.ADD_VOTER, "l") == Configuration("abc", "l", incoming="l")
    assert after(ABC, Verb.PROMOTE, "l") == Configuration("abcl")
    assert after(ABC, Verb.DEMOTE, "a") == Configuration("bc", "al")
    assert after(ABC, Verb.REMOVE, "a") == Configuration("bc", "l")
    assert after(ABC, Verb.REMOVE, "l") == Configuration("abc")
    assert after(ABC, Verb.REPLACE, "a", "d") == Configuration("abc", "ld", incoming="d", retiring="a")
    assert after(ABC, Verb.SET, "a", "b") == Configuration("ab", "l")
    assert after(ABC, Verb.SET, "a", "d", "l") == Configuration("abc", "ld", incoming="dl", retiring="bc")
    assert after(ABC, Verb.MOVE, "a", a="9") == Configuration("abc", "l", addresses={"a": "9"})


def test_what_is_refused_before_anybody_is_asked() -> None:
    reason = ConfigurationReason
    assert refusal(ABC, "explode", "a") is reason.BAD_REQUEST
    assert refusal(ABC, Verb.REMOVE) is reason.BAD_REQUEST
    assert refusal(ABC, Verb.REMOVE, "a", "a") is reason.BAD_REQUEST
    assert refusal(ABC, Verb.ADD_VOTER, "") is reason.BAD_REQUEST
    assert refusal(ABC, Verb.REMOVE, "a", z="1") is reason.BAD_REQUEST
    assert refusal(ABC, Verb.MOVE, "a") is reason.BAD_REQUEST
    assert refusal(ABC, Verb.REPLACE, "a") is reason.BAD_REQUEST
    assert refusal(ABC, Verb.REPLACE, "l", "d") is reason.BAD_REQUEST
    for verb in (Verb.PROMOTE, Verb.DEMOTE, Verb.REMOVE, Verb.MOVE):
        assert refusal(ABC, verb, "z") is reason.UNKNOWN_MEMBER
    assert refusal(ABC, Verb.REPLACE, "z", "d") is reason.UNKNOWN_MEMBER
    for verb in (Verb.ADD_LEARNER, Verb.ADD_VOTER, Verb.PROMOTE):
        assert refusal(ABC, verb, "a") is reason.UNCHANGED
    assert refusal(ABC, Verb.REPLACE, "a", "b") is reason.UNCHANGED


@pytest.mark.parametrize("verb", [Verb.ADD_LEARNER, Verb.ADD_VOTER, Verb.SET, Verb.PROMOTE])
def test_a_name_that_left_is_never_used_again(verb: Verb) -> None:
    assert refusal(Configuration("abc", removed="d"), verb, "d") is ConfigurationReason.NAME_USED_BEFORE


def test_while_a_replacement_waits_only_calling_it_off_is_possible() -> None:
    waiting = after(ABC, Verb.REPLACE, "a", "d")
    for verb, node in ((Verb.ADD_VOTER, "e"), (Verb.REMOVE, "b"), (Verb.SET, "a"), (Verb.REMOVE, "a")):
        assert refusal(waiting, verb, node) is ConfigurationReason.IN_FLIGHT
    called_off = after(waiting, Verb.REMOVE, "d")
    assert called_off == ABC


def test_a_replacement_waits_for_voters_that_are_still_to_come() -> None:
    coming = after(ABC, Verb.ADD_VOTER, "d")
    assert refusal(coming, Verb.REPLACE, "a", "e") is ConfigurationReason.IN_FLIGHT
    assert after(coming, Verb.ADD_VOTER, "e").incoming == set("de")
    assert after(coming, Verb.REPLACE, "a", "d").retiring == {"a"}


def test_incoming_learners_become_voters_one_by_one_or_all_in_exchange() -> None:
    assert Configuration("abc", "de", incoming="de").completed("d") == Configuration(
        "abcd", "e", incoming="e"
    )
    swap = Configuration("abc", "de", incoming="de", retiring="ab")
    assert swap.completed("de") == Configuration("cde")
    with pytest.raises(AssertionError):
        swap.completed("d")


# -- what could be no name -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "blob",
    [
        b'{"voters":["\\ud800"]}',
        b'{"addresses":{"a":"\\udfff"},"voters":["a"]}',
        b'{"addresses":{"\\ud800":"a"},"voters":["a"]}',
        b'{"\\ud800":["a"]}',
        b'{"voters":[""]}',
        Configuration(["a" * 256]).encode(),
        Configuration("a", addresses={"a": "x" * MAX_CONFIGURATION_BYTES}).encode(),
    ],
)
def test_a_configuration_that_could_not_be_sent_or_stored_is_none(blob: bytes) -> None:
    """Lone surrogates have no bytes, a message has no room for long names, a snapshot none for so much."""
    with pytest.raises(CorruptConfiguration):
        Configuration.decode(blob)
    core = make_core("b")
    core.step("a", AppendEntries(1, 0, 0, 0, EntryBatch(1, [(1, int(EntryKind.CONFIGURATION), blob)])))
    assert (core.last_index, core.ignored_messages) == (0, 1)
    core.step("a", InstallSnapshot(1, 5, 1, blob, 0, 3, 0, b"", 0).with_data(b"abc"))
    assert drain(core).snapshots is None
