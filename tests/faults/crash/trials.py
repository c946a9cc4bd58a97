"""A process that is killed at a moment drawn at random, and how often that goes wrong.

Every trial forks this process, which has imported everything: a trial costs milliseconds instead of the seconds that a new
interpreter takes. Moments are drawn over the time that the undisturbed work takes; a kill that comes too late is not counted.
"""

import dataclasses
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from lumi.errors import DataError
from lumi.manifest import MANIFEST, verify

Action = Callable[[], object]


def forked(action: Action, kill_after: float | None = None, ready: Callable[[], bool] = lambda: True) -> int:
    """Run in a child of this process, SIGKILL it so many seconds after it is ``ready``.

    Returns:
        Its exit code, -9 if the kill was in time.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    if kill_after is not None:
        while not ready() and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            time.sleep(0.002)
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def seconds_of(action: Action) -> float:
    """What the undisturbed work takes in a child."""
    begin = time.monotonic()
    assert forked(action) == 0, "the undisturbed work fails"
    return time.monotonic() - begin


@dataclasses.dataclass
class Kills:
    """Kills of some work at moments drawn from a seed, until so many came in time.

    Args:
        seed: of the moments.
        seconds: that the work takes; moments are drawn from a little more.
        earliest: share of them that is left out, because nothing happens then.
    """

    seed: int
    seconds: float
    earliest: float = 0.0
    too_late: int = 0

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    def kill(self, action: Action) -> bool:
        """Run and kill; False if the work had ended before."""
        code = forked(action, self.seconds * self._rng.uniform(self.earliest, 1.1))
        assert code in (0, -signal.SIGKILL), f"it ended by itself with {code}"
        self.too_late += code == 0
        return code != 0


def is_whole_or_absent(folder: Path) -> bool:
    """Whether nothing is visible, or an artefact that is what its manifest says."""
    if not folder.exists():
        return True
    try:
        verify(folder)
    except DataError:
        return False
    return True


def leftovers(folder: Path) -> list[str]:
    """Temporary files and folders below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if ".tmp-" in path.name)


def hashes(folder: Path) -> dict[str, str]:
    """Of every file of an artefact, the manifest's among them."""
    manifest = verify(folder)
    return {name: entry["sha256"] for name, entry in manifest.files.items()} | {MANIFEST: manifest.fingerprint}
