"""``python evaluate.py model=runs/demo replay=120``: what step 120 read, document by document.

The order of a run is a pure function of its settings, so that nothing had to be kept for this: the same objects that gave the
run its batches give them again. A step is counted as ``metrics.csv`` counts it: row 120 is what the 120th step measured.
"""

import copy
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from lumi.arch.weights import read_config
from lumi.callbacks import read_metrics
from lumi.config import build
from lumi.data import Beginning, Curriculum, MixedWindows, RunLength
from lumi.data.loading import TrainBatches
from lumi.errors import ConfigError, DataError
from lumi.lineage.documents import Documents, ReadWindow
from lumi.lineage.links import candidates, near
from lumi.lineage.printing import print_windows
from lumi.manifest import lineage, write_atomic
from lumi.plan import Budget
from lumi.settings import data_arguments
from lumi.strangers import read_object
from lumi.tokenizer import Tokenizer
from lumi.trained import find_checkpoint
from lumi.trainer import TrainerConfig

log = logging.getLogger(__name__)


def show_replay(settings: dict[str, Any]) -> None:
    """Print what one step of a run read; with ``json=true`` as JSON, with ``out=`` as JSON to that file.

    Raises:
        ConfigError: there is no such step.
        DataError: the data that the run read are not here any more, or are other ones.
    """
    path, step = settings["model"], settings["replay"]
    if not isinstance(path, str):
        raise ConfigError(f"model={path}", "must be one run or checkpoint for replay=…")
    replay = Replay(Path(path))
    windows = list(replay.windows(step))
    found = {"run": path, "step": step, "logged": replay.logged(step), "windows": [one.as_dict() for one in windows]}
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    console = Console(highlight=False, soft_wrap=True)
    if settings["json"]:
        console.out(text, highlight=False, end="")
    else:
        print_windows(console, replay.heading(step), windows)
    if settings["out"]:
        write_atomic(Path(settings["out"]), text)
        log.info("written: %s", settings["out"])


