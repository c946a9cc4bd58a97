"""Tables of what a model answers and prefers, and of several models side by side, from the content of results.json."""

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lumi.eval.table import markdown_table, number, share

Found = Mapping[str, Any]

CHAT_WORDS = (
    "*exact*: the answer is the one right answer, word for word; in brackets the 95 % score interval. *stopped*: the model "
    "ended its answer. *word F1*: overlap of the words with the expected answer. *nats*: negative log-likelihood of the "
    "expected answer for each of its tokens, end included. Answers are greedy."
)
FIRST_LINE = (
    "This model has seen no conversation: it was asked in the form that documents use, and the first line of what it wrote "
    "counts."
)
PREFERENCE_WORDS = (
    "*accuracy*: the better answer has the higher likelihood, summed over its tokens; *per token*: the higher mean. *reward*: "
    "the better answer gained more over the model that training began from. *margin* in nats."
)


def chat_table(results: Found) -> str:
    """Every task of every source."""
    rows = [
        [
            f"{source}: {task}",
            str(figures["n"]),
            share(figures["exact"], figures["exact_interval"]) if figures["checkable"] else "–",
            share(figures["stopped"], figures["stopped_interval"]),
            number(figures["f1"], 3),
            number(figures["answer_nats_per_token"], 3),
        ]
        for source, part in results["chat"].items()
        for task, figures in part["tasks"].items()
    ]
    return markdown_table(["questions", "n", "exact", "stopped", "word F1", "nats"], rows)


def preference_table(results: Found) -> str:
    """Every kind of pair of every source."""
    rows = [
        [
            f"{source}: {kind}",
            str(figures["n"]),
            share(figures["accuracy"], figures["accuracy_interval"]),
            share(figures["accuracy_per_token"]),
            share(figures["reward_accuracy"]),
            number(figures["margin"], 2),
            number(figures["chosen_nats_per_token"], 3),
            number(figures["rejected_nats_per_token"], 3),
        ]
        for source, part in results["preference"].items()
        for kind, figures in part["kinds"].items()
    ]
    header = ["pairs", "n", "accuracy", "per token", "reward", "margin", "chosen nats", "rejected nats"]
    return markdown_table(header, rows)


def summary(results: Found) -> dict[str, float | None]:
    """The few figures that a comparison begins with; None where a model was not asked.

    Tasks and kinds count equally, however many questions they have; so do the sources of held-out text.
    """
    checkable = [figures for _, figures in _tasks(results) if figures["checkable"]]
    stopped = [answer["stopped"] for part in results["chat"].values() for answer in part["answers"]]
    return {
        "bits per byte": _mean([part["score"]["bits_per_byte"] for part in results["sources"].values()]),
        "exact answers": _mean([figures["exact"] for figures in checkable]),
        "stop rate": _mean(stopped),
        "preference accuracy": _mean([figures["accuracy"] for _, figures in _kinds(results)]),
    }


def summary_table(names: Sequence[str], results: Sequence[Found]) -> str:
    """One row a model."""
    rows = []
    for name, result in zip(names, results, strict=True):
        figures = summary(result)
        rest = [share(figures[key]) for key in ("exact answers", "stop rate", "preference accuracy")]
        rows.append([name, number(figures["bits per byte"], 4), *rest])
    return markdown_table(["model", *summary(results[0])], rows)


def comparison_table(names: Sequence[str], results: Sequence[Found]) -> str:
    """One row a measure, one column a model."""
    rows = _rows(results, _tasks, "exact", lambda figures: figures["checkable"])
    rows += _rows(results, _tasks, "stopped", lambda figures: not figures["checkable"], " (stopped)")
    rows += [["all: stopped", *(share(summary(result)["stop rate"]) for result in results)]]
    rows += _rows(results, _kinds, "accuracy", lambda _: True, ", preferred")
    names_of_tasks = list(dict.fromkeys(task for result in results for task in result["tasks"]))
    rows += [
        [
            f"{task}, accuracy",
            *(share(result["tasks"].get(task, {}).get("accuracy", {}).get("plain")) for result in results),
        ]
        for task in names_of_tasks
    ]
    rows += [["likelier right answer than the column before", "–", *_win_rates(results)]]
    return markdown_table(["share of", *names], rows)


def accuracies(results: Found) -> dict[str, tuple[float, float, float]]:
    """Measure → share, and its interval, for a picture."""
    exact = {name: figures for name, figures in _tasks(results) if figures["checkable"]}
    found = {name: (f["exact"], *f["exact_interval"]) for name, f in exact.items()}
    return found | {f"{name}, preferred": (f["accuracy"], *f["accuracy_interval"]) for name, f in _kinds(results)}


def samples(part: Found, most: int = 2) -> list[tuple[str, str]]:
    """(heading, text) of some right and some wrong answers of every task."""
    shown, counts = [], dict[tuple[str, bool], int]()
    for answer in part["answers"]:
        key = (answer["task"], answer["exact"])
        counts[key] = counts.get(key, 0) + 1
        if counts[key] <= most:
            verdict = "right" if answer["exact"] else f"expected: {answer['expected']}"
            end = "" if answer["stopped"] else " … (did not stop)"
            shown.append((f"{answer['task']} · {verdict}", f"{answer['question']}\n→ {answer['answer']}{end}"))
    return sorted(shown, key=lambda pair: pair[0].partition(" · ")[0])


def _tasks(results: Found) -> Iterator[tuple[str, Found]]:
    for source, part in results["chat"].items():
        for task, figures in part["tasks"].items():
            yield f"{source}: {task}", figures


def _kinds(results: Found) -> Iterator[tuple[str, Found]]:
    for source, part in results["preference"].items():
        for kind, figures in part["kinds"].items():
            yield f"{source}: {kind}", figures


def _rows(results: Sequence[Found], groups: Any, key: str, wanted: Any, suffix: str = "") -> list[list[str]]:
    by_model = [{name: figures[key] for name, figures in groups(result) if wanted(figures)} for result in results]
    names = list(dict.fromkeys(name for figures in by_model for name in figures))
    return [[name + suffix, *(share(figures.get(name)) for figures in by_model)] for name in names]


def _win_rates(results: Sequence[Found]) -> list[str]:
    """From the second model on: how often it finds the right answer likelier than the model before it does."""
    nats = [
        {(source, a["id"]): a["nats"] for source, part in result["chat"].items() for a in part["answers"]}
        for result in results
    ]
    rates = []
    for before, after in itertools.pairwise(nats):
        common = before.keys() & after.keys()
        rates.append(share(_mean([after[key] < before[key] for key in common])))
    return rates


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None
