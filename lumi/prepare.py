"""What ``prepare.py`` calls: the steps of `lumi.data.prepare` from a config."""

import logging
from pathlib import Path
from typing import get_args

from omegaconf import DictConfig

from lumi.config import build, check_keys, resolve
from lumi.data.prepare import Step
from lumi.data.prepare import prepare as prepare_sources
from lumi.errors import ConfigError, did_you_mean

log = logging.getLogger(__name__)

ROOT_KEYS = ("step", "force", "seed", "paths", "source", "pack", "tokenizer", "data", "arch")


def prepare(cfg: DictConfig) -> None:
    """Make the corpus, the tokenizer and the packed tokens that the config describes, as far as they are missing.

    Raises:
        LumiError: a setting is wrong, a source cannot be read, or an earlier step is missing.
    """
    settings = resolve(cfg)
    check_keys(settings, ROOT_KEYS)
    step, force = settings["step"], settings["force"]
    if step not in get_args(Step):
        raise ConfigError(f"step={step}", "is not a step", did_you_mean(str(step), get_args(Step)))
    if not isinstance(force, bool):
        raise ConfigError(f"force={force}", "must be true or false")
    data = build(
        settings["data"],
        "data",
        tokenizer=build(settings["tokenizer"], "tokenizer"),
        pack=build(settings["pack"], "pack"),
        root=Path(settings["paths"]["data"]),
        seed=settings["seed"],
    )
    prepare_sources(data.sources, data.places, data.pack_config, step=step, force=force)
    if step in ("pack", "all"):
        log.info("ready: %s", ", ".join(str(data.places.packed(name)) for name in data.sources))
