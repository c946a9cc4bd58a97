"""The whole campaign: `python -m tests.faults.campaign [PATH…]`, which ``make faults`` is.

Tests of the matrix run beside each other, the hour of abuse of the server first; then, alone, those that measure time;
then docs/RELIABILITY.md and the promises of the README are written from what was reported. The hour leaves most of a core free,
hence one process more than there are cores.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from tests.faults import readme
from tests.faults.document import make_document

LEDGER = Path(".faults/ledger.jsonl")
NOTHING_TO_DO = 5
"""pytest's exit code when no test was selected."""


def main() -> None:
    """Run both groups whatever becomes of the first; the exit code is the first one that is not 0."""
    parser = argparse.ArgumentParser(
        description="the whole fault matrix, then docs/RELIABILITY.md and the README's promises"
    )
    parser.add_argument("paths", nargs="*", default=["tests"], metavar="PATH", help="for a part of it")
    paths = parser.parse_args().paths
    beside = ["-n", str((os.cpu_count() or 1) + 1), "--dist", "worksteal"]
    codes = [_tests("not alone", *beside, *paths), _tests("alone", "-s", *paths)]
    make_document([LEDGER])
    readme.main([str(LEDGER)])
    sys.exit(next((code for code in codes if code not in (0, NOTHING_TO_DO)), 0))


def _tests(which: str, *arguments: str) -> int:
    command = [sys.executable, "-m", "pytest", "-m", f"(faults or matrix) and {which}", "--ledger", str(LEDGER)]
    return subprocess.run([*command, *arguments], check=False).returncode


if __name__ == "__main__":
    main()
