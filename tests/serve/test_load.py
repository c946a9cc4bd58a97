"""More clients than places, and clients that are slow: everybody is answered or told when to come again, nobody hangs."""

import asyncio
import contextlib
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from .live import Live, raw, read_all, running, status_of, wait_for
from .load import PATH, Seen, body_for, storm

pytestmark = pytest.mark.alone

HEALTH_SECONDS = 0.1
LIMIT_SECONDS = 0.5
QUESTIONS = [f"{number} ba {'mu' * (number % 7)}" for number in range(32)]


def run_storm(live: Live, *args: Any, **kwargs: Any) -> Seen:
    return asyncio.run(storm(live.port, *args, **kwargs))


def seconds_alone(live: Live) -> float:
    """For an answer of eight tokens, without the server: what the machine gives just now."""
    began = time.monotonic()
    for question in QUESTIONS[:8]:
        live.answered(question, 8)
    return (time.monotonic() - began) / 8


@pytest.mark.matrix("S3")
def test_sixty_four_connections_each_get_their_own_answer_or_a_time_to_come_again(live, row):
    answers = {question: live.answered(question, 8) for question in QUESTIONS}
    ratios, health, n_asked = [], [], 0
    for _ in range(3):
        before = seconds_alone(live)
        seen = run_storm(live, ["chat", "chat", "small"], answers, 64, 2, 8)
        assert seen.wrong == []
        assert set(seen.statuses) <= {200, 429, 503}
        assert seen.statuses[200] > 64
        n_asked += seen.statuses.total()
        # Where other work makes an answer alone slow, health is slow by as much, and that is not the server's.
        health.append(seen.health_percentile(0.99))
        ratios.append(health[-1] / max(HEALTH_SECONDS, 20 * max(before, seconds_alone(live))))
    # One attempt can meet whatever else the machine does, the median of three rarely. make faults measures two processes.
    figures = ", ".join(f"{1e3 * one:.1f}" for one in health)
    row(trials=n_asked, failures=int(statistics.median(ratios) > 1), note=f"64 connections, health p99 {figures} ms")
    assert n_asked == 3 * 128
    live.wait_until_idle()


def resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * 4096


def test_memory_does_not_grow_with_the_number_of_requests(live):
    answers = {question: live.answered(question, 4) for question in QUESTIONS}
    run_storm(live, ["chat"], answers, 64, 2, 4)  # whatever is made once
    before = resident_bytes()
    for _ in range(2):
        run_storm(live, ["chat"], answers, 64, 2, 4)
    assert resident_bytes() - before < 0.1 * before


@pytest.fixture(scope="module")
def hasty(live_parts: Any) -> Iterator[Live]:
    """A server that waits for nobody longer than half a second."""
    limits: dict[str, Any] = {f"{name}_seconds": LIMIT_SECONDS for name in ("header", "body", "write")}
    with running(*live_parts, **limits) as live:
        # else the system holds megabytes for a client that does not read
        live.server.door.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        yield live


def trickle(live: Live, data: bytes, pause_seconds: float = 0.05) -> tuple[float, bytes]:
    """Send a byte at a time; the seconds until the server had enough, and what it said."""
    began = time.monotonic()
    with live.socket() as connection:
        with contextlib.suppress(ConnectionError):
            connection.settimeout(pause_seconds)
            for byte in data:
                connection.sendall(bytes([byte]))
                with contextlib.suppress(TimeoutError):
                    return time.monotonic() - began, connection.recv(65536)
        return time.monotonic() - began, b""


SLOW = {
    "headers": (raw("/health", b"", "X: " + "x" * 2000, method="GET"), {0}),
    "one byte and nothing": (b"G", {0}),
    "body": (raw(PATH, b" " * 2000), {0, 408}),
}  # fmt: skip


