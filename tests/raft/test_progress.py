"""What a leader keeps of a peer: the state machine alone, then at work in a leader (dissertation 10.2)."""

from __future__ import annotations

import pytest

from raft.entries import SnapshotMeta
from raft.messages import AppendEntries, AppendRejected, AppendResponse, HeartbeatResponse
from raft.progress import Inflights, Progress, ProgressState
from raft.snapshot_sender import SnapshotSender
from tests.raft.cores import WINDOW, leader_with_peer_at, replicating
from tests.raft.network import Network, drain, make_leader, outgoing, role_object

# -- the window ------------------------------------------------------------------------------------------


def test_the_window_is_bounded_by_messages() -> None:
    window = Inflights(2, 1000)
    window.add(1, 10)
    assert window.has_room()
    window.add(2, 10)
    assert not window.has_room()
    window.release_through(1)
    assert window.has_room() and (len(window), window.bytes) == (1, 10)


def test_the_window_is_bounded_by_bytes_and_one_huge_append_may_pass() -> None:
    window = Inflights(9, 100)
    window.add(2, 99)
    assert window.has_room()
    window.add(3, 5000)
    assert not window.has_room()
    window.release_through(2)
    assert not window.has_room()
    window.release_through(3)
    assert window.has_room() and window.bytes == 0
    window.add(4, 100)
    assert not window.has_room()


def test_one_acknowledgement_releases_all_that_it_covers() -> None:
    progress = replicating(5, 8)
    assert len(progress.inflights) == 2
    progress.acknowledge(7)
    assert (len(progress.inflights), progress.inflights.bytes) == (0, 0)


# -- the states ------------------------------------------------------------------------------------------


def test_a_probe_waits_for_its_answer() -> None:
    progress = Progress(4, WINDOW, is_active=False)
    assert progress.wants_append(9, 0)
    progress.note_sent(6, 10, 0)
    assert not progress.wants_append(9, 0)
    assert progress.next_index == 4  # not optimistic: it may have to send the same again
    progress.heard_heartbeat()
    assert progress.wants_append(9, 0)


def test_a_probe_that_is_answered_begins_to_replicate() -> None:
    progress = Progress(4, WINDOW, is_active=False)
    progress.note_sent(6, 10, 0)
    assert progress.acknowledge(6)
    assert (progress.state, progress.match_index, progress.next_index) == (ProgressState.REPLICATE, 6, 7)
    assert progress.wants_append(7, 0) and not progress.wants_append(6, 0)


def test_a_probe_also_ends_when_the_peer_has_exactly_what_was_known() -> None:
    progress = replicating(5, 8)
    assert progress.reject(7, 3)
    assert (progress.state, progress.next_index) == (ProgressState.PROBE, 6)
    assert not progress.acknowledge(4)
    assert progress.state is ProgressState.PROBE
    assert not progress.acknowledge(5)
    assert (progress.state, progress.next_index) == (ProgressState.REPLICATE, 6)


def test_what_a_peer_is_found_to_have_is_where_replication_goes_on() -> None:
    progress = replicating(5, 9)
    assert progress.reject(8, 8)
    assert not progress.acknowledge(5)  # repeated; it says nothing of 6 and 7
    assert progress.next_index == 6
    assert progress.acknowledge(8)  # late: to what was sent before the rejection
    assert progress.next_index == 9


def test_an_append_lost_from_the_middle_of_the_pipeline_is_found_by_the_next() -> None:
    progress = replicating(5, 9)
    assert progress.reject(6, 6)
    assert (progress.state, progress.next_index) == (ProgressState.PROBE, 6)


def test_a_question_is_forgotten_with_the_state_in_which_it_was_to_be_asked() -> None:
    progress = replicating(5, 8)
    progress.heard_heartbeat()
    progress.reject(7, 6)
    progress.note_sent(5, 0, 0)
    progress.acknowledge(5)
    assert not progress.wants_append(5, 0)


def test_news_of_the_commit_index_is_sent_once_and_takes_no_place_in_the_window() -> None:
    progress = replicating(5, 6)
    assert progress.wants_append(5, 4)
    progress.note_sent(5, 0, 4)
    assert not progress.wants_append(5, 4)
    assert progress.wants_append(5, 5)
    assert len(progress.inflights) == 0 and progress.next_index == 6


