"""Continuous batching: requests join and leave a running batch at any step.

A prompt is read alone, in parts; then its row gets one token a step, together with all others, until it ends and its place
is free. A request's tokens depend on the model, its prompt, its settings and its seed: never on its neighbours, the order
of arrival or the global random state. On a CPU that holds to the last bit (`lumi.arch.fused` says how); on a CUDA device
kernels may round differently for another batch size, which changes a token only where two are equally likely up to the
last digits. Training can draw samples between two steps: neither the model nor the random state is touched.
"""

import dataclasses
import logging
from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lumi.arch.fused import Cache, FusedDecoder
from lumi.errors import ConfigError, LumiError, NumericError, ResourceError
from lumi.generate import sampling
from lumi.generate.request import Request, TokenLogprobs
from lumi.generate.sampling import SamplingParams

log = logging.getLogger(__name__)

PROMPT_PART = 512


class Engine:
    """Runs requests on one model. Not thread-safe: one thread adds and steps.

    Args:
        decoder: the model.
        n_rows: requests in the model at a time; the others wait in order.
        max_len: longest request in tokens, prompt and answer together; None is the model's context.
        prompt_part: tokens of a prompt that are read between two tokens of the running answers: bounds how long these
            wait for a newcomer.
    """

    def __init__(
        self, decoder: FusedDecoder, *, n_rows: int, max_len: int | None = None, prompt_part: int = PROMPT_PART
    ) -> None:
        if n_rows < 1:
            raise ConfigError(f"batch_size={n_rows}", "must be at least 1")
        self.decoder, self.n_rows, self._prompt_part = decoder, n_rows, prompt_part
        self.cache = Cache(decoder, n_rows, max_len or decoder.config.max_seq_len)
        self._waiting: deque[Request] = deque()
        self._active: list[Request] = []  # request i has row i
        self._reading: Request | None = None  # has the row after them
        self._n_read = 0

    def add(self, request: Request) -> None:
        """Have a request answered; it joins as soon as there is a place."""
        self._waiting.append(request)

    @property
    def n_active(self) -> int:
        """Requests that have a place."""
        return len(self._active) + (self._reading is not None)

    @property
    def n_waiting(self) -> int:
        """Requests that have none yet."""
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._active or self._reading or self._waiting)

    def step(self) -> list[Request]:
        """Give every running request one token, read some of what waits; returns the requests that have news.

        A request that was cancelled, or whose logits are not numbers, leaves; the others never notice.
        """
        self._dismiss()
        news = list(self._active)
        if news:
            tokens = torch.tensor([request.tokens[-1] for request in news])
            # The last token of each has not been read yet.
            lengths = [len(request.prompt) + len(request.tokens) - 1 for request in news]
            device = self.decoder.device
            places = torch.tensor(lengths).to(device)
            give(self.decoder.decode(tokens.to(device), places, self.cache, max(lengths)), news)
        n_read = 0
        while n_read < self._prompt_part and self._next_prompt() is not None:
            n_read += self._read_part(news)
        self._dismiss()
        return news

    def abandon(self, error: LumiError | None = None) -> list[Request]:
        """Cancel everything, or fail it if something went wrong; returns all that were there."""
        there = [*self._active, *([self._reading] if self._reading else []), *self._waiting]
        for request in there:
            if error is None:
                request.cancel()
            elif request.reason is None:
                request.fail(error)
        self._active, self._reading = [], None
        self._waiting.clear()
        return there

    def _next_prompt(self) -> Request | None:
        """The request that is being read, or the next one if there is a place for it."""
        if self._reading is None and self._waiting and len(self._active) < self.n_rows:
            self._reading, self._n_read = self._waiting.popleft(), 0
        return self._reading

    def _read_part(self, news: list[Request]) -> int:
        """Read on in a prompt; at its end the request gets its first token and joins. Returns the tokens read."""
        request = self._reading
        assert request is not None, "asked for without a prompt"
        # Where a prompt is cut depends on nothing but itself: another cut would round differently.
        part = request.prompt[self._n_read : self._n_read + self._prompt_part]
        try:
            logits = self.decoder.prefill(torch.tensor(part), self.cache, len(self._active), self._n_read)
        except RuntimeError:  # of memory, nearly always: what it takes depends on the prompt, so the others go on
            log.exception("a prompt of %d tokens could not be read", len(request.prompt))
            request.fail(
                ResourceError(f"a prompt of {len(request.prompt):,} tokens", "could not be read", "see the log")
            )
            self._reading = None
            news.append(request)
            return len(part)
        self._n_read += len(part)
        if self._n_read == len(request.prompt):
            self._reading = None
            self._active.append(request)
            give(logits.unsqueeze(0), [request])
            news.append(request)
        return len(part)

    def _dismiss(self) -> None:
        """Free the places of those that ended; the rows in use stay together."""
        self._waiting = deque(request for request in self._waiting if request.reason is None)
        n_before = len(self._active)
        for row in range(n_before - 1, -1, -1):
            if self._active[row].reason is None:
                continue
            last = self._active.pop()
            if row < len(self._active):
                self._active[row] = last
                self.cache.move(len(self._active), row, len(last.prompt) + len(last.tokens))
        if self._reading is not None and self._reading.reason is not None:
            self._reading = None
        if self._reading is not None and len(self._active) < n_before:
            self.cache.move(n_before, len(self._active), self._n_read)


