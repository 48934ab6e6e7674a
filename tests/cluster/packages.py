"""Real input: what is installed on this machine, as a tree. Standard library only."""

from __future__ import annotations

import shutil
import subprocess
from importlib.metadata import distributions


def installed_packages() -> dict[str, str]:
    """Name to version of all Debian packages; where there is no dpkg, of all Python distributions."""
    if shutil.which("dpkg-query") is None:
        return {found.metadata["Name"]: found.version for found in distributions()}
    listing = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package}\t${Version}\n"],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    return dict(line.split("\t", 1) for line in listing.stdout.splitlines())


def package_tree(packages: dict[str, str]) -> dict[str, dict[str, str]]:
    """One branch for each first letter, so that the tree has a depth."""
    tree: dict[str, dict[str, str]] = {}
    for name, version in sorted(packages.items()):
        tree.setdefault(name[0], {})[name] = version
    return tree
