"""The same abuse for minutes, of a server in a process of its own: ``make faults``. Each test says what it measured."""

import asyncio
import os
import random
import signal
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .health_probe import probing
from .live import Child, note, raw, save_model
from .live import Live as Reference
from .load import PATH, Seen, ask, body_for, exchange, siege, storm, watch_health

pytestmark = pytest.mark.faults

SIEGE_SECONDS = {64: 60, 256: 60, 1000: 300}
SOAK_SECONDS = 3600
PAUSE_SECONDS = 0.6
"""Between two requests of one of the twelve clients of the soak: a quarter of a core in all, so that other work goes on."""
QUESTIONS = [f"{number} ba {'mu' * (number % 7)}" for number in range(64)]
MB = 1024 * 1024


@pytest.fixture(scope="module")
def folder(live_parts: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(live_parts[0], tmp_path_factory.mktemp("model") / "tiny", max_seq_len=512)


@pytest.fixture
def child(folder: Path, tmp_path: Path) -> Iterator[Child]:
    child = Child(folder, f"server.preferences='{tmp_path / 'p.jsonl'}'")
    child.wait_until_it_listens()
    yield child
    assert child.process.poll() is None, "it ended by itself"
    child.kill()


@pytest.fixture(scope="module")
def answers(live_server: Reference) -> dict[str, str]:
    """Eight tokens each, by the same weights."""
    return {question: live_server.answered(question, 8) for question in QUESTIONS}


@pytest.mark.matrix("S3")
@pytest.mark.alone
@pytest.mark.parametrize("n_connections", [64, 256, 1000])
def test_so_many_connections_for_minutes(child, answers, row, n_connections):
    seconds = SIEGE_SECONDS[n_connections]
    asyncio.run(storm(child.port, ["tiny"], answers, n_connections, 1, 8))  # whatever is made once
    before = child.resident_bytes
    with probing(child.port, seconds) as health:
        seen = asyncio.run(siege(child.port, "tiny", answers, n_connections, seconds, 8))
    grown = child.resident_bytes / before - 1
    p50, p99 = health[len(health) // 2], health[len(health) * 99 // 100]
    load = os.getloadavg()[0]
    figures = (
        f"{n_connections} for {seconds} s: {dict(seen.statuses)}, health p50 {p50 * 1e3:.1f} p99 {p99 * 1e3:.1f} ms"
    )
    figures += f", load {load:.1f}, memory {before / MB:.0f} MB {grown:+.1%}"
    note(figures)
    other = sum(n for status, n in seen.statuses.items() if status not in (200, 429, 503))
    row(trials=seen.statuses.total(), failures=len(seen.wrong) + other + (p99 > 0.1) + (grown > 0.1), note=figures)


async def slow_client(port: int, number: int) -> float:
    """A byte a second, of headers or of a body; the seconds until the server closed."""
    body = raw(PATH, body_for("tiny", "mu", stream=False, n_tokens=8))
    head = raw("/health", b"", "X: " + "x" * 500, method="GET")
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    closed = asyncio.create_task(reader.read())
    sent = body.index(b"\r\n\r\n") + 4 if number % 2 else 0
    data = body if number % 2 else head
    writer.write(data[:sent])
    while not closed.done():
        writer.write(data[sent : sent + 1])
        sent += 1
        await asyncio.wait([closed], timeout=1)
    writer.close()
    return time.monotonic() - began


async def latencies(port: int, answers: dict[str, str], n: int) -> list[float]:
    seen = Seen()
    for number in range(n):
        question = QUESTIONS[number % len(QUESTIONS)]
        await ask(port, "tiny", question, answers[question], seen, stream=False, n_tokens=8)
    assert seen.wrong == []
    assert set(seen.statuses) == {200}
    return seen.seconds


@pytest.mark.matrix("S4")
@pytest.mark.alone
def test_five_hundred_slow_clients(child, answers, row):
    async def scenario() -> tuple[list[float], list[float], list[float]]:
        before = await latencies(child.port, answers, 300)
        slow = [asyncio.create_task(slow_client(child.port, number)) for number in range(500)]
        await asyncio.sleep(1)
        meanwhile = await latencies(child.port, answers, 300)
        return before, meanwhile, await asyncio.wait_for(asyncio.gather(*slow), 60)

    before, meanwhile, slow = asyncio.run(scenario())
    heads, bodies = slow[::2], slow[1::2]
    usual, then = statistics.median(before), statistics.median(meanwhile)
    figures = f"headers {max(heads):.1f} s, bodies {max(bodies):.1f} s, others {usual * 1e3:.1f} -> {then * 1e3:.1f} ms"
    note(figures)
    late = sum(one > 10 + 3 for one in heads) + sum(one > 30 + 3 for one in bodies)
    row(trials=len(slow), failures=late + (then > usual * 1.2), note=figures)


async def leave_early(port: int, rng: random.Random) -> None:
    question = rng.choice(QUESTIONS)
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw(PATH, body_for("tiny", question, stream=rng.random() < 0.5, n_tokens=200)))
    await asyncio.sleep(rng.random() * 0.1)
    writer.close()


async def soak(child: Child, answers: dict[str, str], seconds: float) -> tuple[Seen, list[tuple[float, int]]]:
    """Answers of all kinds, clients that leave, nonsense; and the memory every ten seconds."""
    seen, sizes, rng, began = Seen(), [], random.Random(0), time.monotonic()

    async def worker(number: int) -> None:
        while time.monotonic() - began < seconds:
            await asyncio.sleep(2 * PAUSE_SECONDS * rng.random())
            question = QUESTIONS[rng.randrange(len(QUESTIONS))]
            await ask(child.port, "tiny", question, answers[question], seen, stream=number % 2 == 0, n_tokens=8)
            if number % 4 == 0:
                await leave_early(child.port, rng)
            if number % 4 == 1:
                await exchange(child.port, raw(PATH, rng.randbytes(rng.randrange(100_000))))

    workers = [asyncio.create_task(worker(number)) for number in range(12)]
    health = asyncio.create_task(watch_health(child.port, seen, 0.05))
    while not all(task.done() for task in workers):
        sizes.append((time.monotonic() - began, child.resident_bytes))
        await asyncio.wait(workers, timeout=10)
    health.cancel()
    await asyncio.gather(*workers)
    return seen, sizes


@pytest.mark.matrix("S10")
@pytest.mark.hour
def test_an_hour_of_everything_leaves_the_memory_as_it_was(child, answers, row):
    seen, sizes = asyncio.run(soak(child, answers, SOAK_SECONDS))
    settled = [(at, size) for at, size in sizes if at > SOAK_SECONDS / 4]
    slope = statistics.linear_regression([at for at, _ in settled], [size for _, size in settled]).slope * 3600 / MB
    first, last = settled[0][1] / MB, settled[-1][1] / MB
    p99 = seen.health_percentile(0.99)
    figures = f"{SOAK_SECONDS} s, memory {first:.1f} -> {last:.1f} MB, {slope:+.2f} MB/h, health p99 {p99:.4f} s"
    note(f"{dict(seen.statuses)}, {figures}")
    wrong = len(seen.wrong) + sum(n for status, n in seen.statuses.items() if status != 200) + (slope >= 1)
    row(trials=seen.statuses.total(), failures=wrong, seed=0, note=figures)


@pytest.mark.matrix("S8")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ten_stops_under_load(folder, row, number):
    for _ in range(10):
        child = Child(folder, "server.drain_seconds=2", "server.preferences=null")
        child.wait_until_it_listens()
        asyncio.run(stop_under_load(child, number))
        code, seconds = child.ended()
        assert code == (130 if number == signal.SIGINT else -number)
        assert seconds < 2 + 2
        assert "Traceback" not in child.log
        child.kill()
    row(trials=10, note=f"{signal.Signals(number).name}, 40 streams of 400 tokens, drained for 2 s")


async def stop_under_load(child: Child, number: int) -> None:
    body = {**body_for("tiny", "mu", stream=True, n_tokens=400), "min_tokens": 400}
    clients = [asyncio.create_task(exchange(child.port, raw(PATH, body))) for _ in range(40)]
    await asyncio.sleep(0.3)
    child.signal(number)
    for reply in await asyncio.gather(*clients):
        assert reply == b"" or b"[DONE]" in reply or b'"draining"' in reply, reply[-500:]
