"""llama.cpp behind the same API: an exported GGUF file, run by llama.cpp's own server inside this process.

It stands where `lumi.generate.Engine` stands: requests go in as tokens and come back as tokens, so templates, stop strings,
limits and errors are those of Lumi. The sampling is llama.cpp's: a seed means the same answer again, but another one than
with ``engine=lumi``.
"""

import contextlib
import http.client
import importlib
import json
import queue
import threading
from pathlib import Path
from typing import Any

from lumi.errors import ConfigError, LumiError, ResourceError
from lumi.generate import Request
from lumi.generate.request import TokenLogprobs

_STEP_SECONDS = 0.05
_SEED_BITS = 0xFFFF_FFFE  # one less than all bits, which means a seed of llama.cpp's own


class LlamaCppEngine:
    """Runs requests in llama.cpp.

    Args:
        path: the GGUF file.
        n_rows: requests at a time.
        context: longest request in tokens.
        n_threads: of the processor.

    Raises:
        ConfigError: xllamacpp is not installed.
    """

    def __init__(self, path: Path, *, n_rows: int, context: int, n_threads: int) -> None:
        try:
            xllamacpp: Any = importlib.import_module("xllamacpp")  # compiled, without types
        except ModuleNotFoundError:
            raise ConfigError(
                "engine=llamacpp", "needs xllamacpp", "pip install -c constraints.txt -e '.[llamacpp]'"
            ) from None
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_parallel, params.n_ctx, params.verbosity = n_rows, n_rows * context, -1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = n_threads
        self._server: Any = xllamacpp.Server(params)
        self._address = str(self._server.listening_address).removeprefix("http://")
        self.n_rows = n_rows
        self._going: set[Request] = set()
        self._news: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._places = threading.Semaphore(n_rows)
        self._n_active = 0

    def add(self, request: Request) -> None:
        """Begin a request; llama.cpp finds a place for it."""
        self._going.add(request)
        threading.Thread(target=self._answer, args=(request,), daemon=True).start()

    def step(self) -> list[Request]:
        """What came in since the last step; waits a moment if nothing did."""
        news: dict[Request, None] = {}
        with contextlib.suppress(queue.Empty):
            news[self._news.get(timeout=_STEP_SECONDS)] = None
            while True:
                news[self._news.get_nowait()] = None
        self._going = {request for request in self._going if request.reason is None}
        return list(news)

    def abandon(self, error: LumiError) -> list[Request]:
        """Fail everything that has not ended; returns all that were there."""
        going = list(self._going)
        for request in going:
            if request.reason is None:
                request.fail(error)
        self._going.clear()
        return going

    @property
    def busy(self) -> bool:
        """Whether anybody waits for an answer."""
        return bool(self._going)

    @property
    def n_active(self) -> int:
        """Requests that llama.cpp works on."""
        return self._n_active

    @property
    def n_waiting(self) -> int:
        """Requests that wait for a place."""
        return max(0, len(self._going) - self._n_active)

    def _answer(self, request: Request) -> None:
        """One request, from its first to its last token; closing the connection is how llama.cpp is told to stop."""
        try:
            with self._places:
                self._n_active += 1
                try:
                    self._read(request)
                finally:
                    self._n_active -= 1
        except LumiError as error:
            request.fail(error)
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            request.fail(ResourceError("llama.cpp gave no answer", f"{error}"))
        self._news.put(request)

    def _read(self, request: Request) -> None:
        body = _settings(request)
        connection = http.client.HTTPConnection(self._address)
        with contextlib.closing(connection):
            connection.request("POST", "/completion", json.dumps(body), {"Content-Type": "application/json"})
            reply = connection.getresponse()
            if reply.status != http.client.OK:
                raise ResourceError("llama.cpp refused the request", reply.read(500).decode("utf-8", "replace"))
            for line in reply:
                if request.reason is not None:
                    return
                if line.startswith(b"data: {"):
                    self._take(request, json.loads(line[6:]))

    def _take(self, request: Request, event: dict[str, Any]) -> None:
        thoughts = {entry["id"]: entry for entry in event.get("completion_probabilities", [])}
        for token in event.get("tokens", []):
            if request.reason is None:
                request.accept(token, _logprobs(request, thoughts.get(token)))
                self._news.put(request)
        if event.get("stop") and request.reason is None:
            # An end that llama.cpp does not show as a token: the model's own.
            request.stop_id = request.stop_ids[0] if request.stop_ids else None
            request.reason = "stop" if event.get("stop_type") == "eos" else "length"


def _settings(request: Request) -> dict[str, Any]:
    """A request as llama.cpp's server takes it.

    Raises:
        ConfigError: it asks for something that llama.cpp does in another way.
    """
    params = request.params
    if params.no_repeat_ngram is not None or params.min_new_tokens:
        raise ConfigError("no_repeat_ngram, min_tokens", "are not there with engine=llamacpp")
    return {
        "prompt": request.prompt,
        "n_predict": request.total_len - len(request.prompt),
        "temperature": params.temperature,
        "top_k": params.top_k or 0,
        "top_p": 1.0 if params.top_p is None else params.top_p,
        "min_p": params.min_p or 0.0,
        "repeat_penalty": params.repetition_penalty,
        "repeat_last_n": request.total_len,
        "seed": request.seed & _SEED_BITS,
        "samplers": ["penalties", "temperature", "top_k", "top_p", "min_p"],
        "n_probs": 0 if request.top_logprobs is None else max(1, request.top_logprobs),
        "stream": True,
        "return_tokens": True,
        "cache_prompt": False,
    }


def _logprobs(request: Request, entry: dict[str, Any] | None) -> TokenLogprobs | None:
    if request.top_logprobs is None or entry is None:
        return None
    top = [(other["id"], other["logprob"]) for other in entry.get("top_logprobs", [])][: request.top_logprobs]
    return TokenLogprobs(chosen=entry["logprob"], top=top)
