"""One prompt on its way to a completion: its history, its random numbers, its end."""

import dataclasses
import secrets
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lumi.arch import DecoderConfig
from lumi.errors import ConfigError, DataError, LumiError
from lumi.generate import sampling
from lumi.generate.sampling import SamplingParams

FinishReason = Literal["stop", "length", "cancelled", "error"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenLogprobs:
    """What the model thought of a token, before any setting of the sampling: natural logarithms.

    Attributes:
        chosen: of the token that was taken.
        top: (token, logarithm) of the most likely ones, best first.
    """

    chosen: float
    top: list[tuple[int, float]]


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


class Request:
    """A prompt, how to continue it, and what came of it so far.

    Args:
        prompt: token ids, at least one (bos, usually).
        params: how tokens are chosen.
        config: of the model: the prompt must fit its vocabulary and leave room for a token in its context.
        eos_id: ends the answer, as ``params.stop_ids`` do; None when the model has no end token.
        top_logprobs: note for each token what the model thought of it, and of so many others; None notes nothing.
        name: of the prompt, for messages.

    Attributes:
        tokens: generated so far, without the one that ended it.
        logprobs: as long, if they were asked for.
        reason: why it ended; None as long as it goes on.
        error: what went wrong, when ``reason`` is ``error``.

    Raises:
        DataError: the prompt is empty, does not leave room for a token, or holds an id outside the vocabulary.
        ConfigError: a stop id is outside the vocabulary.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        config: DecoderConfig,
        *,
        eos_id: int | None,
        top_logprobs: int | None = None,
        name: str = "the prompt",
    ) -> None:
        self.prompt = _checked(prompt, config, name)
        _check_stops(params.stop_ids, config)
        self.params, self.top_logprobs = params, top_logprobs
        self.tokens: list[int] = []
        self.logprobs: list[TokenLogprobs] = []
        self.reason: FinishReason | None = None
        self.error: LumiError | None = None
        self.stop_id: int | None = None
        self.stop_ids = sorted({*params.stop_ids, *(() if eos_id is None else (eos_id,))})
        self.total_len = min(len(prompt) + params.max_new_tokens, config.max_seq_len)
        self.seed = secrets.randbits(63) if params.seed is None else params.seed
        # On the CPU even when the model is not, so that a seed means the same numbers everywhere.
        self._generator = torch.Generator().manual_seed(self.seed)

    def constrain(self, logits: Tensor) -> Tensor:
        """Steps 1 to 3 of `lumi.generate.sampling`, which look at the request's history: (V,) -> (V,)."""
        params = self.params
        history = torch.tensor(self.prompt + self.tokens, device=logits.device)
        if params.repetition_penalty != 1:
            seen = torch.zeros_like(logits, dtype=torch.bool).index_fill(0, history, True)
            logits = sampling.penalise_repetition(logits, seen, params.repetition_penalty)
        if params.no_repeat_ngram is not None:
            logits = sampling.ban_repeated_ngrams(logits, history, params.no_repeat_ngram)
        if self.early:
            logits = sampling.ban_tokens(logits, self.stop_ids)
        return logits

    @property
    def looks_back(self) -> bool:
        """Whether steps 1 and 2, for which the history has to be read, have anything to do."""
        return self.params.repetition_penalty != 1 or self.params.no_repeat_ngram is not None

    @property
    def early(self) -> bool:
        """Whether it may not end yet."""
        return len(self.tokens) < self.params.min_new_tokens

    def uniform(self) -> float:
        """The request's next random number from [0, 1)."""
        return torch.rand((), dtype=torch.float64, generator=self._generator).item()

    def accept(self, token: int, logprobs: TokenLogprobs | None) -> None:
        """Take the next token: it ends the answer, or belongs to it."""
        if token in self.stop_ids:
            self.reason, self.stop_id = "stop", token
            return
        if logprobs is not None:
            self.logprobs.append(logprobs)  # first: another thread that sees a token finds its logarithms
        self.tokens.append(token)
        if len(self.prompt) + len(self.tokens) == self.total_len:
            self.reason = "length"

    def cancel(self) -> None:
        """Nobody waits for it any more; the engine frees its place before its next step."""
        if self.reason is None:
            self.reason = "cancelled"

    def fail(self, error: LumiError) -> None:
        """It cannot go on; its neighbours can."""
        self.error = error  # first: another thread that sees the reason finds it
        self.reason = "error"

    def completion(self) -> Completion:
        """The answer.

        Raises:
            LumiError: what went wrong with it.
        """
        if self.error is not None:
            raise self.error
        assert self.reason is not None, "asked for before the answer ended"
        return Completion(tokens=self.tokens, finish_reason=self.reason, stop_id=self.stop_id, seed=self.seed)


def _checked(prompt: Sequence[int], config: DecoderConfig, name: str) -> list[int]:
    if len(prompt) == 0:
        raise DataError(f"{name} is empty", "the model continues something", "begin with the bos token")
    if len(prompt) >= config.max_seq_len:
        raise DataError(
            f"{name} has {len(prompt):,} tokens",
            f"the context is arch.max_seq_len={config.max_seq_len:,}, one must be left",
            "shorten the prompt",
        )
    if min(prompt) < 0 or max(prompt) >= config.vocab_size:
        raise DataError(
            f"{name} holds ids from {min(prompt)} to {max(prompt)}",
            f"the model knows 0 to {config.vocab_size - 1}",
            "encode it with the model's own tokenizer",
        )
    return list(prompt)


def _check_stops(stop_ids: Sequence[int], config: DecoderConfig) -> None:
    if stop_ids and max(stop_ids) >= config.vocab_size:
        raise ConfigError(
            f"sampling.stop_ids={list(stop_ids)}",
            f"the model knows 0 to {config.vocab_size - 1}",
            "take ids of its own tokenizer",
        )
