"""Clients: they write and read, retry without mercy, and check what they are told against what they know.

A client has one operation, or one batch of them, under way at a time, and repeats it under the same session
and sequence at this node and that one until somebody answers, as the client library does, only less politely.
Speaks the protocol in frames; knows nothing of the library.
"""

from __future__ import annotations

from random import Random
from typing import Any

from actors import MemoryClient
from kvstore import protocol
from kvstore.paths import below
from kvstore.protocol import Refusal, Results
from tests.simulator.cluster import Cluster, client_endpoint
from tests.simulator.history import History, Seen
from tests.simulator.model import Record
from tests.simulator.oracles import Oracles
from tests.simulator.tracing import Violation
from tests.simulator.transacting import note_reading, note_swap, reading_body, swap_body

ATTEMPT_TIMEOUTS = (0.4, 3.0)  # how long an attempt is waited for, in election timeouts, drawn each time
BACKOFF_SECONDS = 0.03
MOST_REMEMBERED = 200  # requests of a client whose answers, however late, are still looked at
UNDONE = frozenset(
    {
        protocol.NOT_LEADER,
        protocol.NO_LEADER,
        protocol.OVERLOADED,
        protocol.SHUTTING_DOWN,
        protocol.OUTCOME_UNKNOWN,
        protocol.DEADLINE_EXCEEDED,
        protocol.CONFLICT_WITH_LEADER,
        protocol.EXPIRED,
        protocol.TRANSFERRING,
        protocol.NOT_MEMBER,
        protocol.FENCED,
    }
)


class Command:
    """One request of a client: its body, what the history has of it, and the answer that it had."""

    __slots__ = ("body", "floor", "kind", "oldest", "result", "seen")

    def __init__(self, kind: int, body: bytes, seen: Seen | None, workload: Workload) -> None:
        self.kind = kind
        self.body = body
        self.seen = seen  # None: opening the session
        # No answer may name an older revision than was known when it was first sent,
        self.floor = workload.newest_revision
        self.oldest = workload.oldest_revision  # or be of a revision that was known to be compacted.
        self.result: list[Any] | None = None


class Workload:
    """Owns the clients of one run."""

    def __init__(self, cluster: Cluster, oracles: Oracles, rng: Random) -> None:
        self.cluster = cluster
        self.oracles = oracles
        self.history = History()
        self.newest_revision = 0  # that any client was told
        self.oldest_revision = 0  # what is older is compacted, some client was told
        self.acknowledged = 0  # writes
        self.answered_reads = 0
        self.is_closing = False  # no operation is begun any more
        self.clients = [
            SimulatedClient(self, f"c{number}", Random(rng.getrandbits(64)))
            for number in range(1, cluster.swarm.clients + 1)
        ]

    def start(self) -> None:
        for client in self.clients:
            client.begin()

    def is_idle(self) -> bool:
        return all(not client.pending for client in self.clients)


