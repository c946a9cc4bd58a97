"""A sweep that W&B's server conducts (``sweep=wandb``): its file, from the same command. Nothing is contacted.

An agent starts ``train.py`` with Hydra's overrides; everything else is as in a run that a person starts.
"""

import dataclasses
import sys
from typing import TYPE_CHECKING, Any, Literal

from omegaconf import OmegaConf

from lumi.errors import ConfigError
from lumi.manifest import write_atomic
from lumi.sweep.space import Dimension, Space
from lumi.sweep.study import Study

if TYPE_CHECKING:
    from lumi.sweep.command import Command


@dataclasses.dataclass(frozen=True, kw_only=True)
class WandB:
    """Settings of the sweep.

    Attributes:
        method: grid, random or bayes; null is bayes where there is an interval, else grid.
        metric: to look at; a logged name.
        direction: minimize or maximize.
        trials: at most so many runs; null is no limit.
        project: of W&B.
    """

    method: Literal["grid", "random", "bayes"] | None = None
    metric: str = "val/loss"
    direction: Literal["minimize", "maximize"] = "minimize"
    trials: int | None = None
    project: str = "lumi"

    kind = "wandb"

    def run(self, command: "Command", study: Study) -> None:
        """Write the file, and print it with the two commands."""
        text = OmegaConf.to_yaml(OmegaConf.create(self.file(command.space, study.name, sys.argv[0])))
        example = [f"{one.key}={(*one.choices, one.low)[0]}" for one in command.space.dimensions]
        command.describe(example)  # what is wrong is said here, not by an agent
        path = study.folder / "wandb.yaml"
        study.save()
        write_atomic(path, text)
        sys.stdout.write(f"{text}\n# {path}\nwandb sweep --project {self.project} {path}\n")
        sys.stdout.write(f"wandb agent ENTITY/{self.project}/SWEEP    # with the name that the first command gives\n")

    def file(self, space: Space, name: str, script: str) -> dict[str, Any]:
        """What W&B reads.

        Raises:
            ConfigError: nothing is swept over, or an interval in a grid.
        """
        if not space.dimensions:
            raise ConfigError("sweep=wandb", "has nothing to search", "such as optim.lr='interval(1e-4,1e-2)'")
        has_interval = any(not one.choices for one in space.dimensions)
        if self.method == "grid" and has_interval:
            raise ConfigError("sweep.method=grid", "needs values to enumerate", "list them, or sweep.method=bayes")
        arguments = list(space.arguments)
        if not any(one.startswith("logger=") for one in arguments):
            arguments.insert(0, "logger=wandb")
        found: dict[str, Any] = {
            "name": name,
            "program": script,
            "method": self.method or ("bayes" if has_interval else "grid"),
            "metric": {"name": self.metric, "goal": self.direction},
            "parameters": {one.key: parameter(one) for one in space.dimensions},
            "command": ["${env}", "${interpreter}", "${program}", *arguments, "${args_no_hyphens}"],
        }
        if self.trials is not None:
            found["run_cap"] = self.trials
        return found


def parameter(dimension: Dimension) -> dict[str, Any]:
    """One dimension in W&B's words."""
    if dimension.choices:
        return {"values": [_plain(value) for value in dimension.choices]}
    kind = "log_uniform_values" if dimension.log else "uniform"
    if dimension.is_whole:
        kind = "q_log_uniform_values" if dimension.log else "int_uniform"
    return {"distribution": kind, "min": dimension.low, "max": dimension.high}


def _plain(text: str) -> int | float | str:
    """A number as a number; all else as it is typed (W&B would write ``True`` and ``None``)."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
