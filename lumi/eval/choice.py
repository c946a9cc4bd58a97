"""Accuracy on tasks with a right answer among several, by which one the model finds likeliest.

Three ways to compare choices: the plain log-likelihood; the same for each character, which a longer choice does not lose by
its length (acc_norm of lm-evaluation-harness); and minus the log-likelihood that the choice has without the question, which a
common word does not win by being common (arXiv:2104.08315).
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lumi.arch import Decoder
from lumi.errors import DataError
from lumi.eval.likelihood import Document, score_documents
from lumi.eval.table import markdown_table, share
from lumi.eval.tasks import Item
from lumi.tokenizer import Tokenizer

N_BOOTSTRAP = 10_000
TASKS_WORDS = (
    "Accuracy by log-likelihood with its 95 % bootstrap interval; *per character*: of each choice's characters; "
    "*prior-corrected*: minus the choice's log-likelihood without the question. *baseline*: the share of the most frequent "
    "answer where all questions have the same choices, else chance. *perplexity*: for each word of the right answer. *cut*: "
    "questions whose context was cut on the left; *left out*: those with a choice that does not fit the model's context. "
    "Prompts as in lm-evaluation-harness; commonsense_qa is scored by its answers, not by letters."
)
_NEUTRAL = "Answer:"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskResult:
    """One task.

    Attributes:
        source: where its questions come from.
        n: questions.
        cut: questions whose context was cut on the left, because it is longer than the model's.
        left_out: questions with a choice that is itself longer than the model's context.
        accuracy: way of comparing → accuracy. With one choice only, ``plain`` is the share of exact greedy continuations.
        interval: way → its 95 % bootstrap interval.
        baseline: what a model reaches that knows the answers' frequencies only.
        chance: what guessing reaches; None with one choice.
        perplexity: of the right choice, for each of its words; only with one choice.
        groups: kind of question → plain accuracy and number.
    """

    source: str
    n: int
    cut: int
    left_out: int
    accuracy: Mapping[str, float]
    interval: Mapping[str, tuple[float, float]]
    baseline: float | None
    chance: float | None
    perplexity: float | None
    groups: Mapping[str, tuple[float, int]]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return dataclasses.asdict(self)


def run_task(
    model: Decoder,
    tokenizer: Tokenizer,
    items: Sequence[Item],
    *,
    source: str = "",
    batch_size: int = 16,
    name: str = "task",
) -> TaskResult:
    """Score every choice of every question.

    A tie counts as the share of tied choices that are right, so a model that finds all alike scores chance.

    Raises:
        DataError: there is no question whose choices fit the model's context.
    """
    longest = model.config.max_seq_len
    kept, documents, cut = [], [], 0
    for item in items:
        own = [choice_document(tokenizer, item.context, choice) for choice in item.choices]
        if all(int(mask.sum()) < longest for _, mask in own):
            kept.append(item)
            cut += any(len(tokens) > longest for tokens, _ in own)
            documents += [(tokens[-longest:], mask[-longest:]) for tokens, mask in own]
    left_out = len(items) - len(kept)
    items = kept
    if not items:
        raise DataError(f"{name} of {source or 'its source'}", "has no question that fits the model's context")
    pairs = [(item, choice) for item in items for choice in item.choices]
    scores = score_documents(model, documents, batch_size=batch_size, name=name)
    if all(len(item.choices) == 1 for item in items):
        return _greedy_result(items, scores.greedy, scores.log_probs, source, cut, left_out)
    lengths = np.array([max(1, len(choice.strip())) for _, choice in pairs])
    values = {
        "plain": scores.log_probs,
        "per_character": scores.log_probs / lengths,
    }
    if any(item.context for item in items):  # a choice without a question is its own prior: nothing would be left of it
        values["prior_corrected"] = scores.log_probs - _priors(model, tokenizer, pairs, batch_size, name)
    points = {way: _points(items, found) for way, found in values.items()}
    groups: dict[str, list[float]] = {}
    for item, point in zip(items, points["plain"], strict=True):
        groups.setdefault(item.group, []).append(float(point))
    return TaskResult(
        source=source,
        n=len(items),
        cut=cut,
        left_out=left_out,
        accuracy={way: float(point.mean()) for way, point in points.items()},
        interval={way: bootstrap(point) for way, point in points.items()},
        baseline=_baseline(items),
        chance=float(np.mean([1 / len(item.choices) for item in items])),
        perplexity=None,
        groups={group: (sum(found) / len(found), len(found)) for group, found in groups.items()}
        if len(groups) > 1
        else {},
    )


def choice_document(tokenizer: Tokenizer, context: str, choice: str) -> Document:
    """A choice after its context, as lm-evaluation-harness encodes them: together, so that a token may not span the border.

    Spaces at the end of the context belong to the choice.
    """
    spaces = len(context) - len(context.rstrip())
    context, choice = context[: len(context) - spaces], context[len(context) - spaces :] + choice
    before = len(tokenizer.encode(context)) if context else 0
    tokens = [tokenizer.bos_id, *tokenizer.encode(context + choice)]
    mask = np.arange(len(tokens)) > before
    return np.array(tokens, dtype=np.int32), mask


def bootstrap(points: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of a mean over (n,) values, from resampling them with replacement."""
    values, counts = np.unique(points, return_counts=True)
    # Only how often each value is drawn matters, and that is multinomial.
    drawn = np.random.default_rng(seed).multinomial(len(points), counts / len(points), size=N_BOOTSTRAP)
    low, high = np.percentile(drawn @ values / len(points), (2.5, 97.5))
    return float(low), float(high)


