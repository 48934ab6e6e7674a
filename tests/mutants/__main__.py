"""make mutants: plant each known bug, one at a time, and print which check caught it.

Ends with a code other than 0 if a bug survives, or if a check fails on the tree as it is.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.mutants.registry import ROOT, Bug, all_bugs
from tests.mutants.run import PASSED, WIDE_SECONDS, Plan, Verdict, copy_tree, run_checks, try_all


def main() -> int:
    arguments = _arguments()
    only = arguments.only or [""]
    bugs = [bug for bug in all_bugs() if any(word in f"{bug.section}: {bug.name}" for word in only)]
    if not bugs:
        print("no planted bug has such a name")
        return 2
    if arguments.list:
        for bug in bugs:
            print(f"{bug.section}: {bug.name}\n    {bug.harm}")
        return 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="assent-mutants-") as folder:
        base = Path(folder)
        copy_tree(ROOT, base)
        if not _control_passes(bugs, base):
            return 1
        plan = Plan(wide=not arguments.narrow, seeds=arguments.seeds)
        verdicts = try_all(bugs, base, plan, jobs=arguments.jobs, tell=_print)
    return _summary(verdicts, time.monotonic() - began)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument(
        "--only", action="append", default=[], help="bugs with this in section or name; repeatable"
    )
    parser.add_argument("--jobs", type=int, default=2, help="bugs tried at once")
    parser.add_argument("--narrow", action="store_true", help="do not fall back to the wide suite (run.WIDE)")
    parser.add_argument(
        "--seeds", type=int, default=0, help="so many of the simulator, where they are wanted"
    )
    parser.add_argument("--list", action="store_true", help="say what is planted, and run nothing")
    return parser.parse_args()


def _control_passes(bugs: list[Bug], base: Path) -> bool:
    """A check that fails anyway catches nothing. This run also compiles the tree, for all its copies."""
    checks = sorted({check for bug in bugs for check in bug.checks})
    began = time.monotonic()
    code, output = run_checks(base, checks, WIDE_SECONDS, first_only=False)
    print(f"control: {len(checks)} checks on the tree as it is: {time.monotonic() - began:.1f} s", flush=True)
    if code != PASSED:
        print(output)
        print("the checks do not pass on the tree as it is: nothing was planted")
    return code == PASSED


def _print(bug: Bug, verdict: Verdict) -> None:
    outcome = "caught" if verdict.caught_by else "SURVIVED"
    if verdict.caught_by and not verdict.is_narrow:
        outcome = "caught by the wide suite only"
    print(f"\n{outcome} in {verdict.seconds:.1f} s  {bug.section}: {bug.name}")
    print(f"    {verdict.caught_by or 'no check'}")
    print(f"    {verdict.error[:300]}", flush=True)
    if verdict.simulator:
        print(f"    simulator: {verdict.simulator[:300]}", flush=True)


def _summary(verdicts: list[Verdict], seconds: float) -> int:
    survivors = [verdict.name for verdict in verdicts if not verdict.caught_by]
    elsewhere = [verdict.name for verdict in verdicts if verdict.caught_by and not verdict.is_narrow]
    print(f"\n{len(verdicts)} planted, {len(verdicts) - len(survivors)} caught, in {seconds:.0f} s")
    for name in elsewhere:
        print(f"no check of its own caught: {name}")
    for name in survivors:
        print(f"survived: {name}")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
