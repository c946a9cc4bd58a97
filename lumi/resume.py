"""Which run a command means, and where it continues: the rules of ``resume=auto | never | PATH``.

A run keeps its settings. What decides its numbers may not change under it, unless ``resume_allow`` names it; what does not (see
`lumi.identity`) may. Whatever changed is written to ``changes.jsonl`` in the run's folder, with the step.
"""

import importlib.metadata
import json
import logging
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

import lumi
from lumi.arch.native import attention, head
from lumi.arch.native.build import load_library
from lumi.callbacks import list_checkpoints, newest_checkpoint, set_aside
from lumi.config import differences
from lumi.errors import CheckpointError, ConfigError, DataError
from lumi.identity import decisive, read_state
from lumi.layout import warn_of_layout
from lumi.manifest import verify, write_atomic
from lumi.provenance import made_by
from lumi.trainer import TrainerConfig

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
    changed = refused(decisive(state["settings"]), decisive(settings), settings)
    if changed:
        keys = ",".join(line.partition(":")[0] for line in changed)
        raise ConfigError(
            f"{folder} was begun with other settings ({'; '.join(changed)})",
            "a run keeps its settings",
            f"name=… starts another run, resume_allow=[{keys}] goes on with them",
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
    changed = refused({**decisive(before), "budget": None}, {**decisive(settings), "budget": None}, settings)
    if changed:
        raise ConfigError(f"{found} was made with other settings ({'; '.join(changed)})", "a run keeps its settings")
    for later, newer in list_checkpoints(folder / "checkpoints"):
        if later > step:  # else `auto` would go on from it the next time
            log.warning("set aside, because the run goes back to step %d: %s", step, set_aside(newer, "superseded"))
    return found


def refused(before: Settings, after: Settings, settings: Settings) -> list[str]:
    """``key: old -> new`` for what differs and is not in ``resume_allow``."""
    allowed = tuple(settings.get("resume_allow") or ())

    def is_allowed(line: str) -> bool:
        key = line.partition(":")[0]
        return any(key == name or key.startswith(f"{name}.") for name in allowed)

    return [line for line in differences(before, after) if not is_allowed(line)]


def note_changes(folder: Path, checkpoint: Path, settings: Settings) -> None:
    """Write what is set otherwise than when the checkpoint was made, and say it where it decides a number."""
    before = json.loads((checkpoint / "run.json").read_bytes())
    warn_of_layout(before["settings"], settings)
    changed = differences(decisive(before["settings"]), decisive(settings))
    if changed:
        log.warning("from here on with other settings, as resume_allow or the path says: %s", "; ".join(changed))
    free = ("resume", "resume_allow", "plan", "law")
    old, new = ({k: v for k, v in one.items() if k not in free} for one in (before["settings"], settings))
    facts = [*differences(old, new), *differences(before["versions"], versions(), "versions")]
    if facts:
        entry = {
            "step": before["step"],
            "from": str(checkpoint),
            "at": time.strftime("%Y-%m-%d %H:%M:%S"),
            "changed": facts,
        }
        folder.mkdir(parents=True, exist_ok=True)  # resume=PATH may begin a folder of its own
        with (folder / "changes.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")


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


def save_state(folder: Path, settings: Settings, status: str, **facts: Any) -> None:
    """Write what `lumi.identity.read_state` reads, and the settings as YAML for people."""
    state = {
        "status": status,
        "settings": settings,
        **made_by(),
        **facts,
        "updated": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    write_atomic(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(settings)))
    write_atomic(folder / "run.json", json.dumps(state, indent=2) + "\n")


def versions() -> dict[str, str]:
    """Of everything whose change may change the last bits."""
    return {
        "lumi": lumi.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pytorch-lightning": importlib.metadata.version("pytorch-lightning"),
        "numpy": np.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "kernels": _kernels(),
        "precision=auto": TrainerConfig().resolved_precision(),  # another machine may decide otherwise
    }


def _kernels() -> str:
    """Which parts of a step are C++ here; without a compiler PyTorch's operations do the same, with other last bits."""
    if torch.cuda.is_available():
        return "CUDA"
    parts = {
        "loss": load_library("loss", "the loss") is not None,
        "attention": attention.ready(),
        "head": head.ready(),
    }
    return ", ".join(name for name, has in parts.items() if has) or "PyTorch"
