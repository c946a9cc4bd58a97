"""How a step's windows are spread over devices and micro-batches: settings that may change when a run goes on.

Whatever the layout, the same windows make the same optimizer steps; only the order in which float sums are taken differs. What
decides a run's numbers is how many windows a step has.
"""

import copy
import logging
from typing import Any

log = logging.getLogger(__name__)

Settings = dict[str, Any]

_OF_TRAINER = ("devices", "num_nodes", "strategy", "accumulate")


def without_layout(settings: Settings) -> Settings:
    """Settings as one process with one micro-batch a step would have them: equal for all layouts of the same steps."""
    settings = copy.deepcopy(settings)
    trainer, data = settings["trainer"], settings["data"]
    windows = data.get("batch_size")
    for key in ("devices", "num_nodes", "accumulate"):
        count = trainer.get(key)
        if not isinstance(count, int) or not isinstance(windows, int):
            return settings  # not what it may be; who builds it says so
        windows *= count
        trainer[key] = 1
    data["batch_size"], trainer["strategy"] = windows, "auto"
    return settings


def warn_of_layout(before: Settings, now: Settings) -> None:
    """Say that the last bits will differ, where they will."""
    changed = [f"trainer.{key}" for key in _OF_TRAINER if before["trainer"].get(key) != now["trainer"].get(key)]
    if before["data"].get("batch_size") != now["data"].get("batch_size"):
        changed.append("data.batch_size")
    if changed:
        log.warning(
            "%s changed since the checkpoint: the same windows in the same steps, but the last bits of float sums will differ, "
            "and with dropout the masks",
            ", ".join(changed),
        )