def test_b5_match_index_never_decreases() -> None:
    progress = replicating(5, 9)
    assert progress.acknowledge(8)
    assert not progress.acknowledge(6)
    assert not progress.acknowledge(8)
    assert (progress.match_index, progress.next_index) == (8, 9)


@pytest.mark.parametrize("prev_index", [0, 3, 5])
def test_b6_a_rejection_of_what_already_matched_is_late(prev_index: int) -> None:
    for progress in (replicating(5, 8), replicating(5, 6)):
        assert not progress.reject(prev_index, 1)
        assert progress.state is ProgressState.REPLICATE and progress.next_index in (6, 8)


def test_b6_a_rejection_never_takes_next_index_to_match_index_or_below() -> None:
    progress = replicating(5, 8)
    assert progress.reject(7, -3)
    assert progress.next_index == 6


def test_b7_while_probing_only_the_answer_to_the_last_probe_counts() -> None:
    progress = Progress(10, WINDOW, is_active=False)
    progress.note_sent(10, 10, 0)
    assert not progress.reject(7, 2)
    assert not progress.reject(12, 2)
    assert not progress.wants_append(20, 0) and progress.next_index == 10
    assert progress.reject(9, 4)
    assert progress.next_index == 4
    progress.note_sent(10, 10, 0)
    assert not progress.reject(9, 2)  # the same answer, delivered twice


def test_a_rejection_always_moves_the_probe_back() -> None:
    """Whatever the peer hints at, the next probe is earlier than the one refused."""
    progress = Progress(10, WINDOW, is_active=False)
    assert progress.reject(9, 50)
    assert progress.next_index == 9


def test_a_rejection_of_what_was_never_sent_is_ignored() -> None:
    progress = replicating(5, 8)
    assert not progress.reject(8, 8)
    assert not progress.reject(1 << 60, 1 << 60)
    assert (progress.state, progress.next_index) == (ProgressState.REPLICATE, 8)


def test_b11_no_bytes_stay_in_flight_when_replication_falls_back_to_probing() -> None:
    progress = replicating(5, 8)
    progress.reject(7, 6)
    assert (len(progress.inflights), progress.inflights.bytes) == (0, 0)
    progress.note_sent(7, 10, 0)
    progress.acknowledge(7)
    assert (len(progress.inflights), progress.inflights.bytes) == (0, 0)


def test_b11_a_heartbeat_answered_makes_a_full_window_ask_again() -> None:
    progress = replicating(5, 9)
    assert not progress.wants_append(20, 0)
    progress.heard_heartbeat()
    assert progress.wants_append(20, 0)
    progress.note_sent(8, 0, 0)
    assert not progress.wants_append(20, 0)


def test_a_peer_that_owes_nothing_is_not_asked_again() -> None:
    progress = replicating(5, 6)
    progress.heard_heartbeat()
    assert not progress.wants_append(5, 0)


def test_a_peer_whose_answers_came_with_its_heartbeat_is_not_asked_for_them() -> None:
    """Its answer to the heartbeat waits for no disk, so that it overtakes the acknowledgements."""
    progress = replicating(5, 8)
    progress.heard_heartbeat()
    progress.acknowledge(6)
    assert progress.wants_append(7, 0)  # 7 is still owed
    progress.acknowledge(7)
    assert not progress.wants_append(7, 0)


def test_a_peer_that_needs_a_snapshot_is_sent_no_appends_until_it_has_it() -> None:
    progress = Progress(3, WINDOW, is_active=False)
    progress.become_snapshot(SnapshotSender(SnapshotMeta(10, 1, b"", 0, 0), WINDOW))
    assert not progress.can_be_told(20)
    progress.heard_heartbeat()
    assert not progress.wants_append(20, 20)
    assert not progress.reject(2, 1)
    progress.acknowledge(4)
    assert progress.state is ProgressState.SNAPSHOT
    progress.acknowledge(10)
    assert (progress.state, progress.next_index, progress.sender) == (ProgressState.REPLICATE, 11, None)


