"""The client's protocol core: which request goes where, again, and with what outcome.

May know: calls, links, the session, and time as it is passed in; no socket, clock, thread or event loop.
Rules: a call ends exactly once, by an answer or by its deadline; a write keeps its session and sequence over
all attempts, so no retry applies twice; whatever a server sends, the worst is that it is counted and dropped.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from kvstore import errors, protocol
from kvstore.client import calls as making
from kvstore.client.calls import Call, unsure
from kvstore.client.errors import RevisionWentBack
from kvstore.client.ledger import Ledger
from kvstore.client.links import CHECK_SECONDS, GRACE_SECONDS, Link, Links, LinkState, Verdict, Wire
from kvstore.client.results import State, decode_status
from kvstore.client.session import Session

DEFAULT_MAX_OUTSTANDING: Final = 4096
QUEUE_FACTOR: Final = 16  # so many times as many calls may wait as may be in flight
FIRST_PAUSE_SECONDS: Final = 0.01
MAX_PAUSE_SECONDS: Final = 0.05
READ_ELSEWHERE_SECONDS: Final = 0.5  # a leader out of reach for longer: reads go by way of another node


class ClientCore:
    """Owned by one client, and entered by one thread at a time."""

    def __init__(
        self, endpoints: Sequence[str], wire: Wire, *, rng: random.Random, max_outstanding: int
    ) -> None:
        if max_outstanding < 1:
            raise ValueError(f"max_outstanding: {max_outstanding} is not a positive number")
        self.links = Links(endpoints, wire, rng)
        self.counters = self.links.counters
        self.state = State.SUSPENDED
        self.state_changes: deque[State] = deque(maxlen=64)  # taken by the owner, if anybody is interested
        self.revision = 0  # highest of any linearizable answer
        self._wire = wire
        self._rng = rng
        self._session = Session(rng.randbytes(protocol.NONCE_BYTES))
        self._opening: Call | None = None
        # Calls to be sent, by kind. In each, those that were sent before come before those that never were.
        self._queues: dict[int, deque[Call]] = {kind: deque() for kind in protocol.REQUEST_KINDS}
        self._ledger = Ledger(max_outstanding * QUEUE_FACTOR)
        self._in_flight = 0  # calls pending on links
        self._max_in_flight = max_outstanding
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._resume_at = 0.0  # retries and what comes after them wait until then
        self._redirected_at = float("-inf")
        self._check_at: float | None = None
        self._last_leader: Link | None = None
        self._last_term = 0
        self._is_closed = False

    # -- calls come in ---------------------------------------------------------------------------------

    @property
    def outstanding(self) -> int:
        """Callers' calls that are not finished."""
        return self._ledger.outstanding

    def submit(self, call: Call, now: float) -> None:
        """Takes a call, which leaves at the next flush(). It has not taken it if it raises."""
        if self._is_closed:
            raise errors.ClientClosed
        self._ledger.admit(call)
        call.floor = self.revision
        if call.pinned is not None:
            self._submit_pinned(call, call.pinned, now)
            return
        self._queues[call.kind].append(call)
        if self.links.target is None and self.links.poll_at is None:
            self.start(now)

    def _submit_pinned(self, call: Call, link: Link, now: float) -> None:
        if link.state is LinkState.OPENING and link.refused:
            self._finish(call, error=errors.Unreachable((link.endpoint,)))
            return
        link.waiting.append(call)
        if link.state is LinkState.CLOSED:
            self.links.open(link, now)

    def start(self, now: float) -> None:
        """Turns to the first endpoint, and to the others unless it answers soon."""
        first = self.links.links[0]
        if first.state is LinkState.CLOSED:
            self.links.open(first, now)
        self.links.search(now, after_seconds=GRACE_SECONDS)

    def flush(self, now: float) -> None:
        """Sends what can be sent: one frame per kind, more only if they would be too large."""
        for link in self.links.links:
            if link.waiting and link.state is LinkState.READY:
                waiting, link.waiting = link.waiting, []
                for call in waiting:
                    if not call.done:
                        self._send(link, call.kind, [call], now)
        if now < self._resume_at:
            return
        for kind, queue in self._queues.items():
            if queue:
                link_for_kind = self._route(kind, now)
                if link_for_kind is not None:
                    self._flush_queue(link_for_kind, kind, queue, now)
        if self._in_flight and self._check_at is None:
            self._check_at = now + CHECK_SECONDS

    def _route(self, kind: int, now: float) -> Link | None:
        if kind in making.ANYWHERE:
            return self.links.home()
        leader = self.links.leader()
        if leader is None and kind == protocol.READ:
            # Any node may answer, asking the leader for the read index (dissertation 6.4). The leader itself
            # does so with a message less.
            return self.links.home() if self.links.search_seconds(now) > READ_ELSEWHERE_SECONDS else None
        return leader

    def _flush_queue(self, link: Link, kind: int, queue: deque[Call], now: float) -> None:
        session = self._session
        room = self._max_in_flight - self._in_flight
        window = session.room() if kind == protocol.WRITE else 0
        calls: list[Call] = []
        while queue and len(calls) < room:
            call = queue[0]
            if not call.done and call.sequence == 0 and call.encode is not None:
                if not session.is_open:
                    if not self._open_session(now):
                        break
                    session = self._session
                    continue  # with the opening call, which is first now
                if window <= 0:
                    break
                window -= 1
                call.session_id = session.session_id
                call.sequence = session.take_sequence()
            queue.popleft()
            if call.refusal and not call.done and call.is_too_late(now):
                self._expire(call)
            elif not call.done:
                calls.append(call)
        if calls:
            self._send(link, kind, calls, now)

    def _open_session(self, now: float) -> bool:
        """True if an opening call was put in front of the queue."""
        if self._opening is not None:
            return False
        if self._session.expired:
            if self._session.has_unanswered:
                return False  # a new session could apply again what the old one may have applied
            self._session = Session(self._rng.randbytes(protocol.NONCE_BYTES))
        call = making.open_session_call(self._session.nonce)
        call.callback = self._on_session
        self._opening = call
        call.floor = self.revision
        self._queues[protocol.WRITE].appendleft(call)
        return True

    def _on_session(self, call: Call) -> None:
        self._opening = None
        if call.error is None:
            self._session.session_id = call.value.session_id
            if self.state is State.LOST and self.links.leader() is not None:
                self._set_state(State.CONNECTED)
            return
        for waiting in list(self._queues[protocol.WRITE]):
            if waiting.sequence == 0:
                self._finish(waiting, error=call.error)

    def _send(self, link: Link, kind: int, calls: list[Call], now: float) -> None:
        if kind in making.ALONE:
            for call in calls:
                self._send_frame(link, kind, [call], [call.body] if call.body else [], now)
            return
        for batch, bodies in making.split_frames(calls, self._session.acknowledged_below()):
            self._send_frame(link, kind, batch, bodies, now)

    def _send_frame(self, link: Link, kind: int, batch: list[Call], bodies: list[bytes], now: float) -> None:
        first = self.links.take_request_ids(len(batch))
        # Ids rise along a link, so all below the oldest that is pending there was answered.
        frame = making.encode_frame(kind, first, batch, bodies, next(iter(link.pending), first), now)
        if not self._wire.send(link.connection, frame):
            self.counters["send_refused"] += 1
            self._retry(batch)
            self._pause(now)
            return
        pending = link.pending
        for request_id, call in enumerate(batch, first):
            call.link = link
            call.request_id = request_id
            call.sent_at = now
            pending[request_id] = call
        self._in_flight += len(batch)

    # -- answers come in -------------------------------------------------------------------------------

    def on_frame(self, connection: int, payload: bytes, now: float) -> None:
        link = self.links.by_connection.get(connection)
        if link is None:
            return
        if link.connected_at is None:
            link.connected_at = now
        try:
            reply = protocol.decode_reply(payload)
            if type(reply) is protocol.Results:
                link.heard_at = now
                self._on_results(link, reply, now)
            elif type(reply) is protocol.Refusal:
                link.heard_at = now
                self._on_refusal(link, reply, now)
        except protocol.MalformedFrame:
            self.counters["malformed_frames"] += 1

    def _on_results(self, link: Link, reply: protocol.Results, now: float) -> None:
        first, count, blob = reply
        results = protocol.split_results(blob, count)
        pending = link.pending
        for request_id, result in enumerate(results, first):
            call = pending.get(request_id)
            if call is not None:
                self._on_result(call, result)
            elif request_id == link.probe_id:
                self._on_probe(link, result, now)
            else:
                self.counters["late_replies"] += 1
        self._pause_seconds = FIRST_PAUSE_SECONDS

    def _on_result(self, call: Call, result: list[Any]) -> None:
        if result[0] != protocol.OK:
            self._on_failure(call, errors.error_of_result(result))
            return
        try:
            value = call.decode(result)
        except protocol.MalformedFrame:
            self.counters["malformed_results"] += 1
            return  # as if it had not come: the call ends by another answer or by its deadline
        if call.kind == protocol.WRITE or call.kind == protocol.READ:
            revision = result[1]
            if revision < call.floor:
                self._on_failure(call, RevisionWentBack(call.floor, revision))
                return
            if revision > self.revision:
                self.revision = revision
        elif call.kind == protocol.ADMIN:
            self.links.learn({member.name: member.client_endpoint for member in value.members})
        self._unlink(call)
        self._finish(call, value)

    def _on_failure(self, call: Call, error: errors.AssentError) -> None:
        self._unlink(call)
        if type(error) is errors.SpaceExceeded:
            error = unsure(error, call)  # said before it was proposed, so of this attempt alone
        if type(error) is errors.SessionExpired and call.session_id == self._session.session_id != 0:
            self._session.expired = True
            self._set_state(State.LOST)
        self._finish(call, error=error)

    def _on_refusal(self, link: Link, refusal: protocol.Refusal, now: float) -> None:
        first, count, code = refusal[:3]
        end = first + count
        self.counters["refusals"] += 1
        if first <= link.probe_id < end:
            link.probe_id = 0
        if count <= len(link.pending):
            refused = [link.pending[i] for i in range(first, end) if i in link.pending]
        else:
            refused = [call for i, call in link.pending.items() if first <= i < end]
        if code in making.OUT_OF_SERVICE:
            self.links.set_aside(link)
        if not refused:
            return
        is_final = code == protocol.BAD_FRAME or code not in protocol.CODE_NAMES
        retried = []
        for call in refused:
            self._unlink(call)
            call.refusal = code
            if code in making.OPEN_OUTCOMES and call.kind in making.CHANGES:
                call.may_be_applied = True
            if call.pinned is not None or is_final:
                self._finish(call, error=unsure(errors.error_of_refusal(refusal), call))
            else:
                retried.append(call)
        if not retried:
            return
        self._retry(retried)
        if retried[0].kind not in making.ANYWHERE or code in making.OUT_OF_SERVICE:
            self._turn_elsewhere(link, refusal, now)
        else:
            self._pause(now)

    def _turn_elsewhere(self, link: Link, refusal: protocol.Refusal, now: float) -> None:
        if refusal.code == protocol.NOT_LEADER:
            is_redirect = self.links.on_hint(link, refusal.leader_name, refusal.leader_endpoint, now)
            # Two nodes that send us to one another are asked at a walking pace.
            if not is_redirect or now - self._redirected_at < FIRST_PAUSE_SECONDS:
                self._pause(now)
            self._redirected_at = now
        else:
            if link is self.links.target and refusal.code != protocol.OVERLOADED:
                self.links.target = None  # its next STATUS puts it back if it leads nevertheless
            self._pause(now)
        self._reconsider(now)

    def _on_probe(self, link: Link, result: list[Any], now: float) -> None:
        link.probe_id = 0
        if result[0] != protocol.OK:
            return
        if not self.links.on_status(link, decode_status(result), now):
            self._drop(link, now)
            if not any(other.state is not LinkState.CLOSED for other in self.links.links):
                self._fail_unsent(self.links.mismatch)
        self._reconsider(now)

    def _fail_unsent(self, error: Exception | None) -> None:
        for queue in self._queues.values():
            for call in list(queue):
                if not call.may_be_applied and not call.is_internal:
                    self._finish(call, error=error)

    # -- links come and go -----------------------------------------------------------------------------

    def on_connected(self, connection: int, now: float) -> None:
        link = self.links.by_connection.get(connection)
        if link is not None:
            link.connected_at = link.heard_at = now
            self._check_at = self._check_at or now + CHECK_SECONDS

    def on_refused(self, connection: int, now: float) -> None:
        """An attempt to connect failed; the wire goes on trying."""
        link = self.links.by_connection.get(connection)
        if link is None:
            return
        if not link.refused:
            link.refused = True
            self.links.hasten(now)
        waiting, link.waiting = link.waiting, []
        for call in waiting:
            self._finish(call, error=errors.Unreachable((link.endpoint,)))
        if self.links.poll_at is None and not link.waiting:
            self.links.close(link)  # nobody searches: it was tried, and that is enough

    def on_lost(self, connection: int, now: float) -> None:
        """The connection ended; the core closes it and decides whether to open another."""
        link = self.links.by_connection.get(connection)
        if link is None:
            return
        self.counters["connections_lost"] += 1
        is_brief = link.connected_at is None or now - link.connected_at < MAX_PAUSE_SECONDS
        self._drop(link, now)
        if not is_brief:
            self.links.hasten(now)  # a node that hangs up at once is left alone for a moment instead
        self._reconsider(now)

    def _drop(self, link: Link, now: float) -> None:
        self._reclaim(link)
        waiting, link.waiting = link.waiting, []
        for call in waiting:
            self._finish(call, error=errors.Unreachable((link.endpoint,), self.links.trouble))
        self.links.close(link)

    def _reclaim(self, link: Link) -> None:
        """Takes back what is pending on a link, to be sent elsewhere under the same session and sequence."""
        link.reclaim_at = None
        calls = list(link.pending.values())
        for call in calls:
            self._unlink(call)
            call.may_be_applied = call.may_be_applied or call.kind in making.CHANGES
            if call.pinned is not None:
                self._finish(call, error=self.links.why_lost(call, link))
        self._retry([call for call in calls if not call.done])
        self.counters["reclaimed"] += len(calls)

    def _reconsider(self, now: float) -> None:
        """After anything that may have changed who leads: the search begins or ends, calls move on."""
        leader = self.links.leader()
        if leader is None:
            self.links.search(now)
            if self.state is State.CONNECTED:
                self._set_state(State.SUSPENDED)
            return
        if self.links.poll_at is not None:
            self.links.settle()
        last, self._last_leader = self._last_leader, leader
        if self._last_term != self.links.leader_term:
            self._last_term = self.links.leader_term
            self._resume_at = 0.0  # what was refused in the former term need not wait any longer
        if last is not None and last is not leader and last.pending:
            last.reclaim_at = self.links.reclaim_time(last, now)
            self._judge(last, now)
        if self.state is State.SUSPENDED:
            self._set_state(State.CONNECTED)

    def _set_state(self, state: State) -> None:
        if state is not self.state:
            self.state = state
            self.state_changes.append(state)

    # -- time ------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When on_time() is to be called at the latest, were nothing else to happen."""
        earliest = self._ledger.next_deadline()
        for at in (self.links.poll_at, self._check_at):
            if at is not None and (earliest is None or at < earliest):
                earliest = at
        if self._resume_at and any(self._queues.values()):
            return self._resume_at if earliest is None else min(earliest, self._resume_at)
        return earliest

    def on_time(self, now: float) -> None:
        """Does what is due, and sends what may be sent."""
        for call in self._ledger.due(now):
            self._expire(call)
        if self._resume_at and now >= self._resume_at:
            self._resume_at = 0.0
        if self._check_at is not None and now >= self._check_at:
            self._check(now)
        if self.links.poll_at is not None and now >= self.links.poll_at and not self._is_closed:
            self.links.poll(now, is_awaited=self._ledger.outstanding > 0)
        self.flush(now)

    def _check(self, now: float) -> None:
        """Looks for links that are connected and yet of no use: half open, stopped, of a deposed leader."""
        needs_check = False
        for link in list(self.links.links):
            if link.pending or (link.state is LinkState.OPENING and link.connected_at is not None):
                self._judge(link, now)
                needs_check = True
        self.links.refresh(now)
        self._check_at = now + CHECK_SECONDS if needs_check or self._in_flight else None
        self._reconsider(now)

    def _judge(self, link: Link, now: float) -> None:
        verdict = self.links.judge(link, now)
        if verdict is Verdict.RECLAIM:
            self._reclaim(link)
        if verdict is Verdict.DROP:
            self.counters["silent_links"] += 1
            self._drop(link, now)

    def _expire(self, call: Call) -> None:
        was_in_flight = call.link is not None
        if was_in_flight:
            self._unlink(call)
            call.may_be_applied = call.may_be_applied or call.kind in making.CHANGES
        self.counters["deadlines_passed"] += 1
        self._finish(call, error=self.links.why_expired(call, was_in_flight=was_in_flight))

    # -- calls end -------------------------------------------------------------------------------------

    def _unlink(self, call: Call) -> None:
        assert call.link is not None
        del call.link.pending[call.request_id]
        call.link = None
        self._in_flight -= 1

    def _retry(self, calls: list[Call]) -> None:
        """Back to the front of their queue, in the order that they had."""
        self.counters["retries"] += len(calls)
        for call in reversed(calls):
            self._queues[call.kind].appendleft(call)

    def _pause(self, now: float) -> None:
        self._resume_at = now + self._pause_seconds * self._rng.uniform(0.75, 1.25)
        self._pause_seconds = min(self._pause_seconds * 1.5, MAX_PAUSE_SECONDS)

    def _finish(self, call: Call, value: Any = None, *, error: Exception | None = None) -> None:
        if call.sequence:
            self._session.answered(call.sequence)
        if not call.done:
            self._ledger.finish(call, value, error)

    def begin_close(self, now: float) -> Call | None:
        """A call that closes the session, if there is one to close and somebody to tell."""
        if self._is_closed or not self._session.is_open or self.links.leader() is None:
            return None
        return making.close_session_call()

    def close(self) -> None:
        """Ends every call and every connection; the core is of no use afterwards."""
        self._is_closed = True
        for link in self.links.links:
            self._reclaim(link)
            for call in link.waiting:
                self._finish(call, error=errors.ClientClosed())
            link.waiting = []
            self.links.close(link)
        self.links.poll_at = self._check_at = None
        for queue in self._queues.values():
            for call in queue:
                unknown = errors.OutcomeUnknown("the client was closed before the outcome was known")
                self._finish(call, error=unknown if call.may_be_applied else errors.ClientClosed())
            queue.clear()
