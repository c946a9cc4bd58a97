"""The figures of one evaluation, unrounded, as ``results.json``.

report.md, the pictures and comparisons are made from it, so they can be made again without the model. Layout::

    schema_version, lumi_version
    made_from   what was read, by hash: checkpoint, packed, chat, preference, files; with where it lay
    settings    of the evaluation, resolved
    made_by     code and package versions, threads, device
    model       facts: name, parameters, training tokens, hashes … whatever the caller gives, in order
    commands    what to type to get this model and this report
    sources     source → score (sums and figures of `Perplexity`), exact_bits_per_byte | null, baselines | null
    mixture     the sources by their weights: loss, token_perplexity, bits_per_byte | null
    texts       file → score, window, stride
    smoke       `SmokeReport` with all samples | null
    chat        source → `ChatReport`: every answer, and tasks → figures
    preference  source → `PreferenceReport`: every pair, and kinds → figures
    tasks       task → its figures
    written     step → what the model wrote at that validation, as Markdown
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lumi import __version__
from lumi.errors import DataError
from lumi.eval.baselines import Baselines
from lumi.eval.chat import ChatReport
from lumi.eval.perplexity import Perplexity
from lumi.eval.preference import PreferenceReport
from lumi.eval.smoke import SmokeReport
from lumi.manifest import sha256_file, write_atomic
from lumi.provenance import made_by
from lumi.strangers import read_object

RESULTS = "results.json"
SCHEMA_VERSION = 3
_MAPPINGS = ("model", "sources", "texts", "chat", "preference", "tasks", "written")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceResult:
    """A model on one source's validation split, with what there is to compare.

    Attributes:
        score: the model's.
        exact_bits_per_byte: entropy of the text where it is known, as for the generated world.
        baselines: other methods on the same text.
    """

    score: Perplexity
    exact_bits_per_byte: float | None = None
    baselines: Baselines | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextResult:
    """A model on one text file, with how it was read."""

    score: Perplexity
    window: int
    stride: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
    """Everything that was measured on one model; see the module for the layout in JSON."""

    model: Mapping[str, Any]
    made_from: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    device: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    commands: Sequence[str] = ()
    sources: Mapping[str, SourceResult] = dataclasses.field(default_factory=dict)
    mixture: Mapping[str, float] | None = None
    texts: Mapping[str, TextResult] = dataclasses.field(default_factory=dict)
    smoke: SmokeReport | None = None
    chat: Mapping[str, ChatReport] = dataclasses.field(default_factory=dict)
    preference: Mapping[str, PreferenceReport] = dataclasses.field(default_factory=dict)
    tasks: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    written: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON; figures that are not finite become null."""
        return _finite(
            {
                "schema_version": SCHEMA_VERSION,
                "lumi_version": __version__,
                "made_from": dict(self.made_from),
                "settings": dict(self.settings),
                "made_by": {**made_by(), **self.device},
                "model": dict(self.model),
                "commands": list(self.commands),
                "sources": {name: _with_figures(part) for name, part in self.sources.items()},
                "mixture": None if self.mixture is None else dict(self.mixture),
                "texts": {name: _with_figures(part) for name, part in self.texts.items()},
                "smoke": None if self.smoke is None else self.smoke.as_dict(),
                "chat": {name: part.as_dict() for name, part in self.chat.items()},
                "preference": {name: part.as_dict() for name, part in self.preference.items()},
                "tasks": {name: part.as_dict() for name, part in self.tasks.items()},
                "written": dict(self.written),
            }
        )


def write_results(folder: Path, results: Results) -> dict[str, Any]:
    """Write results.json and return what it holds."""
    found = results.as_dict()
    write_atomic(folder / RESULTS, results_text(found))
    return found


def results_text(found: Mapping[str, Any]) -> str:
    """The bytes of a results.json."""
    return json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def run_hashes(run: Path) -> dict[str, str]:
    """Path within a run's folder → SHA-256 of what reports over several runs are made from, as far as it is there."""
    names = ("run.json", "metrics.csv", f"eval/{RESULTS}")
    return {name: sha256_file(run / name) for name in names if (run / name).is_file()}


def read_results(path: Path) -> dict[str, Any]:
    """Read a results.json, given as the file or its folder.

    Raises:
        DataError: it is missing, not JSON, or of another schema.
    """
    path = path / RESULTS if path.is_dir() else path
    if not path.exists():
        raise DataError(f"{path}", "does not exist", "evaluate the model first")
    found = read_object(path, what="a result of an evaluation", fix="evaluate the model again")
    version = found.get("schema_version")
    if version != SCHEMA_VERSION:
        raise DataError(f"{path} has schema {version}", f"this Lumi reads {SCHEMA_VERSION}", "evaluate the model again")
    wrong = [key for key in _MAPPINGS if not isinstance(found.get(key, {}), dict)]
    if wrong:
        raise DataError(f"{path}: {wrong[0]}", "is not a JSON object", "evaluate the model again")
    return found


def reference_levels(results: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """Source → method → bits per byte, of everything that is no model."""
    levels = {}
    for name, source in results["sources"].items():
        others = source["baselines"] or {}
        levels[name] = {
            "unigram": others.get("unigram_bits_per_byte"),
            "n-gram": others.get("ngram_bits_per_byte"),
            "xz": others.get("xz_bits_per_byte"),
            "exact": source["exact_bits_per_byte"],
        }
    return levels


def _with_figures(part: SourceResult | TextResult) -> dict[str, Any]:
    return dataclasses.asdict(part) | {"score": part.score.as_dict()}


def _finite(value: Any) -> Any:
    """The same JSON with null for what JSON cannot say."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
