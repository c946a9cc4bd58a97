"""llama.cpp through xllamacpp: what the exported file does there, for the parity check.

xllamacpp runs llama.cpp's own server inside this process and gives its address; the questions are HTTP requests to it.
"""

import json
import math
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from lumi.export.source import need

INSTALL = "-e '.[llamacpp]'"
_SEPARATOR = 2_000_000_000  # no vocabulary is as large; a number passes the tokenizer unchanged
_BATCH = 200


class LlamaCpp:
    """A GGUF file in llama.cpp, on one thread.

    Args:
        path: the file.
        context: longest sequence in tokens.

    Raises:
        ConfigError: xllamacpp is not installed.
    """

    def __init__(self, path: Path, context: int) -> None:
        xllamacpp = need("xllamacpp", INSTALL)
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel, params.n_gpu_layers = context, 1, 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.warmup, params.fit_params, params.verbosity = False, False, -1
        # A cache of 16-bit numbers and the fused attention would add roundings that are not the file's.
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._server: Any = xllamacpp.Server(params)
        self._address: str = self._server.listening_address
        # The server is on this machine: no proxy that the environment names.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server = None  # its destructor ends the server

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, no control token found in it, no bos before it."""
        found: list[list[int]] = []
        for start in range(0, len(texts), _BATCH):
            mixed = [part for text in texts[start : start + _BATCH] for part in (text, _SEPARATOR)]
            answer = self._ask("/tokenize", {"content": mixed, "add_special": False, "parse_special": False})
            found.append([])
            for token in answer["tokens"]:
                if token == _SEPARATOR:
                    found.append([])
                else:
                    found[-1].append(token)
            found.pop()
        return found

    def chat_tokens(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Ids that the server answers to: its chat template rendered, then tokenised as its chat does."""
        prompt = self._ask("/apply-template", {"messages": list(messages)})["prompt"]
        return self._ask("/tokenize", {"content": prompt, "add_special": True, "parse_special": True})["tokens"]

    def log_probabilities(self, tokens: Sequence[int], vocab_size: int) -> Tensor:
        """Log-probability of every token after ``tokens``: (V,) float32; minus infinity where llama.cpp gives no number."""
        # An answer without text (an end, half a character) has no probabilities. They are taken before the choice, so they
        # stay what they are when the choice is forced.
        settings = {"n_predict": 1, "n_probs": vocab_size, "logit_bias": [[self.tokenize(["a"])[0][0], 1000.0]]}
        answer = self._complete(tokens, **settings)
        result = torch.full((vocab_size,), -math.inf)
        for entry in answer["completion_probabilities"][0]["top_logprobs"]:
            result[entry["id"]] = entry["logprob"]
        return result

    def continue_greedily(self, tokens: Sequence[int], n_tokens: int) -> list[int]:
        """At most ``n_tokens`` tokens, each the most likely one after those before it."""
        return self._complete(tokens, n_predict=n_tokens, return_tokens=True)["tokens"]

    def chat(self, messages: Sequence[dict[str, str]], n_tokens: int) -> str:
        """A greedy answer, as a program gets it."""
        asked = {"messages": list(messages), "max_tokens": n_tokens, "temperature": 0}
        return self._ask("/v1/chat/completions", asked)["choices"][0]["message"]["content"]

    def _complete(self, tokens: Sequence[int], **settings: Any) -> dict[str, Any]:
        greedy = {"temperature": 0, "samplers": ["temperature"], "cache_prompt": False}
        return self._ask("/completion", {"prompt": list(tokens), **greedy, **settings})

    def _ask(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310  # the address is the server's own
            self._address + route, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with self._opener.open(request) as answer:
            return json.loads(answer.read())
