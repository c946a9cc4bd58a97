"""A model for lm-evaluation-harness, whose tasks then run on it; needs ``pip install 'lumi[harness]'``.

from pathlib import Path

import lm_eval
from lumi.eval.harness import LumiLM
from lumi.trained import load_trained

trained = load_trained(Path("runs/demo"))
lm_eval.simple_evaluate(model=LumiLM(trained.decoder, trained.tokenizer), tasks=["boolq"])
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from lm_eval.api.model import TemplateLM

from lumi.arch import Decoder
from lumi.eval.likelihood import score_documents
from lumi.eval.windows import SlidingWindows
from lumi.generate import SamplingParams, generate
from lumi.tokenizer import Tokenizer


class LumiLM(TemplateLM):
    """A decoder behind the harness's interface.

    Args:
        decoder: on any device.
        tokenizer: the one it was trained with.
        batch_size: windows or prompts in the model at a time.
    """

    def __init__(self, decoder: Decoder, tokenizer: Tokenizer, batch_size: int = 16) -> None:
        super().__init__()
        self.decoder, self.codec, self.batch_size = decoder, tokenizer, batch_size

    @property
    def eot_token_id(self) -> int:
        """The token that ends a document."""
        return self.codec.eos_id

    @property
    def prefix_token_id(self) -> int:
        """What an empty context is: the beginning of a document."""
        return self.codec.bos_id

    @property
    def max_length(self) -> int:
        """Tokens in the context."""
        return self.decoder.config.max_seq_len

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Ids, after bos unless ``add_special_tokens`` is False."""
        prefix = [] if add_special_tokens is False else [self.codec.bos_id]
        return prefix + self.codec.encode(string)

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        documents = []
        for _, context, continuation in requests:
            tokens = np.array([*context, *continuation], dtype=np.int32)[-self.max_length :]
            mask = np.arange(len(tokens)) >= len(tokens) - len(continuation)
            documents.append((tokens, mask))
        scores = score_documents(self.decoder, documents, batch_size=self.batch_size, name="harness")
        return list(zip(scores.log_probs.tolist(), scores.greedy.tolist(), strict=True))

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts, in windows that overlap by half."""
        return [self._whole(request.args[0]) for request in requests]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Continuations, each up to the first of its stop strings."""
        prompts, params = [], []
        for request in requests:
            context, settings = request.args
            n_new = int(settings.get("max_gen_toks", 256))
            prompts.append(self.tok_encode(context)[-(max(2, self.max_length - n_new)) :])
            sampled = bool(settings.get("do_sample", False))
            temperature = float(settings.get("temperature", 1.0)) if sampled else 0.0
            params.append(SamplingParams(temperature=temperature, max_new_tokens=n_new, seed=0))
        done = generate(self.decoder, prompts, params, eos_id=self.codec.eos_id, batch_size=self.batch_size)
        texts = []
        for request, answer in zip(requests, done, strict=True):
            until = request.args[1].get("until") or []
            texts.append(_before(self.codec.decode(answer.tokens), [until] if isinstance(until, str) else until))
        return texts

    def _whole(self, text: str) -> float:
        ids = np.array(self.tok_encode(text))
        if len(ids) < 2:
            return 0.0
        stream = SlidingWindows(ids, window=self.max_length, stride=max(1, self.max_length // 2))
        found = stream.windows(np.arange(len(stream)))
        documents = [
            (tokens[inside >= 0].astype(np.int32), mask[inside >= 0])
            for tokens, inside, mask in zip(found["tokens"], found["doc_ids"], found["loss_mask"], strict=True)
        ]
        return float(score_documents(self.decoder, documents, batch_size=self.batch_size).log_probs.sum())


def _before(text: str, stops: Sequence[str]) -> str:
    """The text before the first stop string."""
    ends = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text