class SimulatedClient:
    """Owned by the workload."""

    def __init__(self, workload: Workload, name: str, rng: Random) -> None:
        self.name = name
        self._workload = workload
        self._cluster = workload.cluster
        self._swarm = workload.cluster.swarm
        self._rng = rng
        self._links: dict[str, MemoryClient] = {}
        self._nonce = rng.randbytes(protocol.NONCE_BYTES)
        self._session = 0
        self._sequence = 0
        self._request_id = 1
        self._writes = 0
        self._known: dict[bytes, Record] = {}  # by key, as this client saw it last
        self._target = ""  # the node that is believed to lead
        self._sent: dict[tuple[str, int], Command] = {}  # by link and request id; answers may come late
        self.pending: list[Command] = []
        self._attempt = 0

    # -- what to do next -------------------------------------------------------------------------------

    def begin(self) -> None:
        """The next operation, or the end."""
        if self._workload.is_closing:
            return
        if len(self._sent) > 2 * MOST_REMEMBERED:
            self._sent = dict(list(self._sent.items())[-MOST_REMEMBERED:])
        if not self._session:
            body = protocol.open_session_body(self._nonce)
            self.pending = [Command(protocol.WRITE, body, None, self._workload)]
        else:
            self.pending = self._invent()
        self._try(self._attempt)

    def _invent(self) -> list[Command]:
        rng, swarm = self._rng, self._swarm
        draw = rng.random()
        keys = swarm.key_names
        if draw < 0.45:
            most = min(len(keys), 3) if swarm.batches else 1
            return [self._put(key) for key in rng.sample(keys, rng.randint(1, most))]
        if draw < 0.52:
            return [self._delete(rng.choice(keys))]
        if draw < 0.58:
            return [self._look_back(rng.choice(keys))]
        if draw < 0.7 and swarm.transactions:
            return [self._transact(*rng.sample(keys, min(len(keys), 2)))]
        if draw < 0.73 and swarm.transactions:
            key = rng.choice(keys)
            body = reading_body(swarm.all_keys, key)
            return [self._command(protocol.READ, body, "read txn", *swarm.all_keys, compared=key)]
        if 0.73 <= draw < 0.76 and swarm.range_deletes:
            return [self._clear(*sorted(rng.sample([*keys, swarm.all_keys[1]], 2)))]
        if 0.76 <= draw < 0.775 and swarm.compacting:
            return [self._compact()]
        if draw < 0.92:
            key = rng.choice(keys)
            return [self._command(protocol.READ, protocol.range_body(key), "get", key)]
        if draw > 0.96 and swarm.trees:
            path = rng.choice([b"", b"/k", b"/k/0", b"/k1"])
            return [self._command(protocol.READ, protocol.children_body(path), "children", *below(path))]
        body = protocol.range_body(*swarm.all_keys)
        return [self._command(protocol.READ, body, "list", *swarm.all_keys)]

    def _look_back(self, key: bytes) -> Command:
        """Read the key as it was a while ago: exactly that, or that it is compacted."""
        newest = self._workload.newest_revision
        past = max(1, newest - self._rng.choice([0, 1, 3, 10, 40]))
        return self._command(protocol.READ, protocol.range_body(key, revision=past), "past", key, past=past)

    def _put(self, key: bytes) -> Command:
        self._writes += 1
        self._sequence += 1
        value = f"{self.name}-{self._writes}".encode() + bytes(self._rng.choice([0, 0, 30, 300]))
        body = protocol.put_body(
            self._session, self._sequence, self._floor(), key, value, flags=self._rng.randint(0, 1)
        )
        return self._command(protocol.WRITE, body, "put", key, value=value)

    def _delete(self, key: bytes) -> Command:
        self._sequence += 1
        body = protocol.delete_body(self._session, self._sequence, self._floor(), key)
        return self._command(protocol.WRITE, body, "delete", key)

    def _clear(self, key: bytes, range_end: bytes) -> Command:
        """All keys of a range go in one revision, and are told."""
        self._sequence += 1
        body = protocol.delete_body(
            self._session, self._sequence, self._floor(), key, range_end, flags=protocol.PREV_KV
        )
        return self._command(protocol.WRITE, body, "clear", key, range_end)

    def _compact(self) -> Command:
        """Not in the history: what it does is what it forbids from then on."""
        self._sequence += 1
        revision = max(1, self._workload.newest_revision - self._rng.choice([0, 3, 20]))
        body = protocol.compact_body(self._session, self._sequence, self._floor(), revision)
        seen = Seen(self.name, "compact", b"", self._cluster.schedule.now, past=revision)
        return Command(protocol.WRITE, body, seen, self._workload)

    def _transact(self, key: bytes, toggled: bytes = b"") -> Command:
        """Compare and swap, with what this client knows, which others may have changed since."""
        self._writes += 1
        self._sequence += 1
        known, value = self._known.get(key), f"{self.name}-{self._writes}".encode()
        header = (self._session, self._sequence, self._floor())
        body = swap_body(header, self._swarm.all_keys, known, self._rng.random() < 0.5, key, toggled, value)
        expected = None if known is None else known[1]
        return self._command(
            protocol.WRITE,
            body,
            "txn",
            *self._swarm.all_keys,
            value=value,
            compared=key,
            toggled=toggled,
            expected=expected,
        )

    def _floor(self) -> int:
        """All below the first sequence of this very batch are settled, one way or the other."""
        return max(1, self._sequence - 3)

    def _command(
        self, kind: int, body: bytes, name: str, key: bytes, range_end: bytes = b"", **more: Any
    ) -> Command:
        now = self._cluster.schedule.now
        seen = self._workload.history.add(Seen(self.name, name, key, now, range_end=range_end, **more))
        return Command(kind, body, seen, self._workload)

    # -- attempts --------------------------------------------------------------------------------------

    def _try(self, attempt: int) -> None:
        """Send all that is open, once more; unless it was answered, or tried again, since this was
        arranged."""
        if attempt != self._attempt or not self.pending:
            return
        self._attempt += 1
        kind = self.pending[0].kind
        self._send(self._choose(kind), kind)
        if self._rng.random() < self._swarm.hedge:
            self._cluster.trace.counts["hedged"] += 1
            self._send(self._rng.choice(sorted(self._cluster.nodes)), kind)
        patience = self._rng.uniform(*ATTEMPT_TIMEOUTS) * self._swarm.election_seconds
        number = self._attempt
        self._cluster.schedule.after(patience, lambda: self._give_up(number))

    def _choose(self, kind: int) -> str:
        if kind == protocol.READ and self._rng.random() < 0.4:
            return self._rng.choice(sorted(self._cluster.nodes))  # followers answer reads, too
        if not self._target:
            self._target = self._rng.choice(sorted(self._cluster.nodes))
        return self._target

    def _send(self, node: str, kind: int) -> None:
        link = self._links.get(node)
        if link is None:
            link = self._cluster.network.memory.connect_client(client_endpoint(node))
            self._links[node] = link
            self._cluster.listeners[link.name] = lambda: self._receive(node)
        first = self._request_id
        for offset, command in enumerate(self.pending):
            self._sent[node, first + offset] = command
        self._request_id += len(self.pending)
        link.send(protocol.encode_request(kind, first, 800, [command.body for command in self.pending]))

    def _give_up(self, attempt: int) -> None:
        """No answer came in time: somewhere else, or not at all."""
        if attempt != self._attempt or not self.pending:
            return
        self._cluster.trace.counts["attempt timed out"] += 1
        self._target = ""
        if self._session and self._rng.random() < self._swarm.impatient and not self._workload.is_closing:
            self._cluster.trace.counts["operation given up"] += 1
            self._next()
        else:
            self._try(self._attempt)

    def _next(self) -> None:
        self.pending = []
        self._attempt += 1
        self._cluster.schedule.after(self._rng.expovariate(1.0 / self._swarm.think_seconds), self.begin)

    # -- answers ---------------------------------------------------------------------------------------

    def _receive(self, node: str) -> None:
        for payload in self._links[node].receive():
            reply = protocol.decode_reply(payload)
            if isinstance(reply, Results):
                results = protocol.split_results(reply.blob, reply.request_count)
                for offset, result in enumerate(results):
                    self._answered(self._sent.get((node, reply.first_request_id + offset)), result)
            else:
                self._refused(node, reply)

    def _answered(self, command: Command | None, result: list[Any]) -> None:
        if command is None:
            return
        if command.result is not None or command not in self.pending:
            self._check_late(command, result)
            return
        if result[0] == protocol.SPACE_EXCEEDED:
            # As a refusal: an earlier attempt may be applied, so it is tried again with the same sequence.
            self._cluster.trace.counts["quota exceeded" if "quota" in result[1] else "space exceeded"] += 1
            return
        if result[0] == protocol.SESSION_EXPIRED and self._swarm.max_sessions:
            self._lose_session()
            command.result = result  # what is not known is whether an earlier attempt was carried out
            self.pending.remove(command)
            if not self.pending:
                self._next()
            return
        if result[0] != protocol.OK:
            self._note_failure(command, result)
            return
        command.result = result
        self.pending.remove(command)
        self._workload.newest_revision = max(self._workload.newest_revision, result[1])
        if command.seen is None:
            self._session = result[2]
        else:
            self._note(command, command.seen, result)
        if not self.pending:
            self._next()

    def _lose_session(self) -> None:
        """Others were opened since it was used last; it is to be another one."""
        self._cluster.trace.counts["session expired"] += 1
        self._session, self._nonce = 0, self._rng.randbytes(protocol.NONCE_BYTES)

    def _note_failure(self, command: Command, result: list[Any]) -> None:
        """One thing alone may be: that the past is compacted, from a later revision on than was asked for.
        Who wanted to compact it may also be the second to want the very same."""
        seen = command.seen
        wanted = 0 if seen is None else seen.past + (seen.kind == "past")
        if result[0] != protocol.COMPACTED or not 0 < wanted <= result[2]:
            raise Violation(f"{self.name} was answered {result} to {seen}")
        self._cluster.trace.counts["compacted"] += 1
        self._workload.oldest_revision = max(self._workload.oldest_revision, result[2])
        command.result = result
        self.pending.remove(command)
        self._next()

    def _check_late(self, command: Command, result: list[Any]) -> None:
        """A write has one result, however often it was sent; its result may be forgotten by now."""
        self._cluster.trace.counts["late answer"] += 1
        forgetful = (protocol.SEQUENCE_FORGOTTEN, protocol.SPACE_EXCEEDED, protocol.SESSION_EXPIRED)
        if command.kind != protocol.WRITE or result[0] in forgetful:
            return
        if command.result is None or command.result == result or self._ended_between(command, result):
            return
        raise Violation(f"{self.name} was answered {command.result}, then {result}, to {command.seen}")

    def _ended_between(self, command: Command, result: list[Any]) -> bool:
        """Was the session given up for others after one attempt, and before another? Which is heard of
        first, is chance. (Each result is held to the model of the store, which says if it may be.)"""
        first = command.result
        if first is None or not self._swarm.max_sessions:
            return False
        if command.seen is None:  # the request to open it was applied anew, and opened another one
            return bool(result[0] == protocol.OK and result[2] != first[2])
        return bool(first[0] == protocol.SESSION_EXPIRED)

    def _note(self, command: Command, seen: Seen, result: list[Any]) -> None:
        seen.returned = self._cluster.schedule.now
        seen.revision = result[1]
        if result[1] < command.floor:
            raise Violation(f"{seen}: revision {command.floor} had been told to somebody before it began")
        if command.kind == protocol.READ:
            self._workload.answered_reads += 1
        else:
            self._workload.acknowledged += 1
        self._take(seen, result)
        if seen.kind == "past" and seen.past < command.oldest:
            raise Violation(f"{seen}: {command.oldest} was known to be the oldest revision before it began")
        trace = self._cluster.trace
        if trace.keep:
            trace.line(self.name, f"{seen.kind} done", f"{seen.key.decode()} revision={seen.revision}")

    def _take(self, seen: Seen, result: list[Any]) -> None:
        """What the answer says, and what this client knows by it."""
        counts, known = self._cluster.trace.counts, self._known
        counts[f"done {seen.kind}"] += 1
        if seen.kind == "put":
            known[seen.key] = [seen.key, seen.value, 0, seen.revision, 0, 0]
        elif seen.kind in ("delete", "clear"):
            seen.deleted, seen.records = result[2:]
        elif seen.kind == "compact":
            self._workload.oldest_revision = max(self._workload.oldest_revision, seen.past)
        elif seen.kind in ("get", "past"):
            seen.records = result[4]
        elif seen.kind == "children":
            seen.records = result[3]
        else:
            if seen.kind == "list":
                seen.records = result[4]
            elif seen.kind == "read txn":
                note_reading(seen, result)
            else:
                note_swap(seen, result)
                counts["swapped" if seen.succeeded else "swap refused"] += 1
            self._known = {record[0]: record for record in seen.records}

    def _refused(self, node: str, refusal: Refusal) -> None:
        command = self._sent.get((node, refusal.first_request_id))
        if refusal.code not in UNDONE:
            raise Violation(f"{self.name} was refused with {refusal}")
        self._cluster.trace.counts[f"refused {protocol.CODE_NAMES[refusal.code]}"] += 1
        if command is None or command not in self.pending:
            return
        self._target = refusal.leader_name or ""
        attempt = self._attempt
        backoff = self._rng.uniform(0.3, 1.0) * BACKOFF_SECONDS
        self._cluster.schedule.after(backoff, lambda: self._try(attempt))
