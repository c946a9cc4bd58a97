"""Which of two answers a model finds likelier: accuracy on preference pairs, by what is wrong with the worse one."""

import dataclasses
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from lumi.arch import Decoder
from lumi.corpus.preference import Pair
from lumi.data import render_pairs
from lumi.errors import DataError
from lumi.eval.interval import wilson
from lumi.eval.likelihood import Scores, score_documents
from lumi.tokenizer import Template, Tokenizer

ALL = "all"
"""Kind of pairs that do not say what is wrong with the worse answer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged:
    """One pair.

    Attributes:
        kind: what is wrong with the worse answer.
        chosen, rejected: log-likelihood in nats, summed over the answer's tokens.
        chosen_tokens, rejected_tokens: how many these are.
        chosen_reference, rejected_reference: the same sums under the model that training began from; None without one.
    """

    id: str
    kind: str
    chosen: float
    rejected: float
    chosen_tokens: int
    rejected_tokens: int
    chosen_reference: float | None = None
    rejected_reference: float | None = None

    @property
    def margin(self) -> float:
        """Nats by which the better answer is likelier."""
        return self.chosen - self.rejected

    @property
    def margin_per_token(self) -> float:
        """The same of the means over tokens, which a longer answer does not lose by its length."""
        return self.chosen / self.chosen_tokens - self.rejected / self.rejected_tokens

    @property
    def reward_margin(self) -> float | None:
        """How much the margin grew over the reference's: DPO's implicit reward, without its factor beta."""
        if self.chosen_reference is None or self.rejected_reference is None:
            return None
        return self.margin - (self.chosen_reference - self.rejected_reference)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreferenceReport:
    """One source's pairs.

    Attributes:
        split: test, or val where a source has no test.
        too_long: pairs left out because they do not fit the context.
    """

    split: str
    pairs: list[Judged]
    too_long: int

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON: the figures of every kind, and the pairs."""
        groups: dict[str, list[Judged]] = {}
        for pair in self.pairs:
            groups.setdefault(pair.kind, []).append(pair)
        return dataclasses.asdict(self) | {"kinds": {kind: _figures(group) for kind, group in groups.items()}}


def run_preference(
    model: Decoder,
    tokenizer: Tokenizer,
    template: Template,
    pairs: Iterable[Pair],
    *,
    split: str,
    reference: Decoder | None = None,
    limit: int | None = None,
    name: str = "pairs",
) -> PreferenceReport:
    """Score both answers of every pair.

    Args:
        reference: the model that training began from, for implicit rewards.
        limit: of each kind at most so many, the first ones.

    Raises:
        DataError: no pair fits the model's context.
    """
    taken: dict[str, int] = {}
    kept: list[Pair] = []
    examples: list[Any] = []
    too_long = 0
    for pair in pairs:
        kind = pair.meta.get("kind", ALL)
        if limit is not None and taken.get(kind, 0) >= limit:
            continue
        found = render_pairs([pair], template, tokenizer, 2 * model.config.max_seq_len).examples
        if not found or any(len(tokens) > model.config.max_seq_len for tokens, _ in found[0]):
            too_long += 1
            continue
        taken[kind] = taken.get(kind, 0) + 1
        kept.append(pair)
        examples += found
    if not kept:
        raise DataError(f"{name}: {too_long} pairs", "none fits the model's context", "raise arch.max_seq_len")
    documents = [document for example in examples for document in example]
    scores = score_documents(model, documents, name=name)
    before = None if reference is None else score_documents(reference, documents, name=f"{name}, reference")
    judged = [_judged(pair, index, scores, before) for index, pair in enumerate(kept)]
    return PreferenceReport(split=split, pairs=judged, too_long=too_long)


def _judged(pair: Pair, index: int, scores: Scores, before: Scores | None) -> Judged:
    one, other = 2 * index, 2 * index + 1
    return Judged(
        id=pair.id,
        kind=pair.meta.get("kind", ALL),
        chosen=float(scores.log_probs[one]),
        rejected=float(scores.log_probs[other]),
        chosen_tokens=int(scores.n_tokens[one]),
        rejected_tokens=int(scores.n_tokens[other]),
        chosen_reference=None if before is None else float(before.log_probs[one]),
        rejected_reference=None if before is None else float(before.log_probs[other]),
    )


def _figures(pairs: Sequence[Judged]) -> dict[str, Any]:
    n = len(pairs)
    right = sum(pair.margin > 0 for pair in pairs)
    rewards = [pair.reward_margin for pair in pairs if pair.reward_margin is not None]
    return {
        "n": n,
        "accuracy": right / n,
        "accuracy_interval": list(wilson(right, n)),
        "accuracy_per_token": sum(pair.margin_per_token > 0 for pair in pairs) / n,
        "margin": statistics.fmean(pair.margin for pair in pairs),
        "chosen_nats_per_token": -statistics.fmean(pair.chosen / pair.chosen_tokens for pair in pairs),
        "rejected_nats_per_token": -statistics.fmean(pair.rejected / pair.rejected_tokens for pair in pairs),
        "reward_accuracy": sum(reward > 0 for reward in rewards) / n if rewards else None,
        "reward_margin": statistics.fmean(rewards) if rewards else None,
    }
