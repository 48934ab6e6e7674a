"""A dictionary on three processes, over ZeroMQ and write-ahead logs. In three shells, with n1, n2 and n3:

python examples/three_processes.py n1
set colour green
get colour
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence

from raft import NotLeader, RaftError, Restorer, RoleChange, WholeRestorer
from raft.replica import Hooks, Replica

MEMBERS = {"n1": "tcp://127.0.0.1:7301", "n2": "tcp://127.0.0.1:7302", "n3": "tcp://127.0.0.1:7303"}


class Dictionary:
    """A command is [key, value], and is answered with the value before; a query is a key."""

    def __init__(self) -> None:
        self.items: dict[str, str] = {}

    def apply(self, first_index: int, bodies: Sequence[bytes | None]) -> list[bytes | None]:
        return [None if body is None else self.set(*json.loads(body)) for body in bodies]

    def set(self, key: str, value: str) -> bytes:
        before = self.items.get(key, "")
        self.items[key] = value
        return before.encode()

    def query(self, bodies: Sequence[bytes]) -> list[bytes]:
        return [self.items.get(body.decode(), "").encode() for body in bodies]

    def status(self) -> dict[str, object]:
        return {"items": len(self.items)}

    def snapshot(self) -> Iterator[bytes]:
        return iter([json.dumps(self.items).encode()])

    def restorer(self) -> Restorer:
        return WholeRestorer(self.restore)

    def restore(self, content: bytes) -> None:
        self.items = json.loads(content)


def tell(change: RoleChange) -> None:
    print("leader:", change.leader_id or "nobody", flush=True)


def main(name: str, directory: str = "data-example", members: dict[str, str] = MEMBERS) -> None:
    machine = Dictionary()
    storage = f"{directory}/{name}"
    with Replica(name, machine, members=members, storage=storage, hooks=Hooks(on_role=tell)) as replica:
        for line in sys.stdin:
            match line.split(maxsplit=2):
                case ["set", key, value]:
                    try:
                        replica.apply(json.dumps([key, value.strip()]).encode(), timeout_seconds=5)
                        print("done", flush=True)
                    except NotLeader as error:
                        print(f"refused: {error.leader_id or 'nobody'} leads", flush=True)
                    except RaftError as error:
                        print(f"{type(error).__name__}: {error}", flush=True)
                case ["get", key]:
                    print(replica.read(key.encode(), timeout_seconds=5).decode(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
