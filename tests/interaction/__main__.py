"""Compare scenarios with what happens, or write what happens into them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.interaction.runner import SCENARIOS, difference, rewrite
from tests.interaction.stage import COMMANDS


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.interaction", description=__doc__)
    parser.add_argument("--rewrite", action="store_true", help="write what happens into the files")
    parser.add_argument("--commands", action="store_true", help="explain the commands")
    parser.add_argument("files", nargs="*", type=Path, help="all scenarios if none is named")
    options = parser.parse_args(arguments)
    if options.commands:
        for command in COMMANDS.values():
            print(f"{command.usage}\n    {command.explanation}")
        return 0
    code = 0
    for path in options.files or sorted(SCENARIOS.glob("*.txt")):
        if options.rewrite:
            if rewrite(path):
                print(f"rewritten: {path}")
        elif found := difference(path):
            print(f"{path}\n{found}")
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
