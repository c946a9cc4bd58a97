"""Fifty times a signal stops a server, idle or in the middle of answers: nothing new, time to end, an exit code, no rest."""

import dataclasses
import random
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from .forked import Fork
from .live import raw, read_all, save_model, status_of, wait_for

PATH = "/v1/chat/completions"
N_TOKENS = 60_000
"""More than a tiny model writes in the longest time that it is given to end."""
LONG = {
    "messages": [{"role": "user", "content": "mu"}],
    "max_tokens": N_TOKENS,
    "min_tokens": N_TOKENS,
    "temperature": 0,
}
MARGIN_SECONDS = 1.5
"""For the end of a process on a busy machine."""


@dataclasses.dataclass
class Stop:
    """One trial.

    Attributes:
        kind: what the server does when the signal comes.
        number: of the signal.
        again: whether it comes twice.
    """

    kind: str
    number: int
    again: bool

    def fault(self, fork: Fork, drain_seconds: float) -> str | None:
        """What went wrong, or None."""
        fork.wait_until_it_listens()
        assert status_of(asked_health(fork.port)) == 200
        client = begun(fork, stream=self.kind == "streaming") if self.kind != "idle" else None
        began = fork.stop(self.number)
        if self.again:
            time.sleep(0.05)
            fork.stop(self.number)
        reply = read_all(client) if client else b""
        code, seconds = fork.ended(drain_seconds + 10), time.monotonic() - began
        if client:
            client.close()
        if code != (130 if self.number == signal.SIGINT else -self.number):
            return f"exit code {code}"
        if seconds > (1 if self.kind == "idle" else drain_seconds + 2) + MARGIN_SECONDS:
            return f"{seconds:.1f} s to exit"
        if client and not self._told(reply):
            return f"the client was told {reply[-300:]!r}"
        return None if refuses(fork.port) else "it still takes connections"

    def _told(self, reply: bytes) -> bool:
        """Whether the client knows that the answer is not whole; a second Ctrl-C ends without a word."""
        if self.again and self.number == signal.SIGINT:
            return b"[DONE]" not in reply
        whole = status_of(reply) == 503 and b"retry-after" in reply.lower()
        return b'"draining"' in reply and (status_of(reply) == 200 if self.kind == "streaming" else whole)


def begun(fork: Fork, *, stream: bool) -> socket.socket:
    """A client whose long answer is on its way."""
    connection = socket.create_connection(("127.0.0.1", fork.port), timeout=30)
    connection.sendall(raw(PATH, {**LONG, "stream": stream}))
    if stream:
        connection.recv(1, socket.MSG_PEEK)
    wait_for(lambda: b'"running":1' in asked_health(fork.port), 20)
    return connection


def asked_health(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(raw("/health", b"", method="GET"))
        return read_all(connection)


def refuses(port: int) -> bool:
    with socket.socket() as other:
        return other.connect_ex(("127.0.0.1", port)) != 0


@pytest.fixture(scope="module")
def model_folder(live_parts: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(live_parts[0], tmp_path_factory.mktemp("model") / "tiny", max_seq_len=65_536)


@pytest.mark.matrix("S8")
@pytest.mark.parametrize(("drain_seconds", "n_stops"), [(0.3, 15), pytest.param(10.0, 50, marks=pytest.mark.faults)])
def test_so_many_stops(model_folder, row, drain_seconds, n_stops):
    rng, wrong = random.Random(8), []
    numbers = (signal.SIGTERM, signal.SIGINT)
    stops = [
        Stop(rng.choice(["idle", "generating", "streaming"]), rng.choice(numbers), rng.random() < 0.3)
        for _ in range(n_stops)
    ]
    fork = Fork(model_folder, drain_seconds)
    for stop in stops:
        following = Fork(model_folder, drain_seconds)  # starts while the other one stops
        if (fault := stop.fault(fork, drain_seconds)) is not None:
            wrong.append((stop, fault))
        fork.kill()
        fork = following
    fork.kill()
    row(trials=n_stops, failures=len(wrong), seed=8, note=f"drain_seconds={drain_seconds}{wrong or ''}")
