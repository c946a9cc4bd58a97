"""Many clients at once over HTTP, and what they wait for."""

import asyncio
import contextlib
import dataclasses
import json
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from benchmarks.training.driver import ROOT, Failed, environment

_START_SECONDS = 120.0
_HEALTH_EVERY_SECONDS = 0.05


@dataclasses.dataclass
class Load:
    """What the clients of one round saw.

    Attributes:
        seconds: until the last of them had its answer.
        tokens: that all of them got.
        first: seconds to each first token.
        between: seconds from one token to the next, of all answers.
        health: seconds that each call of /health took meanwhile.
    """

    seconds: float = 0.0
    tokens: int = 0
    first: list[float] = dataclasses.field(default_factory=list)
    between: list[float] = dataclasses.field(default_factory=list)
    health: list[float] = dataclasses.field(default_factory=list)


@contextlib.contextmanager
def server(run: Path, threads: int, words: Sequence[str] = ()) -> Iterator[tuple[str, int]]:
    """``serve.py`` as a user starts it; its address and process."""
    command = [sys.executable, "serve.py", f"model='{run}'", "server.port=0", "server.preferences=null", *words]
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment(threads)
    )
    try:
        assert process.stderr is not None, "it was opened as a pipe"
        begin = time.monotonic()
        for line in process.stderr:
            if found := re.search(r"at (http://\S+)", line):
                yield found[1], process.pid
                return
            if time.monotonic() - begin > _START_SECONDS:
                break
        raise Failed(f"serve.py ended with {process.poll()}")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


async def ask_all(address: str, prompts: Sequence[list[int]], n_tokens: int, *, stream: bool) -> Load:
    """All prompts at once; as streams, or each answer whole."""
    load = Load()
    async with httpx.AsyncClient(base_url=address, timeout=600, trust_env=False) as client:
        watch = asyncio.create_task(_watch(client, load))
        begin = time.perf_counter()
        ask = _read if stream else _take
        await asyncio.gather(*(ask(client, prompt, n_tokens, load) for prompt in prompts))
        load.seconds = time.perf_counter() - begin
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
    return load


def _body(prompt: list[int], n_tokens: int) -> dict[str, Any]:
    return {"prompt": prompt, "max_tokens": n_tokens, "min_tokens": n_tokens, "temperature": 0}


async def _take(client: httpx.AsyncClient, prompt: list[int], n_tokens: int, load: Load) -> None:
    reply = await client.post("/v1/completions", json=_body(prompt, n_tokens))
    reply.raise_for_status()
    load.tokens += reply.json()["usage"]["completion_tokens"]


async def _read(client: httpx.AsyncClient, prompt: list[int], n_tokens: int, load: Load) -> None:
    body = {**_body(prompt, n_tokens), "stream": True}
    last = time.perf_counter()
    is_first = True
    async with client.stream(
        "POST", "/v1/completions", json={**body, "stream_options": {"include_usage": True}}
    ) as reply:
        reply.raise_for_status()
        async for line in reply.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event: dict[str, Any] = json.loads(line[6:])
            if event.get("usage"):
                load.tokens += event["usage"]["completion_tokens"]
            if not event["choices"]:
                continue
            now = time.perf_counter()
            (load.first if is_first else load.between).append(now - last)
            last, is_first = now, False


async def _watch(client: httpx.AsyncClient, load: Load) -> None:
    while True:
        begin = time.perf_counter()
        (await client.get("/health")).raise_for_status()
        load.health.append(time.perf_counter() - begin)
        await asyncio.sleep(_HEALTH_EVERY_SECONDS)


def percentile(values: Sequence[float], percent: int) -> float:
    """Of the values, in their unit."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
