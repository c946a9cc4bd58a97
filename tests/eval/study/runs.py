"""Run folders as training leaves them, without any training."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

PLAN = {"parameters": 1000, "non_embedding": 800, "flops_per_token": 5000, "total_steps": 4, "tokens_per_step": 100}


def write_run(
    folder: Path,
    loss: float,
    *,
    seed: int = 0,
    settings: dict[str, Any] | None = None,
    status: str = "finished",
    plan: dict[str, Any] | None = None,
    seconds: float = 8.0,
    metrics: dict[str, float] | None = None,
) -> None:
    """A run of four steps, 100 tokens each, that ends with this validation loss."""
    folder.mkdir(parents=True)
    full = {"name": folder.name, "seed": seed, "paths": {"runs": str(folder.parent)}, "logger": {}, **(settings or {})}
    (folder / "config.yaml").write_text(yaml.safe_dump(full))
    last = {"val/loss": loss, "train/loss": loss - 0.1, **(metrics or {})} if status == "finished" else {}
    state = {"status": status, "settings": full, "metrics": last, "plan": PLAN | (plan or {})}
    (folder / "run.json").write_text(json.dumps(state))
    lines = ["step,progress/tokens,progress/percent,perf/seconds,train/loss,val/loss"]
    for step in range(1, 5):
        above = 0.5 * (4 - step)
        val = f"{loss + above}" if step % 2 == 0 else ""
        lines.append(f"{step},{100 * step},{25 * step},{seconds * step / 4},{loss + above - 0.1},{val}")
    (folder / "metrics.csv").write_text("\r\n".join(lines) + "\r\n")


def write_study(root: Path, jobs: Sequence[dict[str, Any]], name: str = "rates", kind: str = "grid") -> Path:
    """The study.json of these jobs, below root/multirun."""
    folder = root / "multirun" / name
    folder.mkdir(parents=True)
    full = [
        {"number": number, "state": "finished", "error": None, "seconds": None, **job}
        for number, job in enumerate(jobs)
    ]
    sweep = {"kind": kind, "overrides": ["optim.lr=…"]}
    found = {"name": name, "created": "2026-01-02 03:04:05", "sweep": sweep, "jobs": full}
    (folder / "study.json").write_text(json.dumps(found))
    return folder