class Replay:
    """The batches of a run, again.

    Args:
        path: of the run, or of one of its checkpoints.

    Raises:
        DataError: the run, or the data it read, is not here or is another one.
    """

    def __init__(self, path: Path) -> None:
        self.checkpoint = find_checkpoint(path)
        self.facts = read_object(self.checkpoint / "run.json")
        if "settings" not in self.facts:
            raise DataError(f"{self.checkpoint}", "does not say with which settings it was trained", "give its run")
        run = self.checkpoint.parent.parent
        self.run = run if (run / "run.json").exists() else None
        self.settings = found_again(self.checkpoint, self.facts["settings"])
        setup: TrainerConfig = build(self.settings["trainer"], "trainer")
        self.accumulate, self.world_size = setup.accumulate, setup.world_size
        self.data = self._data()
        self.total_steps = self._total_steps()
        self.data.length = RunLength(total_steps=self.total_steps, accumulate=self.accumulate)
        self.curriculum: Curriculum = self.data.curriculum(self.accumulate * self.world_size, self.total_steps)
        self.mixture = self.data.mixture(self.curriculum)

    def batches(self, step: int) -> Iterator[tuple[int, int, Any]]:
        """(micro-batch of the step, rank, batch) of the ``step``-th optimizer step, counted from 1.

        Raises:
            ConfigError: the run has no such step.
        """
        if not isinstance(step, int) or isinstance(step, bool) or not 1 <= step <= self.total_steps:
            raise ConfigError(f"replay={step}", f"must be a step of the run, from 1 to {self.total_steps:,}")
        ranks = [
            TrainBatches(self.data.train_streams, self.mixture, self.curriculum, rank=rank, world_size=self.world_size)
            for rank in range(self.world_size)
        ]
        for part in range(self.accumulate):
            for rank, batches in enumerate(ranks):
                yield part, rank, batches[(step - 1) * self.accumulate + part]

    def windows(self, step: int) -> Iterator[ReadWindow]:
        """What a step read, window by window in the order of its batches, with the documents in each."""
        here = self.curriculum.at(step - 1) if isinstance(step, int) else self.curriculum.at(0)
        documents = Documents(self.data, here.seq_len)
        read = []
        for part, rank, batch in self.batches(step):
            first = self.curriculum.samples(step - 1) + (part * self.world_size + rank) * here.batch_size
            source, window, piece = self.mixture.place(np.arange(first, first + here.batch_size))
            same = np.array_equal(source, batch["source"]) and np.array_equal(window, batch["sample"])
            assert same, "the order says where the batch was read"
            read += [documents.of_window(part, rank, row, batch, int(piece[row])) for row in range(here.batch_size)]
        documents.name(read)
        yield from read

    def logged(self, step: int) -> dict[str, float]:
        """What metrics.csv says of the step; empty where it logged none."""
        path = self.run / "metrics.csv" if self.run else None
        return read_metrics(path).get(step, {}) if path is not None and path.exists() else {}

    def heading(self, step: int) -> str:
        """The step in one line."""
        here = self.curriculum.at(step - 1)
        parts = [f"{self.accumulate} micro-batches"] if self.accumulate > 1 else []
        parts += [f"{self.world_size} ranks"] if self.world_size > 1 else []
        parts.append(f"{here.batch_size} windows of {here.seq_len} tokens")
        logged = self.logged(step)
        figures = [f"{name} {logged[name]:.4f}" for name in ("train/loss", "optim/grad_norm") if name in logged]
        figures = figures or ["no row of it in metrics.csv"]
        name = self.facts.get("name", self.checkpoint.name)
        return f"step {step:,} of {self.total_steps:,} of {name} · {' x '.join(parts)} · {', '.join(figures)}"

    def _data(self) -> MixedWindows:
        data: MixedWindows = build(self.settings["data"], "data", **data_arguments(self.settings))
        if initial := self.facts.get("initial"):
            data.beginning = _beginning(self.checkpoint, initial, self.facts)
        data.setup()
        recorded = self.facts["data"]
        actual = data.fingerprints()
        for name in (name for name in recorded if actual.get(name) != recorded[name]):
            raise DataError(
                f"{name} has fingerprint {str(actual.get(name))[:12]}…",
                f"the run read {recorded[name][:12]}…",
                "prepare the same data again: python evaluate.py why=… says what they were made from",
            )
        return data

    def _total_steps(self) -> int:
        state = read_object(self.run / "run.json") if self.run else {}
        if "total_steps" in state.get("plan", {}):
            return state["plan"]["total_steps"]
        budget: Budget = build(self.settings["budget"], "budget")
        if budget.hours is not None:
            raise DataError(
                f"{self.checkpoint}", "does not say how many steps budget.hours was", "give the run it belongs to"
            )
        config = read_config(self.checkpoint)
        return budget.total_steps(
            tokens_per_step=self.data.curriculum(self.accumulate * self.world_size).tokens_per_step,
            epoch_tokens=self.data.n_tokens,
            n_params=config.n_params(),
            flops_per_token=config.flops_per_token(self.data.seq_len),
        )


def found_again(checkpoint: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, with the folder of the data where it lies from here."""
    settings = copy.deepcopy(dict(settings))
    root = Path(settings["paths"]["data"])
    settings["paths"]["data"] = str(
        next((place for place in candidates(checkpoint, root, least_parts=1) if place.is_dir()), root)
    )
    return settings


def _beginning(checkpoint: Path, initial: Mapping[str, Any], facts: Mapping[str, Any]) -> Beginning:
    """What the data took over from the model before; its weights are not needed."""
    places = near(checkpoint, [initial["path"]])
    # The checkpoint has the same tokenizer, so that the model before need not be here.
    tokenizer = Tokenizer.from_bytes((checkpoint / "tokenizer.model").read_bytes())
    if not places or not (places[0] / "run.json").exists():
        if any(name.startswith("replay-") for name in facts["data"]):
            raise DataError(f"{initial['path']}", "is not here; it says what text was read again", "restore it")
        return Beginning(tokenizer=tokenizer, packed={}, weights={})
    before = next((one for one in lineage(read_object(places[0] / "run.json")) if "packed" in one), None)
    packed = {name: near(places[0], [folder])[0] for name, folder in (before or {}).get("packed", {}).items()}
    return Beginning(tokenizer=tokenizer, packed=packed, weights=(before or {}).get("weights", {}))


__all__ = ["Replay", "show_replay"]
