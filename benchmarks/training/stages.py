"""Parts ``sft`` and ``dpo``: what packing, adapters and a stored reference save beside the ways without them."""

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import Table
from benchmarks.training.driver import Contestant, Result
from benchmarks.training.options import Options
from benchmarks.training.pretrain import lumi_command, run, take_turns
from benchmarks.training.report import median, ratios

_MANY = 1_000_000
_SHORT = ("budget.epochs=null", "budget.steps=2")
_FULL = "stage.lora=null"
_PAIRS = 400  # to train on: their reference is computed once before the contest


def measure_sft(options: Options, arch: str, folder: Path) -> Table:
    """Conversations packed or padded, all weights or an adapter."""
    begin = _pretrained(options, arch, folder)

    def overrides(name: str, *others: str) -> list[str]:
        return [*_common(options, arch, folder, name), "stage=sft", begin, *others]

    contestants = [
        Contestant("Lumi, packed", _real(options, overrides("packed", _FULL))),
        Contestant("bare loop, packed", _bare(options, "packed", overrides("bare", _FULL))),
        Contestant("bare loop, padded", _bare(options, "padded", overrides("padded", _FULL))),
        Contestant("Lumi, packed, LoRA", _real(options, overrides("lora"))),
    ]
    found = take_turns(contestants, options)
    notes = [
        f"arch={arch}, the conversations of the demo; {_turns(options)}",
        "packed: several conversations in a window, attention kept apart by masks; padded: as many conversations as there are "
        "windows, each padded to the longest of its batch, drawn from the same sources by the same weights, in a bare loop "
        "because Lumi has no such mode",
        "LoRA and all weights do the same windows, so their rates compare as steps do",
    ]
    return _table("Fine-tuning: supervised tokens", "supervised tokens/s", found, "bare loop, padded", notes)


def measure_dpo(options: Options, arch: str, folder: Path) -> Table:
    """The reference's log-probabilities from disk, or made in every step."""
    begin = _pretrained(options, arch, folder)
    tuned = folder / "runs" / "tuned"
    train([*_common(options, arch, folder, tuned.name), "stage=sft", begin, _FULL, *_SHORT], options)

    def overrides(name: str) -> list[str]:
        after = ["stage=dpo", f"init_from='{tuned}'", f"data.sources.world_pairs.n_pairs={_PAIRS}", _FULL]
        return [*_common(options, arch, folder, name), *after]

    contestants = [
        Contestant("Lumi, stored reference", _real(options, overrides("stored"))),
        Contestant("bare loop, stored reference", _bare(options, "packed", overrides("bare"))),
        Contestant("bare loop, live reference", _bare(options, "live", overrides("live"))),
    ]
    found = take_turns(contestants, options)
    notes = [
        f"arch={arch}, all weights, the pairs of the demo; {_turns(options)}",
        "live: one more forward pass without gradient in every step, of a copy of the model; stored: computed once before the "
        "run, which costs that pass once for all epochs",
    ]
    return _table("Preferences: supervised tokens", "supervised tokens/s", found, "bare loop, live reference", notes)


def train(overrides: Sequence[str], options: Options) -> None:
    """A whole run of a few steps, as a user would start it."""
    run([sys.executable, "train.py", *overrides], options)


def _pretrained(options: Options, arch: str, folder: Path) -> str:
    """Where the stages begin: a model of the demo's world that has hardly trained, which costs the same as a good one."""
    train([*_common(options, arch, folder, "pretrained"), *_SHORT], options)
    return f"init_from='{folder / 'runs' / 'pretrained'}'"


def _common(options: Options, arch: str, folder: Path, name: str) -> list[str]:
    return [
        f"arch={arch}",
        f"paths.data='{options.data / 'demo'}'",
        f"paths.runs='{folder / 'runs'}'",
        f"name={name}",
        f"trainer={'cpu' if options.device == 'cpu' else 'auto'}",
        options.precision,
        "resume=never",
        "data.val_windows=8",
        "callbacks.samples=null",
    ]


def _endless(overrides: Sequence[str]) -> list[str]:
    return [*overrides, "budget.epochs=null", f"budget.steps={_MANY}", f"trainer.val_every_steps={_MANY}"]


def _real(options: Options, overrides: Sequence[str]) -> list[str]:
    return lumi_command(["--warmup", str(options.warmup), "--supervised", "--", *_endless(overrides)])


def _bare(options: Options, kind: str, overrides: Sequence[str]) -> list[str]:
    common = ["--kind", kind, "--warmup", str(options.warmup), "--supervised"]
    return [sys.executable, "-m", "benchmarks.training.bare_loop", *common, "--", *_endless(overrides)]


def _turns(options: Options) -> str:
    return f"medians of {options.rounds} turns, one after the other, a process each, {options.threads} threads"


def _table(title: str, unit: str, found: Sequence[Result], reference: str, notes: Sequence[str]) -> Table:
    ran = [one for one in found if one.turns]
    rows = [
        {
            "contestant": one.name,
            unit: one.rate,
            "from": min(one.rates),
            "to": max(one.rates),
            "ms a step": one.step_milliseconds,
            f"times as fast as {reference}": median(ratios([ran], one.name, reference)),
        }
        for one in ran
    ]
    missing = [f"left out: {one.name}: {one.error}" for one in found if not one.turns]
    return Table(title=title, rows=rows, notes=[*notes, *missing], raw={"results": [vars(one) for one in found]})
