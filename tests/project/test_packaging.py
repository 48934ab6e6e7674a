"""What setup.cfg, Procfile, Makefile and the changelog promise, against what is in the tree."""

from __future__ import annotations

import configparser
import os
import re
import shlex

import pytest

from kvstore.cli.invocation import DEFAULT_ENDPOINTS
from kvstore.settings import SETTING_NAMES, NodeSettings, load_settings
from tests.project.tree import PACKAGES, ROOT, python_files, source

setup = configparser.ConfigParser()
setup.read(ROOT / "setup.cfg", encoding="utf-8")


def _list(section: str, option: str) -> list[str]:
    return setup.get(section, option).split()


def test_every_package_is_listed_by_name() -> None:
    there = [
        str(path.parent).replace(os.sep, ".")
        for path in python_files(*PACKAGES)
        if path.name == "__init__.py"
    ]
    assert sorted(_list("options", "packages")) == sorted(there)


def test_every_package_says_that_it_is_typed() -> None:
    for package in _list("options", "packages"):
        assert (ROOT / package.replace(".", "/") / "py.typed").is_file(), package
        assert setup.get("options.package_data", package) == "py.typed"


def test_the_changelog_has_the_version() -> None:
    version = setup.get("metadata", "version")
    assert re.search(rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_every_dependency_is_imported_and_the_other_way_round() -> None:
    distributions = {"pyzmq": "zmq", "msgpack": "msgpack", "click": "click", "psutil": "psutil"}
    distributions["sortedcontainers"] = "sortedcontainers"
    named = [re.split(r"[<>=!~]", line)[0] for line in _list("options", "install_requires")]
    assert sorted(named) == sorted(distributions)
    code = "\n".join(map(source, python_files(*PACKAGES, "tests", "bench")))
    for module in distributions.values():
        assert re.search(rf"^\s*(?:import|from) {module}\b", code, re.MULTILINE), f"nothing imports {module}"


@pytest.mark.parametrize("name", ["bin/assent", ".ci/run"])
def test_what_is_meant_to_be_run_can_be_run(name: str) -> None:
    assert os.access(ROOT / name, os.X_OK)


def test_the_build_machine_runs_the_tests() -> None:
    assert re.search(r"^make test\b", (ROOT / ".ci/run").read_text(), re.MULTILINE)


def _procfile() -> list[NodeSettings]:
    nodes = []
    for line in (ROOT / "Procfile").read_text().splitlines():
        name, _, command = line.partition(":")
        words = shlex.split(command)
        # Without exec a signal and an exit code would be the shell's.
        assert words[:3] == ["exec", "bin/assent", "node"]
        flags = {
            flag[2:].replace("-", "_"): value for flag, value in zip(words[3::2], words[4::2], strict=True)
        }
        assert set(flags) <= set(SETTING_NAMES)
        settings = load_settings(flags, {})
        assert settings.name == name
        nodes.append(settings)
    return nodes


def test_the_procfile_is_one_cluster_of_three_that_the_command_line_finds() -> None:
    nodes = _procfile()
    assert [node.name for node in nodes] == ["n1", "n2", "n3"]
    assert len({node.cluster_id for node in nodes}) == 1
    assert ",".join(node.client for node in nodes) == DEFAULT_ENDPOINTS
    assert [node.peer for node in nodes] == [f"tcp://127.0.0.1:710{number}" for number in (1, 2, 3)]
    assert [node.watch for node in nodes] == [f"tcp://127.0.0.1:720{number}" for number in (1, 2, 3)]
    assert len({node.data_dir for node in nodes}) == 3
