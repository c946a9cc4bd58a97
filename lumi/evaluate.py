"""What ``evaluate.py`` calls: score trained models, check what they write, report, compare."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from lumi import __version__
from lumi.callbacks import continue_prompts
from lumi.config import build, check_keys, resolve
from lumi.data import PackedStream
from lumi.errors import ConfigError, did_you_mean
from lumi.eval.baselines import Baselines, packed_baselines
from lumi.eval.perplexity import packed_perplexity, text_perplexity, weighted, window_and_stride
from lumi.eval.report import sources_table, texts_table, write_comparison, write_report
from lumi.eval.results import RESULTS, Results, SourceResult, TextResult, read_results
from lumi.eval.smoke import SmokeReport, run_smoke, smoke_table
from lumi.eval.text import read_text
from lumi.eval.windows import WholeDocuments
from lumi.generate import SamplingParams
from lumi.manifest import MANIFEST, fingerprint, read_manifest, sha256_file, write_atomic
from lumi.trained import Trained, load_trained

log = logging.getLogger(__name__)

ROOT_KEYS = (
    "model",
    "prompt",
    "sampling",
    "skip",
    "data",
    "text",
    "window",
    "stride",
    "batch_size",
    "suite",
    "out",
    "force",
)
PARTS = ("packed", "baselines", "text", "smoke")

Settings = dict[str, Any]


def evaluate(cfg: DictConfig) -> None:
    """Evaluate one model or several, or answer a single prompt.

    Raises:
        LumiError: a setting is wrong, or a model or text cannot be read.
    """
    settings = resolve(cfg)
    check_keys(settings, ROOT_KEYS)
    unknown = [part for part in settings["skip"] if part not in PARTS]
    if unknown:
        raise ConfigError(f"skip={unknown}", "is not a part of the evaluation", did_you_mean(str(unknown[0]), PARTS))
    suite = build(settings["suite"], "suite")
    sampling = build(settings["sampling"], "sampling")
    paths = [Path(path) for path in _as_list(settings["model"], "model")]
    models = [load_trained(path) for path in paths]
    if settings["prompt"] is not None:
        for model in models:
            log.info("%s", answer(model, str(settings["prompt"]), sampling))
        return
    found = [_Evaluation(model, path, settings, suite).execute() for model, path in zip(models, paths, strict=True)]
    if len(found) > 1:
        folder = Path(settings["out"] or "runs/comparison")
        log.info("\n%s\n%s", write_comparison(folder, found), folder / "comparison.md")


def answer(model: Trained, prompt: str, sampling: SamplingParams) -> str:
    """The prompt with the model's continuation."""
    return prompt + continue_prompts(model.decoder, model.tokenizer, [prompt], sampling)[0]


