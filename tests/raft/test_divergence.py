"""Comparing states: which fingerprints are kept, whose word counts, and when a node is the one that is wrong.

A false verdict is an outage, so most of it is about what must not be one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from random import Random

import pytest

from raft.divergence import CHECK_EVERY, MOST_PAIRS, Checkpoints, Difference, Divergence
from raft.membership import Configuration

THREE = Configuration(["a", "b", "c"])
FIVE = Configuration(["a", "b", "c", "d", "e"])


def pairs(*noted: tuple[int, int]) -> bytes:
    return b"".join(struct.pack(">QQ", *each) for each in noted)


def make(configuration: Configuration = THREE, *noted: tuple[int, int]) -> Divergence:
    """Node a's, with these states of its own."""
    divergence = Divergence(1)
    divergence.follow(configuration)
    for index, fingerprint in noted:
        assert divergence.note(index, fingerprint) is None
    return divergence


def hear_all(divergence: Divergence, reports: Iterable[tuple[str, tuple[int, int]]]) -> Difference | None:
    verdict = None
    for node_id, pair in reports:
        verdict = divergence.hear(node_id, 1, pairs(pair)) or verdict
    return verdict


# -- the verdict -------------------------------------------------------------------------------------


def test_nodes_that_agree_suspect_nobody() -> None:
    a = make(THREE, (256, 7))
    assert hear_all(a, [("b", (256, 7)), ("c", (256, 7))]) is None
    assert a.suspects == {}


def test_who_differs_from_a_majority_is_wrong() -> None:
    a = make(THREE, (256, 7))
    assert a.hear("b", 1, pairs((256, 8))) is None
    assert a.suspects == {"b": Difference(256, 7, 8)}
    assert a.hear("c", 1, pairs((256, 8))) == Difference(256, 7, 8)


def test_the_verdict_falls_when_this_node_gets_to_the_index_that_the_others_passed() -> None:
    a = make()
    assert hear_all(a, [("b", (512, 8)), ("c", (512, 8))]) is None
    assert a.note(256, 7) is None
    assert a.note(512, 9) == Difference(512, 9, 8)


def test_one_against_one_is_settled_by_nobody() -> None:
    """Of two voters, and of three while one is silent."""
    a = make(Configuration(["a", "b"]), (256, 7))
    assert a.hear("b", 1, pairs((256, 8))) is None
    a = make(THREE, (256, 7))
    assert a.hear("b", 1, pairs((256, 8))) is None
    assert a.suspects == {"b": Difference(256, 7, 8)}


def test_nodes_that_are_wrong_each_in_its_own_way_outvote_nobody() -> None:
    """Two of three have gone bad: the one that is right must not be fenced, nor all three."""
    a = make(THREE, (256, 7))
    assert hear_all(a, [("b", (256, 8)), ("c", (256, 9))]) is None
    a = make(FIVE, (256, 7))
    assert hear_all(a, [("b", (256, 8)), ("c", (256, 9)), ("d", (256, 8)), ("e", (256, 7))]) is None


def test_two_faulty_nodes_of_five_are_both_found() -> None:
    faulty = make(FIVE, (256, 8))
    others = [("b", (256, 9)), ("c", (256, 7)), ("d", (256, 7)), ("e", (256, 7))]
    assert hear_all(faulty, others) == Difference(256, 8, 7)
    right = make(FIVE, (256, 7))
    assert hear_all(right, [("b", (256, 9)), ("c", (256, 7)), ("d", (256, 7)), ("e", (256, 8))]) is None


def test_half_of_an_even_number_is_no_majority() -> None:
    a = make(Configuration(["a", "b", "c", "d"]), (256, 7))
    assert hear_all(a, [("b", (256, 7)), ("c", (256, 8)), ("d", (256, 8))]) is None


def test_only_what_was_at_the_same_index_is_compared() -> None:
    a = make(THREE, (256, 7), (512, 17))
    assert hear_all(a, [("b", (768, 8)), ("c", (768, 8))]) is None
    assert hear_all(a, [("b", (256, 8)), ("c", (512, 8))]) is None, "two differ, each elsewhere"


def test_the_same_node_twice_is_one_witness() -> None:
    a = make(THREE, (256, 7), (512, 17))
    assert hear_all(a, [("b", (256, 8)), ("b", (256, 8)), ("b", (512, 8))]) is None


# -- whose word counts -------------------------------------------------------------------------------


def test_learners_are_no_witnesses_and_can_be_wrong_themselves() -> None:
    configuration = Configuration(["a", "b", "c"], ["l", "m"])
    a = make(configuration, (256, 7))
    assert hear_all(a, [("l", (256, 8)), ("m", (256, 8)), ("b", (256, 8))]) is None
    learner = make(configuration, (256, 8))
    assert hear_all(learner, [("a", (256, 7)), ("b", (256, 7))]) == Difference(256, 8, 7)


def test_a_learner_does_not_believe_the_only_voter() -> None:
    learner = make(Configuration(["a"], ["l"]), (256, 8))
    assert learner.hear("a", 1, pairs((256, 7))) is None
    assert learner.suspects


