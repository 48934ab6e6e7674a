"""Frames of a member that never started: the gate lets them in, so what is in them meets codec and core.

The name must be one that nobody else speaks under, or the real one would be silenced. Rule: nothing is thrown
that a correct node must yield to, such as an answer in a higher term; all else must change nothing. Answers
are listened to, since they prove that the frames got in.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import msgpack
import zmq

from actors import Address, Codec, MalformedFrame
from actors.gate import Prefixes
from kvstore.neighbours import Announce
from raft.actor_messages import Propose, QueryStatus, RoleChanged
from raft.core import MAX_TERM
from raft.entries import EntryBatch
from raft.messages import (
    AppendEntries,
    AppendRejected,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    PreVoteResponse,
    ReadIndexRefused,
    ReadIndexRequest,
    ReadIndexResponse,
    RequestPreVote,
    RequestVote,
    VoteResponse,
)
from raft.wire import FIRST_FREE_TAG, FIRST_LOCAL_TAG, register_messages
from tests.cluster.garbage import PAYLOADS, pack

FLOODS = 50
FLOOD_EVERY = 40  # frames
FLOOD_REQUESTS = 200
MOST_TERMS_AHEAD = 1000
_LONGEST_ANSWER_BYTES = 4096  # what is longer is entries
_ABSURD: list[object] = [2**62 + 1, 2**63 - 1, 2**63, 2**64 - 1, -1, -(2**63), 1 << 40, 0]
_OTHER_TAGS: list[object] = [0, 13, 63, 129, 2**31, 2**63, -1, "5", None, b"", [], True]


class Forger:
    """Speaks as one absent member; owned by one thread. `throw` never blocks."""

    def __init__(self, name: str, endpoints: dict[str, str], cluster_id: int, term: int) -> None:
        """`endpoints` are the peer endpoints of all members, `term` is the one that the cluster is in."""
        self._rng = random.Random(2)
        self._term = term
        self._codec = Codec()
        register_messages(self._codec)
        self._codec.register(FIRST_FREE_TAG, Announce, remote=True)
        self._prefixes = Prefixes(name, cluster_id, self._rng.getrandbits(63))
        self._context = zmq.Context()
        self._ear = self._socket(zmq.ROUTER)
        self._ear.bind(endpoints[name])
        self._mouths = {node: self._socket(zmq.DEALER) for node in endpoints if node != name}
        for node, mouth in self._mouths.items():
            mouth.connect(endpoints[node])
        self._floods = 0
        self._makers: list[Callable[[], bytes]] = [
            lambda: self._rng.choice(PAYLOADS)(self._rng),
            self._truncated, self._mutated, self._other_tag, self._local, self._absurd, self._nested,
            self._too_many, self._senseless, self._senseless, self._senseless,
        ]  # fmt: skip
        self.thrown = 0
        self.heard: Counter[type] = Counter()  # answers of the nodes, by kind
        self.votes = 0  # granted by them

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        found: zmq.Socket[bytes] = self._context.socket(kind)
        found.setsockopt(zmq.LINGER, 0)
        found.setsockopt(zmq.SNDHWM, 100)
        found.setsockopt(zmq.RCVHWM, 100)
        return found

    def throw(self) -> None:
        rng = self._rng
        if self.thrown >= FLOOD_EVERY * (self._floods + 1) and self._floods < FLOODS:
            payload = self._flood()
        else:
            payload = rng.choice(self._makers)()
        if not self._must_be_obeyed(payload):
            node = rng.choice(list(self._mouths))
            # Most to the one who is made for messages of peers; none of the others may stumble either.
            actor = rng.choice(["replication"] * 6 + ["gateway", "applier", "election", "none"])
            header = self._prefixes.header("replication", Address(node, actor))
            try:
                self._mouths[node].send_multipart([header, payload], zmq.DONTWAIT)
                self.thrown += 1
            except zmq.Again:
                pass
        self._listen()

    def _must_be_obeyed(self, payload: bytes) -> bool:
        """Would it end a correct leader's term? A mutation may hit on that, so each payload is looked at."""
        try:
            messages = self._codec.decode_remote(payload)
        except MalformedFrame:
            return False
        for message in messages:
            # These ask, or promise what was not asked for: both leave the term alone while there is a leader.
            is_harmless = (
                isinstance(message, RequestPreVote)
                or (isinstance(message, RequestVote) and not message.transfer)
                or (isinstance(message, PreVoteResponse) and message.granted)
            )
            if not is_harmless and self._term < getattr(message, "term", 0) <= MAX_TERM:
                return True
        return False

    def _listen(self) -> None:
        for _ in range(20):
            if not self._ear.poll(0):
                return
            payload = self._ear.recv_multipart()[-1]
            if len(payload) > _LONGEST_ANSWER_BYTES:
                continue
            for message in self._codec.decode_remote(payload):
                self.heard[type(message)] += 1
                self.votes += isinstance(message, VoteResponse) and message.granted

    # ---- wrong as bytes

    def _truncated(self) -> bytes:
        whole = self._senseless()
        return whole[: self._rng.randrange(len(whole))]

    def _mutated(self) -> bytes:
        mutated = bytearray(self._senseless())
        for _ in range(self._rng.randrange(1, 5)):
            mutated[self._rng.randrange(len(mutated))] = self._rng.randrange(256)
        return bytes(mutated)

    def _other_tag(self) -> bytes:
        return b"\x01" + pack([self._rng.choice(_OTHER_TAGS), [1, 2, 3]])

    def _local(self) -> bytes:
        """What only a node's own actors may say to each other."""
        if self._rng.random() < 0.5:
            tag = FIRST_LOCAL_TAG + self._rng.randrange(FIRST_LOCAL_TAG)
            return b"\x01" + pack([tag, [[1], [1], [b"x"]]])
        role = RoleChanged("leader", self._term + 1, "n4")
        return self._codec.encode(
            [self._rng.choice([Propose([1], [1], [b"forged"]), role, QueryStatus(1, {})])]
        )

    def _absurd(self) -> bytes:
        """A real message with absurd numbers in it; its term stays what it is every other time."""
        tag, fields = msgpack.unpackb(self._senseless()[1:], strict_map_key=False)[:2]
        first = self._rng.randrange(2)
        for place in range(first, len(fields)):
            if type(fields[place]) is int:
                fields[place] = self._rng.choice(_ABSURD)
        return b"\x01" + pack([tag, fields])

    def _nested(self) -> bytes:
        return b"\x01\x92" + bytes([self._rng.randrange(1, 13)]) + b"\x91" * self._rng.randrange(100_000)

    def _too_many(self) -> bytes:
        pair = b"\x0a" + pack([self._term, 1])
        count = self._rng.choice([4097, 20_000])
        return b"\x01\xdd" + (2 * count - self._rng.randrange(2)).to_bytes(4, "big") + pair * count

    # ---- right as bytes, wrong as messages

    def _flood(self) -> bytes:
        self._floods += 1
        first = self._rng.getrandbits(40)
        return self._codec.encode(
            [ReadIndexRequest(self._term, first + number) for number in range(FLOOD_REQUESTS)]
        )

    def _senseless(self) -> bytes:
        return self._codec.encode([self._rng.choice(self._messages())])

    def _messages(self) -> list[object]:
        rng, term = self._rng, self._term
        old, ahead = rng.randrange(term), term + rng.randrange(1, MOST_TERMS_AHEAD + 1)
        index, far = rng.randrange(1, 100), rng.getrandbits(rng.randrange(1, 62))
        entries = [(old, 1, rng.randbytes(20)) for _ in range(rng.randrange(4))]
        return [
            # of a leader that was, and of a second one in this term
            AppendEntries(old, index, old, far, EntryBatch(index + 1, entries)),
            AppendEntries(term, index, old, far, EntryBatch(index + 1, entries)),
            AppendEntries(term, far, old, far, EntryBatch(index, entries)),
            Heartbeat(old, far, far),
            Heartbeat(term, far, far),
            # answers that nobody waits for
            AppendResponse(term, rng.choice([0, index, far])),
            AppendRejected(term, rng.choice([index, far]), rng.choice([0, far]), rng.choice([0, old, far])),
            HeartbeatResponse(term, far),
            PreVoteResponse(ahead, True),
            VoteResponse(term, True),
            ReadIndexResponse(term, far, far),
            ReadIndexRefused(term, far),
            # wishes that are not granted while there is a leader
            RequestPreVote(ahead, far, ahead),
            RequestVote(ahead, 1 << 40, ahead),
            RequestVote(old, far, far, True),
            ReadIndexRequest(term, far),
            ReadIndexRequest(old, far),
            Announce(rng.choice(["", "?", "tcp://", "\0" * 300, "tcp://127.0.0.1:1"]), "no endpoint", "", 0),
        ]

    def close(self) -> None:
        self._context.destroy(0)
