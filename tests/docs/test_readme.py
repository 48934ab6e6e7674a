"""The README's tour, executed command by command against three real nodes on ports of their own.

The documented ports are replaced by those of the test on the way in, and back again in what comes out. Blocks
marked `varies` show what depends on chance: which node leads, terms, indexes. They are compared by shape.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from bench.processes import ProcessCluster
from kvstore.client import Client
from tests.docs.markdown import ROOT, Block, blocks

README = ROOT / "README.md"
DOCUMENTED_CLIENTS = {f"n{number}": f"tcp://127.0.0.1:700{number}" for number in (1, 2, 3)}
DOCUMENTED_WATCH = "tcp://127.0.0.1:7201"
COMMAND_SECONDS = 60
END_OF_OUTPUT = "\x1e"


class Step(NamedTuple):
    """A command of the tour and what it shows."""

    command: str
    shown: str
    varies: bool
    line: int


def steps() -> list[Step]:
    found = []
    for block in blocks(README):
        if block.info.split()[:1] == ["console"]:
            found += list(_steps_of(block))
    return found


def _steps_of(block: Block) -> Iterator[Step]:
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield Step(command, shown, "varies" in block.info, block.line)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ProcessCluster]:
    """One for each test: the tour's revisions are those of a new store."""
    with ProcessCluster(tmp_path) as running:
        yield running


def environment(cluster: ProcessCluster) -> dict[str, str]:
    return {
        **os.environ,
        "ASSENT_ENDPOINTS": ",".join(cluster.endpoints),
        "PYTHONPATH": str(ROOT),
        # The launcher begins with whatever python3 is first on the path.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def run_steps(cluster: ProcessCluster) -> list[str]:
    """What each command of the tour shows, all of them in one shell, as a reader would type them."""
    # The status of a command is kept for the next, which may be `echo $?`.
    script = "".join(
        f"{step.command}\nstatus=$?; printf '{END_OF_OUTPUT}'; (exit $status)\n" for step in steps()
    )
    done = subprocess.run(
        ["bash"],
        input=script,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=ROOT,
        env=environment(cluster),
        text=True,
        timeout=COMMAND_SECONDS,
    )
    outputs = done.stdout.split(END_OF_OUTPUT)
    assert len(outputs) == len(steps()) + 1, done.stdout
    return [documented(output, cluster) for output in outputs[:-1]]


def documented(text: str, cluster: ProcessCluster) -> str:
    """The text with the ports of the README, without the lines of progress that an import writes if it is
    slow: how fast this machine is at the moment is not what the README tells."""
    text = re.sub(r"^\d+ of \d+ keys\n", "", text, flags=re.MULTILINE)
    for name, endpoint in cluster.client_endpoints.items():
        text = text.replace(endpoint, DOCUMENTED_CLIENTS[name])
    return text


def undocumented(text: str, cluster: ProcessCluster) -> str:
    """The text with the ports of this cluster."""
    for name, endpoint in DOCUMENTED_CLIENTS.items():
        text = text.replace(endpoint, cluster.client_endpoints[name])
    return text.replace(DOCUMENTED_WATCH, cluster.watch_endpoints["n1"])


def shape(text: str) -> list[list[str]]:
    """Words by line; roles and numbers alike, endpoints as they are."""
    alike = re.sub(r"\b(?:leader|follower)\b", "ROLE", text)
    return [[re.sub(r"^\d+$", "N", word) for word in line.split()] for line in alike.splitlines()]


def test_the_tour_shows_what_the_readme_says(cluster: ProcessCluster) -> None:
    tour = steps()
    assert len(tour) >= 10
    for step, shown in zip(tour, run_steps(cluster), strict=True):
        if step.varies:
            assert shape(shown) == shape(step.shown), f"README.md:{step.line}: {step.command}"
            assert shown.split().count("leader") == 1
        else:
            assert shown.rstrip("\n") == step.shown.rstrip("\n"), f"README.md:{step.line}: {step.command}"


def python_blocks() -> list[str]:
    return [block.text for block in blocks(README) if block.info == "python"]


def test_the_client_example_runs(cluster: ProcessCluster) -> None:
    [example] = [text for text in python_blocks() if "kvstore.client" in text]
    done = subprocess.run(
        [sys.executable, "-c", undocumented(example, cluster)],
        capture_output=True,
        text=True,
        env=environment(cluster),
        timeout=COMMAND_SECONDS,
    )
    assert done.stderr == ""
    assert "KeyValue(key=b'/app/config/timeout', value=b'60'" in done.stdout
    assert re.search(r"^\d+ b'/app/config/timeout' b'60'$", done.stdout, re.MULTILINE)


def test_a_bare_subscriber_of_ten_lines_sees_a_put(cluster: ProcessCluster) -> None:
    [example] = [text for text in python_blocks() if "zmq.SUB" in text]
    assert len([line for line in example.splitlines() if line]) <= 10
    assert DOCUMENTED_WATCH in example
    subscriber = subprocess.Popen(
        [sys.executable, "-u", "-c", undocumented(example, cluster)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(cluster),
    )
    assert subscriber.stdout is not None
    ending = threading.Timer(COMMAND_SECONDS, subscriber.kill)
    ending.start()
    stop = threading.Event()

    def put_until_seen() -> None:
        # What is put before the subscription has arrived is not published to it, so one put is not enough.
        with Client(cluster.endpoints) as client:
            while not stop.wait(0.02):
                client.put("/app/heard", "yes")

    putting = threading.Thread(target=put_until_seen)
    putting.start()
    try:
        assert re.fullmatch(r"\d+ put /app/heard yes\n", subscriber.stdout.readline())
    finally:
        stop.set()
        putting.join(COMMAND_SECONDS)
        ending.cancel()
        subscriber.kill()
        subscriber.wait(COMMAND_SECONDS)
        subscriber.stdout.close()


def test_every_page_that_is_linked_to_is_there() -> None:
    for page in [README, ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_every_decision_is_in_the_list() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"\]\((\d{4}-[a-z-]+\.md)\)", (folder / "README.md").read_text(encoding="utf-8"))
    assert sorted(path.name for path in folder.glob("[0-9]*.md")) == listed