def tasks_table(tasks: Mapping[str, Mapping[str, Any]]) -> str:
    """All tasks, from the content of results.json."""
    rows = []
    for name, found in tasks.items():
        interval = found["interval"]["plain"]
        rows.append(
            [
                name,
                f"{found['n']:,}",
                share(found["accuracy"]["plain"], interval),
                share(found["accuracy"].get("per_character")),
                share(found["accuracy"].get("prior_corrected")),
                share(found["baseline"]),
                share(found["chance"]),
                "–" if found["perplexity"] is None else f"{found['perplexity']:.4g}",
                f"{found['cut']:,}",
                f"{found['left_out']:,}",
            ]
        )
        rows += [
            [f"  {group}", f"{n:,}", share(accuracy), *["–"] * 7] for group, (accuracy, n) in found["groups"].items()
        ]
    header = [
        "task",
        "n",
        "accuracy",
        "per character",
        "prior-corrected",
        "baseline",
        "chance",
        "perplexity",
        "cut",
        "left out",
    ]
    return markdown_table(header, rows)


def _priors(
    model: Decoder, tokenizer: Tokenizer, pairs: Sequence[tuple[Item, str]], batch_size: int, name: str
) -> np.ndarray:
    """(choices,) log-likelihood of each choice without its question; choices that recur are scored once."""
    contexts = [_NEUTRAL if item.context.endswith(_NEUTRAL) else "" for item, _ in pairs]
    keys = [(context, choice) for context, (_, choice) in zip(contexts, pairs, strict=True)]
    unique = list(dict.fromkeys(keys))
    longest = model.config.max_seq_len
    cut = [
        (tokens[-longest:], mask[-longest:]) for tokens, mask in (choice_document(tokenizer, *key) for key in unique)
    ]
    scores = score_documents(model, cut, batch_size=batch_size, name=f"{name}, prior")
    found = dict(zip(unique, scores.log_probs, strict=True))
    return np.array([found[key] for key in keys])


def _points(items: Sequence[Item], values: np.ndarray) -> np.ndarray:
    """(n,) 1 where the right choice has the highest value, a share of it where several have."""
    points, start = np.zeros(len(items)), 0
    for index, item in enumerate(items):
        own = values[start : start + len(item.choices)]
        start += len(item.choices)
        best = np.flatnonzero(own == own.max())
        points[index] = (item.label in best) / len(best)
    return points


def _baseline(items: Sequence[Item]) -> float:
    if len({item.choices for item in items}) == 1:
        return max(Counter(item.label for item in items).values()) / len(items)
    return float(np.mean([1 / len(item.choices) for item in items]))


def _greedy_result(
    items: Sequence[Item], greedy: np.ndarray, log_probs: np.ndarray, source: str, cut: int, left_out: int
) -> TaskResult:
    words = sum(len(item.choices[0].split()) for item in items)
    return TaskResult(
        source=source,
        n=len(items),
        cut=cut,
        left_out=left_out,
        accuracy={"plain": float(greedy.mean())},
        interval={"plain": bootstrap(greedy.astype(float))},
        baseline=None,
        chance=None,
        perplexity=math.exp(-float(log_probs.sum()) / words),
        groups={},
    )
