"""What a client is asked for with one call: keys, leases and nodes. Both faces are made of these classes.

May know: calls and results; nothing of threads, loops or sockets. Each request stands here once: what it
takes, which call it becomes and what it means. A face says what it gives for a result, the result itself or a
future of it, and how it waits, which is `_ask`.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar, Unpack

from kvstore.client import calls, upkeep
from kvstore.client.calls import AnyLease, Call, Chosen, Consistency
from kvstore.protocol import NONCE_BYTES
from kvstore.protocol_admin import Initialise

# What a face gives: for a PutResult, a KeyValue or None, and so on.
Put = TypeVar("Put")
Found = TypeVar("Found")
Ranged = TypeVar("Ranged")
Deleted = TypeVar("Deleted")
Compacted = TypeVar("Compacted")
Granted = TypeVar("Granted")
Revoked = TypeVar("Revoked")
Renewed = TypeVar("Renewed")
Info = TypeVar("Info")
Listed = TypeVar("Listed")
Status = TypeVar("Status")
Began = TypeVar("Began")


class Asking(ABC):
    """A part of a client, which says how a call is carried out."""

    @abstractmethod
    def _ask(self, call: Call, timeout_seconds: float | None) -> Any:
        """What this face gives for the call's result."""


class KeyRequests(Asking, Generic[Put, Found, Ranged, Deleted, Compacted]):
    """A part of a client: one key, or one answer of many."""

    def put(
        self,
        key: str | bytes,
        value: str | bytes,
        *,
        previous: bool = False,
        lease: int | AnyLease = 0,
        ignore_value: bool = False,
        ignore_lease: bool = False,
        timeout_seconds: float | None = None,
    ) -> Put:
        """Stores a value; with `previous`, answers with what was there before.

        With a `lease` the key is deleted when that ends; without, it has none, whatever it had.
        With `ignore_value` the key keeps its value, and an empty one is given; with `ignore_lease` its
        lease.
        """
        call = calls.put_call(
            key, value, previous, lease=lease, ignore_value=ignore_value, ignore_lease=ignore_lease
        )
        answer: Put = self._ask(call, timeout_seconds)
        return answer

    def get(
        self,
        key: str | bytes,
        *,
        revision: int = 0,
        consistency: Consistency = "linearizable",
        timeout_seconds: float | None = None,
    ) -> Found:
        """The key, or None. "local" is what the first endpoint that answers has now, which may be old.

        With a `revision` the answer is exactly as of that one, now and later, until it is compacted.
        """
        answer: Found = self._ask(calls.get_call(key, consistency, revision), timeout_seconds)
        return answer

    def range(
        self,
        key: str | bytes,
        end: str | bytes,
        *,
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        count_only: bool = False,
        consistency: Consistency = "linearizable",
        timeout_seconds: float | None = None,
        **chosen: Unpack[Chosen],
    ) -> Ranged:
        """All keys from `key` on and below `end`, in order; `end` of one zero byte is no end.

        With a `revision`: as of that one. `sort_by` ("key", "version", "create", "mod" or "value") and
        `descending` give another order, of which `limit` takes the first; min_mod_revision, max_mod_revision,
        min_create_revision and max_create_revision choose. `count` is of the whole range all the same.
        """
        call = calls.range_call(
            calls.key_range(key, end),
            consistency,
            limit=limit,
            revision=revision,
            keys_only=keys_only,
            count_only=count_only,
            **chosen,
        )
        answer: Ranged = self._ask(call, timeout_seconds)
        return answer

    def prefix(
        self,
        prefix: str | bytes,
        *,
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        count_only: bool = False,
        consistency: Consistency = "linearizable",
        timeout_seconds: float | None = None,
        **chosen: Unpack[Chosen],
    ) -> Ranged:
        """All keys that begin with `prefix`, in order; all keys if it is empty. The rest as in range()."""
        return self.range(
            *calls.key_prefix(prefix),
            limit=limit,
            revision=revision,
            keys_only=keys_only,
            count_only=count_only,
            consistency=consistency,
            timeout_seconds=timeout_seconds,
            **chosen,
        )

    def delete(
        self, key: str | bytes, *, previous: bool = False, timeout_seconds: float | None = None
    ) -> Deleted:
        """Deletes a key; one that is not there is no error. With `previous`, answers with what it was."""
        answer: Deleted = self._ask(calls.delete_call(*calls.one_key(key), previous), timeout_seconds)
        return answer

    def delete_prefix(
        self, prefix: str | bytes, *, previous: bool = False, timeout_seconds: float | None = None
    ) -> Deleted:
        """Deletes all keys that begin with `prefix`, in one revision; of more than 20 000: TooLarge, and
        delete_all() takes them in pieces."""
        answer: Deleted = self._ask(calls.delete_call(*calls.key_prefix(prefix), previous), timeout_seconds)
        return answer

    def compact(self, revision: int, *, timeout_seconds: float | None = None) -> Compacted:
        """Gives up what older revisions than this one had: reads and watches of these fail from now on."""
        answer: Compacted = self._ask(calls.compact_call(revision), timeout_seconds)
        return answer


