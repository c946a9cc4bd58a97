"""Who generates text, each in a process of its own: ``python -m benchmarks.serving.contestants NAME FILES --batch 8``.

A step is one call: so many prompts of random tokens at once, so many greedy tokens after each, none of which ends an answer.
Everybody has the same weights in float32 unless the name says otherwise, and the settings that its own documentation gives.
"""

import argparse
import concurrent.futures
import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.training.worker import Channel, imported, serve

Answer = Callable[[list[list[int]]], int]
"""Prompts to the number of tokens that were generated."""


def lumi(files: Path, given: argparse.Namespace) -> Answer:
    """The engine that the server runs."""
    from lumi.arch.fused import FusedDecoder
    from lumi.generate import SamplingParams, generate
    from lumi.trained import load_trained

    trained = load_trained(files)
    decoder = FusedDecoder(trained.decoder)
    params = SamplingParams(temperature=0, max_new_tokens=given.new)

    def answer(prompts: list[list[int]]) -> int:
        found = generate(decoder, prompts, params, eos_id=None, batch_size=given.batch)
        return sum(len(one.tokens) for one in found)

    return answer


def transformers(files: Path, given: argparse.Namespace, **settings: Any) -> Answer:
    """``generate`` of the exported folder."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(files, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None

    def answer(prompts: list[list[int]]) -> int:
        tokens = torch.tensor(prompts)
        with torch.inference_mode():
            found = model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=given.new,
                do_sample=False,
                pad_token_id=0,
                **settings,
            )
        return (found.shape[1] - tokens.shape[1]) * len(prompts)

    return answer


def static_transformers(files: Path, given: argparse.Namespace) -> Answer:
    """The same with its static cache, whose steps it compiles."""
    return transformers(files, given, cache_implementation="static")


def llamacpp(files: Path, given: argparse.Namespace) -> Answer:
    """llama.cpp's own server, in this process, on the exported file."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(next(files.glob("*.gguf")))
    params.n_parallel, params.n_gpu_layers, params.verbosity = given.batch, 0, -1
    params.n_ctx = given.batch * (given.prompt + given.new)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = torch.get_num_threads()
    server = xllamacpp.Server(params)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def one(prompt: list[int]) -> int:
        body = {
            "prompt": prompt,
            "n_predict": given.new,
            "ignore_eos": True,
            "temperature": 0,
            "samplers": ["temperature"],
        }
        request = urllib.request.Request(
            f"{server.listening_address}/completion",
            json.dumps({**body, "cache_prompt": False}).encode(),
            {"Content-Type": "application/json"},
        )
        with opener.open(request) as reply:
            return json.loads(reply.read())["tokens_predicted"]

    def answer(prompts: list[list[int]]) -> int:
        with concurrent.futures.ThreadPoolExecutor(len(prompts)) as pool:
            return sum(pool.map(one, prompts))

    return answer


def limit(files: Path, given: argparse.Namespace) -> Answer:
    """Every weight once for each token, and nothing else: what reading them from memory takes."""
    from lumi.trained import load_trained

    decoder = load_trained(files).decoder
    matrices = [w.detach() for w in decoder.parameters() if w.dim() == 2 and w is not decoder.model.embed_tokens.weight]
    if decoder.config.tied:
        matrices.append(decoder.lm_weight.detach())
    inputs: dict[int, Tensor] = {w.shape[1]: torch.randn(max(given.batch, 2), w.shape[1]) for w in matrices}

    def answer(prompts: list[list[int]]) -> int:
        with torch.inference_mode():
            for _ in range(given.new):
                for matrix in matrices:
                    F.linear(inputs[matrix.shape[1]], matrix)
        return given.new * len(prompts)

    return answer


CONTESTANTS = {
    "lumi": lumi,
    "transformers": transformers,
    "static-transformers": static_transformers,
    "llamacpp": llamacpp,
    "limit": limit,
}


def main() -> None:
    """One of them, as a worker."""
    channel = Channel()
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=list(CONTESTANTS))
    parser.add_argument("files", type=Path)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--prompt", type=int, required=True)
    parser.add_argument("--new", type=int, required=True)
    parser.add_argument("--vocab", type=int, required=True)
    given = parser.parse_args()
    facts = imported()
    answer = CONTESTANTS[given.name](given.files, given)
    generator = torch.Generator().manual_seed(0)

    def take(n: int) -> dict[str, Any]:
        amount = 0
        for _ in range(n):
            prompts = torch.randint(300, given.vocab, (given.batch, given.prompt), generator=generator)
            amount += answer(prompts.tolist())
        return {"amount": amount}

    serve(channel, take, device=torch.device("cpu"), warmup=2, facts=facts)


if __name__ == "__main__":
    main()
