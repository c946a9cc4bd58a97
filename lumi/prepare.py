"""What ``prepare.py`` calls: corpus, tokenizer and packed tokens, or conversations, or preference pairs, from a config."""

import logging
import math
from pathlib import Path
from typing import Any, get_args

from omegaconf import DictConfig
from rich.console import Console

from lumi.config import build, check_keys, resolve
from lumi.corpus import Corpus, TokenCounter
from lumi.corpus.planning.analyze import analyze
from lumi.corpus.planning.table import WIDTH, show_plan
from lumi.data import ChatData, Locations, PackedData
from lumi.data.prepare import Step, token_counter
from lumi.data.prepare import prepare as prepare_corpus
from lumi.errors import ConfigError, did_you_mean
from lumi.lineage.verify import verify_chain
from lumi.manifest import MANIFEST, write_atomic
from lumi.tokenizer import ExistingTokenizer, Tokenizer

log = logging.getLogger(__name__)

ROOT_KEYS = (
    "step", "inspect", "analyze_only", "sample_megabytes", "force", "seed", "paths", "source", "corpus", "task", "executor",
    "pack", "template", "tokenizer", "data", "arch", "verify",
)  # fmt: skip
EXAMPLES = ("chat", "preference")
STEPS = (*get_args(Step), *EXAMPLES)
PLANNED = ("corpus", "all")


def prepare(cfg: DictConfig) -> None:
    """Make what the config describes, as far as it is missing.

    Raises:
        LumiError: a setting is wrong, a source cannot be read, or an earlier step is missing.
    """
    settings = resolve(cfg)
    check_keys(settings, ROOT_KEYS)
    if settings["verify"] is not None:
        verify_chain(Path(str(settings["verify"])))
        return
    _check(settings)
    step, force = settings["step"], settings["force"]
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
        _prepare_examples(data, step, force=force, shown=settings["inspect"])
        return
    if isinstance(data, ChatData):
        raise ConfigError(f"step={step}", "is about text, these data are examples", f"step={data.kind}")
    if settings["analyze_only"]:
        _show_plan(data, settings["sample_megabytes"], settings)
        return
    prepare_corpus(
        data.corpus, data.places, data.pack_config, executor=data.executor, step=step, force=force, wait=False
    )
    if step in ("pack", "all"):
        log.info("ready: %s", ", ".join(str(data.places.packed(name)) for name in data.sources))


def _check(settings: dict[str, Any]) -> None:
    step, force, shown, planned = (settings[key] for key in ("step", "force", "inspect", "analyze_only"))
    megabytes = settings["sample_megabytes"]
    if step not in STEPS:
        raise ConfigError(f"step={step}", "is not a step", did_you_mean(str(step), STEPS))
    if not isinstance(force, bool):
        raise ConfigError(f"force={force}", "must be true or false")
    if not isinstance(shown, int) or isinstance(shown, bool) or shown < 0 or (shown and step not in EXAMPLES):
        raise ConfigError(f"inspect={shown}", f"must be a number of examples, with step={' or step='.join(EXAMPLES)}")
    if not isinstance(planned, bool):
        raise ConfigError(f"analyze_only={planned}", "must be true or false")
    if planned and step not in PLANNED:
        raise ConfigError(f"analyze_only=true step={step}", "looks at a corpus", f"step={' or step='.join(PLANNED)}")
    if not isinstance(megabytes, int | float) or isinstance(megabytes, bool) or not 0 < megabytes < math.inf:
        raise ConfigError(f"sample_megabytes={megabytes}", "must be a number above 0")


def _show_plan(data: PackedData, sample_megabytes: float, settings: dict[str, Any]) -> None:
    """Print what the corpus would be, and keep it as JSON beside where the corpus would be."""
    places = data.places
    counter, vocab_size = _counter(data.corpus, places)
    plan = analyze(
        data.corpus,
        counter,
        sample_megabytes=sample_megabytes,
        executor=data.executor,
        token_bytes=2 if vocab_size <= 2**16 else 4,
        folder=places.root,
    )
    console = Console(highlight=False)
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    show_plan(plan, console)
    path = places.corpus.with_name(f"{data.corpus.name}.plan.json")
    write_atomic(path, plan.to_json(settings))
    log.info("nothing was made but the plan: %s", path)


def _counter(corpus: Corpus, places: Locations) -> tuple[TokenCounter, int]:
    """What counts the tokens of the plan, and the size of the vocabulary: the tokenizer, if it is there.

    A budget is counted as the build does, by an estimate where the tokenizer will be trained on the corpus.
    """
    config, folder = places.tokenizer, places.tokenizer_folder
    is_there = (folder / MANIFEST).exists() and not any(corpus.budgets().values())
    if isinstance(config, ExistingTokenizer) or is_there:
        tokenizer = Tokenizer.load(folder)
        return TokenCounter(tokenizer=folder.absolute(), sha256=tokenizer.sha256), tokenizer.vocab_size
    return token_counter(corpus, places), config.vocab_size


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
