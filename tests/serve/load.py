"""Many clients at once, light enough to leave the machine to the server: bare sockets, no HTTP library."""

import asyncio
import contextlib
import dataclasses
import json
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from .live import events_of, raw

PATH = "/v1/chat/completions"


@dataclasses.dataclass
class Seen:
    """What came of many requests."""

    statuses: Counter[int] = dataclasses.field(default_factory=Counter)
    wrong: list[str] = dataclasses.field(default_factory=list)
    seconds: list[float] = dataclasses.field(default_factory=list)
    health_seconds: list[float] = dataclasses.field(default_factory=list)

    def health_percentile(self, share: float) -> float:
        return sorted(self.health_seconds)[min(len(self.health_seconds) - 1, int(share * len(self.health_seconds)))]


async def exchange(port: int, data: bytes, seconds: float = 120) -> bytes:
    """One connection, one request; empty if the connection was closed or refused."""
    parts: list[bytes] = []
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(data)
                while part := await reader.read(65536):
                    parts.append(part)
            finally:
                writer.close()
    return b"".join(parts)


def body_for(model: str, question: str, *, stream: bool, n_tokens: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}]
    return {"model": model, "messages": messages, "temperature": 0, "max_tokens": n_tokens, "stream": stream}


def text_of(reply: bytes, *, stream: bool) -> str | None:
    """What was answered; None if nothing was, or not to its end."""
    payload = reply.partition(b"\r\n\r\n")[2]
    if not stream:
        return json.loads(payload)["choices"][0]["message"]["content"]
    lines = [line for line in payload.split(b"\r\n") if line.startswith(b"data: ")]
    events = events_of("\n\n".join(line.decode().strip() for line in lines))
    if not events or events[-1] != "[DONE]":
        return None
    return "".join(event["choices"][0]["delta"].get("content", "") for event in events[:-1])


async def ask(port: int, model: str, question: str, expected: str, seen: Seen, *, stream: bool, n_tokens: int) -> int:
    """One request, and whether its answer is its own; returns the status."""
    began = time.monotonic()
    reply = await exchange(port, raw(PATH, body_for(model, question, stream=stream, n_tokens=n_tokens)))
    status = int(reply[9:12]) if reply.startswith(b"HTTP/1.1 ") else 0
    seen.statuses[status] += 1
    seen.seconds.append(time.monotonic() - began)
    if status == 200 and text_of(reply, stream=stream) != expected:
        seen.wrong.append(f"{question}: {reply!r}")
    if status in (429, 503) and b"\nretry-after: " not in reply.lower():
        seen.wrong.append(f"{status} without a time to come again: {reply!r}")
    return status


async def watch_health(port: int, seen: Seen, pause_seconds: float = 0.01) -> None:
    """Ask again and again, on one connection, until cancelled."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while True:
            began = time.monotonic()
            writer.write(raw("/health", b"", method="GET", close=False))
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0]))
            seen.health_seconds.append(time.monotonic() - began)
            await asyncio.sleep(pause_seconds)
    finally:
        writer.close()


async def siege(
    port: int, model: str, answers: dict[str, str], n_connections: int, seconds: float, n_tokens: int
) -> Seen:
    """So many clients for so long, each with one question after the other; who is told to come again does so then."""
    seen, questions, ends = Seen(), list(answers), time.monotonic() + seconds

    async def client(number: int) -> None:
        turn = 0
        while time.monotonic() < ends:
            turn += 1
            question = questions[(number + turn) % len(questions)]
            stream = (number + turn) % 2 == 0
            if await ask(port, model, question, answers[question], seen, stream=stream, n_tokens=n_tokens) != 200:
                await asyncio.sleep(2 + number % 100 / 100)

    health = asyncio.create_task(watch_health(port, seen))
    await asyncio.gather(*(client(number) for number in range(n_connections)))
    health.cancel()
    return seen


async def storm(
    port: int, models: Sequence[str], answers: dict[str, str], n_connections: int, n_rounds: int, n_tokens: int
) -> Seen:
    """So many connections at once, each with its own question, one after the other; and health meanwhile."""
    seen = Seen()
    questions = list(answers)

    async def client(number: int) -> None:
        for turn in range(n_rounds):
            question = questions[(number + turn) % len(questions)]
            model = models[number % len(models)]
            stream = (number + turn) % 2 == 0
            await ask(port, model, question, answers[question], seen, stream=stream, n_tokens=n_tokens)

    health = asyncio.create_task(watch_health(port, seen))
    await asyncio.gather(*(client(number) for number in range(n_connections)))
    health.cancel()
    return seen
