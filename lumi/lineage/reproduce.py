"""``python evaluate.py reproduce=runs/demo``: the run again, from what it noted of itself, compared bit for bit.

On the same machine with the same versions and number of threads a run is the same to the last bit; where it is not, the first
figure and the first tensor that differ are named, beside everything that is known to be different.
"""

import copy
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from lumi.callbacks import list_checkpoints
from lumi.config import differences, resolve
from lumi.errors import ConfigError, DataError
from lumi.initial import checkpoint_identity
from lumi.lineage.compare import Comparison, compare_runs
from lumi.lineage.links import near
from lumi.lineage.replay import found_again
from lumi.manifest import MANIFEST, write_atomic
from lumi.provenance import code_words
from lumi.strangers import read_object

log = logging.getLogger(__name__)

REPORT = "reproduction.json"
_SHOWN = 8


def reproduce(settings: dict[str, Any]) -> Comparison:
    """Train the run again in a folder beside it, compare, and say what came of it.

    Raises:
        ConfigError: a setting is wrong, or there is no such run.
        DataError: what it was made from is not what it was, or the result differs in a bit.
    """
    run, steps = Path(str(settings["reproduce"])), settings["reproduce_steps"]
    run = run.parent.parent if run.parent.name == "checkpoints" else run
    if not (run / "run.json").is_file():
        raise ConfigError(f"reproduce={run}", "is not a run", "give a folder below runs/")
    if steps is not None and (not isinstance(steps, int) or isinstance(steps, bool) or steps < 1):
        raise ConfigError(f"reproduce_steps={steps}", "must be a whole number of at least 1, or null for the whole run")
    state, facts = read_object(run / "run.json"), _facts(run)
    doubts = _doubts(state, facts)
    folder = Path(settings["out"]) if settings["out"] else _free_folder(run)
    again = settings_again(run, state, facts, folder, steps)
    for doubt in doubts:
        log.warning("%s", doubt)
    log.info("again: %s%s", folder, f", up to step {steps:,}" if steps else "")
    from lumi.run import train  # seconds of import, and it asks for evaluation's parts in its turn

    train(OmegaConf.create(again))
    found = compare_runs(run, folder, last_step=steps)
    changes = _changes(state, facts, read_object(folder / "run.json"), _facts(folder))
    _report(run, folder, found, changes, doubts)
    return found


def settings_again(
    run: Path, state: Mapping[str, Any], facts: Mapping[str, Any], folder: Path, steps: int | None
) -> dict[str, Any]:
    """The recorded settings, for another folder.

    Raises:
        DataError: the model that the run began from is another one now.
    """
    recorded = found_again(run, state["settings"])
    again = {**_added_since(recorded), **recorded}
    again |= {"name": folder.name, "paths": {**recorded["paths"], "runs": str(folder.parent)}}
    again |= {"resume": "never", "logger": None, "study": None, "plan": False}
    if initial := state.get("initial"):
        again["init_from"] = str(_same_model(run, initial))
    if again["budget"].get("hours") is not None:  # what an hour is was measured then
        again["budget"] = {**again["budget"], "hours": None, "steps": state["plan"]["total_steps"]}
    if again["trainer"].get("threads") is None and "threads" in facts:
        again["trainer"] = {**again["trainer"], "threads": facts["threads"]}
    if steps is not None:
        stop = {"_target_": "lumi.callbacks.StopAfter", "steps": steps}
        again["callbacks"] = {**(again["callbacks"] or {}), "stop_after": stop}
    return again


