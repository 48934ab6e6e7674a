"""A process that watches many ranges at once, and is stopped and continued by a test from outside.

    python -m tests.cluster.stopped_watcher ENDPOINT KEY LAST

It says `watching` when nothing can be missed any more, and in the end one line of JSON: for the prefix of
each length of KEY the revisions that it was told of, up to the event whose value is LAST.
"""

from __future__ import annotations

import json
import sys

from kvstore.client import Client


def main(endpoint: str, key: str, last: str) -> None:
    with Client([endpoint], timeout_seconds=30.0) as client:
        watches = [client.watch(key[:size], prefix=True) for size in range(1, len(key) + 1)]
        print("watching", flush=True)
        revisions: list[list[int]] = [[] for _ in watches]
        following = set(range(len(watches)))
        while following:
            for place in list(following):
                batch = watches[place].next(0.01)
                if batch is not None:
                    revisions[place].append(batch.revision)
                    if batch.events[-1].value == last.encode():
                        following.remove(place)
        print(json.dumps(revisions), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
