"""A server on loopback for tests: the real one, in a thread, over tiny models, some of which can be made to fail."""

import asyncio
import contextlib
import dataclasses
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lumi.arch import Decoder, DecoderConfig
from lumi.arch.fused import Cache, FusedDecoder
from lumi.generate import Engine, SamplingParams, generate
from lumi.serve.metrics import Metrics
from lumi.serve.models import ServedModel
from lumi.serve.scheduler import Scheduler
from lumi.serve.server import ROUTES, Server, listen
from lumi.serve.settings import ServerSettings
from lumi.tokenizer import Message, Template, Tokenizer, TokenizerConfig, train_tokenizer
from lumi.trained import Trained, save_trained

SCRIPT = Path(__file__).parents[2] / "serve.py"
V = 340
CONTEXT = 512
TEMPLATE = Template(
    name="chat",
    system=["<|system|>", "<|end|>"],
    user=["<|user|>", "<|end|>"],
    assistant=["<|assistant|>", "<|end|>"],
)
SAMPLING = SamplingParams(temperature=0.8, top_p=0.95, max_new_tokens=256)
GREEDY = SamplingParams(temperature=0, max_new_tokens=16)


def make_tokenizer(folder: Path) -> Tokenizer:
    """Words of a few syllables, some of several bytes a character."""
    rng = random.Random(0)
    words = ["".join(rng.choices(["ba", "do", "ké", "li", "mu", "😀"], k=rng.randint(1, 3))) for _ in range(2000)]
    train_tokenizer(lambda: iter([" ".join(words)]), folder, TokenizerConfig(name="t", vocab_size=V), parents={})
    return Tokenizer.load(folder)


def make_decoder(max_seq_len: int = CONTEXT) -> Decoder:
    """Random, and far from uniform, so that no two tokens are nearly equally likely."""
    config = DecoderConfig(
        vocab_size=V, n_layers=2, d_model=32, n_heads=4, n_kv_heads=2, d_ff=64, max_seq_len=max_seq_len
    )
    torch.manual_seed(0)
    decoder = Decoder(config).eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(4.0)
    return decoder


