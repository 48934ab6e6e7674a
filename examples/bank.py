"""A bank on three replicas that crash and a network that loses frames. No money is lost, none is made.

Everything runs in one thread, by hand, from one seed: python examples/bank.py 7
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence

from raft import RaftError, Restorer, WholeRestorer
from raft.rehearsal import Rehearsal

ACCOUNTS = ["ann", "bob", "cid", "dee"]


class Bank:
    """A transfer is (number, from, to, amount). Whoever does not know its outcome sends it again, with the
    same number, and it is carried out once."""

    def __init__(self) -> None:
        self.balances = dict.fromkeys(ACCOUNTS, 100)
        self.done: dict[str, bool] = {}  # by number: whether there was money enough

    def apply(self, first_index: int, bodies: Sequence[bytes | None]) -> list[bytes | None]:
        return [None if body is None else self.transfer(*json.loads(body)) for body in bodies]

    def transfer(self, number: str, source: str, target: str, amount: int) -> bytes:
        if number not in self.done:
            self.done[number] = self.balances[source] >= amount
            if self.done[number]:
                self.balances[source] -= amount
                self.balances[target] += amount
        return json.dumps(self.done[number]).encode()

    def query(self, bodies: Sequence[bytes]) -> list[bytes]:
        return [json.dumps(self.balances).encode() for _ in bodies]

    def status(self) -> dict[str, object]:
        return {"transfers": len(self.done)}

    def snapshot(self) -> Iterator[bytes]:
        return iter([json.dumps([self.balances, self.done]).encode()])

    def restorer(self) -> Restorer:
        return WholeRestorer(self.restore)

    def restore(self, content: bytes) -> None:
        self.balances, self.done = json.loads(content)


def main(seed: int, transfers: int = 200) -> Rehearsal[Bank]:
    world = Rehearsal(Bank, seed=seed)
    world.loss = 0.05
    rng, attempts, crashes = world.rng, 0, 0
    for number in range(transfers):
        source, target = rng.sample(ACCOUNTS, 2)
        transfer = json.dumps([f"t{number}", source, target, rng.randint(1, 40)]).encode()
        result = None
        while result is None:
            command = world.leader().propose(transfer, timeout_seconds=1)
            attempts += 1
            if rng.random() < 0.1:
                world.run(rng.random() / 50)
                victim = rng.choice(sorted(world.replicas))
                world.crash(victim)  # what was not synced is gone, and all that was in memory
                world.start(victim)
                crashes += 1
            try:
                result = world.finish(command)
            except RaftError:
                pass  # surely not applied, or nobody knows: again, with the same number
    everywhere = world.run_until(lambda: all(len(b.done) == transfers for b in world.machines.values()))
    assert everywhere, "a replica did not catch up"
    for name, bank in world.machines.items():
        print(name, bank.balances, "together", sum(bank.balances.values()))
    print(f"{transfers} transfers, {attempts} attempts, {crashes} crashes, {world.frames_lost} frames lost")
    return world


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
