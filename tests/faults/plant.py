"""Puts mistakes into a copy of Lumi, one at a time, and sees whether the tests notice: a test that cannot fail guards nothing.

    python -m tests.faults.plant                  all of them; what became of each stands in tests/faults/planted.json
    python -m tests.faults.plant norms reference  those whose description has one of these words

In the working tree nothing is changed. A mistake that no test notices ends the command with exit code 1.
"""

import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra  # noqa: F401
import pytest
import pytorch_lightning  # noqa: F401
import torch  # noqa: F401  # a forked process need not import these again

from tests.faults.plants import PLANTS, Plant

ROOT = Path(__file__).parent.parent.parent
PLANTED = Path(__file__).parent / "planted.json"
_TREE = (
    "lumi",
    "conf",
    "tests",
    "docs",
    "train.py",
    "prepare.py",
    "evaluate.py",
    "serve.py",
    "pyproject.toml",
    "README.md",
)
_LIMIT_SECONDS = 900


@contextmanager
def copied() -> Iterator[Path]:
    """A copy of what Lumi and its tests are."""
    with tempfile.TemporaryDirectory(prefix="lumi-planted-") as name:
        folder = Path(name)
        for part in _TREE:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, folder / part)
        yield folder


@contextmanager
def planted(plant: Plant, folder: Path) -> Iterator[None]:
    """The mistake, while the block runs."""
    before = {file: (folder / file).read_text() for file, _, _ in plant.edits}
    try:
        for file, old, new in plant.edits:
            text = (folder / file).read_text()
            assert text.count(old) == 1, f"{plant.fault}: stands {text.count(old)} times in {file}: {old!r}"
            (folder / file).write_text(text.replace(old, new))
        yield
    finally:
        for file, text in before.items():
            (folder / file).write_text(text)


def run_tests(tests: tuple[str, ...], folder: Path) -> tuple[bool, str, str]:
    """Whether all pass; the first that does not, and what it says.

    In a forked process that has nothing of Lumi yet, but everything that takes seconds to import.
    """
    with tempfile.TemporaryFile("w+") as output:
        child = os.fork()
        if not child:
            try:
                _become_pytest(tests, folder, output.fileno())
            finally:
                os._exit(70)
        code = _wait(child)
        output.seek(0)
        said = output.read()
    if code is None:
        return False, tests[0], f"hangs for {_LIMIT_SECONDS} s"
    assert code in (0, 1), f"pytest ended with {code}:\n{said[-5000:]}"
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", said, re.MULTILINE)
    words = re.search(r"^E +(.+)$", said, re.MULTILINE)
    return code == 0, failed[1] if failed else "", (words[1] if words else "")[:200]


def _become_pytest(tests: tuple[str, ...], folder: Path, output: int) -> None:
    for stream in (1, 2):
        os.dup2(output, stream)
    for name in [name for name in sys.modules if name.split(".")[0] in ("lumi", "tests")]:
        del sys.modules[name]
    os.chdir(folder)
    sys.path[:] = [str(folder), *(path for path in sys.path if path not in ("", str(ROOT)))]
    sys.dont_write_bytecode = True
    os.environ["PYTHONPATH"] = str(folder)
    code = pytest.main(["-x", "--tb=short", "-m", "not faults and not gpu", f"--rootdir={folder}", *tests])
    sys.stdout.flush()
    os._exit(int(code))


def _wait(child: int) -> int | None:
    """The exit code, or None for what hangs."""
    deadline = time.monotonic() + _LIMIT_SECONDS
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def notice(plant: Plant, folder: Path) -> dict[str, Any]:
    """The mistake, and which test noticed it with which words."""
    with planted(plant, folder):
        passed, test, message = run_tests(plant.tests, folder)
    tests = [] if passed else [test.split("[")[0] or plant.tests[0]]
    return {"fault": plant.fault, "file": plant.file, "tests": tests, "noticed": not passed, "message": message}


def note(one: dict[str, Any]) -> None:
    """Put what became of a mistake into `planted.json`, in the order of the list; what is no more in the list goes."""
    known = json.loads(PLANTED.read_text()) if PLANTED.exists() else []
    found = {other["fault"]: other for other in [*known, one]}
    ordered = [found[plant.fault] for plant in PLANTS if plant.fault in found]
    PLANTED.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n")


def main(words: list[str]) -> int:
    """All, or those that have one of the words."""
    chosen = [plant for plant in PLANTS if not words or any(word in plant.fault for word in words)]
    missed = []
    with copied() as folder:
        for plant in chosen:
            one = notice(plant, folder)
            note(one)
            if not one["noticed"]:
                missed.append(plant.fault)
            sys.stdout.write(f"{'noticed' if one['noticed'] else 'NOT NOTICED':12} {plant.fault}\n")
            sys.stdout.flush()
        tests = tuple(dict.fromkeys(test for plant in chosen for test in plant.tests))
        passed, test, message = run_tests(tests, folder)
        assert passed, f"{test} fails without any mistake: {message}"
    sys.stdout.write(f"{len(chosen)} planted, {len(missed)} not noticed\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