@torch.inference_mode()
def give(logits: Tensor, requests: Sequence[Request]) -> None:
    """The next token of each request, from logits (n, V) float32; one whose logits are not numbers fails."""
    finite = logits.sum(dim=1).isfinite().tolist()  # of 32,768 logits a tenth of the time that looking at each takes
    for request, is_finite in zip(requests, finite, strict=True):
        if not is_finite:
            found = "logits that are not numbers"
            request.fail(NumericError(found, "a model with finite weights gives finite logits", "check the checkpoint"))
    rows = [row for row, is_finite in enumerate(finite) if is_finite]
    if len(rows) < len(requests):
        logits, requests = logits[rows], [requests[row] for row in rows]
    if not requests:
        return
    thoughts = _thoughts(logits, requests)
    _constrain(logits, requests)
    for request, token, thought in zip(requests, _choose(logits, requests), thoughts, strict=True):
        request.accept(token, thought(token) if thought else None)


def _constrain(logits: Tensor, requests: Sequence[Request]) -> None:
    """What the history of each request excludes, in place; ends that come too early, of all rows at once."""
    early: list[tuple[int, int]] = []
    for row, request in enumerate(requests):
        if request.looks_back:
            logits[row] = request.constrain(logits[row])
        elif request.early and len(request.stop_ids) < logits.shape[1]:
            early.extend((row, token) for token in request.stop_ids)
    if early:
        rows, tokens = torch.tensor(early, device=logits.device).unbind(dim=1)
        logits[rows, tokens] = sampling.BANNED


def _largest(logits: Tensor) -> Tensor:
    """The index of the largest of each row (n, V): (n,), the first of equal ones; NumPy's is four times as fast on a CPU."""
    return logits.argmax(dim=1) if logits.device.type != "cpu" else torch.from_numpy(logits.numpy().argmax(axis=1))


def _choose(logits: Tensor, requests: Sequence[Request]) -> list[int]:
    chosen = _largest(logits)
    for params, members in _groups(requests).items():
        index = torch.tensor(members, device=logits.device)
        uniform = torch.tensor([requests[row].uniform() for row in members], dtype=torch.float64, device=logits.device)
        mine = logits if len(members) == len(requests) else logits[index]
        chosen[index] = sampling.pick(mine, params, uniform)
    return chosen.tolist()


def _groups(requests: Sequence[Request]) -> dict[SamplingParams, list[int]]:
    """Rows that are drawn, by the settings that they share: usually one group, so one pass over the logits."""
    groups: dict[SamplingParams, list[int]] = {}
    for row, request in enumerate(requests):
        if not request.params.greedy:
            groups.setdefault(dataclasses.replace(request.params, seed=None), []).append(row)
    return groups


def _thoughts(logits: Tensor, requests: Sequence[Request]) -> list[Callable[[int], TokenLogprobs] | None]:
    """For each request that asked for it, what the model thinks of a token."""
    return [
        None if request.top_logprobs is None else _Thought(row, request.top_logprobs)
        for row, request in zip(logits, requests, strict=True)
    ]


class _Thought:
    """Log-probabilities of one row of logits (V,)."""

    def __init__(self, logits: Tensor, n_top: int) -> None:
        self._logprobs = logits.log_softmax(dim=0)
        values, tokens = self._logprobs.topk(min(n_top, len(logits)))
        self._top = list(zip(tokens.tolist(), values.tolist(), strict=True))

    def __call__(self, token: int) -> TokenLogprobs:
        return TokenLogprobs(chosen=self._logprobs[token].item(), top=self._top)
