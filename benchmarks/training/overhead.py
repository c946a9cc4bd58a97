"""Part ``overhead``: what Lumi's real loop adds to the very same step in a bare loop."""

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import Table
from benchmarks.training.driver import Contestant, Result
from benchmarks.training.options import Options
from benchmarks.training.pretrain import lumi_command, make_text, needed_bytes, run_overrides, take_turns, write_work

_LUMI, _BARE = "train.py", "bare loop"


def measure_overhead(options: Options, archs: Sequence[str], folder: Path) -> Table:
    """One row an architecture."""
    rows: list[dict[str, object]] = []
    raw: dict[str, object] = {}
    missing: list[str] = []
    for arch in archs:
        place = folder / arch
        place.mkdir()
        make_text(options, arch)
        memory = needed_bytes(options, write_work(options, arch, place), whole_logits=False)
        common = ["--warmup", str(options.warmup), "--"]
        real = lumi_command([*common, *run_overrides(options, arch, place, "real")])
        bare = [sys.executable, "-m", "benchmarks.training.bare_loop", "--kind", "packed", *common]
        contestants = [
            Contestant(_LUMI, real, memory),
            Contestant(_BARE, [*bare, *run_overrides(options, arch, place, "bare")], memory),
        ]
        options.say(arch)
        found = take_turns(contestants, options)
        rows.append(_row(arch, *found))
        raw[arch] = [vars(one) for one in found]
        missing += [f"{arch}, left out: {one.name}: {one.error}" for one in found if one.error]
    notes = [
        f"medians of {options.rounds} turns, each of both one after the other; the bare loop has the same model, loss, "
        "optimizer, clipping and batches, but no Lightning, callbacks or logging",
        "around the stage: of the real loop's own time what is not loss, backward pass, clipping and the optimizer's step, by "
        "the clock of one process; a CPU's only. Two processes differ by more than that, in where their memory lies",
        f"trainer.compile={str(options.compile_default).lower()}, as configured by default",
    ]
    return Table(title="Overhead of the training loop", rows=rows, notes=[*notes, *missing], raw=raw)


def _row(arch: str, lumi: Result, bare: Result) -> dict[str, object]:
    """Shares are of Lumi's step."""
    if not (lumi.turns and bare.turns):
        names = ("train.py ms", "bare loop ms", "overhead %", "from", "to", "around the stage ms", "around the stage %")
        return {"arch": arch, **dict.fromkeys(names)}
    pairs = list(zip(lumi.rates, bare.rates, strict=True))
    shares = [100 * (1 - ours / theirs) for ours, theirs in pairs]
    return {
        "arch": arch,
        "train.py ms": lumi.step_milliseconds,
        "bare loop ms": bare.step_milliseconds,
        "overhead %": statistics.median(shares),
        "from": min(shares),
        "to": max(shares),
        "around the stage ms": statistics.median(
            1000 * (t["seconds"] - t["stage_seconds"]) / t["steps"] for t in lumi.turns
        ),
        "around the stage %": statistics.median(100 * (1 - t["stage_seconds"] / t["seconds"]) for t in lumi.turns),
    }