def _added_since(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that there were not when the run was made, at what they are by default."""
    if not GlobalHydra.instance().is_initialized():
        return {}
    defaults = resolve(compose("train", return_hydra_config=False))
    added = {key: copy.deepcopy(value) for key, value in defaults.items() if key not in recorded}
    if added:
        log.info("settings that the run does not know, at their defaults: %s", ", ".join(sorted(added)))
    return added


def _same_model(run: Path, initial: Mapping[str, Any]) -> Path:
    place = next((place for place in near(run, [initial["path"]]) if (place / MANIFEST).exists()), None)
    if place is None:
        fix = "restore it, or train that run again first"
        raise DataError(f"{initial['path']}", "is not here, and the run began from it", fix)
    actual = checkpoint_identity(place)
    for name, expected in initial["weights"].items():
        if actual.get(name) != expected:
            found = f"{place / name} has sha256 {str(actual.get(name))[:12]}…"
            raise DataError(found, f"the run began from {expected[:12]}…", "restore that model")
    return place


def _facts(run: Path) -> dict[str, Any]:
    """What the newest checkpoint says; empty without one."""
    saved = list_checkpoints(run / "checkpoints")
    return read_object(saved[0][1] / "run.json") if saved else {}


def _doubts(state: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """Where a run's own records disagree: one of them was changed after it was written."""
    if not facts:
        return ["the run has no checkpoint: only its metrics can be compared"]
    ignored = ("name", "resume", "paths", "logger", "callbacks", "slots", "sweep", "study")
    one, two = ({k: v for k, v in said["settings"].items() if k not in ignored} for said in (facts, state))
    changed = [line for line in differences(one, two) if not line.startswith("budget")]
    return [f"run.json and its newest checkpoint disagree about the settings: {line}" for line in changed]


def _changes(
    state: Mapping[str, Any], facts: Mapping[str, Any], new_state: Mapping[str, Any], new_facts: Mapping[str, Any]
) -> list[str]:
    """What is known to be different from then: data, versions, threads, code."""
    keys = ("data", "versions", "threads", "compiled", "tokenizer_sha256", "code")
    changed: list[str] = []
    for key in keys:
        before, after = facts.get(key, state.get(key)), new_facts.get(key, new_state.get(key))
        if before is None or after is None:
            changed += [f"{key} was not recorded"] if after is not None else []
        elif key == "code" and before != after:
            same = before.get("source_sha256") == after.get("source_sha256")
            changed += [] if same else [f"code: {code_words(before)} -> {code_words(after)}"]
        else:
            # What was noted later than the run was made says nothing about a change.
            known = (
                {name: value for name, value in after.items() if name in before} if isinstance(after, dict) else after
            )
            changed += differences(before, known, key)
    return changed


def _report(run: Path, folder: Path, found: Comparison, changes: list[str], doubts: list[str]) -> None:
    """Say it, keep it, and refuse where a bit differs."""
    record = {
        "run": str(run),
        "again": str(folder),
        "identical": found.identical,
        "metrics": {"rows": found.steps, "figures": found.figures, "first_difference": found.first},
        "weights": {"step": found.weights_step, "sha256": found.weights, "first_difference": found.tensor},
        "changed_since": changes,
        "doubts": doubts,
    }
    write_atomic(folder / REPORT, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    log.info("%s", "\n".join(_lines(found)))
    listed = "; ".join(changes[:_SHOWN]) or "nothing that is recorded"
    log.info("changed since    %s", listed)
    log.info("kept             %s", folder / REPORT)
    if not found.identical:
        why = "; ".join([*doubts, *changes][:_SHOWN]) or "no known reason: look at docs/lineage.md, If it fails"
        raise DataError(f"{run} and {folder}: {_difference(found)}", "are not bit-identical", why)
    log.info("bit-identical")


def _lines(found: Comparison) -> list[str]:
    lines = [f"metrics          {found.figures:,} figures in {found.steps:,} rows: " + _verdict(found.first is None)]
    if found.weights_step is None:
        lines.append("weights          no checkpoint of the same step in both: not compared")
    for name, (one, two) in found.weights.items():
        same = one == two
        lines.append(
            f"weights          {name} after step {found.weights_step:,}: {one[:12]}… "
            + (_verdict(True) if same else f"and {two[:12]}…")
        )
    return lines


def _verdict(same: bool) -> str:
    return "equal, bit for bit" if same else "different"


def _difference(found: Comparison) -> str:
    parts = []
    if found.first is not None:
        one = found.first
        parts.append(f"step {one['step']:,} {one['metric']} {one['before']} and {one['after']}")
    if found.tensor is not None:
        one = found.tensor
        size = f", {one['values']:,} of {one['of']:,} values by up to {one['largest']:.3g}" if "values" in one else ""
        parts.append(f"after step {found.weights_step:,} tensor {one['tensor']}{size}")
    return "; ".join(parts) or "there was nothing that both of them have"


def _free_folder(run: Path) -> Path:
    number = 1
    while (folder := run.with_name(f"{run.name}-again-{number}")).exists():
        number += 1
    return folder
