"""Where the project's files are, for the tests that read them."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("actors", "raft", "kvstore")


@functools.cache
def python_files(*tops: str) -> tuple[Path, ...]:
    """Every Python file below these folders, relative to the root."""
    found = [path.relative_to(ROOT) for top in tops for path in (ROOT / top).rglob("*.py")]
    return tuple(sorted(found))


@functools.cache
def source(path: Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


@functools.cache
def text_files() -> tuple[Path, ...]:
    """Every text file that belongs to the project: all that git would add, or all in a plain copy."""
    suffixes = {".py", ".md", ".cfg", ".toml", ".sh", ".yml", ""}
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode == 0:
        names = [Path(line) for line in listed.stdout.splitlines()]
    else:
        tops = [*PACKAGES, "tests", "bench", "examples", "bin", "docs", ".ci"]
        names = [path.relative_to(ROOT) for top in tops for path in (ROOT / top).rglob("*")]
        names += [path.relative_to(ROOT) for path in ROOT.iterdir()]
    return tuple(sorted(path for path in names if path.suffix in suffixes and _is_text(ROOT / path)))


def _is_text(path: Path) -> bool:
    """As git sees it: no file with a zero byte is one."""
    return path.is_file() and b"\0" not in path.read_bytes()
