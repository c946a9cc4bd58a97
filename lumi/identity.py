"""Which run settings mean: its folder, and what may differ without making it another run. Needs no torch.

A sweep asks this of every job before it starts one: what is finished is skipped without seconds of imports.
"""

from pathlib import Path
from typing import Any

from lumi.errors import CheckpointError
from lumi.layout import without_layout
from lumi.manifest import fingerprint
from lumi.strangers import read_object

Settings = dict[str, Any]

_GROUPS = ("stage", "budget", "arch", "trainer", "data")
_FREE = (
    "name", "resume", "paths", "callbacks", "logger", "source", "corpus", "task", "executor", "plan", "law", "study", "slots",
    "sweep", "resume_allow", "doctor",
)  # fmt: skip
"""Keys that may differ when a run is continued: none of them changes a number, or it does so as a part of ``data``."""

_OF_THE_MACHINE: dict[str, dict[str, Any]] = {
    "trainer": {"threads": None},
    "data": {"num_workers": 0, "full_check": True},
    "arch": {"checkpoint_activations": False},
}
"""The same for single keys of a group, and what stands for all their values: at most last bits depend on them."""

FIXED = ("arch", "tokenizer", "pack", "template", "stage._target_", "data._target_")
"""What no ``resume_allow`` can change within a run: the weights would not fit, or would have been trained on other tokens."""


def run_folder(settings: Settings) -> Path:
    """``runs/<name>``; without a name, one that equal settings share, so that the same command continues the same run."""
    stage = settings["stage"]["_target_"].rpartition(".")[2].lower()
    name = settings["name"]
    if name in (None, ""):
        name = f"{stage}-{settings['corpus']['name']}-{fingerprint(decisive(settings))[:8]}"
    return Path(settings["paths"]["runs"]) / str(name)  # name=7 is a number to Hydra


def read_state(folder: Path) -> dict[str, Any]:
    """What a run's ``run.json`` says.

    Raises:
        CheckpointError: it cannot be read, or is not what a run writes.
    """
    path, fix = folder / "run.json", "the run cannot be continued: use name=…"
    state = read_object(path, CheckpointError, fix=fix)
    settings = state.get("settings")
    groups = [isinstance(settings, dict) and isinstance(settings.get(key), dict) for key in _GROUPS]
    named = all(groups) and isinstance(state["settings"]["stage"].get("_target_"), str)
    if not named or not all(isinstance(state.get(key), str) for key in ("status", "updated")):
        raise CheckpointError(f"{path}", "lacks the settings or the state of a run", fix)
    return state


def decisive(settings: Settings) -> Settings:
    """The settings that decide the numbers of a run.

    Those that came later and are null are left out, or no run from before them would be found again.
    """
    kept = without_layout({key: value for key, value in settings.items() if key not in _FREE})
    for group, keys in _OF_THE_MACHINE.items():
        if isinstance(kept.get(group), dict):
            kept[group] = {key: keys.get(key, value) for key, value in kept[group].items()}
    for group, keys in {"budget": ("flops", "hours"), "trainer": ("max_skipped_steps",)}.items():
        unused = [key for key in keys if kept[group].get(key) is None]
        kept[group] = {key: value for key, value in kept[group].items() if key not in unused}
    return kept


def is_finished(settings: Settings, folder: Path) -> bool:
    """Whether the run is there with these very settings, and to be left as it is."""
    if settings["resume"] != "auto" or not (folder / "run.json").exists():
        return False
    state = read_state(folder)
    return state["status"] == "finished" and decisive(state["settings"]) == decisive(settings)
