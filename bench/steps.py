"""How long the longest single steps of a node are: those which nothing can interrupt.

    python -m bench.steps [--rounds 5]

Each is done with as much as the limits of the protocol allow, in this process, without a network or a disk.
What is told is processor time, of the round that took least.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterable

from kvstore import protocol
from kvstore.lease_commands import MAX_LEASE_KEYS, MAX_LEASES
from kvstore.leases import Leases
from kvstore.protocol import DELETE, MAX_DELETE_KEYS, MAX_TXN_KEYS, MAX_VALUE_BYTES, RANGE
from kvstore.state_machine import StoreMachine
from kvstore.store import Store
from kvstore.store_builder import StoreBuilder
from kvstore.transaction_bodies import encode_list, transaction_body
from kvstore.watch_plane import WatchPlane

SMALL_BYTES = 64
LARGE_VALUES = 300
HISTORY = 1_000_000
Step = Callable[[], object]


def spent_milliseconds(step: Step) -> float:
    before = time.process_time()
    step()
    return (time.process_time() - before) * 1000


def filled(count: int, value: bytes = bytes(SMALL_BYTES), leases: int = 0) -> Store:
    store = Store()
    for number in range(count):
        # Not in order of the keys, as they come in life.
        store.put(b"k%07d" % (number * 7919 % 1_000_003), value, 1 + number % leases if leases else 0)
    return store


def machine(store: Store) -> StoreMachine:
    found = StoreMachine(WatchPlane(1))
    store.take_changes()
    found._store = found._leases.store = store
    return found


def delete_small() -> Step:
    store = filled(MAX_DELETE_KEYS)
    return lambda: store.delete(b"k", b"l")


def delete_large() -> Step:
    store = filled(LARGE_VALUES, bytes(MAX_VALUE_BYTES))
    return lambda: store.delete(b"k", b"l")


def end_lease() -> Step:
    store = filled(10 * MAX_LEASE_KEYS, leases=10)
    return lambda: store.delete_keys(sorted(store.leased_keys(3)))


def transaction(operation: tuple[object, ...]) -> Step:
    commands = machine(filled(MAX_TXN_KEYS - 1000))
    body = transaction_body(0, 0, 0, b"", encode_list([operation]), b"")
    return lambda: commands.apply(1, [body])


def history_page(flags: int) -> Step:
    store = filled(MAX_DELETE_KEYS)
    store.delete(b"k", b"l")
    read = protocol.watch_history_body(b"\0", b"\0", start_revision=store.revision, flags=flags)
    reads = machine(store)
    return lambda: reads.query([read])


def tick() -> Step:
    leases = Leases()
    for number in range(1, MAX_LEASES + 1):
        leases.grant(number * 7919, 10, number)
    return lambda: leases.tick([1000], [MAX_LEASES], MAX_LEASES + 1)


def end_of_restore() -> Step:
    builder = StoreBuilder(HISTORY + 1, 0, 0)
    for key in range(HISTORY // 1000):
        first = 2 + key * 1000
        builder.add([(b"k%05d" % key, b"v", first, first + each, 1 + each, 0) for each in range(1000)])
    return builder.finish


STEPS: dict[str, Callable[[], Step]] = {
    f"delete of {MAX_DELETE_KEYS} keys": delete_small,
    f"delete of {LARGE_VALUES} values of 1 MiB": delete_large,
    f"end of a lease with {MAX_LEASE_KEYS} keys": end_lease,
    f"transaction that deletes {MAX_TXN_KEYS - 1000} keys": lambda: transaction((DELETE, b"k", b"l", 0)),
    f"transaction that reads {MAX_TXN_KEYS - 1000} keys in the order of their create revision": (
        lambda: transaction((RANGE, b"k", b"l", 1, 0, 0, 3, 0, 0, 0, 0, 0))
    ),
    f"page of the history, a revision of {MAX_DELETE_KEYS} deletes": lambda: history_page(0),
    "the same with what was there before": lambda: history_page(protocol.PREV_KV),
    f"tick after {MAX_LEASES} renewals": tick,
    f"end of a restore with {HISTORY} revisions": end_of_restore,
}


def measured(rounds: int) -> Iterable[tuple[str, float]]:
    gc.freeze()
    for name, prepare in STEPS.items():
        yield name, min(spent_milliseconds(prepare()) for _ in range(rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="of which the quickest counts")
    for name, milliseconds in measured(parser.parse_args().rounds):
        print(f"{milliseconds:7.1f} ms  {name}", flush=True)


if __name__ == "__main__":
    main()
