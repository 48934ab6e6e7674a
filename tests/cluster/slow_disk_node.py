"""The command line of a node whose disk takes its time: real files beneath, and syncs that a file delays.

    python -m tests.cluster.slow_disk_node node --name n1 --data-dir DIR …

`DIR.slow` holds for how many seconds each sync takes from now on; without it the disk is as fast as it is.
After each sync that was delayed, `DIR.delayed` is one byte longer.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import raft.directory
from kvstore.cli import main
from raft.files import OsFiles

SLOW_SUFFIX, DELAYED_SUFFIX = ".slow", ".delayed"
STEP_SECONDS = 0.1


class SlowDisk(OsFiles):
    """Knows a descriptor's file by asking the system. The sync itself comes last, as on a busy disk."""

    __slots__ = ()

    def fdatasync(self, descriptor: int) -> None:
        home = Path(os.readlink(f"/proc/self/fd/{descriptor}")).parent.parent
        slow = home.with_name(home.name + SLOW_SUFFIX)
        until = time.monotonic() + float(slow.read_text()) if slow.exists() else 0.0
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, STEP_SECONDS))
        super().fdatasync(descriptor)
        if until:
            with home.with_name(home.name + DELAYED_SUFFIX).open("ab") as delayed:
                delayed.write(b".")


if __name__ == "__main__":
    vars(raft.directory)["OsFiles"] = SlowDisk
    main()
