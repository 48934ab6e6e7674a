"""A leader whose disk becomes slow, as a real process: another one leads, for good, and it does no harm."""

from __future__ import annotations

from pathlib import Path

import zmq

from bench.processes import ProcessCluster
from kvstore import protocol
from kvstore.client import Client
from tests.cluster.growing import Load
from tests.cluster.slow_disk_node import DELAYED_SUFFIX, SLOW_SUFFIX

SYNC_SECONDS = 2.0
WAIT_SECONDS = 60.0
SYNCS = 4  # so long the slow node is looked at


class SlowDisks(ProcessCluster):
    """Each node's disk can be made slow. Elections wait long enough for a busy machine, not for the disk."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, arguments=["--election-timeout-ms", "600"])

    def __enter__(self) -> SlowDisks:
        super().__enter__()
        return self

    def module_of(self, name: str) -> str:
        return "tests.cluster.slow_disk_node"

    def _beside(self, name: str, suffix: str) -> Path:
        home = self.data_directory(name)
        return home.with_name(home.name + suffix)

    def slow_down(self, name: str) -> None:
        draft = self._beside(name, ".draft")
        draft.write_text(str(SYNC_SECONDS))
        draft.rename(self._beside(name, SLOW_SUFFIX))

    def speed_up(self, name: str) -> None:
        self._beside(name, SLOW_SUFFIX).unlink()

    def delayed_syncs(self, name: str) -> int:
        path = self._beside(name, DELAYED_SUFFIX)
        return path.stat().st_size if path.exists() else 0


def leader_among(cluster: ProcessCluster, names: list[str], after_term: int) -> tuple[str, int] | None:
    """Who leads in a later term, as one of these says of itself; with the term."""
    for name in names:
        status = cluster.status(name)
        if status and status["role"] == "leader" and status["term"] > after_term:
            return name, int(status["term"])
    return None


def test_f14_a_leader_whose_syncs_take_two_seconds_makes_way_once_and_does_no_harm_when_it_wakes(
    tmp_path: Path,
) -> None:
    """Followed for several syncs of the slow disk: no election for each of them, writes go on, what is asked
    of the old leader is answered with what is new or refused, and nothing that was acknowledged is lost."""
    with SlowDisks(tmp_path) as cluster, Load(cluster.endpoints) as load:
        slow = cluster.wait_for_leader()
        others = [name for name in cluster.names if name != slow]
        load.wait_for_more()
        term = max(cluster.terms().values())
        cluster.slow_down(slow)
        leader, new_term = cluster.wait_for(
            "another leader", lambda: leader_among(cluster, others, term), WAIT_SECONDS
        )
        with Client([cluster.client_endpoints[leader]], timeout_seconds=WAIT_SECONDS) as client:
            client.put("/fresh", "0")
            seen = cluster.delayed_syncs(slow)
            goal, number, answered = seen + SYNCS, 0, 0
            with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
                socket.linger = 0
                socket.connect(cluster.client_endpoints[slow])
                while seen < goal:
                    number += 1
                    client.put("/fresh", str(number))
                    answered += ask_for_fresh(socket, number)
                    load.wait_for_more(5)
                    seen = cluster.delayed_syncs(slow)
            assert answered, "the slow node never answered"
            # An election for each slow sync would be flapping; one that a busy machine brings about is none.
            assert max(cluster.terms()[name] for name in others) <= new_term + 1
        assert (now := leader_among(cluster, others, term)) is not None and now[0] != slow
        cluster.speed_up(slow)
        cluster.wait_until_caught_up(slow, WAIT_SECONDS)
        with Client([cluster.client_endpoints[slow]], timeout_seconds=WAIT_SECONDS) as client:
            load.verify(client)
            found = client.get("/fresh")
            assert found is not None and int(found.value) == number


def ask_for_fresh(socket: zmq.Socket[bytes], number: int) -> bool:
    """Whether this very node answered, to a linearizable read that begins now: then with what is written by
    now, or not at all."""
    body = protocol.range_body(b"/fresh")
    socket.send(protocol.encode_request(protocol.READ, number, int(WAIT_SECONDS * 1000), [body]))
    if not socket.poll(int(WAIT_SECONDS * 1000)):
        return False
    reply = protocol.decode_reply(socket.recv())
    if isinstance(reply, protocol.Refusal):
        return True
    [result] = protocol.split_results(reply.blob, 1)
    assert result[0] == 0 and int(result[4][0][1]) == number, (number, result)
    return True
