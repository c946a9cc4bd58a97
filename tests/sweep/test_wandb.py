"""The file of a sweep that W&B conducts."""

import pytest
from omegaconf import OmegaConf

from lumi.errors import ConfigError
from lumi.sweep import WandB
from lumi.sweep.space import Dimension, Space

LR = Dimension(key="optim.lr", low=1e-4, high=1e-2, log=True)
ARCH = Dimension(key="arch", choices=("nano", "micro"))
BATCH = Dimension(key="data.batch_size", choices=("8", "0.5", "null", "true"))

EXPECTED = """\
name: rates
program: train.py
method: bayes
metric:
  name: val/loss
  goal: minimize
parameters:
  optim.lr:
    distribution: log_uniform_values
    min: 0.0001
    max: 0.01
  arch:
    values:
    - nano
    - micro
command:
- ${env}
- ${interpreter}
- ${program}
- logger=wandb
- budget.steps=3
- ${args_no_hyphens}
run_cap: 12
"""


def a_space(*dimensions: Dimension, arguments: tuple[str, ...] = ()) -> Space:
    return Space(arguments=arguments, dimensions=dimensions, typed=())


def test_the_file_is_what_wandb_reads() -> None:
    found = WandB(trials=12).file(a_space(LR, ARCH, arguments=("budget.steps=3",)), "rates", "train.py")
    assert OmegaConf.to_yaml(OmegaConf.create(found)) == EXPECTED


def test_values_are_numbers_where_they_are_and_hydras_words_else() -> None:
    found = WandB().file(a_space(BATCH, arguments=("logger=[csv,wandb]",)), "x", "train.py")
    assert found["method"] == "grid"
    assert found["parameters"] == {"data.batch_size": {"values": [8, 0.5, "null", "true"]}}
    assert found["command"][3:] == ["logger=[csv,wandb]", "${args_no_hyphens}"]


def test_whole_numbers_have_their_own_distributions() -> None:
    whole = Dimension(key="x", low=1, high=8)
    assert WandB().file(a_space(whole), "x", "y")["parameters"]["x"]["distribution"] == "int_uniform"


def test_a_grid_of_wandb_refuses_an_interval_and_an_empty_space() -> None:
    with pytest.raises(ConfigError, match=r"sweep.method=grid · needs values"):
        WandB(method="grid").file(a_space(LR), "x", "y")
    with pytest.raises(ConfigError, match="sweep=wandb · has nothing to search"):
        WandB().file(a_space(), "x", "y")


def test_the_file_and_the_two_commands_are_printed_and_no_run_begins(place) -> None:
    params = "hydra.sweeper.params={seed: 'range(0,2)'}"  # as an experiment's file may name them
    code, said = place.run("sweep=wandb", "study=w", "optim.lr=interval(1e-4,1e-2)", params)
    assert code == 0, said
    written = (place.folder / "multirun/w/wandb.yaml").read_text()
    assert written in said
    assert OmegaConf.select(OmegaConf.load(place.folder / "multirun/w/wandb.yaml"), "parameters.seed") == {
        "values": [0, 1]
    }
    assert "wandb sweep --project lumi multirun/w/wandb.yaml\nwandb agent ENTITY/lumi/SWEEP" in said
    assert not (place.folder / "runs").exists()
