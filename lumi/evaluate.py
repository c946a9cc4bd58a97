"""What ``evaluate.py`` calls: score trained models, check what they write, report, compare."""

import logging
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from lumi import __version__
from lumi.arch import Decoder
from lumi.callbacks import continue_prompts, written_samples
from lumi.config import build, check_keys, resolve
from lumi.corpus.chat import read_chat
from lumi.corpus.preference import read_preference
from lumi.data import PackedStream
from lumi.errors import ConfigError, did_you_mean
from lumi.eval.answers import chat_table, preference_table
from lumi.eval.baselines import Baselines, packed_baselines
from lumi.eval.chat import ChatReport, ask, run_chat
from lumi.eval.choice import TaskResult, run_task, tasks_table
from lumi.eval.perplexity import packed_perplexity, text_perplexity, weighted, window_and_stride
from lumi.eval.preference import PreferenceReport, run_preference
from lumi.eval.report import sources_table, texts_table, write_comparison, write_report
from lumi.eval.results import RESULTS, SCHEMA_VERSION, Results, SourceResult, TextResult, read_results
from lumi.eval.smoke import SmokeReport, run_smoke, smoke_table
from lumi.eval.study.report import STUDY_KEYS, compare_study
from lumi.eval.tasks import Item, Task
from lumi.eval.text import TextTask, read_text
from lumi.eval.windows import WholeDocuments
from lumi.generate import SamplingParams
from lumi.lineage import LINEAGE_KEYS, evaluated, hashes_of, reproduce, show_replay, why
from lumi.manifest import MANIFEST, fingerprint, lineage, read_manifest, write_atomic
from lumi.planning import prediction_words
from lumi.scaling import SCALING_KEYS, fit_scaling
from lumi.tokenizer import Template
from lumi.trained import Trained, load_trained

log = logging.getLogger(__name__)

ROOT_KEYS = (
    "model", "prompt", "sampling", "parts", "skip", "data", "chat", "preference", "template", "text", "window", "stride",
    "batch_size", "suite", "smoke", "limit", "tasks", "task", "out", "force", "workspace", *STUDY_KEYS,
    *SCALING_KEYS, *LINEAGE_KEYS,
)  # fmt: skip
PARTS = ("packed", "baselines", "text", "smoke", "chat", "preference", "tasks")

Settings = dict[str, Any]

_INSTEAD: dict[str, Callable[[Settings], Any]] = {
    "why": why,
    "reproduce": reproduce,
    "replay": show_replay,
    "compare": compare_study,
    "scaling": fit_scaling,
    "workspace": lambda settings: build(settings["workspace"], "workspace").save(),
}
"""What is done instead of evaluating a model, when its setting is given."""


def evaluate(cfg: DictConfig) -> None:
    """Evaluate one model or several, or answer a single prompt.

    Raises:
        LumiError: a setting is wrong, or a model or text cannot be read.
    """
    settings = resolve(cfg)
    for key, instead in _INSTEAD.items():
        if settings.get(key) not in (None, {}):
            check_keys({**settings, "model": None}, ROOT_KEYS)
            instead(settings)
            return
    check_keys(settings, ROOT_KEYS)
    for key in ("skip", "parts"):
        if unknown := [part for part in settings[key] if part not in PARTS]:
            found = f"{key}={unknown}"
            raise ConfigError(found, "is not a part of the evaluation", did_you_mean(str(unknown[0]), PARTS))
    if unknown := [name for name in settings["tasks"] if name not in settings["task"]]:
        raise ConfigError(f"tasks={unknown}", "is not a task", did_you_mean(str(unknown[0]), settings["task"]))
    if settings["limit"] is not None and (not isinstance(settings["limit"], int) or settings["limit"] < 1):
        raise ConfigError(f"limit={settings['limit']}", "must be a whole number from 1, or null")
    sampling = build(settings["sampling"], "sampling")
    paths = [Path(path) for path in _as_list(settings["model"], "model")]
    models = [load_trained(path) for path in paths]
    if settings["prompt"] is not None:
        for model in models:
            log.info("%s", answer(model, str(settings["prompt"]), sampling))
        return
    known = [facts for model in models for facts in lineage(model.facts)]
    overrides = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    found = [
        _Evaluation(model, path, settings, known, overrides).execute()
        for model, path in zip(models, paths, strict=True)
    ]
    if len(found) > 1:
        folder = Path(settings["out"] or "runs/comparison")
        log.info("\n%s\n%s", write_comparison(folder, found), folder / "comparison.md")


