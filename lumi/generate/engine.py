"""Continues prompts of different lengths together, with a key/value cache.

Prompts are padded on the right and read in one pass; then every request gets one token a step, and requests that are
finished leave the batch. A request's tokens depend on the model, its prompt, its settings and its seed: never on its
neighbours, the batch size or the global random state. That state stays untouched, so that training can draw samples
between two steps. (Kernels may round differently for another batch size; that changes a token only where two are
equally likely up to the last digits.)
"""

import contextlib
import dataclasses
import secrets
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lumi.arch import Decoder, KVCache
from lumi.errors import ConfigError, DataError, NumericError
from lumi.generate import sampling
from lumi.generate.sampling import SamplingParams

FinishReason = Literal["stop", "length"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Completion:
    """The answer to one prompt.

    Attributes:
        tokens: what was generated, without the token that ended it.
        finish_reason: ``stop`` when eos or a stop token ended it; ``length`` at ``max_new_tokens`` or a full context.
        stop_id: the token that ended it, or None.
        seed: the request's seed, also when it was drawn: with it the same answer comes again.
    """

    tokens: list[int]
    finish_reason: FinishReason
    stop_id: int | None
    seed: int


def generate(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams | Sequence[SamplingParams] = SamplingParams(),  # noqa: B008 - frozen
    *,
    eos_id: int | None,
    batch_size: int = 32,
    progress: bool = False,
) -> list[Completion]:
    """Continue every prompt.

    Args:
        model: on any device; left in the mode (training or not) it came in.
        prompts: token ids, at least one each (bos, usually), each shorter than the model's context.
        params: for all of them, or one for each.
        eos_id: ends an answer, as ``params.stop_ids`` do; None when the model has no end token.
        batch_size: requests in the model at a time; bounds the cache.
        progress: show a bar when it takes longer than two seconds.

    Returns:
        One completion a prompt, in their order.

    Raises:
        DataError: a prompt is empty, does not leave room for a token, or holds an id outside the vocabulary.
        NumericError: the model gives logits that are not numbers.
    """
    requests = _requests(model, prompts, params, eos_id)
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size}", "must be at least 1")
    with tqdm(
        total=len(requests),
        desc="generate",
        unit="prompt",
        delay=2,
        disable=None if progress else True,
    ) as bar:
        for first in range(0, len(requests), batch_size):
            batch = requests[first : first + batch_size]
            for _ in _steps(model, batch):
                bar.update(sum(request.reason is not None for request in requests) - bar.n)
    return [request.completion() for request in requests]


def stream(model: Decoder, prompt: Sequence[int], params: SamplingParams, *, eos_id: int | None) -> Iterator[int]:
    """Yield the tokens of one answer as they come, without the one that ends it; the same tokens as `generate`.

    Stop reading at any time; between two tokens the model is in its own mode.

    Raises:
        DataError, NumericError: as `generate`.
    """
    (request,) = _requests(model, [prompt], params, eos_id)
    n_yielded = 0
    for _ in _steps(model, [request]):
        yield from request.tokens[n_yielded:]
        n_yielded = len(request.tokens)


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Dropout off inside the block; afterwards every part is in the mode it was in before."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


class _Request:
    """One prompt on its way to a completion."""

    def __init__(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        eos_id: int | None,
        max_len: int,
    ) -> None:
        self.prompt, self.params = list(prompt), params
        self.tokens: list[int] = []
        self.reason: FinishReason | None = None
        self.stop_id: int | None = None
        self.stop_ids = sorted({*params.stop_ids, *(() if eos_id is None else (eos_id,))})
        self.total_len = min(len(prompt) + params.max_new_tokens, max_len)
        self.seed = secrets.randbits(63) if params.seed is None else params.seed
        # On the CPU even when the model is not, so that a seed means the same numbers everywhere.
        self.generator = torch.Generator().manual_seed(self.seed)

    def constrain(self, logits: Tensor) -> Tensor:
        """Steps 1 to 3 of `lumi.generate.sampling`, which look at the request's history: (V,) -> (V,)."""
        params = self.params
        history = torch.tensor(self.prompt + self.tokens, device=logits.device)
        if params.repetition_penalty != 1:
            seen = torch.zeros_like(logits, dtype=torch.bool).index_fill(0, history, True)
            logits = sampling.penalise_repetition(logits, seen, params.repetition_penalty)
        if params.no_repeat_ngram is not None:
            logits = sampling.ban_repeated_ngrams(logits, history, params.no_repeat_ngram)
        if len(self.tokens) < params.min_new_tokens:
            logits = sampling.ban_tokens(logits, self.stop_ids)
        return logits

    @property
    def constrained(self) -> bool:
        """Whether `constrain` has anything to do now."""
        params = self.params
        early = len(self.tokens) < params.min_new_tokens
        return early or params.repetition_penalty != 1 or params.no_repeat_ngram is not None

    def uniform(self) -> float:
        """The request's next random number from [0, 1)."""
        return torch.rand((), dtype=torch.float64, generator=self.generator).item()

    def accept(self, token: int) -> None:
        """Take the next token: it ends the answer, or belongs to it."""
        if token in self.stop_ids:
            self.reason, self.stop_id = "stop", token
            return
        self.tokens.append(token)
        if len(self.prompt) + len(self.tokens) == self.total_len:
            self.reason = "length"

    def completion(self) -> Completion:
        assert self.reason is not None, "asked for before the answer ended"
        return Completion(
            tokens=self.tokens,
            finish_reason=self.reason,
            stop_id=self.stop_id,
            seed=self.seed,
        )


