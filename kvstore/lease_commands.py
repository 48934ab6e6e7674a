"""What the commands and reads of leases do to store and leases, and what each is answered.

May know: the store, the leases, the protocol; nothing of time but what a command brings. Arguments were
checked by `operations`. A key is in one place only: the store knows which keys name which lease.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgpack

from kvstore import protocol
from kvstore.leases import LEAST_TTL_SECONDS, Leases
from kvstore.operations import error_result
from kvstore.protocol import (
    LEASE_EXPIRE,
    LEASE_GRANT,
    LEASE_KEEPALIVE,
    LEASE_KEYS,
    LEASE_LIST,
    LEASE_REVOKE,
    LEASE_TICK,
    LEASE_TIME_TO_LIVE,
    MAX_DELETE_KEYS,
    MAX_RANGE_REPLY_BYTES,
    OK,
)
from kvstore.store import Store

# They go in one revision, and nothing could interrupt that. Half of what a delete may take, for they need not
# follow one another: each may have to be looked for.
MAX_LEASE_KEYS: Final = MAX_DELETE_KEYS // 2
# Of a whole cluster: all are looked at in one turn when a snapshot begins, and by the leader when some have
# ended. And nothing else bounds what they take: no quota counts them.
MAX_LEASES: Final = 100_000

NOT_FOUND: Final = error_result(protocol.LEASE_NOT_FOUND, "requested lease not found")
EXISTS: Final = error_result(protocol.LEASE_EXISTS, "lease already exists")
TOO_MANY_KEYS: Final = error_result(
    protocol.TOO_LARGE, f"a lease has at most {MAX_LEASE_KEYS} keys: use another one for more"
)
TOO_MANY_LEASES: Final = error_result(
    protocol.TOO_LARGE, f"there are {MAX_LEASES} leases, and cannot be more: revoke some, or share one"
)

_pack: Callable[[Any], bytes] = msgpack.Packer().pack


class LeaseCommands:
    """Owned by one state machine, which gives it another store and other leases when it restores any."""

    def __init__(self, store: Store, leases: Leases) -> None:
        self.store = store
        self.leases = leases
        self.index = 0  # of the entry that is being applied
        self.writes: dict[int, Callable[[list[Any]], bytes]] = {
            LEASE_GRANT: self._grant,
            LEASE_REVOKE: self._revoke,
            LEASE_KEEPALIVE: self._keep_alive,
            LEASE_TICK: self._tick,
            LEASE_EXPIRE: self._expire,
        }
        self.reads: dict[int, Callable[[list[Any]], bytes]] = {
            LEASE_TIME_TO_LIVE: self._time_to_live,
            LEASE_LIST: self._list,
        }

    def why_unattachable(self, lease: int, key: bytes, others: int) -> bytes | None:
        """The result of a put of `key` with `lease`, which is not 0, if it must not be done. `others` are the
        keys that come to the lease together with this one."""
        if not self.leases.is_alive(lease):
            return NOT_FOUND  # nobody holds by it what it had, though its end be proposed a moment later
        keys = self.store.leased_keys(lease)
        return TOO_MANY_KEYS if len(keys) + others >= MAX_LEASE_KEYS and key not in keys else None

    def _grant(self, command: list[Any]) -> bytes:
        ttl_seconds, lease = max(command[4], LEAST_TTL_SECONDS), command[5]
        leases = self.leases
        if not lease:
            lease = leases.free_id(self.index)
        elif lease in leases:
            return EXISTS
        if len(leases) >= MAX_LEASES:
            return TOO_MANY_LEASES
        leases.grant(lease, ttl_seconds, self.index)
        return _pack((OK, self.store.revision, lease, ttl_seconds))

    def _revoke(self, command: list[Any]) -> bytes:
        if command[4] not in self.leases:
            return NOT_FOUND
        deleted = self._end(command[4])
        return _pack((OK, self.store.revision, deleted))

    def _keep_alive(self, command: list[Any]) -> bytes:
        renew, index = self.leases.renew, self.index
        return _pack((OK, self.store.revision, [renew(lease, index) for lease in command[4:]]))

    def _tick(self, command: list[Any]) -> bytes:
        self.leases.tick(command[4::2], command[5::2], self.index)
        return _pack((OK, self.store.revision))

    def _expire(self, command: list[Any]) -> bytes:
        """Whoever proposed it may have known less than the log: a lease that was renewed before is left."""
        time_ms, leases = command[4], self.leases
        for lease in command[5:]:
            if leases.has_ended(lease, time_ms):
                self._end(lease)
        return _pack((OK, self.store.revision))

    def _end(self, lease: int) -> int:
        """All its keys go with it, in one revision; how many there were."""
        self.leases.drop(lease)
        return len(self.store.delete_keys(sorted(self.store.leased_keys(lease))))

    def width(self, read: list[Any]) -> int:
        """How many keys or leases the answer of a read looks at, and has."""
        if read[0] == LEASE_LIST:
            return len(self.leases)
        return len(self.store.leased_keys(read[1])) if read[2] & LEASE_KEYS else 0

    def _time_to_live(self, read: list[Any]) -> bytes:
        lease, flags = read[1:]
        names: list[bytes] = []
        keys = self.store.leased_keys(lease)
        if flags & LEASE_KEYS:
            size_bytes = 0
            for name in sorted(keys):
                size_bytes += len(name)
                if size_bytes > MAX_RANGE_REPLY_BYTES:
                    break
                names.append(name)
        remaining, ttl_seconds = self.leases.remaining_seconds(lease), self.leases.ttl_seconds(lease)
        return _pack((OK, self.store.revision, remaining, ttl_seconds, len(keys), names))

    def _list(self, _: list[Any]) -> bytes:
        return _pack((OK, self.store.revision, self.leases.ids()))
