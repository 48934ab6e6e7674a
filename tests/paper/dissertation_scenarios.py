"""The scenarios of Ongaro's dissertation; those of the paper, and what the rows mean, are in scenarios.py."""

from __future__ import annotations

from tests.paper.scenarios import (
    CRASHES,
    PERSISTENCE,
    PRE_VOTE,
    READS,
    SENDING,
    SERVERS,
    TRANSFER,
    WRITING,
    Scenario,
)

DISSERTATION = (
    Scenario(
        "3.7",
        "a repeated request is harmless",
        (f"{CRASHES}::test_appends_repeated_and_reordered_have_one_effect",),
    ),
    Scenario(
        "3.8",
        "term and vote are on disk before an answer leaves",
        (
            PERSISTENCE,
            "interaction/scenarios/vote_and_crash.txt",
            "interaction/scenarios/candidate_and_crash.txt",
        ),
    ),
    Scenario(
        "3.8",
        "entries are on disk before they count",
        (
            f"{WRITING}::test_the_leaders_own_entries_count_when_they_are_on_its_disk",
            "interaction/scenarios/crash_before_sync.txt",
            "interaction/scenarios/crash_after_sync.txt",
        ),
    ),
    Scenario(
        "3.8",
        "who lost its disk joins under another name",
        (f"{SERVERS}::test_a_name_that_left_does_not_come_back",),
    ),
    Scenario(
        "3.10",
        "a transfer: the target gets all, campaigns at once and wins",
        (TRANSFER, "interaction/scenarios/transfer.txt", "interaction/scenarios/transfer_to_slow.txt"),
    ),
    Scenario(
        "3.10",
        "a transfer that fails is given up after an election timeout",
        (
            f"{TRANSFER}::test_if_the_target_does_not_take_over_the_leader_goes_on_after_an_election_timeout",
            "interaction/scenarios/transfer_timeout.txt",
            "interaction/scenarios/late_timeout_now.txt",
        ),
    ),
    Scenario(
        "3.10",
        "no proposals meanwhile; a second transfer; who cannot lead",
        (
            f"{TRANSFER}::test_meanwhile_the_leader_takes_no_proposals",
            f"{TRANSFER}::test_a_second_transfer_replaces_the_first_and_the_same_one_changes_nothing",
            f"{TRANSFER}::test_who_cannot_lead_is_refused_at_once",
            f"{TRANSFER}::test_a_target_that_loses_its_vote_is_none_any_more",
        ),
    ),
    Scenario(
        "4.1",
        "a configuration counts when it is in the log, and goes with its entry",
        (
            f"{SERVERS}::test_a_configuration_is_used_as_soon_as_it_is_in_the_log",
            f"{SERVERS}::test_a_configuration_goes_when_its_entry_is_overwritten",
            f"{SERVERS}::test_an_uncommitted_configuration_outlives_a_restart",
            "interaction/scenarios/roll_back.txt",
        ),
    ),
    Scenario(
        "4.1",
        "requests are taken from servers that the configuration does not have",
        (f"{SERVERS}::test_appends_and_votes_are_taken_from_nodes_outside_the_configuration",),
    ),
    Scenario(
        "4.1 and its erratum",
        "one change at a time, and none before an entry of the term is committed",
        (
            f"{SERVERS}::test_one_change_at_a_time",
            f"{SERVERS}::test_no_change_before_the_leader_has_committed_an_entry_of_its_term",
            f"{SERVERS}::test_without_that_rule_two_majorities_that_do_not_meet_would_decide",
            "interaction/scenarios/one_change_at_a_time.txt",
        ),
    ),
    Scenario(
        "4.1",
        "all sizes from one to five and back",
        (f"{SERVERS}::test_every_size_from_one_to_five_and_back",),
    ),
    Scenario(
        "4.2.1",
        "a new server catches up in rounds",
        (
            f"{SERVERS}::test_a_new_server_catches_up_in_rounds_and_is_late_if_a_round_takes_too_long",
            "interaction/scenarios/add_voter.txt",
        ),
    ),
    Scenario(
        "4.2.2",
        "a leader manages a cluster that it is not in",
        (f"{SERVERS}::test_a_leader_manages_a_cluster_that_it_is_not_in",),
    ),
    Scenario(
        "4.2.2, figure 4.6",
        "a server that its own configuration leaves out may be needed to lead",
        (
            f"{SERVERS}::test_a_server_that_its_own_configuration_leaves_out_may_still_be_needed",
            f"{SERVERS}::test_a_server_that_is_left_out_does_not_vote_for_itself",
            "interaction/scenarios/left_out_but_needed.txt",
        ),
    ),
    Scenario(
        "4.2.3",
        "a live leader is not disturbed, but by a transfer that it wants",
        (
            f"{SERVERS}::test_a_leader_is_not_deposed_by_a_candidate_while_it_has_its_quorum",
            f"{SERVERS}::test_a_campaign_that_the_leader_itself_asked_for_passes_the_gate",
        ),
    ),
    Scenario(
        "4.2.4",
        "a change while a server is down keeps the cluster available",
        (
            f"{SERVERS}::test_a_failed_server_is_replaced_without_waiting_for_the_new_one",
            f"{SERVERS}::test_a_change_that_would_lose_the_majority_that_is_alive_is_refused",
        ),
    ),
    Scenario(
        "4.3",
        "a leader may crash at any moment of a joint change",
        (
            f"{SERVERS}::test_a_leader_may_crash_at_any_moment_of_a_joint_change",
            "interaction/scenarios/joint_and_crash.txt",
        ),
    ),
    Scenario(
        "4.4",
        "a cluster begins with one server and its configuration entry",
        (f"{SERVERS}::test_a_cluster_begins_with_a_configuration_entry_in_the_log_of_one_server",),
    ),
    Scenario(
        "5.1",
        "when a snapshot is taken: when the log has grown in proportion to the last one",
        (f"{SENDING}::test_a_snapshot_is_due_when_the_log_is_long_and_half_as_large_as_the_last_one",),
    ),
    Scenario(
        "5.1.3",
        "a transfer that is interrupted goes on, and a snapshot is whole or none",
        (
            f"{SENDING}::test_the_receiver_is_restarted_in_the_middle",
            f"{SENDING}::test_the_leader_changes_in_the_middle",
            "raft/test_snapshot_faults.py",
            "interaction/scenarios/snapshot_interrupted.txt",
        ),
    ),
    Scenario(
        "6.2",
        "a leader that hears no majority steps down",
        (
            f"{READS}::test_a_leader_steps_down_unless_it_hears_a_quorum",
            "interaction/scenarios/check_quorum.txt",
            "interaction/scenarios/one_way_partition.txt",
        ),
    ),
    Scenario(
        "6.1, 6.2",
        "clients find the cluster and the leader",
        ("kvstore/test_client_core.py", "kvstore/test_memory_cluster.py"),
    ),
    Scenario("6.3", "sessions: the first result again, windows, expiry", ("kvstore/test_sessions.py",)),
    Scenario(
        "6.4",
        "linearizable reads in batches, at followers too",
        (READS, "interaction/scenarios/read_index.txt", "interaction/scenarios/follower_reads.txt"),
    ),
    Scenario(
        "8",
        "rare events are made frequent",
        ("raft/test_random_network.py", "raft/test_random_membership.py", "simulator/swarm.py"),
    ),
    Scenario(
        "9.6",
        "pre-vote: who was away comes back without disturbing",
        (PRE_VOTE, "interaction/scenarios/pre_vote.txt"),
    ),
    Scenario(
        "10.2.1",
        "a leader writes in parallel; a majority of others is enough",
        (
            f"{WRITING}::test_a_majority_of_others_is_enough_before_the_own_sync",
            "interaction/scenarios/own_disk.txt",
        ),
    ),
    Scenario(
        "10.2.2",
        "batching and pipelining, which falls back on loss",
        (
            f"{WRITING}::test_appends_are_pipelined_up_to_the_window",
            f"{WRITING}::test_a_window_full_of_lost_appends_recovers_after_a_heartbeat",
            "interaction/scenarios/pipeline.txt",
            "interaction/scenarios/lost_appends.txt",
            "interaction/scenarios/full_window.txt",
        ),
    ),
)