def test_a_peer_that_falls_silent_while_it_is_sent_a_snapshot_holds_nothing_back() -> None:
    progress = Progress(3, WINDOW, is_active=True)
    progress.become_snapshot(SnapshotSender(SnapshotMeta(10, 1, b"", 0, 0), WINDOW))
    progress.end_timeout()
    assert progress.state is ProgressState.SNAPSHOT
    progress.end_timeout()
    assert (progress.state, progress.sender) == (ProgressState.PROBE, None)


# -- in a leader -----------------------------------------------------------------------------------------


def test_the_window_is_bounded_by_bytes_in_a_leader() -> None:
    core = leader_with_peer_at(1, max_inflight_bytes=1000)
    sent = 0
    for _ in range(9):
        core.propose([bytes(400)])
        sent += len(outgoing(drain(core), AppendEntries))
    assert sent == 3


def test_b11_a_closed_window_is_asked_after_with_an_empty_append() -> None:
    core = leader_with_peer_at(1, max_inflight_messages=1)
    for body in (b"x", b"y"):
        core.propose([body])
        drain(core)
    core.step("b", HeartbeatResponse(1, 0))
    (question,) = outgoing(drain(core), AppendEntries)
    assert (question.prev_index, len(question.batch)) == (2, 0)
    assert len(core.progress["b"].inflights) == 1


def test_b11_lost_acknowledgements_are_asked_for_after_a_heartbeat() -> None:
    network = Network("ab")
    leader = network.elect("a")
    network.cut_links = {("b", "a")}
    leader.propose([b"x"])
    network.settle()
    network.heal()
    sent_before = len(network.sent(AppendEntries))
    leader.heartbeat()
    network.settle()
    assert leader.commit_index == network["b"].commit_index == 2
    assert not any(message.batch.entries for message in network.sent(AppendEntries)[sent_before:])


def test_b11_a_lost_probe_is_sent_again_after_a_heartbeat_only() -> None:
    core = make_leader()
    core.propose([b"x"])
    assert not outgoing(drain(core), AppendEntries)
    core.step("b", HeartbeatResponse(1, 0))
    (probe,) = outgoing(drain(core), AppendEntries, to="b")
    assert (probe.prev_index, len(probe.batch)) == (0, 2)


def test_b11_the_answer_to_lost_news_is_found_missing_at_last() -> None:
    """A follower leaves news of the commit index unanswered; nothing may hang on that for long."""
    network = Network("ab")
    leader = network.elect("a")
    network.cut_links = {("b", "a")}  # its acknowledgement is lost, and so are those to come
    leader.propose([b"x"])
    network.settle()
    network.heal()
    for _ in range(3):
        leader.heartbeat()
        network.settle()
    assert leader.progress["b"].match_index == 2
    assert not leader.has_ready() and not network["b"].has_ready()


def test_a_rejection_of_entries_that_were_acknowledged_does_not_turn_into_a_storm() -> None:
    """A peer that lost what it had is not served again under its name (T3), nor keeps the leader busy."""
    core = leader_with_peer_at(5)
    core.step("b", AppendRejected(1, 5, 1, 0))
    assert not outgoing(drain(core), AppendEntries)
    core.propose([b"x"])
    (sent,) = outgoing(drain(core), AppendEntries)
    core.step("b", AppendRejected(1, sent.prev_index, 1, 0))
    assert not outgoing(drain(core), AppendEntries)


def test_an_answer_about_more_than_the_log_is_ignored() -> None:
    core = leader_with_peer_at(3)
    core.step("b", AppendResponse(1, 99))
    core.step("b", AppendRejected(1, 99, 50, 1))
    core.step("b", AppendRejected(1, -5, -7, -1))
    core.propose([b"x"])
    drain(core)
    core.step("b", AppendRejected(1, 99, 50, 1))
    drain(core)
    progress = core.progress["b"]
    assert (progress.match_index, progress.next_index, core.ignored_messages) == (3, 5, 1)


def test_progress_exists_only_while_the_leadership_does() -> None:
    core = leader_with_peer_at(1)
    old = role_object(core)
    core.step("b", HeartbeatResponse(5, 0))
    assert core.progress == {} and core.uncommitted_bytes == 0
    assert core._role is not old