class _Evaluation:
    """One model, part by part; `execute` reads from top to bottom."""

    def __init__(self, model: Trained, path: Path, settings: Settings, suite: Any) -> None:
        self.model, self.path, self.settings, self.suite = model, path, settings, suite
        self.skip = set(settings["skip"])
        if torch.cuda.is_available():
            model.decoder.cuda()

    def execute(self) -> dict[str, Any]:
        """Score, check, write, unless that was done before; returns what results.json holds."""
        folder, key = self._folder(), self._key()
        done = folder / ".key"  # what the report in this folder was made from
        if done.exists() and done.read_text() == key and (folder / RESULTS).exists():
            log.info("evaluated already, with the same settings (force=true does it again)")
            found = read_results(folder)
        else:
            done.unlink(missing_ok=True)
            found = self._measure(folder)
            write_atomic(done, key)
        self._show(found)
        log.info("report: %s", folder / "report.md")
        return found

    def _key(self) -> str:
        """Equal for the same weights evaluated in the same way: then nothing needs to be done again."""
        if self.settings["force"]:
            return os.urandom(8).hex()
        files = read_manifest(self.model.checkpoint).files
        texts = [
            sha256_file(Path(path)) for path in _as_list(self.settings["text"] or [], "text") if Path(path).is_file()
        ]
        return fingerprint([__version__, files, texts, self.settings])

    def _measure(self, folder: Path) -> dict[str, Any]:
        log.info("evaluating %s", self.model.checkpoint)
        splits = {} if "packed" in self.skip else self._splits()
        sources = {name: self._score(name, *pair) for name, pair in splits.items()}
        scores = {name: result.score for name, result in sources.items()}
        weights = self.model.facts.get("weights", {})
        results = Results(
            model=self._facts(),
            commands=self._commands(),
            sources=sources,
            mixture=weighted(scores, weights) if len(scores) > 1 else None,
            texts={} if "text" in self.skip else self._texts(),
            smoke=None if "smoke" in self.skip else self._smoke({name: val for name, (_, val) in splits.items()}),
        )
        metrics = self.model.run / "metrics.csv" if self.model.run else None
        return write_report(folder, results, metrics=metrics if metrics and metrics.exists() else None)

    def _splits(self) -> dict[str, tuple[PackedStream, PackedStream]]:
        """Train and validation split of every packed source that the model was trained on, or that were named."""
        model = self.model
        folders = self.settings["data"] or model.facts.get("packed", {})
        result = {}
        for name, folder in folders.items():
            if not (Path(folder) / MANIFEST).exists():
                log.warning("%s: %s is not here and is left out (data.%s=PATH says where it is)", name, folder, name)
                continue
            length, sha = model.decoder.config.max_seq_len, model.tokenizer.sha256
            train = PackedStream(Path(folder), "train", length, sha)
            result[name] = (train, PackedStream(Path(folder), "val", length, sha, full_check=False))
        return result

    def _score(self, name: str, train: PackedStream, val: PackedStream) -> SourceResult:
        model = self.model
        window, stride = self._window()
        score = packed_perplexity(
            model.decoder,
            WholeDocuments(val, window=window, stride=stride),
            token_bytes=model.tokenizer.token_bytes(),
            batch_size=self.settings["batch_size"],
            name=name,
        )
        return SourceResult(
            score=score,
            exact_bits_per_byte=None if val.bits is None else val.bits / val.n_bytes,
            baselines=None if "baselines" in self.skip else self._baselines(train, val),
        )

    def _baselines(self, train: PackedStream, val: PackedStream) -> Baselines:
        # Beside the packed data, because they belong to the text and not to the model.
        cache = val.folder.parent / f".{val.folder.name}.baselines.json"
        return packed_baselines(train, val, self.model.tokenizer, cache=cache)

    def _texts(self) -> dict[str, TextResult]:
        window, stride = self._window()
        result = {}
        for path in _as_list(self.settings["text"] or [], "text"):
            score = text_perplexity(
                self.model.decoder,
                self.model.tokenizer,
                read_text(Path(path)),
                window=window,
                stride=stride,
                batch_size=self.settings["batch_size"],
                name=Path(path).name,
            )
            result[Path(path).name] = TextResult(score=score, window=window, stride=stride)
        return result

    def _window(self) -> tuple[int, int]:
        return window_and_stride(self.model.decoder.config, self.settings["window"], self.settings["stride"])

    def _smoke(self, splits: dict[str, PackedStream]) -> SmokeReport:
        return run_smoke(self.model.decoder, self.model.tokenizer, self.suite, splits=splits)

    def _facts(self) -> dict[str, Any]:
        model, facts = self.model, self.model.facts
        config = model.decoder.config
        return {
            "name": facts["name"],
            "parameters": config.n_params(),
            "non_embedding_parameters": config.n_params(embedding=False),
            "layers": config.n_layers,
            "d_model": config.d_model,
            "heads": f"{config.n_heads} ({config.n_kv_heads} for keys and values)",
            "vocabulary": config.vocab_size,
            "sequence_length": config.max_seq_len,
            "step": facts["step"],
            "training_tokens": facts["step"] * facts["tokens_per_step"],
            "tokenizer_sha256": model.tokenizer.sha256,
            "data_fingerprints": ", ".join(f"{name} {value[:12]}" for name, value in facts["data"].items()),
            "checkpoint": str(model.checkpoint),
        }

    def _commands(self) -> list[str]:
        words = [f"model={self.path}"]
        words += [f"text=[{','.join(_as_list(self.settings['text'], 'text'))}]"] if self.settings["text"] else []
        words += [f"suite={self.suite.name}"] if self.suite.name != "quick" else []
        trained = [f"# trained with the settings in {self.model.run / 'config.yaml'}"] if self.model.run else []
        return [*trained, f"python evaluate.py {' '.join(words)}"]

    def _folder(self) -> Path:
        if self.settings["out"] and isinstance(self.settings["model"], str):
            return Path(self.settings["out"])
        return (self.model.run or self.model.checkpoint.parent) / "eval"

    def _show(self, found: dict[str, Any]) -> None:
        if found["sources"]:
            log.info("\n%s", sources_table(found))
        if found["texts"]:
            log.info("\n%s", texts_table(found))
        if found["smoke"]:
            log.info("\n%s", smoke_table(found["smoke"]))
            sample = found["smoke"]["samples"][0]
            log.info("\nsample: %s%s\n", sample["prompt"], sample["text"])


def _as_list(value: Any, key: str) -> list[str]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, Sequence) or not all(isinstance(item, str) for item in items):
        raise ConfigError(f"{key}={value}", "must be a path or a list of paths", f"python evaluate.py {key}=…")
    return list(items)
