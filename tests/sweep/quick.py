"""A training that is arithmetic: the real configuration, run folders, exit codes and signals in a tenth of the time.

Its loss falls with 1/step to a value that optim.lr decides, lowest at 1e-3. A rate above 0.015 is slow, so that
there is time to stop it; one above 0.1 diverges. Seed 99 is refused.
"""

import json
import signal
import sys
import time
from pathlib import Path

import hydra
from omegaconf import DictConfig

from lumi import cli
from lumi.config import resolve
from lumi.errors import ConfigError, Interrupted, NumericError
from lumi.identity import run_folder
from lumi.manifest import write_atomic

SECONDS_PER_STEP = 0.06


@hydra.main(version_base="1.3", config_path="../../conf", config_name="train")
@cli.job
def main(cfg: DictConfig) -> None:
    settings = resolve(cfg)
    if settings["plan"]:
        return
    if settings["seed"] == 99:
        raise ConfigError("seed=99", "is refused", "take another")
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    folder, total, rate = run_folder(settings), settings["budget"]["steps"], settings["optim"]["lr"]
    rows = {}
    if (folder / "metrics.csv").exists():
        rows = dict(line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()[1:])
    sys.stderr.write(f"begins after step {len(rows)}\n")
    for step in range(len(rows) + 1, total + 1):
        if rate > 0.1:
            raise NumericError("train/loss=nan", "is not a number")
        time.sleep(SECONDS_PER_STEP * (10 if rate > 0.015 else 1))
        rows[str(step)] = str(abs(rate - 1e-3) + 1 / step)
        lines = [f"{number},{loss}" for number, loss in rows.items()]
        write_atomic(folder / "metrics.csv", "\n".join(["step,val/loss", *lines]) + "\n")
        save(folder, "running", settings, total)
        if asked:
            raise Interrupted("stopped", signal_number=asked[0])
    save(folder, "finished", settings, total)


def save(folder: Path, status: str, settings: dict[str, object], total: int) -> None:
    state = {"status": status, "updated": "now", "settings": settings, "plan": {"total_steps": total}}
    write_atomic(folder / "run.json", json.dumps(state))


if __name__ == "__main__":
    cli.run(main)
