"""What ``prepare.py`` calls: corpus, tokenizer and packed tokens, or conversations, or preference pairs, from a config."""

import logging
from pathlib import Path
from typing import Any, get_args

from omegaconf import DictConfig
from rich.console import Console

from lumi.config import build, check_keys, resolve
from lumi.data import ChatData
from lumi.data.prepare import Step
from lumi.data.prepare import prepare as prepare_corpus
from lumi.errors import ConfigError, did_you_mean
from lumi.manifest import MANIFEST

log = logging.getLogger(__name__)

ROOT_KEYS = (
    "step", "inspect", "analyze_only", "force", "seed", "paths", "source", "corpus", "task", "executor", "pack", "template",
    "tokenizer", "data", "arch",
)  # fmt: skip
EXAMPLES = ("chat", "preference")
STEPS = (*get_args(Step), *EXAMPLES)


def prepare(cfg: DictConfig) -> None:
    """Make what the config describes, as far as it is missing.

    Raises:
        LumiError: a setting is wrong, a source cannot be read, or an earlier step is missing.
    """
    settings = resolve(cfg)
    check_keys(settings, ROOT_KEYS)
    step, force, shown = settings["step"], settings["force"], settings["inspect"]
    if step not in STEPS:
        raise ConfigError(f"step={step}", "is not a step", did_you_mean(str(step), STEPS))
    if not isinstance(force, bool):
        raise ConfigError(f"force={force}", "must be true or false")
    if not isinstance(shown, int) or isinstance(shown, bool) or shown < 0 or (shown and step not in EXAMPLES):
        raise ConfigError(f"inspect={shown}", f"must be a number of examples, with step={' or step='.join(EXAMPLES)}")
    data = build(
        settings["data"],
        "data",
        template=build(settings["template"], "template"),
        tokenizer=build(settings["tokenizer"], "tokenizer"),
        pack=build(settings["pack"], "pack"),
        executor=build(settings["executor"], "executor"),
        root=Path(settings["paths"]["data"]),
        seed=settings["seed"],
    )
    if step in EXAMPLES:
        _prepare_examples(data, step, force=force, shown=shown)
        return
    if isinstance(data, ChatData):
        raise ConfigError(f"step={step}", "is about text, these data are examples", f"step={data.kind}")
    prepare_corpus(
        data.corpus, data.places, data.pack_config, executor=data.executor, step=step, force=force, wait=False
    )
    if step in ("pack", "all"):
        log.info("ready: %s", ", ".join(str(data.places.packed(name)) for name in data.sources))


def _prepare_examples(data: Any, step: str, *, force: bool, shown: int) -> None:
    """Write the examples; where there is a tokenizer, also say how many fit a window, and show some."""
    if not isinstance(data, ChatData) or data.kind != step:
        raise ConfigError(f"step={step}", f"needs data={step}", "leave data=… out")
    data.prepare(force=force)
    if (data.places.tokenizer_folder / MANIFEST).exists() or shown:
        data.setup()
        console = Console(highlight=False, soft_wrap=True)
        for text in data.preview(shown):
            console.print(text)
    else:
        log.info(
            "lengths in tokens are counted when there is a tokenizer: %s is not there yet", data.places.tokenizer_folder
        )
    log.info("ready: %s", ", ".join(str(data.folder(name)) for name in data.sources))
