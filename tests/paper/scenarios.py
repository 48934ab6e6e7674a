"""The scenarios of the Raft paper (extended version), and where each is tested.

A place is a file below tests/, or one test in it. `test_index.py` holds that every place exists, that every
file of this folder is here, and that its tests name their sections. What is not tested says why.
"""

from __future__ import annotations

from typing import NamedTuple


class Scenario(NamedTuple):
    section: str
    what_must_hold: str
    places: tuple[str, ...]


TERMS = "paper/test_terms_5_1.py"
ELECTION = "paper/test_leader_election_5_2.py"
REPLICATION = "paper/test_log_replication_5_3.py"
FIGURE_7 = "paper/test_figure_7_5_3.py"
FIGURE_8 = "paper/test_figure_8_5_4_2.py"
SAFETY = "paper/test_safety_5_4.py"
CRASHES = "paper/test_crashes_5_5.py"
TIMING = "paper/test_timing_5_6.py"
MEMBERSHIP = "paper/test_membership_6.py"
CLIENTS = "paper/test_clients_8.py"
SNAPSHOTS = "raft/test_snapshots.py"
SENDING = "raft/test_snapshot_sending.py"
PERSISTENCE = "paper/test_dissertation_3_8_persistence.py"
TRANSFER = "paper/test_dissertation_3_10_transfer.py"
SERVERS = "paper/test_dissertation_4_membership.py"
READS = "paper/test_dissertation_6_clients.py"
PRE_VOTE = "paper/test_dissertation_9_6_pre_vote.py"
WRITING = "paper/test_dissertation_10_2_writing.py"

