"""Whether the server lives is answered at the door, however busy the rest is; everything else passes through it unread."""

import socket
import threading
import time
from typing import Any

import pytest

from .live import Live, raw, read_all, status_of

HEALTH = raw("/health", b"", method="GET", close=False)
MODELS = raw("/v1/models", b"", method="GET")


def asked(connection: socket.socket, data: bytes) -> bytes:
    """One answer, whole, in however many packets it comes."""
    connection.sendall(data)
    reply = b""
    while True:
        head, end, body = reply.partition(b"\r\n\r\n")
        length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
        if end and len(body) >= int(length.partition(b":")[2]):
            return reply
        more = connection.recv(65536)
        assert more, f"the connection ended within an answer: {reply[-200:]!r}"
        reply += more


def block_the_loop(live: Live, seconds: float) -> None:
    """As a thousand requests at once would."""
    begun = threading.Event()
    for step in (begun.set, lambda: time.sleep(seconds)):
        live.models["chat"].scheduler._call(step)
    assert begun.wait(5)


def test_health_is_answered_while_the_event_loop_is_busy(live):
    with live.socket() as kept, live.socket() as other:
        assert status_of(asked(kept, HEALTH)) == 200
        block_the_loop(live, 1)
        began = time.monotonic()
        assert status_of(asked(kept, HEALTH)) == 200
        assert status_of(live.exchange(raw("/health", b"", method="GET"))) == 200
        assert time.monotonic() - began < 0.5
        assert status_of(asked(other, MODELS)) == 200
        assert time.monotonic() - began > 0.5  # that was the loop's


def test_one_connection_may_ask_for_health_and_for_other_things(live):
    ask = raw("/v1/completions", {"model": "plain", "prompt": "mu", "max_tokens": 1}, close=False)
    with live.socket() as connection:
        assert [status_of(asked(connection, one)) for one in (HEALTH, HEALTH, ask, HEALTH, MODELS)] == [200] * 5


def test_requests_in_one_packet_are_answered_in_their_order(live):
    reply = live.exchange(HEALTH + HEALTH + MODELS)
    assert reply.count(b"HTTP/1.1 200") == 3
    assert reply.index(b'"running"') < reply.index(b'"data"')


@pytest.mark.parametrize("pause_seconds", [0.0, 0.1])
def test_a_head_in_pieces_is_answered_too(live, pause_seconds):
    with live.socket() as connection:
        for piece in (HEALTH[:5], HEALTH[5:30], HEALTH[30:]):
            connection.sendall(piece)
            time.sleep(pause_seconds)
        assert status_of(connection.recv(65536)) == 200


@pytest.mark.parametrize(("change", "status"), [
    ((b"Host: localhost", b"Host: evil.example"), 403), ((b"GET", b"POST"), 405), ((b"GET", b"HEAD"), 405),
    ((b"HTTP/1.1", b"HTTP/1.0"), 200), ((b"HTTP/1.1", b"HTTP/1.9"), 200), ((b"/health ", b"/health?deep=1 "), 200),
    ((b"Host: localhost", b"Host: localhost\r\nOrigin: http://evil.example"), 403),
    ((b"Host: localhost", b"Host: localhost\r\nHost: localhost"), 400),
    ((b"Host: localhost", b"Host: localhost\r\nX: " + b"x" * 3000), 200),
    ((b"Host: localhost", b"Host: localhost\r\nX: " + b"x" * 20_000), 431),
    ((b"Content-Length: 0", b"Content-Length: 2"), 200), ((b"Host: localhost", b"Host localhost"), 400),
])  # fmt: skip
def test_at_the_door_the_same_rules_hold(live, change, status):
    with live.socket() as connection:
        connection.sendall(HEALTH.replace(*change) + b"{}" * (change[1] == b"Content-Length: 2"))
        assert status_of(connection.recv(65536)) == status


def test_what_the_door_answers_is_counted(live):
    def count() -> float:
        name = "lumi_requests_total"
        return live.metrics.registry.get_sample_value(name, {"path": "/health", "status": "200"}) or 0.0

    before = count()
    live.exchange(raw("/health", b"", method="GET"))
    assert count() == before + 1


def test_a_client_that_leaves_at_the_door_leaves_nothing_there(live):
    door: Any = live.server.door
    connections = [live.socket() for _ in range(50)]
    for number, connection in enumerate(connections):
        connection.sendall(HEALTH[: number % 5])
        connection.close()
    with live.socket() as silent:
        time.sleep(0.3)
        assert not door._guests  # handed on to the loop, which has a clock for it
        assert status_of(asked(silent, MODELS)) == 200


def test_a_connection_that_was_answered_is_kept_for_some_seconds(live):
    with live.socket() as connection:
        assert status_of(asked(connection, HEALTH)) == 200
        began = time.monotonic()
        assert read_all(connection) == b""
        assert 4 < time.monotonic() - began < 8
