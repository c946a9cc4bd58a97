"""What a run tells services about itself, and what it asks of them."""

import dataclasses
import functools
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from lumi.callbacks.metrics import read_metrics
from lumi.data import MixedWindows, PackedData
from lumi.manifest import MANIFEST

State = Literal["finished", "stopped", "failed"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunCard:
    """A run in the words of a dashboard.

    Attributes:
        run_id: the same when the run is continued.
        settings: of the run, resolved.
        hashes: of everything the run is made from, by name.
        plan: its figures before it began, see `lumi.plan.Plan`.
        versions: of what may change the last bits.
        inputs: folders of what the run is made from.
        start_step: it continues after this optimizer step; 0 is a new run.
        study: the sweep that the run belongs to, if any.
    """

    run_id: str
    settings: Mapping[str, Any]
    hashes: Mapping[str, str]
    plan: Mapping[str, Any]
    versions: Mapping[str, str]
    inputs: Sequence[Path] = ()
    start_step: int = 0
    study: str | None = None

    @property
    def stage(self) -> str:
        """As it is typed: pretrain, sft or dpo."""
        return _class_word(self.settings["stage"])

    @property
    def tags(self) -> list[str]:
        """Size of the model, corpus, optimizer: what runs are filtered by."""
        arch = self.settings["arch"]
        return [
            f"{arch['n_layers']}x{arch['d_model']}",
            self.settings["corpus"]["name"],
            _class_word(self.settings["optim"]),
        ]

    def config(self) -> dict[str, Any]:
        """Everything that decides the run: settings, hashes, plan, code."""
        code = {**code_version(), "versions": dict(self.versions)}
        return {**self.settings, "artefacts": dict(self.hashes), "plan": dict(self.plan), "code": code}

    def summary(self) -> dict[str, int]:
        """The plan as single figures, to sort runs by."""
        return {
            "plan/parameters": self.plan["parameters"],
            "plan/flops": self.plan["flops_per_token"] * self.plan["tokens"],
            "plan/tokens": self.plan["tokens"],
        }


@runtime_checkable
class Tracker(Protocol):
    """A logger that shows more than numbers."""

    def log_samples(self, rows: Sequence[tuple[str, str]], step: int) -> None:
        """Show prompts with their continuations."""
        ...

    def close(self, state: State) -> None:
        """The run ends: write what is only known now, and let go of everything."""
        ...


def made_from(data: MixedWindows, initial: str | None) -> list[Path]:
    """Folders of the corpus, the tokenizer, the prepared data and the model that a run begins from, those that are here."""
    facts = data.facts()
    prepared = [folder for kind in ("packed", "chat", "preference") for folder in facts.get(kind, {}).values()]
    corpus = data.places.corpus if isinstance(data, PackedData) else None
    folders = [Path(folder) for folder in (corpus, data.tokenizer_folder, *prepared, initial) if folder is not None]
    return [folder for folder in folders if (folder / MANIFEST).exists()]


def best_validation(metrics: Path) -> dict[str, float]:
    """The lowest validation loss in a ``metrics.csv`` and its step; nothing where nothing was validated."""
    rows = read_metrics(metrics) if metrics.exists() else {}
    losses = {
        step: row["val/loss"] for step, row in rows.items() if row.get("val/loss", float("nan")) == row.get("val/loss")
    }
    if not losses:
        return {}
    step = min(losses, key=lambda step: losses[step])
    return {"best/val/loss": losses[step], "best/step": step}


@functools.cache
def code_version() -> dict[str, Any]:
    """Commit of Lumi's checkout, and whether its files differ from it; null where it is not a checkout."""
    git, root = shutil.which("git"), Path(__file__).parents[2]
    if git is None or not (root / ".git").exists():
        return {"commit": None, "dirty": None}

    def ask(*words: str) -> str:
        return subprocess.run([git, "-C", str(root), *words], capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603  # our own words

    try:
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain", "--untracked-files=no"))}
    except subprocess.CalledProcessError:  # a checkout without a commit, or one of another user
        return {"commit": None, "dirty": None}


def _class_word(node: Mapping[str, Any]) -> str:
    return node["_target_"].rpartition(".")[2].lower()
