"""One run with every logger, which several files of tests read."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from lumi.run import train

SAMPLER = (
    "callbacks.samples={_target_: lumi.callbacks.Samples, prompts: ['Once', 'The'],"
    " sampling: {_target_: lumi.generate.SamplingParams, max_new_tokens: 4, seed: 0}}"
)
LOGGERS = (
    "logger=wandb",
    "logger.wandb.offline=true",
    "+logger.tensorboard={_target_: lumi.callbacks.TensorBoard}",
)


@pytest.fixture(scope="session")
def logged_run(
    composed: Callable[..., DictConfig],
    tiny_run: tuple[str, ...],
    data_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A run of four steps and two validations with W&B offline and TensorBoard."""
    runs = tmp_path_factory.mktemp("logged")
    places = (f"paths.data='{data_folder}'", f"paths.runs='{runs}'", "name=run", "budget.steps=4")
    train(composed("train", *tiny_run, *places, *LOGGERS, "trainer.val_every_steps=2", SAMPLER))
    return runs / "run"
