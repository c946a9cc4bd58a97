"""What ``serve.py`` calls: load models, then answer by HTTP, in the terminal, or write them for other programs."""

import itertools
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig

from lumi.arch.fused import FusedDecoder
from lumi.config import build, check_keys, resolve
from lumi.errors import ConfigError, did_you_mean
from lumi.generate import Engine, SamplingParams
from lumi.manifest import fingerprint, read_manifest
from lumi.trained import Trained, load_trained

if TYPE_CHECKING:  # imported where they are used: a chat in the terminal needs no HTTP
    from lumi.serve.metrics import Metrics
    from lumi.serve.models import ServedModel

log = logging.getLogger(__name__)

ROOT_KEYS = (
    "mode", "model", "base", "engine", "device", "dtype", "slots", "max_waiting", "prompt_part", "sampling", "server", "prompt",
    "system", "format", "out", "paths",
)  # fmt: skip
MODES = ("api", "chat", "export")
ENGINES = ("lumi", "llamacpp", "vllm")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Settings = dict[str, Any]


def serve(cfg: DictConfig) -> None:
    """Serve, chat or export.

    Raises:
        LumiError: a setting is wrong, or a model cannot be read.
    """
    settings = resolve(cfg)
    check_keys(settings, ROOT_KEYS)
    _check(settings)
    build(settings["server"], "server")
    sampling = build(settings["sampling"], "sampling")
    {"api": _serve_api, "chat": _chat}[settings["mode"]](settings, sampling)


def _check(settings: Settings) -> None:
    for key, options in (
        ("mode", MODES), ("engine", ENGINES), ("device", ("auto", "cpu", "cuda")), ("dtype", ("auto", *DTYPES)),
    ):  # fmt: skip
        if settings[key] not in options:
            raise ConfigError(
                f"{key}={settings[key]}", "there is no such option", did_you_mean(str(settings[key]), options)
            )
    for key in ("slots", "max_waiting", "prompt_part"):
        if not isinstance(settings[key], int) or settings[key] < 1:
            raise ConfigError(f"{key}={settings[key]}", "must be a whole number from 1")
    if settings["device"] == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda", "there is no CUDA device here", "device=auto takes what there is")


def _serve_api(settings: Settings, sampling: SamplingParams) -> None:
    from lumi.serve.metrics import Metrics
    from lumi.serve.server import ROUTES, serve

    metrics = Metrics(ROUTES)
    trained = list(_load(settings))
    models = [
        _served(name, each, settings, sampling, metrics) for name, each in zip(_names(trained), trained, strict=True)
    ]
    serve(models, build(settings["server"], "server"), metrics)


def _served(
    name: str, trained: Trained, settings: Settings, sampling: SamplingParams, metrics: "Metrics"
) -> "ServedModel":
    from lumi.serve.models import ServedModel
    from lumi.serve.scheduler import Scheduler

    decoder = _fused(trained, settings)
    engine = Engine(decoder, n_rows=settings["slots"], prompt_part=settings["prompt_part"])
    dtype = str(decoder.dtype).removeprefix("torch.")
    log.info("%s: %s parameters, %s on %s", name, f"{decoder.config.n_params():,}", dtype, decoder.device.type)
    log.info("cache: %s MB for %d requests", f"{engine.cache.n_bytes / 1e6:,.0f}", settings["slots"])
    return ServedModel(
        name=name,
        config=decoder.config,
        tokenizer=trained.tokenizer,
        template=trained.template,
        sampling=sampling,
        fingerprint=fingerprint([read_manifest(trained.checkpoint).files, dtype]),
        scheduler=Scheduler(
            engine,
            max_waiting=settings["max_waiting"],
            on_first_token=metrics.first_token.observe,
            on_token=metrics.inter_token.observe,
        ),
    )


def _chat(settings: Settings, sampling: SamplingParams) -> None:
    from lumi.serve.terminal import chat

    if not isinstance(settings["model"], str):
        raise ConfigError(f"model={settings['model']}", "mode=chat talks to one model")
    (trained,) = _load(settings)
    chat(
        _fused(trained, settings),
        trained.tokenizer,
        trained.template,
        sampling,
        name=trained.facts["name"],
        system=settings["system"],
        prompt=settings["prompt"],
        stdin=sys.stdin,
        stdout=sys.stdout,
    )


def _load(settings: Settings) -> Iterator[Trained]:
    paths = [settings["model"]] if isinstance(settings["model"], str) else settings["model"]
    if not isinstance(paths, Sequence) or not paths or not all(isinstance(path, str) for path in paths):
        raise ConfigError(
            f"model={settings['model']}", "must be a path or a list of paths", "python serve.py model=runs/…"
        )
    for path in paths:
        yield load_trained(Path(path))


def _names(models: Sequence[Trained]) -> Iterator[str]:
    """What clients call them; a number tells apart those of the same name."""
    used: set[str] = set()
    for trained in models:
        name = str(trained.facts["name"])
        candidates = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        chosen = next(candidate for candidate in candidates if candidate not in used)
        used.add(chosen)
        yield chosen


def _fused(trained: Trained, settings: Settings) -> FusedDecoder:
    cuda = settings["device"] == "cuda" or (settings["device"] == "auto" and torch.cuda.is_available())
    dtype = DTYPES.get(settings["dtype"], torch.bfloat16 if cuda else torch.float32)
    return FusedDecoder(trained.decoder.cuda() if cuda else trained.decoder, dtype)