def test_a_joint_configuration_needs_both_majorities() -> None:
    joint = Configuration(["a", "d", "e"], outgoing=["a", "b", "c"])
    a = make(joint, (256, 7))
    assert hear_all(a, [("d", (256, 8)), ("e", (256, 8)), ("b", (256, 8))]) is None
    assert a.hear("c", 1, pairs((256, 8))) == Difference(256, 7, 8)


def test_strangers_and_removed_nodes_are_not_heard_nor_remembered() -> None:
    a = make(THREE, (256, 7))
    assert hear_all(a, [("x", (256, 8)), ("y", (256, 8))]) is None
    assert a.hear("b", 1, pairs((256, 8))) is None
    a.follow(Configuration(["a", "c"], removed=["b"]))
    assert a.suspects == {} and a._heard == {}
    a.follow(THREE)
    assert a.hear("c", 1, pairs((256, 8))) is None, "b's word is gone, though it is a member again"


def test_other_versions_are_never_compared() -> None:
    a = make(THREE, (256, 7))
    assert a.hear("b", 2, pairs((256, 8))) is None and a.hear("c", 0, pairs((256, 8))) is None
    assert a.suspects == {}


# -- time --------------------------------------------------------------------------------------------


def test_a_report_of_before_the_restart_convicts_nobody_who_is_right() -> None:
    """b was wrong and was restarted; its last word still lies about, and so may c's of long ago."""
    a = make(THREE, (256, 7), (512, 17))
    assert hear_all(a, [("b", (256, 8)), ("c", (256, 7))]) is None
    assert a.suspects.keys() == {"b"}
    assert a.hear("b", 1, pairs((512, 17))) is None
    assert a.suspects == {}, "it is over once b says that it is right again"


def test_a_report_that_was_overtaken_does_no_harm() -> None:
    a = make(THREE, (256, 7), (512, 17))
    assert hear_all(a, [("b", (512, 17)), ("b", (256, 7)), ("c", (512, 17)), ("c", (256, 7))]) is None
    assert a.suspects == {}


def test_a_node_that_was_wrong_and_got_a_snapshot_is_not_judged_by_what_it_was() -> None:
    a = make(THREE, (256, 8))
    a.forget()
    assert hear_all(a, [("b", (256, 7)), ("c", (256, 7))]) is None
    assert a.note(512, 17) is None


def test_a_state_that_changed_while_nothing_was_applied_is_another() -> None:
    a = make(THREE, (256, 7))
    assert hear_all(a, [("b", (256, 7)), ("c", (256, 7))]) is None
    assert a.note(256, 9) == Difference(256, 9, 7)


def test_nodes_far_apart_find_an_index_in_common() -> None:
    """However far one lags behind, and however seldom they talk: no more than a few times as far back."""
    rng = Random(5)
    for lag in (0, 1, 3, 50, 400):
        for _ in range(10):
            ahead = rng.randrange(5 * lag + 4, 5 * lag + 3000)
            first, second = make(), make()
            for node, last in ((first, ahead), (second, ahead - lag)):
                for step in range(1, last + 1):
                    node.note(step * CHECK_EVERY, step)
            common = {index for index, _ in first._own} & {index for index, _ in second._own}
            behind = ahead - lag
            assert common and max(common) // CHECK_EVERY >= behind - 4 * max(lag, 1), (ahead, lag)


# -- bounds ------------------------------------------------------------------------------------------


def test_what_is_kept_of_the_own_states_is_bounded() -> None:
    checkpoints = Checkpoints(4)
    for index in range(1, 30_000):
        checkpoints.add(index, index)
    assert len(checkpoints) <= MOST_PAIRS
    assert checkpoints.get(29_996) == 29_996, "the newest is among them"
    assert all(index == fingerprint for index, fingerprint in checkpoints)


def test_a_report_is_taken_by_the_others_whole() -> None:
    a, b = make(), make()
    for index in range(CHECK_EVERY, 4000 * CHECK_EVERY, CHECK_EVERY):
        a.note(index, index)
    b.note(1024 * CHECK_EVERY, 5)
    assert a.has_news
    b.hear("c", 1, a.report())
    assert not a.has_news and b.suspects["c"].theirs == 1024 * CHECK_EVERY


@pytest.mark.parametrize("blob", [b"", b"x", b"x" * 17, b"\xff" * 16 * (MOST_PAIRS + 1), b"\xff" * 1_000_000])
def test_nonsense_is_not_kept(blob: bytes) -> None:
    a = make(THREE, (256, 7))
    assert a.hear("b", 1, blob) is None
    assert sum(map(len, a._heard.values())) == 0 and a.suspects == {}


def test_indexes_far_ahead_are_kept_until_this_node_gets_there_and_no_more_than_a_report_holds() -> None:
    a = make(THREE, (256, 7))
    for round_ in range(50):
        far = [((round_ + each + 2) * CHECK_EVERY * 1000, each) for each in range(MOST_PAIRS)]
        for node_id in "bcxyz":
            assert a.hear(node_id, 1, pairs(*far)) is None
    assert a._heard.keys() == {"b", "c"} and all(len(heard) <= MOST_PAIRS for heard in a._heard.values())
    assert a.note(51 * CHECK_EVERY * 1000, 99) == Difference(51 * CHECK_EVERY * 1000, 99, 0)
