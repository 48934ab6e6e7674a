"""The blocking client against a cluster of real sockets whose faults are planned."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from kvstore import errors, protocol, state_machine
from kvstore.client import Client, ClusterMismatch, RevisionWentBack, State, paging
from tests.kvstore.fake_server import FakeCluster, Plan, wait_for


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(3) as cluster:
        yield cluster


def unused_endpoint() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def test_each_operation_answers_with_what_the_store_did(cluster: FakeCluster) -> None:
    with Client(",".join(cluster.endpoints)) as client:
        assert client.put("/a", "1").revision == 2
        replaced = client.put("/a", b"2", previous=True)
        assert replaced.revision == 3
        assert replaced.previous is not None
        assert replaced.previous.value == b"1"
        item = client.get("/a")
        assert item == (b"/a", b"2", 2, 3, 2, 0)
        assert client.get("/none") is None
        client.put("/b", "3")
        assert client.range("/a", "/b").items == [item]
        found = client.prefix("/", limit=1)
        assert (found.revision, found.count, found.more, len(found.items)) == (4, 2, True, 1)
        assert client.prefix("/", count_only=True).count == 2
        assert [kv.value for kv in client.prefix("/", keys_only=True).items] == [b"", b""]
        assert client.delete("/none").deleted == 0
        deleted = client.delete("/a", previous=True)
        assert (deleted.revision, deleted.deleted, deleted.previous) == (5, 1, [item])
        assert client.delete_prefix("/").deleted == 1
        assert client.prefix("").count == 0


def test_a_range_is_sorted_chosen_and_read_page_by_page(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "PAGE_KEYS", 2)
    with Client(cluster.endpoints) as client:
        for name in "badce":
            client.put(f"/{name}", name)
        client.put("/a", "z")
        found = client.prefix("/", sort_by="mod", descending=True, limit=2)
        assert [item.key for item in found.items] == [b"/a", b"/e"] and (found.count, found.more) == (5, True)
        found = client.range("/b", "/e", min_create_revision=4, max_mod_revision=4)
        assert [item.key for item in found.items] == [b"/d"] and (found.count, found.more) == (3, False)
        pages = client.pages("/", keys_only=True)
        names = [item.key for item in next(pages).items]
        client.delete_prefix("/")
        names += [item.key for page in pages for item in page.items]
        assert names == [b"/a", b"/b", b"/c", b"/d", b"/e"], "all of one revision"
        pages = client.pages("/", revision=6, descending=True, limit=5, max_mod_revision=5)
        counted = [(page.count, page.more, [item.value for item in page.items]) for page in pages]
        assert counted == [(5, True, [b"d", b"c"]), (2, False, [b"b", b"a"])]
        assert [page.items for page in client.pages("/none")] == [[]]
        with pytest.raises(ValueError):
            client.prefix("/", sort_by="weight")  # type: ignore[arg-type]
        with pytest.raises(ValueError):
            client.prefix("/", min_mod_revision=-1)


def test_a_value_may_be_empty_and_a_key_may_hold_zeros(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client:
        client.put(b"\x00", b"")
        client.put(b"a\x00b", b"\x00" * 10)
        assert [(kv.key, kv.value) for kv in client.prefix(b"").items] == [
            (b"\x00", b""),
            (b"a\x00b", b"\x00" * 10),
        ]


def test_a_range_that_was_cut_behind_the_longest_key_is_continued(cluster: FakeCluster) -> None:
    """The key that follows it has a byte more than any key may have; it is no key, but a bound."""
    longest = b"k" * protocol.MAX_KEY_BYTES
    with Client(cluster.endpoints) as client:
        for key in (longest, longest[:-1] + b"l", b"l"):
            client.put(key, "x")
        found: list[bytes] = []
        start, end = b"k", b"\0"
        for _ in range(4):
            page = client.range(start, end, limit=1)
            found += [item.key for item in page.items]
            if not page.more:
                break
            start = found[-1] + b"\0"
        assert found == [longest, longest[:-1] + b"l", b"l"]
        assert client.range("k", longest + b"\0", count_only=True).count == 1
        with pytest.raises(errors.TooLarge):
            client.range(longest + b"\0\0", "l")
        with pytest.raises(errors.TooLarge):
            client.range("k", longest + b"\0\0")
        with pytest.raises(errors.TooLarge):
            client.put(longest + b"\0", "x")


def test_who_deletes_too_many_keys_at_once_is_told_what_to_do(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_machine, "MAX_DELETE_KEYS", 1)
    with Client(cluster.endpoints) as client:
        client.put("/a/1", "x")
        client.put("/a/2", "x")
        with pytest.raises(errors.TooLarge, match="nothing deleted; delete it in pieces"):
            client.delete_prefix("/a/")
        assert client.delete_prefix("/a/1").deleted == 1
        assert client.delete_prefix("/a/").deleted == 1


def test_what_cannot_be_right_is_refused_before_anything_is_sent(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client:
        with pytest.raises(errors.EmptyKey):
            client.put("", "x")
        with pytest.raises(errors.TooLarge):
            client.put("k" * (protocol.MAX_KEY_BYTES + 1), "x")
        with pytest.raises(errors.TooLarge):
            client.put("k", b"x" * (protocol.MAX_VALUE_BYTES + 1))
        with pytest.raises(ValueError, match="consistency"):
            client.get("k", consistency="eventual")  # type: ignore[arg-type]
        for limit in (-1, 2**63):
            with pytest.raises(ValueError, match="limit"):
                client.prefix("k", limit=limit)
            with pytest.raises(ValueError, match="limit"):
                client.children("/", limit=limit)
        with pytest.raises(ValueError, match="start_revision"):
            client.watch("k", start_revision=2**63)
        with pytest.raises(TypeError):
            client.put("k", 5)  # type: ignore[arg-type]  # bytes(5) is five zeros
    with pytest.raises(ValueError, match="udp"):
        Client("udp://127.0.0.1:1")
    with pytest.raises(ValueError, match="expected 1 to"):
        Client([])
    assert not any(node.seen for node in cluster.nodes.values())


def test_the_largest_value_goes_and_comes_back(cluster: FakeCluster) -> None:
    value = os.urandom(protocol.MAX_VALUE_BYTES)
    with Client(cluster.endpoints) as client:
        client.put("large", value)
        item = client.get("large")
        assert item is not None
        assert item.value == value


def test_a_client_that_knows_a_follower_only_finds_the_leader(cluster: FakeCluster) -> None:
    cluster.lead("n3")
    with Client(cluster.endpoints[1]) as client:
        assert client.put("/a", "1").revision == 2
        assert client.status().node == "n2"  # the endpoint given is still what local questions go to
    assert [kind for _, _, _, kind in cluster.nodes["n3"].writes()] == [
        protocol.OPEN_SESSION,
        protocol.PUT,
        protocol.CLOSE_SESSION,
    ]
    assert cluster.nodes["n2"].writes() == []


def test_a_refusal_that_names_the_leader_is_followed_at_once(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client:
        client.put("/a", "1")
        cluster.lead("n2")
        begun = time.monotonic()
        client.put("/a", "2")
        assert time.monotonic() - begun < 0.25
    first, again = cluster.nodes["n1"].writes()[-1], cluster.nodes["n2"].writes()[0]
    assert first[:2] == again[:2] == (first[0], 2)
    assert cluster.applied(b"/a") == 2


@pytest.mark.parametrize("plan", [Plan.DIE_BEFORE, Plan.DIE_AFTER])
def test_a_put_survives_the_death_of_the_leader_and_happens_once(cluster: FakeCluster, plan: Plan) -> None:
    with Client(cluster.endpoints) as client:
        client.put("/a", "1")
        cluster.nodes["n1"].plan.append(plan)
        elected_at = []

        def elect() -> None:
            wait_for(lambda: not cluster.nodes["n1"].is_alive)
            time.sleep(0.1)
            elected_at.append(time.monotonic())  # now: the client may be done before this thread goes on
            cluster.lead("n2")

        thread = threading.Thread(target=elect)
        thread.start()
        assert client.put("/a", "2").revision == 3
        took_seconds = time.monotonic() - elected_at[0]
        thread.join()
        assert took_seconds < 0.2  # far below what a growing back-off would take
        sent = cluster.nodes["n1"].writes()[-1]
        assert cluster.nodes["n2"].writes()[0][:2] == sent[:2]
        assert cluster.applied(b"/a") == 2
        assert client.state is State.CONNECTED


def test_an_answer_that_was_lost_is_asked_for_again(cluster: FakeCluster) -> None:
    """The connection breaks after the commit, and comes back to the same leader."""
    with Client(cluster.endpoints) as client:
        client.put("/a", "1")
        cluster.nodes["n1"].plan.append(Plan.DIE_AFTER)
        threading.Timer(0.05, cluster.revive, ["n1"]).start()
        assert client.put("/a", "2").revision == 3
        assert cluster.applied(b"/a") == 2


@pytest.mark.parametrize(
    "code",
    [
        protocol.NO_LEADER,
        protocol.OVERLOADED,
        protocol.SHUTTING_DOWN,
        protocol.CONFLICT_WITH_LEADER,
        protocol.OUTCOME_UNKNOWN,
        protocol.DEADLINE_EXCEEDED,
        protocol.TRANSFERRING,
    ],
)
def test_a_refused_write_is_sent_again_with_its_sequence(cluster: FakeCluster, code: int) -> None:
    with Client(cluster.endpoints) as client:
        client.put("/a", "1")
        cluster.nodes["n1"].plan.extend([code, code])
        client.put("/a", "2")
        puts = [write for write in cluster.nodes["n1"].writes() if write[3] == protocol.PUT]
        assert [sequence for _, sequence, _, _ in puts] == [1, 2, 2, 2]
        assert cluster.applied(b"/a") == 2


def test_a_deadline_that_passes_with_the_write_sent_leaves_its_outcome_unknown(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client:
        client.put("/a", "1")
        cluster.nodes["n1"].plan.append(Plan.COMMIT_ONLY)
        with pytest.raises(errors.OutcomeUnknown):
            client.put("/a", "2", timeout_seconds=0.1)
        assert client.put("/a", "3").revision == 4
        assert cluster.nodes["n1"].writes()[-1][:3] == (cluster.nodes["n1"].writes()[0][0] or 1, 3, 3)


def test_a_read_that_is_not_answered_exceeds_its_deadline(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints[0]) as client:
        client.put("/a", "1")
        cluster.mute("n1")
        with pytest.raises(errors.DeadlineExceeded):
            client.get("/a", timeout_seconds=0.1)


def test_no_leader_and_nobody_there_are_told_apart(cluster: FakeCluster) -> None:
    cluster.lead(None)
    with Client(cluster.endpoints) as client:
        begun = time.monotonic()
        with pytest.raises(errors.NoLeader):
            client.put("/a", "1", timeout_seconds=0.15)
        assert 0.1 < time.monotonic() - begun < 0.4
        assert client.prefix("", consistency="local").count == 0
    with Client([unused_endpoint(), unused_endpoint()], timeout_seconds=0.1) as client:
        with pytest.raises(errors.Unreachable):
            client.put("/a", "1")
        with pytest.raises(errors.Unreachable):
            client.watch("/a")
        assert set(client.status_all(timeout_seconds=0.3).values()) == {None}


def test_an_overloaded_cluster_is_what_the_caller_hears_of(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client:
        client.put("/a", "1")
        cluster.nodes["n1"].plan.extend([protocol.OVERLOADED] * 1000)
        with pytest.raises(errors.Overloaded):
            client.put("/a", "2", timeout_seconds=0.15)
        assert 3 <= 1000 - len(cluster.nodes["n1"].plan) <= 16  # it was asked now and then, not all the time


def test_a_stopped_leader_is_left_when_another_one_leads(cluster: FakeCluster) -> None:
    """The connection stays open, and nothing ever comes from it."""
    with Client(cluster.endpoints) as client:
        client.put("/a", "1")
        cluster.mute("n1")
        cluster.lead("n2")
        begun = time.monotonic()
        assert client.put("/a", "2").revision == 3
        assert time.monotonic() - begun < 1.0
        assert cluster.applied(b"/a") == 2


def test_status_of_all_tells_who_does_not_answer(cluster: FakeCluster) -> None:
    cluster.kill("n3")
    with Client(cluster.endpoints) as client:
        begun = time.monotonic()
        found = client.status_all()
        assert time.monotonic() - begun < 0.5  # a refused connection is not waited for
        assert [status.node if status else None for status in found.values()] == ["n1", "n2", None]
        assert list(found) == cluster.endpoints
        with pytest.raises(errors.Unreachable):
            client.status(cluster.endpoints[2])
        assert client.status(cluster.endpoints[1]).role == "follower"


def test_local_reads_are_of_the_first_endpoint_given(cluster: FakeCluster) -> None:
    with Client([cluster.endpoints[1], cluster.endpoints[0]]) as client:
        client.put("/a", "1")
        cluster.nodes["n2"].lags = True
        client.put("/a", "2")
        local, current = client.get("/a", consistency="local"), client.get("/a")
        assert local is not None
        assert current is not None
        assert (local.value, current.value) == (b"1", b"2")


def test_a_node_of_another_cluster_is_not_spoken_to(cluster: FakeCluster) -> None:
    with FakeCluster(1) as other:
        other.nodes["n1"].cluster_id = "other"
        with Client([cluster.endpoints[0], other.endpoints[0]]) as client:
            client.put("/a", "1")
            cluster.kill("n1")
            time.sleep(0.05)  # so that the client notices before it sends
            with pytest.raises(ClusterMismatch) as caught:
                client.put("/a", "2", timeout_seconds=0.4)
            assert caught.value.found_cluster_id == "other"
        assert other.nodes["n1"].seen == []


def test_a_store_that_lost_its_past_is_an_error(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client:
        client.put("/a", "1")
        cluster.do(cluster.nodes["n1"].forget)
        with pytest.raises(RevisionWentBack):
            client.get("/a")


def test_an_expired_session_is_told_and_then_replaced(cluster: FakeCluster) -> None:
    states: list[State] = []
    with Client(cluster.endpoints) as client:
        client.add_listener(states.append)
        client.put("/a", "1")
        session_id = cluster.nodes["n1"].writes()[-1][0]
        cluster.expire_session(session_id)
        with pytest.raises(errors.SessionExpired):
            client.put("/a", "2")
        client.put("/a", "3")
        assert cluster.nodes["n1"].writes()[-1][0] not in (0, session_id)
        assert cluster.applied(b"/a") == 2
        wait_for(lambda: states == [State.CONNECTED, State.LOST, State.CONNECTED])


def test_listeners_hear_of_a_lost_leader_while_nobody_calls(cluster: FakeCluster) -> None:
    states: list[State] = []

    def listen(state: State) -> None:
        states.append(state)
        raise RuntimeError("a listener of no account")

    with Client(cluster.endpoints) as client:
        client.put("/a", "1")
        client.add_listener(listen)
        cluster.lead(None)
        cluster.kill("n1")
        wait_for(lambda: states == [State.SUSPENDED])
        cluster.lead("n3")
        wait_for(lambda: states == [State.SUSPENDED, State.CONNECTED])
        client.remove_listener(listen)


def test_listeners_hear_the_last_state_last_whoever_tells_them(cluster: FakeCluster) -> None:
    """One thread had taken a change and had not told it yet, when another told the next one."""
    heard: list[State] = []
    is_told, may_go_on = threading.Event(), threading.Event()

    def listen(state: State) -> None:
        if state is State.SUSPENDED:
            is_told.set()
            assert may_go_on.wait(5.0)
        heard.append(state)

    with Client(cluster.endpoints) as client:
        client.put("/a", "1")
        client.add_listener(listen)
        with client._lock:
            client._engine.core.state_changes.append(State.SUSPENDED)
        assert is_told.wait(5.0)
        with client._lock:
            client._engine.core.state_changes.append(State.CONNECTED)
        client.put("/a", "2")  # this thread would tell it
        may_go_on.set()
        wait_for(lambda: len(heard) == 2)
        assert heard == [State.SUSPENDED, State.CONNECTED]


def test_garbage_before_an_answer_is_counted_and_dropped(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client:
        cluster.nodes["n1"].plan.extend([Plan.GARBAGE] * 2)
        assert client.put("/a", "1").revision == 2
        assert client.counters["malformed_frames"] >= 3
        assert client.counters["malformed_results"] >= 1


def test_eight_threads_share_a_client_and_a_leader_dies(cluster: FakeCluster) -> None:
    rounds = 60
    with Client(cluster.endpoints) as client, ThreadPoolExecutor(8) as threads:

        def work(number: int) -> list[int]:
            revisions = []
            for turn in range(rounds):
                key = f"/{number}/{turn}"
                revisions.append(client.put(key, str(turn)).revision)
                item = client.get(key)
                assert item is not None
                assert item.value == str(turn).encode()
            return revisions

        working = [threads.submit(work, number) for number in range(8)]
        wait_for(lambda: len(cluster.log) > 100)
        cluster.kill("n1")
        cluster.lead("n2")
        revisions = [revision for done in working for revision in done.result(10.0)]
        assert sorted(revisions) == list(range(2, 2 + 8 * rounds))
        assert client.prefix("/", count_only=True).count == 8 * rounds


def test_a_thread_that_waits_longer_than_the_driving_one_gets_its_answer(cluster: FakeCluster) -> None:
    """The thread that drives ends with an error; the others must not be left asleep."""
    with Client(cluster.endpoints) as client, ThreadPoolExecutor(3) as threads:
        client.put("/a", "1")
        cluster.nodes["n1"].plan.extend([Plan.LOSE] * 1)
        short = threads.submit(client.put, "/a", "2", timeout_seconds=0.1)
        wait_for(lambda: not cluster.nodes["n1"].plan)
        cluster.lead(None)
        patient = [threads.submit(client.put, f"/p{number}", "3") for number in range(2)]
        with pytest.raises(errors.OutcomeUnknown):
            short.result(2.0)
        cluster.lead("n1")
        assert sorted(done.result(2.0).revision for done in patient) == [3, 4]


def test_the_driving_thread_sees_connections_that_others_open(cluster: FakeCluster) -> None:
    """It sleeps on what there was when it fell asleep, and has to be told."""
    took_seconds = 0.0
    for _ in range(5):
        with Client(cluster.endpoints) as client, ThreadPoolExecutor(1) as threads:
            watch = client.watch("/a")
            driving = threads.submit(watch.next)
            wait_for(lambda: client._driver.is_sleeping)
            begun = time.monotonic()
            client.status(cluster.endpoints[1])
            client.status(cluster.endpoints[2])
            took_seconds += time.monotonic() - begun
            watch.cancel()
            assert driving.result(2.0) is None
    assert took_seconds < 0.6  # it would look again by itself after a quarter of a second, at the latest


def test_closing_ends_whoever_waits(cluster: FakeCluster) -> None:
    client = Client(cluster.endpoints)
    with ThreadPoolExecutor(2) as threads:
        client.put("/a", "1")
        watch = client.watch("/a")
        cluster.mute("n1")
        waiting = threads.submit(client.put, "/a", "2")
        watching = threads.submit(next, iter(watch))
        wait_for(lambda: client._engine.core.outstanding == 1)
        client.close()
        with pytest.raises(errors.OutcomeUnknown):
            waiting.result(2.0)
        with pytest.raises(errors.ClientClosed):
            watching.result(2.0)
        with pytest.raises(errors.ClientClosed):
            client.put("/a", "3")
        client.close()


def test_closing_gives_the_session_back(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client:
        client.put("/a", "1")
    assert cluster.nodes["n1"].writes()[-1][3] == protocol.CLOSE_SESSION
    assert cluster.nodes["n1"].machine.status()["sessions"] == 0