PAPER = (
    Scenario(
        "5.1",
        "a higher term makes a follower of any role",
        (f"{TERMS}::test_every_role_follows_a_higher_term",),
    ),
    Scenario("5.1", "requests of an old term are rejected", (TERMS,)),
    Scenario(
        "5.2", "servers begin as followers", (f"{ELECTION}::test_a_node_starts_as_follower_and_says_nothing",)
    ),
    Scenario(
        "5.2",
        "a leader sends heartbeats to all",
        (f"{ELECTION}::test_heartbeats_go_to_all_and_name_no_more_than_each_is_known_to_have",),
    ),
    Scenario(
        "5.2",
        "a follower that times out campaigns in a new term",
        (f"{ELECTION}::test_a_campaign_begins_a_term_with_its_own_vote_on_disk_before_it_asks",),
    ),
    Scenario(
        "5.2",
        "a candidate that times out begins another election",
        (f"{ELECTION}::test_a_candidate_that_times_out_tries_again_in_a_new_term",),
    ),
    Scenario("5.2", "a majority wins", (f"{ELECTION}::test_votes_decide_by_majority",)),
    Scenario(
        "5.2",
        "one vote in a term, first come, first served",
        (f"{ELECTION}::test_one_vote_in_a_term_first_come_first_served",),
    ),
    Scenario(
        "5.2",
        "a candidate that hears the leader of its term follows",
        (f"{ELECTION}::test_a_candidate_returns_to_follower_for_a_leader_of_its_term",),
    ),
    Scenario(
        "5.2",
        "timeouts are random, so that split votes are rare",
        (f"{TIMING}::test_timeouts_are_spread_over_an_interval_and_drawn_anew_each_time",),
    ),
    Scenario(
        "5.3",
        "a leader replicates in parallel, naming what precedes",
        (f"{REPLICATION}::test_appends_leave_in_parallel_with_what_precedes_them",),
    ),
    Scenario(
        "5.3",
        "an entry commits on a majority and is applied everywhere, in order",
        (
            f"{REPLICATION}::test_an_entry_commits_when_a_majority_has_it",
            f"{REPLICATION}::test_committed_entries_are_applied_everywhere_in_the_order_of_the_log",
            f"{REPLICATION}::test_followers_learn_the_commit_index_with_the_next_append_or_when_it_is_wanted",
        ),
    ),
    Scenario(
        "5.3",
        "what precedes a committed entry is committed",
        (f"{REPLICATION}::test_an_earlier_leaders_entries_commit_without_any_proposal",),
    ),
    Scenario(
        "5.3",
        "the consistency check, with a hint where to go on",
        (f"{REPLICATION}::test_an_append_that_does_not_fit_is_rejected_with_a_place_to_go_on",),
    ),
    Scenario(
        "5.3",
        "a conflicting suffix is removed, and nothing else",
        (f"{REPLICATION}::test_a_conflicting_suffix_is_removed_and_nothing_else",),
    ),
    Scenario(
        "5.3, figure 7",
        "every follower comes to the leader's log; who could be elected",
        (FIGURE_7, "interaction/scenarios/probe_and_replicate.txt"),
    ),
    Scenario(
        "5.3",
        "a leader never overwrites its own log",
        (f"{REPLICATION}::test_a_leader_only_appends_to_its_log",),
    ),
    Scenario(
        "5.4.1",
        "RequestVote names the end of the candidate's log",
        (f"{ELECTION}::test_a_campaign_begins_a_term_with_its_own_vote_on_disk_before_it_asks",),
    ),
    Scenario(
        "5.4.1",
        "votes go to logs that are up to date",
        (
            f"{SAFETY}::test_votes_and_pre_votes_go_to_logs_that_are_up_to_date",
            "interaction/scenarios/log_decides.txt",
        ),
    ),
    Scenario(
        "5.4.2, figure 8",
        "no entry of an earlier term commits by being counted",
        (
            FIGURE_8,
            f"{SAFETY}::test_entries_of_an_earlier_term_do_not_commit_by_being_counted",
            "interaction/scenarios/figure_8_overwritten.txt",
            "interaction/scenarios/figure_8_committed.txt",
        ),
    ),
    Scenario(
        "5.4.3, figure 9",
        "every new leader has all committed entries",
        (
            f"{SAFETY}::test_a_leader_without_a_committed_entry_cannot_be_elected",
            "raft/test_random_network.py",
        ),
    ),
    Scenario("figure 3", "the five properties", ("raft/test_random_network.py", "simulator/oracles.py")),
    Scenario(
        "5.5",
        "requests repeated or reordered have one effect",
        (
            f"{CRASHES}::test_appends_repeated_and_reordered_have_one_effect",
            "interaction/scenarios/late_messages.txt",
        ),
    ),
    Scenario("5.5", "who crashed in the middle catches up", (CRASHES,)),
    Scenario(
        "5.6",
        "a leader is steady while messages take less than the timeout",
        (f"{TIMING}::test_a_leader_is_steady_while_its_heartbeats_come_within_the_timeout",),
    ),
    Scenario(
        "6, figure 10",
        "there is no direct switch, since two majorities could decide",
        (
            f"{MEMBERSHIP}::test_switching_directly_would_let_two_majorities_decide_without_each_other",
            f"{MEMBERSHIP}::test_on_the_way_any_two_majorities_that_may_decide_have_a_server_in_common",
        ),
    ),
    Scenario(
        "6, figure 11",
        "while joint, both majorities decide",
        (
            f"{MEMBERSHIP}::test_while_joint_an_entry_needs_a_majority_of_the_old_and_one_of_the_new",
            f"{MEMBERSHIP}::test_while_joint_an_election_needs_both_majorities",
            f"{MEMBERSHIP}::test_once_the_joint_configuration_is_committed_the_leader_goes_on_to_the_new_one",
            "interaction/scenarios/joint.txt",
        ),
    ),
    Scenario(
        "6",
        "new servers have no vote until they have caught up",
        (
            f"{MEMBERSHIP}::test_learners_get_the_log_and_are_not_counted",
            f"{MEMBERSHIP}::test_a_server_becomes_a_voter_only_when_it_has_caught_up",
            "interaction/scenarios/learner.txt",
        ),
    ),
    Scenario(
        "6",
        "a leader that is not in the new configuration does not count itself, and steps down",
        (
            f"{MEMBERSHIP}::test_a_leader_that_is_not_in_the_new_configuration_does_not_count_itself",
            "interaction/scenarios/remove_leader.txt",
        ),
    ),
    Scenario(
        "6",
        "removed servers do not disturb",
        (
            f"{MEMBERSHIP}::test_a_removed_node_with_a_higher_term_deposes_nobody",
            "interaction/scenarios/removed_node.txt",
            "interaction/scenarios/vote_gate.txt",
        ),
    ),
    Scenario(
        "7, figure 12",
        "a snapshot replaces a prefix of the log, and keeps its last index, its term and the membership",
        (
            f"{SNAPSHOTS}::test_the_snapshot_replaces_the_prefix_and_keeps_its_last_index_and_term",
            f"{SNAPSHOTS}::test_a_node_that_knows_no_cluster_learns_its_members_from_the_snapshot",
            "interaction/scenarios/snapshot_members.txt",
        ),
    ),
    Scenario(
        "7, figure 13, rule 1",
        "a snapshot of an old term is refused",
        (f"{SNAPSHOTS}::test_a_snapshot_of_an_old_term_is_refused",),
    ),
    Scenario(
        "7, figure 13, rules 2 to 4",
        "chunks are written where they belong, and each is answered",
        (
            f"{SNAPSHOTS}::test_chunks_are_written_where_they_belong_and_acknowledged",
            f"{SNAPSHOTS}::test_chunks_in_any_order_and_number",
            f"{SNAPSHOTS}::test_a_chunk_of_another_snapshot_is_not_mixed_in",
        ),
    ),
    Scenario(
        "7, figure 13, rule 5",
        "a whole snapshot is kept, and older ones go",
        (
            f"{SNAPSHOTS}::test_the_last_chunk_installs_and_is_acknowledged_only_after_the_sync",
            f"{SNAPSHOTS}::test_a_stale_snapshot_is_acknowledged_with_the_commit_index_and_changes_nothing",
            "interaction/scenarios/snapshot_late.txt",
        ),
    ),
    Scenario(
        "7, figure 13, rule 6",
        "a log that has the last entry of the snapshot keeps what follows",
        (f"{SNAPSHOTS}::test_a_log_with_the_last_entry_of_the_snapshot_keeps_what_follows",),
    ),
    Scenario(
        "7, figure 13, rules 7 and 8",
        "any other log is discarded, and the state machine starts from the snapshot",
        (
            f"{SNAPSHOTS}::test_a_log_that_conflicts_is_discarded",
            f"{SNAPSHOTS}::test_nothing_is_handed_out_until_the_state_machine_holds_the_snapshot",
            "interaction/scenarios/snapshot_slow_restore.txt",
        ),
    ),
    Scenario(
        "7",
        "a slow follower gets the snapshot, and then entries again",
        (
            f"{SNAPSHOTS}::test_a_slow_follower_is_sent_the_snapshot_and_then_appends",
            f"{SENDING}::test_others_are_served_while_a_snapshot_is_sent",
            "interaction/scenarios/snapshot.txt",
        ),
    ),
    Scenario(
        "8",
        "who does not lead names the leader",
        (
            f"{CLIENTS}::test_only_a_leader_takes_proposals_and_the_others_say_who_is",
            "kvstore/test_memory_cluster.py",
        ),
    ),
    Scenario(
        "8",
        "a command that is retried is applied once",
        ("kvstore/test_sessions.py", "kvstore/test_client_chaos.py"),
    ),
    Scenario(
        "8",
        "a leader commits an entry at the start of its term before it answers reads",
        (
            f"{CLIENTS}::test_a_leader_begins_its_term_with_an_entry_of_its_own",
            f"{CLIENTS}::test_a_new_leader_answers_no_read_before_an_entry_of_its_term_is_committed",
            "interaction/scenarios/read_at_new_leader.txt",
        ),
    ),
    Scenario(
        "8",
        "a majority confirms the leader before a read is answered",
        (
            f"{CLIENTS}::test_a_leader_cut_off_never_answers_and_refuses_when_it_is_deposed",
            "interaction/scenarios/read_at_old_leader.txt",
        ),
    ),
    Scenario(
        "9.3, figure 16",
        "the time without a leader, by the spread of timeouts",
        (f"{TIMING}::test_the_time_without_a_leader_falls_with_the_spread_of_the_timeouts",),
    ),
)

# Section, what it is about, and why there is no test.
NOT_TESTED = (
    (
        "dissertation 6.4.1",
        "reads that trust a clock and a leader's lease",
        "there are none: election's clock decides nothing that safety rests on",
    ),
    (
        "dissertation 6.3",
        "expiry of sessions by the leader's time in the log",
        "sessions end when they are closed, or when newer ones need the room; nothing expires by time yet",
    ),
    (
        "dissertation 8",
        "the formal specification",
        "it is Ongaro's; the oracles of the simulator state the same properties",
    ),
)
