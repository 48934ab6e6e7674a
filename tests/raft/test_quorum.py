"""Majorities, and the sets of voters that must each have one."""

from __future__ import annotations

from itertools import combinations, product

import pytest

from raft.membership import Configuration
from raft.quorum import VoteResult, has_majority, majority, majority_value, vote_result

NAMES = "abcdefg"


def joint(old: str, new: str) -> Configuration:
    """A configuration in which both sets must agree (Raft §6)."""
    return Configuration(new, outgoing=old)


@pytest.mark.parametrize("size", range(1, 8))
def test_any_two_majorities_overlap_and_no_smaller_group_does(size: int) -> None:
    voters = NAMES[:size]
    groups = [set(group) for n in range(size + 1) for group in combinations(voters, n)]
    majorities = [group for group in groups if has_majority(voters, group)]
    assert all(one & other for one, other in combinations(majorities, 2))
    assert min(map(len, majorities)) == majority(size)
    assert all(len(set(voters) - group) < majority(size) for group in majorities)


@pytest.mark.parametrize("size", range(1, 6))
def test_the_majority_value_is_the_largest_that_a_majority_reached(size: int) -> None:
    voters = NAMES[:size]
    for values in product(range(4), repeat=size):
        by_name = dict(zip(voters, values))
        reached = [v for v in range(4) if sum(value >= v for value in values) >= majority(size)]
        assert majority_value(voters, by_name) == max(reached), values


def test_who_is_no_voter_does_not_count_and_who_is_silent_counts_as_zero() -> None:
    assert majority_value("abc", {"a": 9, "x": 9, "y": 9}) == 0
    assert majority_value("abc", {"a": 9, "b": 7}) == 7
    assert not has_majority("abc", {"a", "x", "y"})
    assert vote_result("abc", {"a", "x", "y"}, set()) is VoteResult.PENDING


def test_no_voters_make_no_majority() -> None:
    assert not has_majority("", set("abc"))
    assert majority_value("", {"a": 9}) == 0
    assert vote_result("", set("abc"), set()) is not VoteResult.WON


@pytest.mark.parametrize("size", range(1, 6))
def test_votes_are_won_lost_or_still_open(size: int) -> None:
    voters = NAMES[:size]
    for votes in product("gd-", repeat=size):
        granted = {name for name, vote in zip(voters, votes) if vote == "g"}
        denied = {name for name, vote in zip(voters, votes) if vote == "d"}
        open_votes = votes.count("-")
        expected = VoteResult.PENDING
        if len(granted) >= majority(size):
            expected = VoteResult.WON
        elif len(granted) + open_votes < majority(size):
            expected = VoteResult.LOST
        assert vote_result(voters, granted, denied) is expected, votes


def test_learners_are_members_and_no_voters() -> None:
    configuration = Configuration("abc", "de")
    assert configuration.members == set("abcde")
    assert not configuration.has_quorum("ade") and configuration.has_quorum("ab")
    assert configuration.quorum_value({"a": 5, "d": 5, "e": 5}) == 0
    assert not configuration.may_campaign("d") and configuration.may_campaign("a")


def test_nobody_is_voter_and_learner_at_once() -> None:
    with pytest.raises(AssertionError, match="'b'"):
        Configuration("ab", "bc")


def test_p27_the_place_of_joint_consensus_each_set_must_agree_by_itself() -> None:
    configuration = joint("abc", "cde")
    assert not configuration.has_quorum("abc")
    assert not configuration.has_quorum("cde")
    assert configuration.has_quorum("acd")
    assert configuration.quorum_value({"a": 9, "b": 9, "c": 4, "d": 3, "e": 2}) == 3
    assert configuration.vote_result(set("ab"), set()) is VoteResult.PENDING
    assert configuration.vote_result(set("abc"), set("de")) is VoteResult.LOST
    assert configuration.vote_result(set("acd"), set("be")) is VoteResult.WON


def test_configurations_are_equal_by_their_members() -> None:
    assert Configuration("abc") == Configuration(["c", "b", "a"])
    assert Configuration("abc") != Configuration("ab", "c")
    assert Configuration("abc", "d") != Configuration("abc")
    assert len({Configuration("ab"), Configuration("ba")}) == 1
