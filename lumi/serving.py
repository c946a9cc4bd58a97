"""What ``serve.py`` calls: load models, then answer by HTTP, in the terminal, or write them for other programs."""

import importlib.util
import itertools
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig

from lumi.arch.fused import FusedDecoder
from lumi.config import build, check_keys, resolve
from lumi.errors import ConfigError, DataError, did_you_mean
from lumi.export.source import weights_sha256
from lumi.generate import Engine
from lumi.manifest import MANIFEST, fingerprint, verify
from lumi.trained import Trained, load_trained

if TYPE_CHECKING:  # imported where they are used: a chat in the terminal needs no HTTP
    from lumi.serve.metrics import Metrics
    from lumi.serve.models import ServedModel
    from lumi.serve.scheduler import Steps

log = logging.getLogger(__name__)

ROOT_KEYS = (
    "mode", "model", "base", "engine", "device", "dtype", "slots", "max_waiting", "prompt_part", "sampling", "server", "prompt",
    "system", "input", "format", "out", "paths",
)  # fmt: skip
MODES = ("api", "chat", "batch", "export")
ENGINES = ("lumi", "llamacpp", "vllm")
ENGINES_OF = {"chat": ("lumi",), "batch": ("lumi", "llamacpp")}
"""Where not every engine can answer; vLLM's is a server of its own."""
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
    build(settings["sampling"], "sampling")
    {"api": _serve_api, "chat": _chat, "batch": _batch, "export": _export}[settings["mode"]](settings)


def _check(settings: Settings) -> None:
    for key, options in (
        ("mode", MODES), ("engine", ENGINES), ("device", ("auto", "cpu", "cuda")),
        *([] if _exports(settings) else [("dtype", ("auto", *DTYPES))]),
    ):  # fmt: skip
        if settings[key] not in options:
            raise ConfigError(
                f"{key}={settings[key]}", "there is no such option", did_you_mean(str(settings[key]), options)
            )
    able = ENGINES_OF.get(settings["mode"], ENGINES)
    if settings["engine"] not in able:
        raise ConfigError(
            f"engine={settings['engine']}",
            f"mode={settings['mode']} answers with engine={' or '.join(able)}",
            f"leave it out, or serve with mode=api engine={settings['engine']}",
        )
    for key in ("slots", "max_waiting", "prompt_part"):
        if not isinstance(settings[key], int) or settings[key] < 1:
            raise ConfigError(f"{key}={settings[key]}", "must be a whole number from 1")
    if settings["device"] == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda", "there is no CUDA device here", "device=auto takes what there is")


def _exports(settings: Settings) -> bool:
    """Whether ``dtype`` is that of a file, which has other names for it."""
    return settings["mode"] == "export" or settings["engine"] != "lumi"


def _serve_api(settings: Settings) -> None:
    if settings["engine"] == "vllm":
        _vllm(settings)
    from lumi.serve.metrics import Metrics
    from lumi.serve.server import ROUTES, serve

    metrics = Metrics(ROUTES)
    serve(_models(settings, metrics), build(settings["server"], "server"), metrics)


def _batch(settings: Settings) -> None:
    from lumi.serve.api import Service
    from lumi.serve.batch import answer_file
    from lumi.serve.metrics import Metrics

    if not settings["input"] or not settings["out"]:
        raise ConfigError(
            f"input={settings['input']} out={settings['out']}",
            "mode=batch needs both files",
            "python serve.py mode=batch model=… input=requests.jsonl out=answers.jsonl",
        )
    metrics = Metrics([])
    service = Service(_models(settings, metrics), metrics, None)
    n_failed = answer_file(service, Path(settings["input"]), Path(settings["out"]), n_rows=settings["slots"])
    if n_failed:
        raise DataError(f"{n_failed} requests", "could not be answered", f"{settings['out']} says why")


def _models(settings: Settings, metrics: "Metrics") -> "list[ServedModel]":
    trained = list(_load(settings))
    return [_served(name, each, settings, metrics) for name, each in zip(_names(trained), trained, strict=True)]


def _served(name: str, trained: Trained, settings: Settings, metrics: "Metrics") -> "ServedModel":
    from lumi.serve.models import ServedModel
    from lumi.serve.scheduler import Scheduler

    make = _llamacpp if settings["engine"] == "llamacpp" else _engine
    engine, kind = make(trained, settings)
    log.info("%s: %s parameters, %s", name, f"{trained.decoder.config.n_params():,}", kind)
    return ServedModel(
        name=name,
        config=trained.decoder.config,
        tokenizer=trained.tokenizer,
        template=trained.template,
        sampling=build(settings["sampling"], "sampling"),
        fingerprint=fingerprint([weights_sha256(trained.decoder.state_dict()), kind]),
        scheduler=Scheduler(
            engine,
            max_waiting=settings["max_waiting"],
            on_first_token=metrics.first_token.observe,
            on_token=metrics.inter_token.observe,
        ),
    )


