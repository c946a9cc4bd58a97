"""What a person reads after an evaluation: report.md with the loss curve, and the comparison of several models."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lumi.errors import DataError
from lumi.eval import answers, plots
from lumi.eval.choice import TASKS_WORDS, tasks_table
from lumi.eval.results import Results, reference_levels, results_text, write_results
from lumi.eval.smoke import smoke_table
from lumi.eval.table import markdown_table, number, percent
from lumi.manifest import sha256_bytes, write_atomic
from lumi.provenance import made_by

REPORT, LOSS_PLOT = "report.md", "loss.png"
COMPARISON, COMPARISON_PLOT, ANSWERS_PLOT = "comparison.md", "comparison.png", "answers.png"
COMPARED = "comparison.json"

_SAMPLES_SHOWN = 2  # of each category; results.json has all
_WORDS = (
    "Perplexity per word divides by the words between white space, as lm-evaluation-harness does for WikiText. It and "
    "bits per byte can be compared between tokenizers, perplexity per token cannot."
)
_METHODS = (
    "Bits per byte: lower is better, and comparable between tokenizers. *exact* is the entropy of the text where it is "
    "known, *gap* how far the model is above it. *n-gram* (order {order}), *xz -9* and *unigram* learnt from the same "
    "training text."
)


def write_report(folder: Path, results: Results, *, metrics: Path | None = None) -> dict[str, Any]:
    """Write results.json, report.md and, given the run's ``metrics.csv``, the loss curve.

    Returns:
        What results.json holds.

    Raises:
        DataError: ``metrics`` is not a readable table.
        ResourceError: the disk is full.
    """
    curves = None if metrics is None else plots.read_metrics(metrics)
    found = write_results(folder, results)
    if curves is not None:
        write_atomic(folder / LOSS_PLOT, plots.plot_loss(curves, reference_levels(found)))
    write_atomic(folder / REPORT, render_report(found, with_curve=curves is not None))
    return found


def render_report(results: Mapping[str, Any], *, with_curve: bool) -> str:
    """report.md from the content of results.json."""
    facts = [[name.replace("_", " "), _fact(value)] for name, value in results["model"].items()]
    parts = [f"# {results['model'].get('name', 'Model')}", markdown_table(["model", ""], facts)]
    if results["sources"]:
        parts += ["## Held-out text", sources_table(results), _explain(results)]
    if with_curve:
        parts.append(f"![Loss over training, and bits per byte beside the other methods]({LOSS_PLOT})")
    if results["texts"]:
        parts += ["## Text files", texts_table(results), _WORDS]
    parts += _render_answers(results)
    if results["tasks"]:
        parts += ["## Tasks", tasks_table(results["tasks"]), TASKS_WORDS]
    if results["smoke"] is not None:
        parts += _render_smoke(results["smoke"])
    if results["written"]:
        parts.append("## Written during training")
        parts += [f"### Step {int(step):,}\n\n{text}" for step, text in results["written"].items()]
    if results["commands"]:
        parts += ["## Made with", "```bash\n" + "\n".join(results["commands"]) + "\n```"]
    return "\n\n".join(parts) + "\n"


def _render_answers(results: Mapping[str, Any]) -> list[str]:
    parts = []
    if results["chat"]:
        parts += ["## Conversations", answers.chat_table(results), answers.CHAT_WORDS]
        for name, part in results["chat"].items():
            parts += [f"### {name}: some answers"] + ([answers.FIRST_LINE] if part["first_line"] else [])
            parts += [f"*{heading}*\n\n{_block(text)}" for heading, text in answers.samples(part)]
    if results["preference"]:
        parts += ["## Preferences", answers.preference_table(results), answers.PREFERENCE_WORDS]
    return parts


def sources_table(results: Mapping[str, Any]) -> str:
    """Bits per byte by source, beside the other methods and the exact entropy."""
    levels = reference_levels(results)
    header = ["source", "bits per byte", "exact", "gap", "n-gram", "xz -9", "unigram", "perplexity", "tokens"]
    rows = []
    for name, source in results["sources"].items():
        score, level = source["score"], levels[name]
        bits, exact = score["bits_per_byte"], level["exact"]
        methods = [number(level[key], 4) for key in ("n-gram", "xz", "unigram")]
        gap = percent(bits / exact - 1) if exact else percent(None)
        perplexity = number(score["token_perplexity"], 2)
        rows.append([name, number(bits, 4), number(exact, 4), gap, *methods, perplexity, f"{score['targets']:,}"])
    mixture = results["mixture"]
    if mixture is not None:
        empty = [number(None)] * 5
        figures = (number(mixture["bits_per_byte"], 4), number(mixture["token_perplexity"], 2))
        rows.append(["by weight", figures[0], *empty, figures[1], number(None)])
    return markdown_table(header, rows)


def texts_table(results: Mapping[str, Any]) -> str:
    """Perplexities and bits per byte of text files."""
    header = ["text", "per token", "per word", "bits per byte", "tokens", "words", "window", "stride"]
    rows = []
    for name, text in results["texts"].items():
        score = text["score"]
        figures = [number(score[key], 2) for key in ("token_perplexity", "word_perplexity")]
        counts = [number(value, 0) for value in (score["targets"], score["words"], text["window"], text["stride"])]
        rows.append([name, *figures, number(score["bits_per_byte"], 4), *counts])
    return markdown_table(header, rows)


def write_comparison(folder: Path, results: Sequence[Mapping[str, Any]]) -> str:
    """Write comparison.md with its pictures, and what it was made from, from several results.json, and return its tables.

    Raises:
        DataError: there is none, or two models have the same name.
    """
    names = [str(result["model"].get("name", f"model {index}")) for index, result in enumerate(results, 1)]
    if not results or len(set(names)) < len(names):
        raise DataError(f"models to compare: {names}", "must be at least one, each with a name of its own")
    sources = list(dict.fromkeys(source for result in results for source in result["sources"]))
    scores = {
        name: {source: part["score"]["bits_per_byte"] for source, part in result["sources"].items()}
        for name, result in zip(names, results, strict=True)
    }
    levels: dict[str, dict[str, float | None]] = {}
    for result in results:  # the first model that has figures for a source gives them
        known = {name for name, level in levels.items() if any(level.values())}
        levels |= {name: level for name, level in reference_levels(result).items() if name not in known}
    rows = [
        [name, _fact(result["model"].get("parameters")), _fact(result["model"].get("training_tokens"))]
        + [number(scores[name].get(source), 4) for source in sources]
        for name, result in zip(names, results, strict=True)
    ]
    rows += [
        [method, "", "", *(number(levels[source][method], 4) for source in sources)]
        for method in ("n-gram", "xz", "unigram", "exact")
    ]
    table = markdown_table(["model", "parameters", "training tokens", *sources], rows)
    first, second = _compare_answers(folder, names, results)
    text = f"# Comparison\n\n{first}## Held-out text\n\nBits per byte; lower is better.\n\n{table}\n"
    text += _warnings(results, sources)
    if sources:
        write_atomic(folder / COMPARISON_PLOT, plots.plot_comparison(scores, levels))
        text += f"\n![Bits per byte by model and source]({COMPARISON_PLOT})\n"
    write_atomic(folder / COMPARED, _origin(names, results))
    write_atomic(folder / COMPARISON, text + second)
    return f"{first}{table}\n{second.partition('![')[0]}".strip()


def _origin(names: Sequence[str], results: Sequence[Mapping[str, Any]]) -> str:
    """comparison.json: which results the tables show, by the hash of their results.json, and what those were made from."""
    made_from = {
        name: {"results_sha256": sha256_bytes(results_text(result).encode()), **result.get("made_from", {})}
        for name, result in zip(names, results, strict=True)
    }
    found = {"schema_version": 1, "made_from": made_from, "settings": {"models": list(names)}, "made_by": made_by()}
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def _compare_answers(folder: Path, names: Sequence[str], results: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """What stands before and after the bits per byte when one of the models was asked something."""
    if not any(result["chat"] or result["preference"] or result["tasks"] for result in results):
        return "", ""
    shares = {name: answers.accuracies(result) for name, result in zip(names, results, strict=True)}
    write_atomic(folder / ANSWERS_PLOT, plots.plot_shares(shares))
    first = f"{answers.summary_table(names, results)}\n\n"
    second = f"\n## Answers and preferences\n\n{answers.comparison_table(names, results)}\n"
    return first, second + f"\n![Right answers and preferences by model]({ANSWERS_PLOT})\n"


def _warnings(results: Sequence[Mapping[str, Any]], sources: Sequence[str]) -> str:
    """Which sources are not the same text for all models, so that their figures do not compare."""
    lines = ""
    for source in sources:
        sizes = {part["score"]["bytes"] for result in results if (part := result["sources"].get(source)) is not None}
        if len(sizes) > 1:
            listed = ", ".join(f"{size:,}" for size in sorted(sizes))
            lines += f"\n**{source}: the models were scored on different texts ({listed} bytes); do not compare.**\n"
    return lines


def _explain(results: Mapping[str, Any]) -> str:
    """What the columns mean, and what was not scored whole."""
    measured = {name: part["baselines"] for name, part in results["sources"].items() if part["baselines"] is not None}
    orders = sorted({str(others["order"]) for others in measured.values()})
    lines = [_METHODS.format(order=", ".join(orders) or "5")]
    lines += [
        f"{name}: the other methods learnt from {others['train_tokens']:,} tokens and were scored on "
        f"{others['val_tokens']:,}, a part of the splits."
        for name, others in measured.items()
        if not others["complete"]
    ]
    return "\n\n".join(lines)


def _render_smoke(smoke: Mapping[str, Any]) -> list[str]:
    parts = [f"## Generation checks · {smoke['suite']}", smoke_table(smoke)]
    parts += ["## Samples", "The prompt stands in ‹ ›; … is where a sample was cut."]
    for category in smoke["categories"]:
        samples = [sample for sample in smoke["samples"] if sample["category"] == category]
        parts += [f"### {category}", *(_sample(sample) for sample in samples[:_SAMPLES_SHOWN])]
    return parts


def _sample(sample: Mapping[str, Any]) -> str:
    """Prompt and continuation as they are, in a block that no text of theirs can end."""
    return _block(f"‹{sample['prompt']}›{sample['text']}" + ("" if sample["finish_reason"] == "stop" else " …"))


def _block(text: str) -> str:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _fact(value: Any) -> str:
    """A fact of the model as a person reads it."""
    if value is None:
        return number(None)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:,.6g}" if isinstance(value, float) else str(value)