class Faulty(FusedDecoder):
    """The same model on a machine that fails where a test wants it to.

    Attributes:
        nan_token: rows that read it get logits that are not numbers.
        oom_len: prompts of at least so many tokens do not fit the memory.
        fail_decoding: the next step fails.
        step_seconds: a step takes at least so long.
        n_steps: forward passes so far.
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__(decoder)
        self.reset()

    def reset(self) -> None:
        self.nan_token: int | None = None
        self.oom_len: int | None = None
        self.fail_decoding = False
        self.step_seconds = 0.0
        self.n_steps = 0

    def prefill(self, tokens: Tensor, cache: Cache, row: int, start: int) -> Tensor:
        self.n_steps += 1
        if self.oom_len is not None and start + len(tokens) >= self.oom_len:
            raise torch.OutOfMemoryError("CUDA out of memory (as if)")
        return super().prefill(tokens, cache, row, start)

    def decode(self, tokens: Tensor, lengths: Tensor, cache: Cache, longest: int) -> Tensor:
        self.n_steps += 1
        time.sleep(self.step_seconds)
        if self.fail_decoding:
            self.fail_decoding = False
            raise RuntimeError("a kernel failed (as if)")
        logits = super().decode(tokens, lengths, cache, longest).clone()
        if self.nan_token is not None:
            logits[tokens == self.nan_token] = torch.nan
        return logits


@dataclasses.dataclass
class Live:
    """A server that runs."""

    server: Server
    port: int
    models: dict[str, ServedModel]
    faulty: Faulty
    decoder: Decoder
    tokenizer: Tokenizer
    metrics: Metrics

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def socket(self, seconds: float = 20) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=seconds)

    def exchange(self, data: bytes, seconds: float = 20) -> bytes:
        """Send bytes, read until the server closes."""
        with self.socket(seconds) as connection:
            connection.sendall(data)
            return read_all(connection)

    def continued(self, prompt: str | list[int], n_tokens: int = 16) -> str:
        """What the model says after a text, without the server: greedy."""
        ids = [self.tokenizer.bos_id, *self.tokenizer.encode(prompt)] if isinstance(prompt, str) else prompt
        return self.tokenizer.decode(self.generated(ids, n_tokens=n_tokens))

    def prompt_of(self, question: str) -> list[int]:
        """The tokens of a conversation of one turn."""
        return TEMPLATE.prompt(self.tokenizer, [Message(role="user", content=question)])

    def tokens_of(self, question: str, n_tokens: int = 16) -> list[int]:
        """What the model answers, without the server: greedy."""
        stops = TEMPLATE.stop_ids(self.tokenizer)
        return self.generated(self.prompt_of(question), n_tokens=n_tokens, stop_ids=tuple(stops))

    def answered(self, question: str, n_tokens: int = 16) -> str:
        """The same as text."""
        return self.tokenizer.decode(self.tokens_of(question, n_tokens))

    def generated(self, ids: Sequence[int], *, n_tokens: int = 16, **sampling: Any) -> list[int]:
        params = SamplingParams(**{"temperature": 0, **sampling}, max_new_tokens=n_tokens)
        return generate(self.decoder, [list(ids)], params, eos_id=self.tokenizer.eos_id)[0].tokens

    @property
    def open_requests(self) -> int:
        """Requests that anybody waits for or that have a place."""
        schedulers = [model.scheduler for model in self.models.values()]
        return sum((not s.idle) + s.n_running + s.n_waiting for s in schedulers)

    def wait_until_idle(self, seconds: float = 20) -> None:
        wait_for(lambda: self.open_requests == 0, seconds)


@contextlib.contextmanager
def running(tokenizer: Tokenizer, decoder: Decoder, preferences: Path | None = None, **settings: Any) -> Iterator[Live]:
    """A server with four models: ``chat``, ``plain`` without a template, ``small`` with few places, and ``faulty``."""
    slots, max_waiting = settings.pop("slots", 8), settings.pop("max_waiting", 600)
    faulty = Faulty(decoder)
    metrics = Metrics(ROUTES)
    fused = FusedDecoder(decoder)

    def model(name: str, runtime: FusedDecoder, template: Template | None, n_rows: int, n_waiting: int) -> ServedModel:
        scheduler = Scheduler(
            Engine(runtime, n_rows=n_rows), max_waiting=n_waiting, on_first_token=metrics.first_token.observe,
            on_token=metrics.inter_token.observe,
        )  # fmt: skip
        return ServedModel(
            name=name, config=decoder.config, tokenizer=tokenizer, template=template, sampling=SAMPLING,
            fingerprint="0" * 64, scheduler=scheduler,
        )  # fmt: skip

    models = [
        model("chat", fused, TEMPLATE, slots, max_waiting),
        model("plain", fused, None, slots, max_waiting),
        model("small", fused, TEMPLATE, 2, 2),
        model("faulty", faulty, TEMPLATE, 8, 64),
    ]
    where = ServerSettings(port=0, preferences=str(preferences) if preferences else None, **settings)
    listener = listen(where)
    server = Server(models, where, metrics)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    port = listener.getsockname()[1]
    thread.start()
    wait_for(lambda: server.started, 20)
    yield Live(server, port, {m.name: m for m in models}, faulty, decoder, tokenizer, metrics)
    server.should_exit = True
    thread.join(timeout=30)
    assert not thread.is_alive(), "the server did not stop"


def wait_for(condition: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.005)


def read_all(connection: socket.socket) -> bytes:
    """Until the other side closes, however."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def raw(path: str, body: bytes | Any, *headers: str, method: str = "POST", close: bool = True) -> bytes:
    """A request as bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(data)}", *headers]
    if not any(line.lower().startswith("content-type") for line in headers):
        lines.append("Content-Type: application/json")
    if close:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode() + data


def status_of(reply: bytes) -> int:
    """0 if there was none."""
    return int(reply.split(b" ", 2)[1]) if reply.startswith(b"HTTP/1.1 ") else 0


def events_of(text: str) -> list[Any]:
    """Every event of a stream, parsed; ``[DONE]`` as it is."""
    blocks = [block for block in text.split("\n\n") if block]
    assert all(block.startswith("data: ") for block in blocks), blocks
    data = [block.removeprefix("data: ") for block in blocks]
    return [one if one == "[DONE]" else json.loads(one) for one in data]


def note(figures: str) -> None:
    """For whoever runs a long test with -s."""
    sys.stderr.write(f"\n  {figures}\n")


def together(*coroutines: Any) -> list[Any]:
    """Run them at once."""

    async def gather() -> list[Any]:
        return await asyncio.gather(*coroutines, return_exceptions=True)

    return asyncio.run(gather())


def save_model(tokenizer: Tokenizer, folder: Path, *, max_seq_len: int) -> Path:
    """A checkpoint of a random model, as training writes one."""
    facts = {"name": folder.name, "template": TEMPLATE.as_dict(), "data": {}, "step": 1}
    trained = Trained(decoder=make_decoder(max_seq_len), tokenizer=tokenizer, checkpoint=folder, run=None, facts=facts)
    save_trained(trained, folder)
    return folder


class Child:
    """``serve.py`` in a process of its own; begins at once, so that several can start side by side.

    Args:
        model: folder of a checkpoint.
        overrides: as on the command line.
    """

    def __init__(self, model: Path, *overrides: str) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "LUMI_API_KEY"}
        # A shell that runs the tests in the background has its children ignore Ctrl-C.
        self.process = subprocess.Popen(
            [
                "env",
                "--default-signal=INT",
                sys.executable,
                str(SCRIPT),
                f"model='{model}'",
                "device=cpu",
                "server.port=0",
                *overrides,
            ],
            stderr=subprocess.PIPE,
            text=True,
            env={**environment, "OMP_NUM_THREADS": "1"},
        )
        self.log = ""
        self.port = 0
        self._signalled: float | None = None
        assert self.process.stderr is not None, "it is a pipe"
        self._stderr = self.process.stderr

    def wait_until_it_listens(self) -> None:
        while not self.port and (line := self._stderr.readline()):
            self.log += line
            if found := re.search(r"http://[^ ]*:(\d+)", line):
                self.port = int(found[1])
        assert self.port, self.log
        wait_for(self._listens, 30)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._stderr.close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def resident_bytes(self) -> int:
        """Of its memory, what is in use now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) * 1024

    def signal(self, number: int) -> None:
        self._signalled = self._signalled or time.monotonic()
        self.process.send_signal(number)

    def ended(self) -> tuple[int, float]:
        """The exit code, and the seconds since the first signal."""
        assert self._signalled is not None, "it was told to end"
        self.log += self._stderr.read()
        code = self.process.wait(timeout=60)
        return code, time.monotonic() - self._signalled

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False