def answer(model: Trained, prompt: str, sampling: SamplingParams) -> str:
    """The prompt with the model's continuation; of a chat model its answer."""
    if model.template is not None:
        return ask(model.decoder, model.tokenizer, model.template, prompt, sampling)
    return prompt + continue_prompts(model.decoder, model.tokenizer, [prompt], sampling)[0]


class _Evaluation:
    """One model, part by part; `execute` reads from top to bottom."""

    def __init__(
        self, model: Trained, path: Path, settings: Settings, known: Sequence[dict[str, Any]], overrides: list[str]
    ) -> None:
        self.model, self.path, self.settings, self.known, self.overrides = model, path, settings, known, overrides
        self.parts = set(settings["parts"]) - set(settings["skip"])
        self.smoke = build(settings["smoke"], "smoke")
        wanted = settings["tasks"] if "tasks" in self.parts else []
        self.tasks = {name: build(settings["task"][name], f"task.{name}") for name in wanted}
        self.name = self.model.facts["name"] + ("" if path == model.run else f"/{path.name}")
        if torch.cuda.is_available():
            model.decoder.cuda()

    def execute(self) -> dict[str, Any]:
        """Score, check, write, unless that was done before; returns what results.json holds."""
        texts = _as_list(self.settings["text"] or [], "text")
        folders = {kind: self._folders(kind) for kind in ("packed", "chat", "preference") if kind in self.parts}
        files = [Path(path) for path in (*texts, *(task.path for task in self.tasks.values())) if path]
        self.made_from = evaluated(self.model.checkpoint, folders, files)
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
        settings = {key: value for key, value in self.settings.items() if key not in ("model", "out")}
        return fingerprint([__version__, SCHEMA_VERSION, hashes_of(self.made_from), settings])

    def _measure(self, folder: Path) -> dict[str, Any]:
        log.info("evaluating %s", self.model.checkpoint)
        # First, because a download may fail, and nothing measured should be lost by that.
        texts = {name: task.read() for name, task in self.tasks.items() if isinstance(task, TextTask)}
        items = {name: list(task.items()) for name, task in self.tasks.items() if isinstance(task, Task)}
        splits = self._splits() if "packed" in self.parts else {}
        sources = {name: self._score(name, *pair) for name, pair in splits.items()}
        scores = {name: result.score for name, result in sources.items()}
        weights = next((facts["weights"] for facts in lineage(self.model.facts) if "packed" in facts), {})
        results = Results(
            model=self._facts(),
            made_from=self.made_from,
            settings=self.settings,
            device={"threads": torch.get_num_threads(), "device": self.model.decoder.lm_weight.device.type},
            commands=self._commands(),
            sources=sources,
            mixture=weighted(scores, weights) if len(scores) > 1 and weights else None,
            texts=self._texts(texts),
            smoke=self._smoke({name: val for name, (_, val) in splits.items()}) if "smoke" in self.parts else None,
            chat=self._chat() if "chat" in self.parts else {},
            preference=self._preference() if "preference" in self.parts else {},
            tasks=self._tasks(items),
            written=written_samples(self.model.run / "samples") if self.model.run else {},
        )
        metrics = self.model.run / "metrics.csv" if self.model.run else None
        return write_report(folder, results, metrics=metrics if metrics and metrics.exists() else None)

    def _folders(self, kind: str) -> dict[str, str]:
        """Prepared data by name: those that were named, else those of the model and of what it was made from.

        Models that are compared are asked the same: packed text has to be of the model's own tokenizer, though.
        """
        named = self.settings["data" if kind == "packed" else kind]
        if named is not None:
            for name, folder in named.items():
                read_manifest(Path(folder), kind=kind)  # complains about a folder that was named and is not there
                log.debug("%s %s: %s", kind, name, folder)
            return dict(named)
        found: dict[str, str] = {}
        for facts in [*lineage(self.model.facts), *self.known]:
            if kind == "packed" and facts["tokenizer_sha256"] != self.model.tokenizer.sha256:
                continue
            found = {**facts.get(kind, {}), **found}
        missing = [name for name, folder in found.items() if not (Path(folder) / MANIFEST).exists()]
        for name in missing:
            key = "data" if kind == "packed" else kind
            log.warning(
                "%s: %s is not here and is left out ('%s={%s: PATH}' says where)", name, found.pop(name), key, name
            )
        return found

    def _splits(self) -> dict[str, tuple[PackedStream, PackedStream]]:
        """Train and validation split of every packed source."""
        model, result = self.model, {}
        for name, folder in self._folders("packed").items():
            length, sha = model.decoder.config.max_seq_len, model.tokenizer.sha256
            train = PackedStream(Path(folder), "train", length, sha)
            result[name] = (train, PackedStream(Path(folder), "val", length, sha, full_check=False))
        return result

    def _template(self) -> Template:
        return self.model.template or build(self.settings["template"], "template")

    def _chat(self) -> dict[str, ChatReport]:
        """Answers to the questions of every source of conversations."""
        result = {}
        for name, folder in self._folders("chat").items():
            split = _test_or_val(Path(folder))
            result[name] = run_chat(
                self.model.decoder,
                self.model.tokenizer,
                self._template(),
                read_chat(Path(folder), split),
                split=split,
                limit=self.settings["limit"],
                first_line=self.model.template is None,
                name=name,
            )
        return result

    def _preference(self) -> dict[str, PreferenceReport]:
        """Which answers of every source of pairs the model prefers."""
        reference = self._reference()
        result = {}
        for name, folder in self._folders("preference").items():
            split = _test_or_val(Path(folder))
            result[name] = run_preference(
                self.model.decoder,
                self.model.tokenizer,
                self._template(),
                read_preference(Path(folder), split),
                split=split,
                reference=reference,
                limit=self.settings["limit"],
                name=name,
            )
        return result

    def _tasks(self, public: dict[str, list[Item]]) -> dict[str, TaskResult]:
        """The public tasks with choices that were asked for."""
        return {
            name: run_task(
                self.model.decoder,
                self.model.tokenizer,
                items,
                source=self.tasks[name].source,
                batch_size=self.settings["batch_size"],
                name=name,
            )
            for name, items in public.items()
        }

    def _reference(self) -> Decoder | None:
        """The model that preference training began from, where it is still there."""
        facts = self.model.facts
        before = Path(facts["initial"]["path"]) if "preference" in facts and "initial" in facts else None
        if before is None:
            return None
        if not (before / MANIFEST).exists():
            log.warning("%s is not here: no implicit rewards", before)
            return None
        return load_trained(before).decoder.to(self.model.decoder.lm_weight.device)

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
            baselines=self._baselines(train, val) if "baselines" in self.parts else None,
        )

    def _baselines(self, train: PackedStream, val: PackedStream) -> Baselines:
        # Beside the packed data, because they belong to the text and not to the model.
        cache = val.folder.parent / f".{val.folder.name}.baselines.json"
        return packed_baselines(train, val, self.model.tokenizer, cache=cache)

    def _texts(self, public: dict[str, str]) -> dict[str, TextResult]:
        """Text files, and the public texts among the tasks."""
        paths = _as_list(self.settings["text"] or [], "text") if "text" in self.parts else []
        texts = {Path(path).name: read_text(Path(path)) for path in paths}
        window, stride = self._window()
        result = {}
        for name, text in {**texts, **public}.items():
            score = text_perplexity(
                self.model.decoder,
                self.model.tokenizer,
                text,
                window=window,
                stride=stride,
                batch_size=self.settings["batch_size"],
                name=name,
            )
            result[name] = TextResult(score=score, window=window, stride=stride)
        return result

    def _window(self) -> tuple[int, int]:
        return window_and_stride(self.model.decoder.config, self.settings["window"], self.settings["stride"])

    def _smoke(self, splits: dict[str, PackedStream]) -> SmokeReport | None:
        if self.model.template is not None:
            log.info("generation checks continue text and are left out: this is a chat model")
            return None
        return run_smoke(self.model.decoder, self.model.tokenizer, self.smoke, splits=splits)

    def _facts(self) -> dict[str, Any]:
        model, facts = self.model, self.model.facts
        config = model.decoder.config
        return {
            "name": self.name,
            "parameters": config.n_params(),
            "non_embedding_parameters": config.n_params(embedding=False),
            "layers": config.n_layers,
            "d_model": config.d_model,
            "heads": f"{config.n_heads} ({config.n_kv_heads} for keys and values)",
            "vocabulary": config.vocab_size,
            "sequence_length": config.max_seq_len,
            "step": facts["step"],
            "training_tokens": facts.get("tokens", facts["step"] * facts["tokens_per_step"]),
            "tokenizer_sha256": model.tokenizer.sha256,
            **({"template": template.name} if (template := model.template) else {}),
            **({"made_from": facts["initial"]["path"]} if "initial" in facts else {}),
            "data_fingerprints": ", ".join(f"{name} {value[:12]}" for name, value in facts["data"].items()),
            "checkpoint": str(model.checkpoint),
            **({"plan": words} if (words := prediction_words(model.run)) else {}),
        }

    def _commands(self) -> list[str]:
        words = [f"model={self.path}", *(word for word in self.overrides if not word.startswith("model="))]
        trained = [f"# trained with the settings in {self.model.run / 'config.yaml'}"] if self.model.run else []
        return [*trained, f"python evaluate.py {shlex.join(words)}"]

    def _folder(self) -> Path:
        if self.settings["out"] and isinstance(self.settings["model"], str):
            return Path(self.settings["out"])
        if self.model.run is None:
            return self.model.checkpoint.parent / f"eval-{self.model.checkpoint.name}"
        return self.model.run / "eval" / ("" if self.path == self.model.run else self.path.name)

    def _show(self, found: dict[str, Any]) -> None:
        if found["sources"]:
            log.info("\n%s", sources_table(found))
        if found["texts"]:
            log.info("\n%s", texts_table(found))
        if found["chat"]:
            log.info("\n%s", chat_table(found))
        if found["preference"]:
            log.info("\n%s", preference_table(found))
        if found["tasks"]:
            log.info("\n%s", tasks_table(found["tasks"]))
        if found["smoke"]:
            log.info("\n%s", smoke_table(found["smoke"]))
            sample = found["smoke"]["samples"][0]
            log.info("\nsample: %s%s\n", sample["prompt"], sample["text"])
            for failure in found["smoke"]["failures"]:
                log.warning("generation checks: %s", failure)


def _test_or_val(folder: Path) -> str:
    """The split to evaluate on: a source's own test, if it has one."""
    return "test" if read_manifest(folder).info["rows"]["test"] else "val"


def _as_list(value: Any, key: str) -> list[str]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, Sequence) or not all(isinstance(item, str) for item in items):
        raise ConfigError(f"{key}={value}", "must be a path or a list of paths", f"python evaluate.py {key}=…")
    return list(items)