def crowd(live: Live, n_clients: int) -> list[tuple[str, float, bytes]]:
    """Slow clients of every kind at once."""
    found: list[tuple[str, float, bytes]] = []

    def client(kind: str) -> None:
        seconds, reply = trickle(live, SLOW[kind][0]) if kind != "one byte and nothing" else silent(live)
        found.append((kind, seconds, reply))

    threads = [threading.Thread(target=client, args=(list(SLOW)[number % len(SLOW)],)) for number in range(n_clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    return found


def silent(live: Live) -> tuple[float, bytes]:
    began = time.monotonic()
    with live.socket() as connection:
        connection.sendall(b"G")
        return time.monotonic() - began, read_all(connection)


@pytest.mark.matrix("S4")
def test_slow_clients_are_closed_in_time_while_others_are_served(hasty, row):
    expected, latencies, done = hasty.answered("mu", 8), [], threading.Event()

    def normal() -> None:
        body = body_for("chat", "mu", stream=False, n_tokens=8)
        with httpx.Client() as client:
            while not done.is_set():
                began = time.monotonic()
                reply = client.post(hasty.address + PATH, json=body).json()
                latencies.append(time.monotonic() - began)
                assert reply["choices"][0]["message"]["content"] == expected

    others = threading.Thread(target=normal)
    others.start()
    found = crowd(hasty, 24)
    done.set()
    others.join()
    assert len(found) == 24  # nobody hangs
    assert {kind for kind, _, reply in found if status_of(reply) not in SLOW[kind][1]} == set()
    assert (
        max(seconds for _, seconds, _ in found) < LIMIT_SECONDS + 2
    )  # a machine with other work may wake a thread late
    assert len(latencies) > 5
    assert max(latencies) < 2
    row(trials=24, note=f"limits of {LIMIT_SECONDS} s; a normal client's slowest answer {max(latencies):.2f} s")


def test_a_second_request_on_a_connection_has_no_more_time_than_the_first(hasty):
    with hasty.socket() as connection:
        connection.sendall(raw("/health", b"", method="GET", close=False))
        assert status_of(connection.recv(65536)) == 200
        time.sleep(0.1)
        connection.sendall(b"GET /health HT")
        began = time.monotonic()
        read_all(connection)
    assert LIMIT_SECONDS / 2 < time.monotonic() - began < LIMIT_SECONDS + 2


def test_more_requests_than_can_be_held_are_refused_unread_and_health_is_not(live_parts):
    with running(*live_parts, slots=2, max_waiting=2) as live:
        guard: Any = live.server.config.app
        half = raw(PATH, body_for("chat", "mu", stream=False, n_tokens=1))[:-1]
        connections = [live.socket() for _ in range(200)]
        for connection in connections:
            connection.sendall(half)
        wait_for(lambda: guard.n_requests == 4 + 4 + 4 + 72 + 64, 10)  # the places of four models, and some
        refused = live.exchange(half + b"}")
        assert (status_of(refused), b"retry-after: 2" in refused) == (503, True)
        assert status_of(live.exchange(raw("/health", b"", method="GET"))) == 200
        for connection in connections:
            connection.close()
        wait_for(lambda: guard.n_requests == 0, 10)
        assert status_of(live.exchange(half + b"}")) == 200


def stalled(live: Live) -> socket.socket:
    """Ask for a megabyte and read nothing."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", live.port))
    body = {
        **body_for("chat", "mu", stream=True, n_tokens=250),
        "n": 8,
        "logprobs": True,
        "top_logprobs": 20,
        "min_tokens": 250,
    }
    connection.sendall(raw(PATH, body))
    return connection


@pytest.mark.matrix("S4")
def test_a_client_that_does_not_read_is_left_and_its_places_are_free(hasty, row):
    connection = stalled(hasty)
    wait_for(lambda: hasty.models["chat"].scheduler.n_running > 0, 10)
    hasty.wait_until_idle(30)
    wait_for(lambda: not hasty.server.server_state.connections, 10)
    assert b"[DONE]" not in read_all(connection)  # it was left before its end
    connection.close()
    assert status_of(hasty.exchange(raw(PATH, body_for("chat", "mu", stream=False, n_tokens=1)))) == 200
    row(trials=1, note=f"a stalled reader, left after {LIMIT_SECONDS} s; its 8 places were free")