def _engine(trained: Trained, settings: Settings) -> tuple["Steps", str]:
    """Lumi's own."""
    decoder = _fused(trained, settings)
    engine = Engine(decoder, n_rows=settings["slots"], prompt_part=settings["prompt_part"])
    log.info("cache: %s MB for %d requests", f"{engine.cache.n_bytes / 1e6:,.0f}", settings["slots"])
    return engine, f"{str(decoder.dtype).removeprefix('torch.')} on {decoder.device.type}"


def _llamacpp(trained: Trained, settings: Settings) -> tuple["Steps", str]:
    """llama.cpp, on a file that is exported once for each state of the weights."""
    from lumi.serve.llamacpp import LlamaCppEngine

    folder = _exported(trained, "gguf", settings["dtype"])
    engine = LlamaCppEngine(
        folder / "model.gguf",
        n_rows=settings["slots"],
        context=trained.decoder.config.max_seq_len,
        n_threads=torch.get_num_threads(),
    )
    return engine, f"llama.cpp on {folder}"


def _vllm(settings: Settings) -> None:
    """Become vLLM's server, on a folder that is exported once for each state of the weights."""
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError("engine=vllm", "needs vLLM and a GPU that it supports", "pip install vllm")
    (trained,) = _load(settings)
    server = build(settings["server"], "server")
    folder = _exported(trained, "hf", settings["dtype"])
    words = ["--model", str(folder), "--served-model-name", str(trained.facts["name"])]
    words += ["--host", server.host, "--port", str(server.port), "--max-num-seqs", str(settings["slots"])]
    # The key goes by the environment: everybody on the machine can read a command line.
    environment = {**os.environ, **({"VLLM_API_KEY": server.api_key} if server.api_key else {})}
    os.execve(sys.executable, [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *words], environment)  # noqa: S606


def _exported(trained: Trained, format_name: str, dtype: str) -> Path:
    """An export of these weights, made and compared unless it is there."""
    weights = weights_sha256(trained.decoder.state_dict())
    home = trained.run or trained.checkpoint.parent
    folder = home / "export" / f"{format_name}-{dtype}-{weights[:12]}"
    if (folder / MANIFEST).exists():
        verify(folder)
    else:
        _write_export(trained, folder, format_name, dtype)
    return folder


def _chat(settings: Settings) -> None:
    from lumi.serve.terminal import chat

    (trained,) = _load(settings)
    chat(
        _fused(trained, settings),
        trained.tokenizer,
        trained.template,
        build(settings["sampling"], "sampling"),
        name=trained.facts["name"],
        system=settings["system"],
        prompt=settings["prompt"],
        stdin=sys.stdin,
        stdout=sys.stdout,
    )


def _export(settings: Settings) -> None:
    (trained,) = _load(settings)
    home = trained.run or trained.checkpoint.parent
    folder = Path(settings["out"] or home / "export" / str(settings["format"]))
    _write_export(trained, folder, settings["format"], settings["dtype"])


def _write_export(trained: Trained, folder: Path, format_name: Any, dtype: str) -> None:
    from lumi.export import export_model

    export_model(
        decoder=trained.decoder,
        tokenizer=trained.tokenizer,
        template=trained.template,
        facts=trained.facts,
        checkpoint=trained.checkpoint,
        run=trained.run,
        folder=folder,
        format=format_name,
        dtype=None if dtype == "auto" else dtype,
    )


def _load(settings: Settings) -> Iterator[Trained]:
    paths = [settings["model"]] if isinstance(settings["model"], str) else settings["model"]
    if settings["mode"] in ("chat", "export") and len(paths) != 1:
        raise ConfigError(f"model={settings['model']}", f"mode={settings['mode']} takes one model")
    if not isinstance(paths, Sequence) or not paths or not all(isinstance(path, str) for path in paths):
        raise ConfigError(
            f"model={settings['model']}", "must be a path or a list of paths", "python serve.py model=runs/…"
        )
    for path in paths:
        yield load_trained(Path(path), base=None if settings["base"] is None else Path(settings["base"]))


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
