"""How the next token is chosen from logits: settings, and one pure function for each of them.

The order is that of Hugging Face's ``generate``, so that equal settings mean equal distributions:

1. `penalise_repetition` 2. `ban_repeated_ngrams` 3. stop tokens banned before ``min_new_tokens`` 4. temperature
5. `keep_top_k` 6. `keep_top_p` 7. `keep_min_p` 8. draw, or the largest logit when the temperature is 0.

Steps 1-3 also hold for greedy decoding; 4-7 do not change which logit is the largest. Every function takes logits of
shape (V,) or (B, V) and returns new ones with the excluded tokens at minus infinity; at least one token is always left.
"""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from lumi.errors import ConfigError, join_violations

BANNED = -math.inf
MAX_SEED = 2**63 - 1
COLDEST, HOTTEST = 1e-6, 1e6
"""A temperature below the first is 0: logits divided by less may be too large for a float32."""
MILDEST, STRONGEST = 0.01, 1e6
"""Bounds of the repetition penalty, for the same reason."""

_UNIT = 2.0**52
_TOP_P_FIRST = 4096
_FEW = 512
_MARGIN = 1e-6


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How one request is continued. Off is ``None``.

    Attributes:
        temperature: logits are divided by it; 0 is greedy, 1 the model's own distribution.
        top_k: only the k most likely tokens, and all that tie with the last of them.
        top_p: only the smallest set of most likely tokens that together reach this probability (arXiv:1904.09751).
        min_p: only tokens at least this fraction as likely as the most likely one (arXiv:2407.01082).
        repetition_penalty: logits of tokens seen in prompt or answer are divided by it if positive, multiplied if
            negative (CTRL, arXiv:1909.05858, section 4.1); 1 is off, above 1 discourages.
        no_repeat_ngram: no n-gram of this many tokens occurs twice in prompt and answer together.
        max_new_tokens: an answer ends here at the latest, or where the context is full.
        min_new_tokens: no stop token before this many tokens.
        stop_ids: tokens that end the answer, besides the tokenizer's eos.
        seed: the answer is a function of model, prompt, these settings and this number, whatever else is in the batch.
            None draws one, which the answer then names.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    no_repeat_ngram: int | None = None
    max_new_tokens: int = 128
    min_new_tokens: int = 0
    stop_ids: tuple[int, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        """Check every field, and take a list from a config file as the tuple of ``stop_ids``.

        Raises:
            ConfigError: naming each value that is of the wrong type or out of range.
        """
        if isinstance(self.stop_ids, list):
            object.__setattr__(self, "stop_ids", tuple(self.stop_ids))
        violations = [
            ConfigError(f"sampling.{name}={getattr(self, name)!r}", f"must be {rule}", fix)
            for name, (rule, fix) in _RULES.items()
            if not _CHECKS[name](getattr(self, name))
        ]
        if not violations and self.min_new_tokens > self.max_new_tokens:
            found = f"sampling.min_new_tokens={self.min_new_tokens}"
            violations.append(
                ConfigError(
                    found,
                    f"must not exceed sampling.max_new_tokens={self.max_new_tokens}",
                )
            )
        if violations:
            raise join_violations(violations)

    @property
    def greedy(self) -> bool:
        """Whether the largest logit is taken, without chance."""
        return self.temperature < COLDEST


def _is_int(value: Any, low: int, high: int = MAX_SEED) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_RULES = {
    "temperature": (f"a number from 0 to {HOTTEST:.0f}", "0 is greedy, 1 the model's own distribution"),
    "top_k": ("a whole number from 1, or null", "null keeps every token"),
    "top_p": (
        "a number above 0 and up to 1, or null",
        "try 0.95, or null to keep every token",
    ),
    "min_p": ("a number from 0 to 1, or null", "try 0.05, or null to keep every token"),
    "repetition_penalty": (f"a number from {MILDEST} to {STRONGEST:.0f}", "1 is off, 1.1 is mild"),
    "no_repeat_ngram": (
        "a whole number from 1, or null",
        "try 4, or null to allow repetition",
    ),
    "max_new_tokens": ("a whole number from 1", "try 128"),
    "min_new_tokens": ("a whole number from 0", "0 lets the model stop at once"),
    "stop_ids": ("a list of token ids", "for example [2]"),
    "seed": ("a whole number from 0, or null", "null draws one"),
}
_CHECKS = {
    "temperature": lambda x: _is_real(x) and 0 <= x <= HOTTEST,
    "top_k": lambda x: x is None or _is_int(x, 1),
    "top_p": lambda x: x is None or (_is_real(x) and 0 < x <= 1),
    "min_p": lambda x: x is None or (_is_real(x) and 0 <= x <= 1),
    "repetition_penalty": lambda x: _is_real(x) and MILDEST <= x <= STRONGEST,
    "no_repeat_ngram": lambda x: x is None or _is_int(x, 1),
    "max_new_tokens": lambda x: _is_int(x, 1),
    "min_new_tokens": lambda x: _is_int(x, 0),
    "stop_ids": lambda x: isinstance(x, tuple) and all(_is_int(i, 0) for i in x),
    "seed": lambda x: x is None or _is_int(x, 0),
}


def penalise_repetition(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make tokens that were seen less likely (above 1) or more likely (below 1).

    Args:
        logits: (..., V).
        seen: (..., V) bool, True for tokens in the prompt or the answer so far.
        penalty: divisor of positive logits and factor of negative ones.
    """
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def ban_repeated_ngrams(logits: Tensor, history: Tensor, n: int) -> Tensor:
    """Exclude every token that would end an n-gram which the history already holds.

    Args:
        logits: (V,) of one request.
        history: (T,) int64, its prompt and answer so far.
        n: length of the n-gram; 1 excludes every token seen.

    Returns:
        (V,); the logits unchanged if the rule would exclude every token.
    """
    if len(history) < n:
        return logits
    ngrams = history.unfold(0, n, 1)  # (T - n + 1, n)
    recent = history[len(history) - n + 1 :]  # the n - 1 tokens that the next one would complete
    repeats = ngrams[(ngrams[:, :-1] == recent).all(dim=1), -1]
    return _unless_empty(logits.index_fill(-1, repeats, BANNED), logits)


def ban_tokens(logits: Tensor, ids: list[int]) -> Tensor:
    """Exclude these tokens, unless nothing would be left: (..., V) -> (..., V)."""
    index = torch.tensor(ids, dtype=torch.int64, device=logits.device)
    return _unless_empty(logits.index_fill(-1, index, BANNED), logits)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Exclude tokens less likely than the k-th: (..., V) -> (..., V)."""
    kth = logits.topk(min(k, logits.shape[-1]), dim=-1).values[..., -1:]
    return logits.masked_fill(logits < kth, BANNED)


def keep_top_p(logits: Tensor, p: float, total: Tensor | None = None) -> Tensor:
    """Keep the fewest most likely tokens whose probabilities sum to at least ``p``: (..., V) -> (..., V).

    The token that crosses ``p`` is kept, so the most likely one always is, and so are all that tie with it.

    Args:
        total: (..., 1) float64, the logarithm of the sum that probabilities are measured by; None is that of ``logits``.
    """
    if p >= 1:
        return logits  # rounding in the sum must not cut the tail off
    # A whole number: compared with a fraction, whole numbers would be rounded to float32, and a very small p to nothing.
    enough = math.ceil(p * _UNIT)
    vocab_size = logits.shape[-1]
    total = logits.double().logsumexp(dim=-1, keepdim=True) if total is None else total
    # A full sort costs more than a small model's forward pass, and the most likely tokens nearly always suffice.
    for n_sorted in (min(_TOP_P_FIRST, vocab_size), vocab_size):
        ordered = logits.topk(n_sorted, dim=-1).values
        mass = _mass(ordered.double() - total)
        reached = mass.cumsum(dim=-1)
        if bool((reached[..., -1] >= enough).all()):
            break
    before = reached - mass  # of all tokens more likely than this one
    cutoff = ordered.masked_fill(before >= enough, math.inf).amin(dim=-1, keepdim=True)
    return logits.masked_fill(logits < cutoff, BANNED)


def keep_min_p(logits: Tensor, min_p: float) -> Tensor:
    """Exclude tokens less likely than ``min_p`` times the most likely one: (..., V) -> (..., V)."""
    probs = logits.softmax(dim=-1)
    return logits.masked_fill(probs < min_p * probs.amax(dim=-1, keepdim=True), BANNED)


def warp(logits: Tensor, params: SamplingParams) -> Tensor:
    """Steps 4 to 7 for requests that share their settings: (..., V) -> (..., V). Greedy settings change nothing."""
    if params.greedy:
        return logits
    logits = logits / params.temperature
    if params.top_k is not None:
        logits = keep_top_k(logits, params.top_k)
    if params.top_p is not None:
        logits = keep_top_p(logits, params.top_p)
    if params.min_p is not None:
        logits = keep_min_p(logits, params.min_p)
    return logits


def pick(logits: Tensor, params: SamplingParams, uniform: Tensor) -> Tensor:
    """What ``draw(warp(logits, params), uniform)`` gives, for a part of its price where few tokens can be kept.

    Args:
        logits: (B, V). uniform: (B,) float64.

    Returns:
        (B,) int64.
    """
    few = _few(logits, params)
    if few is None:
        return draw(warp(logits, params), uniform)
    values, tokens = few
    return tokens.gather(1, draw(values, uniform).unsqueeze(1)).squeeze(1)


def _few(logits: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor] | None:
    """The tokens that steps 5 to 7 keep, if they are sure to be few: values (B, k) and tokens (B, k), by rising token.

    Args:
        logits: (B, V), before the temperature, which keeps the order: only the few are divided.
    """
    if params.top_k is None and (params.top_p is None or params.top_p + _MARGIN >= 1):
        return None
    n_first = min(_FEW if params.top_k is None else params.top_k, logits.shape[-1] - 1)
    if not 0 < n_first <= _FEW:
        return None
    ordered, tokens = logits.topk(n_first + 1, dim=-1)
    ordered = ordered / params.temperature
    if bool((ordered[:, -2] == ordered[:, -1]).any()):
        return None  # the last of them ties with one that is left out
    values, total = ordered[:, :-1], None
    if params.top_k is None:
        total = (logits / params.temperature).double().logsumexp(dim=-1, keepdim=True)
        share = (values.double() - total).exp().sum(dim=-1)
        if params.top_p is None or bool((share < params.top_p + _MARGIN).any()):
            return None  # they do not reach it
    if params.top_p is not None:
        values = keep_top_p(values, params.top_p, total)
    if params.min_p is not None:
        values = keep_min_p(values, params.min_p)
    tokens, order = tokens[:, :-1].sort(dim=-1)
    return values.gather(1, order), tokens


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """The token at which the cumulative distribution passes a number from [0, 1).

    One number a token, made by the request's own generator: what neighbours draw cannot matter.

    Args:
        logits: (B, V).
        uniform: (B,) float64.

    Returns:
        (B,) int64; never an excluded token.
    """
    reached = _mass(logits.double().log_softmax(dim=-1)).cumsum(dim=-1)
    total = reached[..., -1:]
    target = torch.minimum((uniform.unsqueeze(-1) * total).long(), total - 1)  # the product may round up to the total
    return torch.searchsorted(reached, target, right=True).squeeze(-1)


def _mass(log_probs: Tensor) -> Tensor:
    """Probabilities in units of 2^-52, int64, from float64 log-probabilities: same shape.

    Whole numbers add up to the same in any order, so that the sums are exact and do not differ from run to run. (CUDA
    has no deterministic cumulative sum of floating-point numbers.)
    """
    return (log_probs.exp() * _UNIT).round().long()


def _unless_empty(banned: Tensor, logits: Tensor) -> Tensor:
    # A rule that leaves no token at all is dropped for that row: an answer can always go on.
    return torch.where(banned.isneginf().all(dim=-1, keepdim=True), logits, banned)