class LeaseRequests(Asking, Generic[Granted, Revoked, Renewed, Info, Listed]):
    """A part of a client: leases by their ids. lease(), renewed by itself, is each face's own."""

    def grant_lease(
        self, ttl_seconds: float, *, id: int = 0, timeout_seconds: float | None = None
    ) -> Granted:
        """A new lease that nobody renews but who calls keep_alive()."""
        answer: Granted = self._ask(upkeep.grant_call(ttl_seconds, id), timeout_seconds)
        return answer

    def revoke_lease(self, lease: int | AnyLease, *, timeout_seconds: float | None = None) -> Revoked:
        """Ends a lease, whoever holds it, and deletes all its keys."""
        answer: Revoked = self._ask(upkeep.revoke_call(lease), timeout_seconds)
        return answer

    def keep_alive(self, *leases: int | AnyLease, timeout_seconds: float | None = None) -> Renewed:
        """Renews leases, once; an unknown one is answered with 0 and is no error."""
        call = upkeep.keep_alive_call([calls.lease_id(lease) for lease in leases])
        answer: Renewed = self._ask(call, timeout_seconds)
        return answer

    def lease_info(
        self,
        lease: int | AnyLease,
        *,
        keys: bool = False,
        consistency: Consistency = "linearizable",
        timeout_seconds: float | None = None,
    ) -> Info:
        """How long a lease has left, and how many keys it has, or which."""
        answer: Info = self._ask(upkeep.lease_info_call(lease, consistency, keys=keys), timeout_seconds)
        return answer

    def leases(
        self, *, consistency: Consistency = "linearizable", timeout_seconds: float | None = None
    ) -> Listed:
        """The ids of all leases of the cluster."""
        answer: Listed = self._ask(upkeep.leases_call(consistency), timeout_seconds)
        return answer


class NodeRequests(Asking, Generic[Status, Began]):
    """A part of a client: single nodes."""

    @abstractmethod
    def _ask_node(self, endpoint: str, call: Call, timeout_seconds: float | None) -> Any:
        """The same of the node at this endpoint and no other."""

    def status(self, endpoint: str | None = None, *, timeout_seconds: float | None = None) -> Status:
        """The node at `endpoint` about itself, or whichever of the cluster answers first."""
        answer: Status
        if endpoint is None:
            answer = self._ask(calls.status_call(), timeout_seconds)
        else:
            answer = self._ask_node(endpoint, calls.status_call(), timeout_seconds)
        return answer

    def initialise(
        self, endpoint: str, nonce: bytes | None = None, *, timeout_seconds: float | None = None
    ) -> Began:
        """The node at `endpoint`, which waits, becomes the first and only member of a new cluster.

        Once for each node: whoever asks again, other than with the same nonce, is refused.
        """
        call = calls.admin_call(Initialise(nonce or os.urandom(NONCE_BYTES)))
        answer: Began = self._ask_node(endpoint, call, timeout_seconds)
        return answer
