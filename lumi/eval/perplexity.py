"""How well a model predicts text it has not seen: perplexity, and bits per byte.

Perplexity per token depends on the tokenizer: fewer, longer tokens give a higher one for an equally good model. Bits
per byte does not, which makes it the figure to compare by. Both come from the same sum over *every* token of the
text, each scored once.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from lumi.arch import Decoder, DecoderConfig, token_nll
from lumi.errors import ConfigError, DataError, NumericError
from lumi.eval.codec import Codec
from lumi.eval.windows import SlidingWindows, Windows, WindowStream
from lumi.generate import evaluation_mode


@dataclasses.dataclass(frozen=True, kw_only=True)
class Perplexity:
    """Sums from which every figure follows, so that parts can be added exactly.

    Attributes:
        nll_nats: summed negative log-likelihood of the targets.
        targets: tokens predicted; a document's bos is context and never among them.
        bytes: UTF-8 bytes of the text that the targets stand for.
        words: words in that text by `count_words`, where the text is known.
    """

    nll_nats: float
    targets: int
    bytes: int
    words: int | None = None

    def __add__(self, other: "Perplexity") -> "Perplexity":
        words = None if self.words is None or other.words is None else self.words + other.words
        return Perplexity(
            nll_nats=self.nll_nats + other.nll_nats,
            targets=self.targets + other.targets,
            bytes=self.bytes + other.bytes,
            words=words,
        )

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nll_nats / self.targets

    @property
    def token_perplexity(self) -> float:
        """Exp of the mean over tokens."""
        return _exp(self.loss)

    @property
    def word_perplexity(self) -> float | None:
        """Exp of the sum per word: comparable between tokenizers, as bits per byte is; None without words."""
        return _exp(self.nll_nats / self.words) if self.words else None

    @property
    def bits_per_byte(self) -> float:
        """Bits that the model needs for a byte of text."""
        return self.nll_nats / math.log(2) / self.bytes

    def as_dict(self) -> dict[str, Any]:
        """Sums and figures, for JSON."""
        figures = {name: getattr(self, name) for name in ("token_perplexity", "word_perplexity", "bits_per_byte")}
        return dataclasses.asdict(self) | figures


def packed_perplexity(
    model: Decoder,
    stream: WindowStream,
    *,
    token_bytes: np.ndarray,
    batch_size: int,
    limit: int | None = None,
    name: str = "packed data",
) -> Perplexity:
    """Score every target of a packed split.

    The model is called where it is and as it is: a caller who wants 16-bit arithmetic opens ``torch.autocast`` around
    this.

    Args:
        token_bytes: (V,) UTF-8 bytes that each token stands for, 0 for control tokens.
        batch_size: windows in the model at a time.
        limit: at most this many windows, spread evenly over the split; None scores all, which the final figure needs.
        name: shown beside the progress bar.

    Raises:
        DataError: the split has no target.
        NumericError: the model gives a loss that is not a number.
    """
    n_windows = len(stream)
    chosen = np.arange(n_windows)
    if limit is not None and limit < n_windows:
        chosen = np.linspace(0, n_windows - 1, limit).round().astype(np.int64)
    nll, targets, n_bytes = 0.0, 0, 0
    with tqdm(total=len(chosen), desc=f"score {name}", unit="window", delay=2, disable=None, leave=False) as bar:
        for first in range(0, len(chosen), batch_size):
            batch = stream.windows(chosen[first : first + batch_size])
            nll += _score(model, batch, name)
            scored = batch["tokens"][batch["loss_mask"]]
            targets += len(scored)
            n_bytes += int(token_bytes[scored].sum(dtype=np.int64))
            bar.update(len(batch["tokens"]))
    if targets == 0 or n_bytes == 0:
        raise DataError(f"{name} has {targets} tokens to score and {n_bytes} bytes", "a perplexity needs some of both")
    return Perplexity(nll_nats=nll, targets=targets, bytes=n_bytes)


def text_perplexity(
    model: Decoder,
    tokenizer: Codec,
    text: str,
    *,
    window: int | None = None,
    stride: int | None = None,
    batch_size: int = 8,
    score_eos: bool = False,
    name: str = "text",
) -> Perplexity:
    """Score a whole text as one sequence with a sliding window, as is usual for WikiText.

    Args:
        window: tokens that the model sees at a time; by default all it can.
        stride: tokens from one window to the next, by default half a window. ``window - 1`` is fastest and gives the
            first target of a window one token of context; 1 gives every token the longest context, and takes as many
            forward passes as there are tokens.
        score_eos: also the end of the text, as packed data does; off, because published figures do not count it.

    Raises:
        ConfigError: window or stride do not fit the model.
        DataError: the text is empty.
    """
    window, stride = window_and_stride(model.config, window, stride)
    if not text:
        raise DataError(f"{name} is empty", "a perplexity needs some text")
    ids = np.array([tokenizer.bos_id, *tokenizer.encode(text), *([tokenizer.eos_id] if score_eos else [])])
    stream = SlidingWindows(ids, window=window, stride=stride)
    # The bytes are the text's own, whatever tokens stand for them.
    ones = np.ones(model.config.vocab_size, dtype=np.int32)
    scored = packed_perplexity(model, stream, token_bytes=ones, batch_size=batch_size, name=name)
    return dataclasses.replace(scored, bytes=len(text.encode()), words=count_words(text))


def window_and_stride(config: DecoderConfig, window: int | None, stride: int | None) -> tuple[int, int]:
    """Fill in the defaults: the longest window that the model takes, and half of it as stride.

    Raises:
        ConfigError: window or stride do not fit the model.
    """
    longest = config.max_seq_len
    window = longest if window is None else window
    stride = max(1, window // 2) if stride is None else stride
    if not 2 <= window <= longest:
        raise ConfigError(f"window={window}", f"must be from 2 to arch.max_seq_len={longest}")
    if not 1 <= stride < window:
        rule = f"must be from 1 to {window - 1}: windows overlap, so that every token has context"
        raise ConfigError(f"stride={stride}", rule, f"try {window // 2}")
    return window, stride


def count_words(text: str) -> int:
    """Words between white space.

    The wikitext task of lm-evaluation-harness divides by the same count (of the original, not detokenised text).
    Papers on word-level models of WikiText also count an end-of-sentence symbol for each line; their denominator is
    this count plus the number of lines, for example 217,646 instead of 213,886 on the validation text of WikiText-2.
    """
    return len(text.split())


def weighted(parts: Mapping[str, Perplexity], weights: Mapping[str, float]) -> dict[str, float]:
    """Loss, perplexity and bits per byte of a mixture: each source's figure by its weight, not by its size.

    Args:
        parts: source → its sums.
        weights: source → weight, relative; sources without one count 0.

    Raises:
        ConfigError: no source has a weight above 0.
    """
    total = sum(weights.get(name, 0.0) for name in parts)
    if total <= 0:
        raise ConfigError(f"weights={dict(weights)}", f"must be above 0 for one of {sorted(parts)}")
    share = {name: weights.get(name, 0.0) / total for name in parts}
    loss = sum(share[name] * part.loss for name, part in parts.items())
    bits = sum(share[name] * part.bits_per_byte for name, part in parts.items())
    return {"loss": loss, "token_perplexity": _exp(loss), "bits_per_byte": bits}


@torch.inference_mode()
def _score(model: Decoder, batch: Windows, name: str) -> float:
    """Summed negative log-likelihood of a batch's targets in nats."""
    # Detached, because the fused loss otherwise makes a gradient for a weight that could have one.
    weight = model.lm_weight.detach()
    tokens = torch.from_numpy(batch["tokens"]).to(weight.device)
    doc_ids = torch.from_numpy(batch["doc_ids"]).to(weight.device)
    loss_mask = torch.from_numpy(batch["loss_mask"]).to(weight.device)
    with evaluation_mode(model):
        nll = token_nll(model(tokens, doc_ids), weight, tokens)  # (B, T) float32
    # Summed in float64: a float32 sum over a long text is off in the fourth digit.
    total = nll[loss_mask].double().sum().item()
    if not math.isfinite(total):
        raise NumericError(f"the loss on {name} is {total}", "must be a finite number", "check the checkpoint")
    return total


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf  # math.exp raises where a word is a whole page
