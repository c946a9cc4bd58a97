"""Continue prompts: many at a time, or one token by token."""

import contextlib
from collections.abc import Iterator, Sequence

from torch import nn
from tqdm import tqdm

from lumi.arch import Decoder
from lumi.arch.fused import FusedDecoder
from lumi.errors import ConfigError
from lumi.generate.engine import Engine
from lumi.generate.request import Completion, Request
from lumi.generate.sampling import SamplingParams


def generate(
    model: Decoder | FusedDecoder,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams | Sequence[SamplingParams] = SamplingParams(),  # noqa: B008 - frozen
    *,
    eos_id: int | None,
    batch_size: int = 32,
    progress: bool = False,
) -> list[Completion]:
    """Continue every prompt.

    Args:
        model: on any device, in any mode; it stays as it is.
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
    if not requests:
        return []
    engine = _engine(model, requests, batch_size)
    with tqdm(total=len(requests), desc="generate", unit="prompt", delay=2, disable=None if progress else True) as bar:
        while engine.busy:
            for request in engine.step():
                if request.reason is not None:
                    request.completion()  # raises at once if it failed
                    bar.update()
    return [request.completion() for request in requests]


def stream(
    model: Decoder | FusedDecoder, prompt: Sequence[int], params: SamplingParams, *, eos_id: int | None
) -> Iterator[int]:
    """Yield the tokens of one answer as they come, without the one that ends it; the same tokens as `generate`.

    Stop reading at any time.

    Raises:
        DataError, NumericError: as `generate`.
    """
    (request,) = _requests(model, [prompt], params, eos_id)
    engine = _engine(model, [request], 1)
    n_yielded = 0
    while engine.busy:
        engine.step()
        yield from request.tokens[n_yielded:]
        n_yielded = len(request.tokens)
    request.completion()


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


def _engine(model: Decoder | FusedDecoder, requests: list[Request], batch_size: int) -> Engine:
    decoder = FusedDecoder(model) if isinstance(model, Decoder) else model
    longest = max(request.total_len for request in requests)
    engine = Engine(decoder, n_rows=min(batch_size, len(requests)), max_len=longest)
    for request in requests:
        engine.add(request)
    return engine


def _requests(
    model: Decoder | FusedDecoder,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams | Sequence[SamplingParams],
    eos_id: int | None,
) -> list[Request]:
    """One request a prompt, all checked before any work."""
    each = [params] * len(prompts) if isinstance(params, SamplingParams) else list(params)
    if len(each) != len(prompts):
        raise ConfigError(
            f"{len(each)} sampling settings for {len(prompts)} prompts", "give one for all, or one for each"
        )
    return [
        Request(prompt, mine, model.config, eos_id=eos_id, name=f"prompt {number}")
        for number, (prompt, mine) in enumerate(zip(prompts, each, strict=True))
    ]
