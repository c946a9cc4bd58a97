"""Which run a command means, and where it continues: the rules of ``resume=auto | never | PATH``.

A run keeps its settings. What decides its numbers may not change under it; what does not (see `lumi.identity`) may.
"""

import importlib.metadata
import json
import logging
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lumi
from lumi.callbacks import list_checkpoints, newest_checkpoint
from lumi.config import differences
from lumi.errors import CheckpointError, ConfigError, DataError
from lumi.identity import decisive, read_state
from lumi.manifest import verify

log = logging.getLogger(__name__)

Settings = dict[str, Any]


def starting_point(settings: Settings, folder: Path) -> Path | str | None:
    """A checkpoint to continue from, ``finished``, or None for the beginning."""
    resume = settings["resume"]
    if resume not in ("auto", "never"):
        return _given_checkpoint(Path(resume), settings, folder)
    if not (folder / "run.json").exists():
        return None
    if resume == "never":
        raise ConfigError(
            f"{folder} exists", "resume=never does not continue a run", "name=… starts another, or remove it"
        )
    state = read_state(folder)
    changed = differences(decisive(state["settings"]), decisive(settings))
    if changed:
        raise ConfigError(
            f"{folder} was begun with other settings ({'; '.join(changed)})",
            "a run keeps its settings",
            "name=… starts another run",
        )
    if state["status"] == "finished":
        return "finished"
    return newest_checkpoint(folder / "checkpoints")


def _given_checkpoint(path: Path, settings: Settings, folder: Path) -> Path:
    """The checkpoint that ``resume=`` names; its run's length may be changed, nothing else that decides its numbers."""
    if (path / "checkpoints").is_dir():
        path = path / "checkpoints"
    found = newest_checkpoint(path) if path.name == "checkpoints" else path
    if found is None or not (found / "run.json").exists():
        raise CheckpointError(f"resume={path}", "is not a checkpoint or a run", "give auto, never, or a folder")
    step = verify(found, kind="checkpoint").info["step"]
    before = json.loads((found / "run.json").read_bytes())["settings"]
    changed = differences({**decisive(before), "budget": None}, {**decisive(settings), "budget": None})
    if changed:
        raise ConfigError(f"{found} was made with other settings ({'; '.join(changed)})", "a run keeps its settings")
    for later, newer in list_checkpoints(folder / "checkpoints"):
        if later > step:  # else `auto` would go on from it the next time
            log.warning("set aside, because the run goes back to step %d: %s", step, newer)
            newer.rename(newer.with_name(f"{newer.name}.superseded"))
    return found


def check_same_data(checkpoint: Path, fingerprints: dict[str, str], *, compiled: bool) -> None:
    """A run continues on the data it was begun with, or not at all; other threads or versions are a warning.

    Raises:
        DataError: a source was prepared otherwise since.
    """
    before = json.loads((checkpoint / "run.json").read_bytes())
    if before["data"] != fingerprints:
        changed = ", ".join(sorted(key for key, value in before["data"].items() if fingerprints.get(key) != value))
        raise DataError(f"{checkpoint}", f"was trained on other data ({changed})", "prepare the same data again")
    threads = torch.get_num_threads()
    if before["threads"] != threads:
        was = before["threads"]
        log.warning("%d threads instead of %d: the last bits of float sums will differ", threads, was)
    if before.get("compiled", False) != compiled:  # the first checkpoints did not say
        log.warning(
            "trainer.compile is decided otherwise than before the checkpoint: the last bits of float sums will differ"
        )
    changed = differences(before["versions"], versions())
    if changed:
        log.warning("versions changed since the checkpoint (%s): the last bits may differ", "; ".join(changed))


def versions() -> dict[str, str]:
    """Of everything whose change may change the last bits."""
    return {
        "lumi": lumi.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pytorch-lightning": importlib.metadata.version("pytorch-lightning"),
        "numpy": np.__version__,
    }
