"""Two runs side by side: the first figure, and the first tensor, in which they differ by a bit."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from lumi.callbacks import list_checkpoints, read_metrics
from lumi.manifest import read_manifest, verify

_CLOCKS = ("perf/",)
"""Metrics that say how long something took."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """What came of comparing.

    Attributes:
        steps: rows of metrics that both runs have.
        figures: that were compared in them.
        first: the first figure that differs: step, metric, and both values as hex floats; None if none does.
        weights_step: newest step of which both have a checkpoint; None if there is none.
        weights: name of each file of weights → SHA-256 of both.
        tensor: the first tensor that differs, with the largest difference in it; None if none does.
    """

    steps: int
    figures: int
    first: dict[str, Any] | None
    weights_step: int | None
    weights: dict[str, tuple[str, str]]
    tensor: dict[str, Any] | None

    @property
    def identical(self) -> bool:
        """Whether nothing that was compared differs, and something was."""
        return self.first is None and self.figures > 0 and all(one == two for one, two in self.weights.values())


def compare_runs(before: Path, after: Path, *, last_step: int | None = None) -> Comparison:
    """Metrics by row, then weights.

    Args:
        before: folder of the run. after: of the same run again.
        last_step: compare up to here; None is all.

    Raises:
        DataError: a checkpoint is damaged.
    """
    steps, figures, first = compare_metrics(
        *(read_metrics(run / "metrics.csv") if (run / "metrics.csv").exists() else {} for run in (before, after)),
        last_step=last_step,
    )
    step, weights, tensor = _compare_weights(before / "checkpoints", after / "checkpoints")
    return Comparison(steps=steps, figures=figures, first=first, weights_step=step, weights=weights, tensor=tensor)


def compare_metrics(
    before: Mapping[int, Mapping[str, float]],
    after: Mapping[int, Mapping[str, float]],
    *,
    last_step: int | None = None,
) -> tuple[int, int, dict[str, Any] | None]:
    """Rows and figures that both have, and the first figure that differs."""
    rows = figures = 0
    first: dict[str, Any] | None = None
    for step in sorted(before.keys() & after.keys()):
        if last_step is not None and step > last_step:
            break
        rows += 1
        names = [name for name in before[step] if name in after[step] and not name.startswith(_CLOCKS)]
        figures += len(names)
        for name in names:
            one, two = before[step][name], after[step][name]
            if first is None and one.hex() != two.hex():
                first = {"step": step, "metric": name, "before": one.hex(), "after": two.hex(), "difference": two - one}
    return rows, figures, first


def _compare_weights(before: Path, after: Path) -> tuple[int | None, dict[str, tuple[str, str]], dict[str, Any] | None]:
    old, new = dict(list_checkpoints(before)), dict(list_checkpoints(after))
    common = sorted(old.keys() & new.keys())
    if not common:
        return None, {}, None
    step = common[-1]
    files = read_manifest(old[step]).files, read_manifest(new[step]).files
    names = [name for name in files[0] if name.endswith(".safetensors")]
    hashes = {name: (files[0][name]["sha256"], files[1].get(name, {}).get("sha256", "")) for name in names}
    for name in (name for name, (one, two) in hashes.items() if one != two):
        verify(old[step])
        verify(new[step])
        if tensor := _first_tensor(old[step] / name, new[step] / name):
            return step, hashes, tensor
    return step, hashes, None


def _first_tensor(before: Path, after: Path) -> dict[str, Any] | None:
    old, new = load_file(before), load_file(after) if after.exists() else {}
    for name, one in old.items():
        two = new.get(name)
        if two is None or two.shape != one.shape:
            return {"tensor": name, "shapes": [list(one.shape), None if two is None else list(two.shape)]}
        if not torch.equal(one, two):
            differ = one != two
            largest = (one.double() - two.double()).abs().max().item()
            return {"tensor": name, "values": int(differ.sum()), "of": one.numel(), "largest": largest}
    return None
