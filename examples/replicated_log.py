"""A log that three replicas keep alike over a network that loses, delays and repeats frames.

Everything runs in one thread, by hand: python examples/replicated_log.py
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from raft import Command, Restorer, WholeRestorer
from raft.rehearsal import Rehearsal
from raft.replica import Hooks


class Lines:
    """Keeps every command, a line of text, in the order of the log; answers with the number of the line."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def apply(self, first_index: int, bodies: Sequence[bytes | None]) -> list[bytes | None]:
        return [None if body is None else self.write(body.decode()) for body in bodies]

    def write(self, line: str) -> bytes:
        self.lines.append(line)
        return str(len(self.lines)).encode()

    def query(self, bodies: Sequence[bytes]) -> list[bytes]:
        return ["\n".join(self.lines).encode() for _ in bodies]

    def status(self) -> dict[str, object]:
        return {"lines": len(self.lines)}

    def snapshot(self) -> Iterator[bytes]:
        return iter(["\n".join(self.lines).encode()])

    def restorer(self) -> Restorer:
        return WholeRestorer(self.restore)

    def restore(self, content: bytes) -> None:
        self.lines = content.decode().splitlines()


def tell(command: Command) -> None:
    why = "" if command.abandonment is None else f" ({command.abandonment.reason})"
    print(f"{command.body.decode()!r} at {command.index}: {command.stage.value}{why}")


def main(seed: int = 1) -> list[Lines]:
    hooks = Hooks(on_role=lambda change: print(f"term {change.term}: {change.leader_id or 'nobody'} leads"))
    world = Rehearsal(Lines, seed=seed, hooks=lambda name: hooks if name == "n1" else Hooks())
    world.loss, world.delay, world.repetition = 0.05, 0.1, 0.05
    for number in range(1, 4):
        write(world, f"line {number}")
    first = world.leader().node_id
    world.cut_off.add(first)
    lost = world.replicas[first].propose(
        b"written to a leader that is cut off", on_queued=tell, on_abandoned=tell
    )
    world.run_until(lambda: lost.is_over)  # nobody knows what became of it
    write(world, "line 4")
    world.cut_off.clear()
    write(world, "line 5")
    logs = list(world.machines.values())
    world.run_until(lambda: all(len(log.lines) == len(logs[0].lines) >= 5 for log in logs))
    print("all alike:", len({tuple(log.lines) for log in logs}) == 1)
    return logs


def write(world: Rehearsal[Lines], line: str) -> None:
    world.finish(world.leader().propose(line.encode(), on_queued=tell, on_committed=tell, on_applied=tell))


if __name__ == "__main__":
    main()