def _requests(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams | Sequence[SamplingParams],
    eos_id: int | None,
) -> list[_Request]:
    """One request a prompt, all checked before any work."""
    each = [params] * len(prompts) if isinstance(params, SamplingParams) else list(params)
    if len(each) != len(prompts):
        raise ConfigError(
            f"{len(each)} sampling settings for {len(prompts)} prompts",
            "give one for all, or one for each",
        )
    max_len, vocab_size = model.config.max_seq_len, model.config.vocab_size
    for index, prompt in enumerate(prompts):
        if len(prompt) == 0:
            raise DataError(
                f"prompt {index} is empty",
                "the model continues something",
                "begin with the bos token",
            )
        if len(prompt) >= max_len:
            found = f"prompt {index} has {len(prompt):,} tokens"
            raise DataError(
                found,
                f"the context is arch.max_seq_len={max_len:,}, one must be left",
                "shorten the prompt",
            )
        if min(prompt) < 0 or max(prompt) >= vocab_size:
            found = f"prompt {index} holds ids from {min(prompt)} to {max(prompt)}"
            raise DataError(
                found,
                f"the model knows 0 to {vocab_size - 1}",
                "encode it with the model's own tokenizer",
            )
    return [_Request(prompt, p, eos_id, max_len) for prompt, p in zip(prompts, each, strict=True)]


def _steps(model: Decoder, requests: list[_Request]) -> Iterator[None]:
    """Give every request one token between two yields, until all are finished."""
    weight = model.lm_weight
    longest = max(request.total_len for request in requests)
    cache = KVCache(model.config, len(requests), longest, device=weight.device, dtype=weight.dtype)
    unread = [request.prompt for request in requests]
    while requests:
        logits = _read(model, cache, unread)
        for request, token in zip(requests, _choose(logits, requests), strict=True):
            request.accept(token)
        yield
        going = [row for row, request in enumerate(requests) if request.reason is None]
        if len(going) < len(requests):
            requests = [requests[row] for row in going]
            cache.keep(torch.tensor(going, dtype=torch.int64, device=weight.device))
        unread = [request.tokens[-1:] for request in requests]


@torch.inference_mode()
def _read(model: Decoder, cache: KVCache, unread: list[list[int]]) -> Tensor:
    """Feed each row its new tokens; returns the logits (B, V) float32 of what comes after them."""
    lengths = torch.tensor([len(tokens) for tokens in unread])
    padded = torch.zeros(len(unread), int(lengths.max()), dtype=torch.int64)
    for row, tokens in enumerate(unread):
        padded[row, : len(tokens)] = torch.tensor(tokens)
    device = model.lm_weight.device
    lengths = lengths.to(device)
    with evaluation_mode(model):
        hidden = model(padded.to(device), cache=cache)  # (B, T, D)
        cache.advance(lengths)
        last = hidden[torch.arange(len(unread), device=device), lengths - 1]  # (B, D)
        return model.logits(last).float()


@torch.inference_mode()
def _choose(logits: Tensor, requests: list[_Request]) -> list[int]:
    """The next token of each request, from logits (B, V)."""
    bad = (~logits.isfinite().all(dim=1)).tolist()
    if any(bad):
        found = f"logits of prompt {bad.index(True)} of the batch are not numbers"
        raise NumericError(
            found,
            "a model with finite weights gives finite logits",
            "check the checkpoint",
        )
    rows = [
        request.constrain(row) if request.constrained else row for row, request in zip(logits, requests, strict=True)
    ]
    logits = torch.stack(rows)
    chosen = logits.argmax(dim=1)
    for params, members in _groups(requests).items():
        index = torch.tensor(members, device=logits.device)
        uniform = torch.tensor(
            [requests[row].uniform() for row in members],
            dtype=torch.float64,
            device=logits.device,
        )
        chosen[index] = sampling.draw(sampling.warp(logits[index], params), uniform)
    return chosen.tolist()


def _groups(requests: list[_Request]) -> dict[SamplingParams, list[int]]:
    """Rows that are drawn, by the settings that they share: usually one group, so one pass over the logits."""
    groups: dict[SamplingParams, list[int]] = {}
    for row, request in enumerate(requests):
        if not request.params.greedy:
            groups.setdefault(dataclasses.replace(request.params, seed=None), []).append(row)
    return groups
