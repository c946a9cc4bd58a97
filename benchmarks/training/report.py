"""From turns to tables, JSON and a picture."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import Table
from benchmarks.training.driver import Result
from benchmarks.training.pretrain import LIMIT, Contest

GIB = 2**30


def merged(groups: Sequence[Sequence[Result]]) -> dict[str, Result]:
    """One result a contestant, with the turns of all groups that it was in."""
    found: dict[str, Result] = {}
    for result in (one for group in groups for one in group):
        before = found.setdefault(result.name, Result(result.name, result.facts, [], result.error))
        before.turns.extend(result.turns)
    return found


def ratios(groups: Sequence[Sequence[Result]], name: str, reference: str) -> list[float]:
    """How many times faster than the reference, turn by turn; only turns that followed each other are compared."""
    found = []
    for group in groups:
        by_name = {one.name: one for one in group}
        if name in by_name and reference in by_name:
            pairs = zip(by_name[name].rates, by_name[reference].rates, strict=False)
            found += [ours / theirs for ours, theirs in pairs]
    return found


def median(values: Sequence[float]) -> float | None:
    """Or None of nothing."""
    return statistics.median(values) if values else None


def peak_bytes(result: Result) -> int | None:
    """Of the GPU where there is one, else of the process."""
    peaks = result.facts.get("peaks", {})
    return peaks.get("cuda", peaks.get("rss")) if result.name != LIMIT else None


def pretrain_table(contest: Contest, device: str, *, half: bool) -> Table:
    """One row a contestant, the fastest first, the limit on top."""
    results = merged(contest.groups)
    ran = sorted((one for one in results.values() if one.turns), key=lambda one: -one.rate)
    rows = [_row(contest, one, device) for one in ran]
    missing = [f"left out: {one.name}: {one.error}" for one in results.values() if not one.turns]
    raw = {
        "work": vars(contest.work),
        "groups": [[vars(one) for one in group] for group in contest.groups],
        "left_out": {one.name: one.error for one in results.values() if not one.turns},
    }
    return Table(title=_title(contest), rows=rows, notes=[*_notes(contest, results, half=half), *missing], raw=raw)


def _row(contest: Contest, result: Result, device: str) -> dict[str, Any]:
    share = median(ratios(contest.groups, result.name, LIMIT))
    peak = peak_bytes(result)
    row: dict[str, Any] = {
        "contestant": result.name,
        "tokens/s": result.rate,
        "from": min(result.rates),
        "to": max(result.rates),
        "of the limit %": None if share is None else 100 * share,
    }
    for lumi in contest.lumi:
        fair = result.name != LIMIT
        row[f"{lumi} is … times as fast"] = median(ratios(contest.groups, lumi, result.name)) if fair else None
    row["peak GiB"] = None if peak is None else peak / GIB
    row["last loss"] = None if result.turns[-1]["loss"] is None else f"{result.turns[-1]['loss']:.4f}"
    peak_flops = merged(contest.groups)[LIMIT].facts.get("peak_flops")
    if device == "cuda" and peak_flops:
        row["MFU %"] = 100 * result.rate * contest.work.flops_per_token / peak_flops
    return row


def _title(contest: Contest) -> str:
    work = contest.work
    return f"Pretraining, {work.arch}: {work.n_params:,} parameters, {work.batch_size} x {work.seq_len} tokens a step"


def _notes(contest: Contest, results: dict[str, Result], *, half: bool) -> list[str]:
    work, limit = contest.work, results[LIMIT]
    turns = max((len(one.turns) for one in results.values()), default=0)
    steps = max((turn["steps"] for one in results.values() for turn in one.turns), default=0)
    threads = next((one.facts["threads"] for one in results.values() if one.facts), 0)
    facts = [one.facts for one in results.values()]
    found = {"torch": next((one["torch"] for one in facts if "torch" in one), "")}
    found |= {name.partition(",")[0]: one.facts["version"] for name, one in results.items() if "version" in one.facts}
    compiled = {one.name: one.facts["compiled"] for one in results.values() if "compiled" in one.facts}
    notes = [
        ", ".join(f"{name} {version}" for name, version in found.items()),
        f"vocabulary {work.vocab_size:,}, {work.flops_per_token / 1e6:.1f} MFLOP a token; medians of {turns} turns of {steps} "
        f"steps, in turns, a process each, {threads} threads, {'bf16 autocast' if half else 'float32'}",
        *(f"{name}: {'' if ran else 'not '}compiled" for name, ran in compiled.items()),
        "ratios and shares are medians over turns that followed each other; a token is a position that is computed",
        "first weights, batches and optimizer are the same for all, so equal losses mean equal work",
    ]
    if limit.turns:
        peak, chosen = limit.facts["peak_flops"], limit.facts["chosen"]
        ways = ", ".join(f"{part} {way}" for part, way in chosen.items() if way)
        notes.append(f"a large product reaches {peak / 1e9:,.0f} GFLOP/s; the limit's fastest ways: {ways}")
    idle = [turn.get("idle_cpu_seconds", 0.0) for one in results.values() for turn in one.turns]
    others = [one.facts["others_share"] for one in results.values() if "others_share" in one.facts]
    notes.append(
        f"processor time used while waiting for a turn: at most {max(idle, default=0.0):.3f} s; what else ran on the machine "
        f"took {100 * max(others, default=0.0):.0f} % of it meanwhile"
    )
    return notes


def draw(contest: Contest, device: str, path: Path) -> None:
    """Bars of speed with the limit as a line, and of memory."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    results = merged(contest.groups)
    ran = sorted((one for one in results.values() if one.turns and one.name != LIMIT), key=lambda one: one.rate)
    names = [one.name for one in ran]
    colours = ["#d9772b" if one.name.startswith("Lumi") else "#8a96a3" for one in ran]
    figure, (speed, memory) = plt.subplots(1, 2, figsize=(11, 0.42 * len(ran) + 1.7), sharey=True, width_ratios=[2, 1])
    spread = [
        [one.rate - min(one.rates) for one in ran],
        [max(one.rates) - one.rate for one in ran],
    ]
    speed.barh(names, [one.rate for one in ran], xerr=spread, color=colours, error_kw={"lw": 1, "capsize": 3})
    if results[LIMIT].turns:
        speed.axvline(results[LIMIT].rate, color="black", linestyle="--", linewidth=1)
        speed.annotate("limit", (results[LIMIT].rate, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom")
    speed.set_xlabel("tokens/s (median, least and most)")
    memory.barh(names, [(peak_bytes(one) or 0) / GIB for one in ran], color=colours)
    memory.set_xlabel(f"peak memory of the {'process' if device == 'cpu' else 'GPU'}, GiB")
    for axis in (speed, memory):
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(_title(contest))
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
