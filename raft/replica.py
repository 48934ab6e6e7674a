"""A replica: Raft for a program of one's own, in one object. The only file of this package where all meets.

Wires the production actors to a state machine, a storage, a transport and a clock, and runs their loop on a
thread, or turn by turn by hand. May know threads, to hand commands over to the loop and results back.

    with Replica("n1", Counter(), members={"n1": "tcp://127.0.0.1:7101", ...}, storage="data/n1") as replica:
        print(replica.apply(b"add 1", timeout_seconds=5))
        print(replica.read(b"", timeout_seconds=5))
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random

from actors import Clock, Codec, System, SystemClock, Transport, ZeroMqTransport
from raft.actor_messages import ChangeConfiguration, Reason, TransferLeadership
from raft.applier_actor import ApplierActor
from raft.changes import Verb, check_names
from raft.core import Core
from raft.directory import DataDirectory
from raft.election_actor import ElectionActor
from raft.entries import NodeId
from raft.errand import Errand, Question
from raft.errors import NotLeader, OutcomeUnknown, TooLarge
from raft.fence import Fence, FenceMark, MemoryFence, restored_unless_fenced, withdraw_behind
from raft.life import Abandonment, Command, Query, Stage
from raft.membership import Configuration
from raft.proposer_actor import ProposerActor, Request, call_back
from raft.ready import Role, RoleChange
from raft.replica_settings import MOST_COMMAND_BYTES, Hooks, ReplicaSettings
from raft.replication_actor import ReplicationActor
from raft.state_machine import Housekeeper, StateMachine
from raft.storage import Storage
from raft.wire import register_messages

__all__ = ["MOST_COMMAND_BYTES", "Hooks", "Replica", "ReplicaSettings"]

log = logging.getLogger("assent.replica")

# The loop tells what it knows when the deadline passes. Who waits gives it so long to say so.
GRACE_SECONDS = 0.25
# A read that was refused because nobody leads at the moment is asked again after this.
READ_PAUSE_SECONDS = 0.02
_FINAL = (Reason.EXPIRED, Reason.SHUTTING_DOWN, Reason.FENCED)  # asking again would help nobody


class Replica:
    """One member of a cluster that replicates `machine`. Owns all that it is given.

    Used in one of two ways: `with replica:` (or `start()` and `stop()`) runs it on a thread of its own, and
    every method may be called from any thread; or `turn()` runs it by hand, and all calls are the caller's.
    """

    def __init__(
        self,
        node_id: NodeId,
        machine: StateMachine,
        *,
        members: Mapping[NodeId, str],
        joins: bool = False,
        storage: Storage | Path | str,
        transport: Transport | None = None,
        settings: ReplicaSettings | None = None,
        hooks: Hooks | None = None,
        clock: Clock | None = None,
        rng: Random | None = None,
    ) -> None:
        """`members` has the peer endpoint of every replica, this one's too: there it listens.

        They are the members of a new cluster. Of one that exists already, its log knows them: then only the
        own endpoint counts. A replica that `joins` is a member of nothing until a leader adds it.
        `storage` is a directory for the write-ahead log, or a Storage. Raises StorageError if it cannot be
        used, and EndpointUnusable if the endpoint cannot be bound.
        """
        assert node_id in members, f"{node_id} is not among the members {sorted(members)}"
        self.node_id = node_id
        self.settings = settings or ReplicaSettings()
        self.failure: BaseException | None = None  # what ended the loop, if it was not told to end
        self._hooks = hooks or Hooks()
        self._clock = clock or SystemClock()
        self._role = RoleChange(Role.FOLLOWER, 0, None)
        self._configuration = Configuration() if joins else Configuration(members, addresses=members)
        self._lock = threading.Lock()  # guards the four below
        self._open: dict[int, Request] = {}  # under way, by identity
        self._open_bytes = 0  # the sum of their bodies
        self._is_over = False
        self.fenced: FenceMark | None = None  # why its machine is not used any more; None: it is
        self._changed = threading.Condition(self._lock)  # the role, or _is_over
        self._thread: threading.Thread | None = None
        self._directory: DataDirectory | None = None
        if isinstance(storage, Path | str):
            self._directory = DataDirectory(
                Path(storage),
                f"{self.settings.cluster_id:016x}",
                node_id,
                storage_id=f"{Random().getrandbits(63) or 1:016x}",  # kept, if there is one already
            )
            storage = self._directory.open_log()
        self._storage: Storage = storage
        transport = transport or ZeroMqTransport()
        try:
            self._system = self._build(machine, members, transport, rng or Random())
        except BaseException:
            transport.close()
            self._close_storage()
            self._close_directory()
            raise

    def _build(
        self, machine: StateMachine, members: Mapping[NodeId, str], transport: Transport, rng: Random
    ) -> System:
        settings = self.settings
        codec = Codec()
        register_messages(codec)
        system = System(
            self.node_id,
            transport,
            self._clock,
            codec,
            cluster_id=settings.cluster_id,
            incarnation=rng.getrandbits(63),
            storage_id=int(self._directory.founding.storage_id or "0", 16) if self._directory else 0,
            welcomes_strangers=True,  # whose membership may be news here (dissertation 4.1)
        )
        config = replace(settings.raft, incarnation=rng.getrandbits(31))
        recovered = self._storage.load()
        core = Core(self.node_id, self._configuration, recovered, config)
        system.add(
            ProposerActor(
                on_end=self._close_one,
                on_role=self._change_role,
                on_members=self._change_members,
                on_fenced=self._note_fence,
            )
        )
        fence: Fence = self._directory.fence() if self._directory is not None else MemoryFence()
        withdraw_behind(fence, core)
        system.add(ReplicationActor(core, self._storage))
        housekeeper = machine if isinstance(machine, Housekeeper) else None
        applied_index = restored_unless_fenced(fence, machine, self._storage, recovered)
        system.add(
            ApplierActor(
                machine,
                housekeeper=housekeeper,
                applied_index=applied_index,
                fence=fence,
                heartbeat_interval_seconds=settings.heartbeat_interval_seconds,
            )
        )
        system.add(
            ElectionActor(
                election_timeout_seconds=settings.election_timeout_seconds,
                heartbeat_interval_seconds=settings.heartbeat_interval_seconds,
                rng=rng,
                priority=config.priority,
            )
        )
        system.open_peer_port(members[self.node_id])
        for node_id, endpoint in members.items():
            if node_id != self.node_id:
                system.connect_peer(node_id, endpoint)
        return system

    # -- running it ------------------------------------------------------------------------------------

    def start(self) -> Replica:
        """Run on a thread from now on."""
        assert self._thread is None, f"replica {self.node_id} was started twice"
        self._thread = threading.Thread(target=self._run, name=f"replica-{self.node_id}", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """End it. A leader hands over first, as long as its thread runs and somebody is there to take over.

        What is under way then is abandoned as shutting down; what is in the log stays there. Returns when
        everything is closed, unless a callback calls it: then that happens soon after.
        """
        if self._thread is None:
            if not self._is_over:
                self._system.close()
                self._finish(None)
            return
        self._system.stop(self.settings.election_timeout_seconds)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def turn(self, timeout_seconds: float = 0.0) -> None:
        """Instead of start(): one turn of the loop, after a wait of at most `timeout_seconds`."""
        assert self._thread is None, f"replica {self.node_id} runs on a thread"
        try:
            self._system.turn(timeout_seconds)
        except BaseException as error:
            self._system.abort()
            self._finish(error)
            raise

    def crash(self) -> None:
        """By hand only, for tests: gone, as by a loss of power. Its storage may be loaded again."""
        assert self._thread is None, f"replica {self.node_id} runs on a thread"
        self._system.abort()
        self._finish(None)

    def __enter__(self) -> Replica:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- what it knows ---------------------------------------------------------------------------------

    @property
    def role(self) -> Role:
        """What this replica is in its term."""
        return self._role.role

    @property
    def term(self) -> int:
        """The latest term that it knows of."""
        return self._role.term

    @property
    def leader_id(self) -> NodeId | None:
        """Who leads, as far as this replica knows."""
        return self._role.leader_id

    @property
    def is_leader(self) -> bool:
        """Whether it leads, or did a moment ago: only what is applied, or read, is certain."""
        return self._role.role is Role.LEADER

    @property
    def members(self) -> Configuration:
        """Who takes part, by the configuration in force here; it may be taken back until it is committed."""
        return self._configuration

    def wait_for_leader(self, timeout_seconds: float) -> NodeId:
        """Who leads, as soon as this replica knows of anybody. Raises NotLeader(None) when time is up."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or self._role.leader_id, timeout_seconds)
            if self._is_over or self._role.leader_id is None:
                raise NotLeader(None)
            return self._role.leader_id

    # -- commands and queries --------------------------------------------------------------------------

    def propose(
        self,
        body: bytes,
        *,
        timeout_seconds: float = 10.0,
        on_queued: Callable[[Command], None] | None = None,
        on_committed: Callable[[Command], None] | None = None,
        on_applied: Callable[[Command], None] | None = None,
        on_abandoned: Callable[[Command], None] | None = None,
    ) -> Command:
        """Hand a command over to be replicated, and return at once. Only the leader can replicate it.

        One of on_applied and on_abandoned is called, once: on the loop's thread, or within this call if the
        command is refused before it gets there. Raises TooLarge at once.
        """
        callbacks = {
            stage: callback
            for stage, callback in (
                (Stage.QUEUED, on_queued),
                (Stage.COMMITTED, on_committed),
                (Stage.APPLIED, on_applied),
                (Stage.ABANDONED, on_abandoned),
            )
            if callback is not None
        }
        if len(body) > self.settings.max_command_bytes:
            raise TooLarge(len(body), self.settings.max_command_bytes)
        command = Command(body, self._clock.now() + timeout_seconds, callbacks)
        self._submit(command)
        return command

    def apply(self, body: bytes, *, timeout_seconds: float = 10.0) -> bytes:
        """Replicate a command and return what the state machine answered. Not by hand, nor in a callback.

        Raises a NotApplied (NotLeader, Overloaded, Transferring, TooLarge, Expired or ShuttingDown), after
        which the command is surely not applied, or OutcomeUnknown.
        """
        done = self._event()

        def end(command: Command) -> None:
            done.set()

        command = self.propose(body, timeout_seconds=timeout_seconds, on_applied=end, on_abandoned=end)
        if not done.wait(timeout_seconds + GRACE_SECONDS):
            # The loop is busy, and may propose it in this very moment.
            raise OutcomeUnknown(Reason.OUTCOME_UNKNOWN)
        return command.outcome()

    def ask(
        self,
        body: bytes,
        *,
        timeout_seconds: float = 10.0,
        is_local: bool = False,
        on_end: Callable[[Query], None] | None = None,
    ) -> Query:
        """Hand a query over, and return at once. `on_end` is called once, as the callbacks of propose() are.

        The answer is linearizable: no older than anything that was applied, anywhere, before this call. A
        local one is of what this replica has applied, and may be old.
        """
        query = Query(body, self._clock.now() + timeout_seconds, is_local=is_local, on_end=on_end)
        self._submit(query)
        return query

    def read(self, body: bytes, *, timeout_seconds: float = 10.0) -> bytes:
        """The linearizable answer to a query, on any replica; asks again while nobody leads.

        Raises a NotApplied: NotLeader(None), Overloaded, Expired, Fenced or ShuttingDown. Not by hand, nor
        in a callback.
        """
        deadline = self._clock.now() + timeout_seconds
        while True:
            query = self._ask_and_wait(body, deadline, is_local=False)
            refusal = query.abandonment
            is_final = refusal is None or refusal.reason in _FINAL
            if is_final or self._clock.now() + READ_PAUSE_SECONDS >= deadline:
                return query.outcome()
            with self._changed:
                self._changed.wait(READ_PAUSE_SECONDS)

    def read_local(self, body: bytes, *, timeout_seconds: float = 10.0) -> bytes:
        """The answer to a query from what this replica has applied, which may be old."""
        deadline = self._clock.now() + timeout_seconds
        return self._ask_and_wait(body, deadline, is_local=True).outcome()

    def _ask_and_wait(self, body: bytes, deadline: float, *, is_local: bool) -> Query:
        done = self._event()
        timeout = deadline - self._clock.now()
        query = self.ask(body, timeout_seconds=timeout, is_local=is_local, on_end=lambda _: done.set())
        done.wait(timeout + GRACE_SECONDS)
        return query

    # -- members and leadership ------------------------------------------------------------------------

    def change(
        self,
        verb: Verb,
        *nodes: NodeId,
        addresses: Mapping[NodeId, str] | None = None,
        force: bool = False,
        timeout_seconds: float = 60.0,
        on_end: Callable[[Errand], None] | None = None,
    ) -> Errand:
        """Have the leader, this replica, change who takes part; returns at once. The verbs: raft/changes.py.

        It is over when the last of its steps is committed: new voters have caught up by then. `force` lets a
        change through that loses its majority by what the leader hears. `addresses` are peer endpoints.
        Raises ConfigurationRefused at once for what could be no name or address.
        """
        addresses = dict(addresses or {})
        check_names(nodes, addresses)
        question = ChangeConfiguration(0, verb, list(nodes), addresses, force)
        return self._send_on(question, timeout_seconds, on_end)

    def transfer_leadership(
        self,
        target: NodeId | None = None,
        *,
        timeout_seconds: float = 10.0,
        on_end: Callable[[Errand], None] | None = None,
    ) -> Errand:
        """Have this replica, which leads, hand over to another, the fittest by default; returns at once."""
        check_names(() if target is None else (target,))
        return self._send_on(TransferLeadership(0, target), timeout_seconds, on_end)

    def wait_for(self, errand: Errand) -> Configuration | NodeId:
        """The answer to a change or transfer; raises its error. Not by hand, nor in a callback."""
        self._event()
        with self._changed:
            until = errand.deadline + GRACE_SECONDS - self._clock.now()
            self._changed.wait_for(lambda: errand.is_over, until)
        return errand.outcome()

    def _send_on(
        self, question: Question, timeout_seconds: float, on_end: Callable[[Errand], None] | None
    ) -> Errand:
        errand = Errand(question, self._clock.now() + timeout_seconds, on_end)
        self._submit(errand)
        return errand

    def _event(self) -> threading.Event:
        assert self._thread is not None, "nobody would run the loop meanwhile: start() comes first"
        assert threading.current_thread() is not self._thread, (
            "a callback must not wait for the loop that runs it"
        )
        return threading.Event()

    # -- between the threads ---------------------------------------------------------------------------

    def _submit(self, request: Request) -> None:
        refusal = None
        if type(request.body) is not bytes:
            raise TypeError(f"commands and queries are bytes, not {type(request.body).__name__}")
        with self._lock:
            open_bytes = self._open_bytes + len(request.body)
            if self._is_over:
                refusal = Reason.SHUTTING_DOWN
            elif len(self._open) >= self.settings.max_open or open_bytes > self.settings.max_open_bytes:
                refusal = Reason.OVERLOADED
            else:
                self._open[id(request)] = request
                self._open_bytes = open_bytes
                self._system.post(ProposerActor.name, request)  # in here, so that none comes after the end
        if refusal is not None:
            _abandon(request, Abandonment(refusal, False))

    def _close_one(self, request: Request) -> None:
        with self._lock:
            if self._open.pop(id(request), None) is not None:
                self._open_bytes -= len(request.body)
            if isinstance(request, Errand):
                self._changed.notify_all()

    def _change_role(self, change: RoleChange) -> None:
        with self._changed:
            self._role = change
            self._changed.notify_all()
        if self._hooks.on_role is not None:
            call_back(self._hooks.on_role, change)

    def _change_members(self, configuration: Configuration) -> None:
        self._configuration = configuration
        if self._hooks.on_members is not None:
            call_back(self._hooks.on_members, configuration)

    def _note_fence(self, mark: FenceMark) -> None:
        self.fenced = mark

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            self._system.run()
        except BaseException as error:
            failure = error
            log.exception("replica=%s failed", self.node_id)
        self._finish(failure)

    def _finish(self, failure: BaseException | None) -> None:
        """The loop has ended: let go of everything, and tell all who wait."""
        with self._changed:
            if self._is_over:
                return
            self._is_over = True
            self.failure = failure
            self._role = RoleChange(Role.FOLLOWER, self._role.term, None)
            left, self._open = list(self._open.values()), {}
            self._changed.notify_all()
        if failure is not None:
            self._close_storage()  # else replication did
        self._close_directory()
        for request in left:
            _abandon(request, Abandonment(Reason.SHUTTING_DOWN, request.is_proposed))
        with self._changed:
            self._changed.notify_all()
        if self._hooks.on_stop is not None:
            call_back(self._hooks.on_stop, failure)

    def _close_storage(self) -> None:
        with suppress(Exception):  # what failed before this is what is to be told
            self._storage.close()

    def _close_directory(self) -> None:
        if self._directory is not None:
            self._directory.close()


def _abandon(request: Request, abandonment: Abandonment) -> None:
    """End a request that the loop does not have, or no longer."""
    callback: Callable[..., None] | None
    if isinstance(request, Errand):
        request.error = abandonment.error()
        callback = request.on_end
    elif isinstance(request, Query):
        request.abandonment = abandonment
        callback = request.on_end
    else:
        request.abandonment = abandonment
        request.stage = Stage.ABANDONED
        callback = request.callback(Stage.ABANDONED)
    if callback is not None:
        call_back(callback, request)
