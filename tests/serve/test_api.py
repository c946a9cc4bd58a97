"""What is not HTTP, or not quite: refused or closed, and the server goes on. Also what the routes say of the server."""

import contextlib
import json
import socket

import httpx
import pytest

from .live import Live, raw, read_all, status_of

CHAT = {"model": "chat", "messages": [{"role": "user", "content": "mu"}], "max_tokens": 4, "temperature": 0}
PATH = "/v1/chat/completions"
BODY = json.dumps(CHAT).encode()
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def chunked(*parts: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + body + end


MALFORMED = {
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS hello": bytes.fromhex("16030100c8010000c40303") + b"\0" * 200,
    "zeros": b"\0" * 1000 + b"\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "no version": b"GET /health\r\nHost: localhost\r\n\r\n",
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "negative length": HEAD + b"Content-Length: -1\r\n\r\n",
    "length in words": HEAD + b"Content-Length: five\r\n\r\nhello",
    "length with plus": HEAD + b"Content-Length: +5\r\n\r\nhello",
    "endless length": HEAD + b"Content-Length: " + b"9" * 100 + b"\r\n\r\n",
    "unknown encoding": HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
    "chunk size in words": HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nhello\r\n0\r\n\r\n",
    "chunk size negative": HEAD + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
    "chunk longer than said": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n",
    "chunk size of a page": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 20000,
    "header of a hundred thousand": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    "a hundred thousand headers": b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
    "path of a hundred thousand": b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "bytes in the path": b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "NUL in a header": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n",
    "line break in a header": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n",
    "folded header without a first": b"GET /health HTTP/1.1\r\n  folded\r\nHost: localhost\r\n\r\n",
    "space before the colon": b"GET /health HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "no header name": b"GET /health HTTP/1.1\r\nHost: localhost\r\n: x\r\n\r\n",
    "body is no JSON": raw(PATH, b"{"),
    "body is bytes": raw(PATH, b"\xff\xfe\x00"),
    "body is empty": raw(PATH, b""),
    "body is another kind": raw(PATH, BODY, "Content-Type: text/html"),
    "no content type": HEAD.replace(b"Content-Type: application/json", b"Connection: close\r\nContent-Length: 2") + b"\r\n{}",
    "compressed": raw(PATH, b"\x1f\x8b\x08\x00", "Content-Encoding: gzip"),
    "target of another host": raw("http://evil.example/health", b"", method="GET"),
    "no method": raw("/health", b"", method=""),
    "chunks that never end in JSON": chunked(BODY, b"}"),
    "unknown path": raw("/v1/embeddings", {"input": "x"}),
    "unknown method": raw(PATH, BODY, method="BREW"),
    "percent without digits": raw("/v1/models/%zz", b"", method="GET"),
    "half a character in the path": raw("/v1/models/%ff", b"", method="GET"),
    "model of control characters": raw("/v1/models/%00%0d%0a", b"", method="GET"),
}  # fmt: skip


@pytest.mark.matrix("S6")
def test_what_is_malformed_is_refused_or_closed(live, row):
    wrong = {}
    for name, data in MALFORMED.items():
        reply = sent(live, data)
        if not (reply == b"" or 400 <= status_of(reply) < 500) or b"Traceback" in reply or not alive(live):
            wrong[name] = reply[:1000]
    row(trials=len(MALFORMED), failures=len(wrong), note=f"not HTTP, or not quite{wrong or ''}")


def sent(live: Live, data: bytes) -> bytes:
    """All that comes back until the connection is closed."""
    with live.socket() as connection:
        with contextlib.suppress(OSError):  # it may be closed before all is sent
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


def alive(live: Live) -> bool:
    """It answers, and as ever."""
    reply = live.exchange(raw(PATH, BODY))
    return json.loads(reply.partition(b"\r\n\r\n")[2])["choices"][0]["message"]["content"] == live.answered("mu", 4)


def test_a_body_in_chunks_of_any_size_is_read(live):
    for parts in ([BODY], [bytes([byte]) for byte in BODY], [BODY[:7], BODY[7:]]):
        reply = live.exchange(chunked(*parts))
        assert status_of(reply) == 200


def test_a_client_that_ends_its_chunks_early_is_closed(live):
    for end in (b"", b"5\r\nab", b"0\r\n", b"zz\r\n"):
        with live.socket() as connection:
            connection.sendall(chunked(BODY[:10], end=end))
            connection.shutdown(socket.SHUT_WR)
            assert status_of(read_all(connection)) in (0, 400)
    assert alive(live)


def test_nonsense_after_a_request_closes_the_connection_not_the_server(live):
    with live.socket() as connection:
        connection.sendall(raw(PATH, BODY, close=False) + b"\0\1\2\r\n\r\n" * 100)
        assert status_of(read_all(connection)) == 200
    assert alive(live)


def test_nonsense_in_a_body_whose_answer_has_begun_closes_the_connection(live):
    with live.socket() as connection:
        connection.sendall(chunked(b" " * 2_000_001, end=b""))
        assert status_of(connection.recv(4096)) == 413
        connection.sendall(b"zz\r\nnonsense\r\n")
        read_all(connection)
    assert alive(live)


def test_requests_that_come_together_are_answered_in_their_order(live):
    bodies = [{**CHAT, "max_tokens": n} for n in (1, 2, 3)]
    requests = [raw(PATH, body, close=n == 2) for n, body in enumerate(bodies)]
    replies = live.exchange(b"".join(requests)).split(b"HTTP/1.1 ")[1:]
    counts = [json.loads(reply.partition(b"\r\n\r\n")[2])["usage"]["completion_tokens"] for reply in replies]
    assert counts == [1, 2, 3]


def test_a_client_that_waits_for_100_is_told_to_go_on(live):
    with live.socket() as connection:
        head, _, body = raw(PATH, BODY, "Expect: 100-continue").partition(b"\r\n\r\n")
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 100")
        connection.sendall(body)
        assert status_of(read_all(connection)) == 200


def test_health_and_models_say_what_is_served(live):
    assert httpx.get(f"{live.address}/health").json() == {"status": "ok", "running": 0, "waiting": 0}
    models = {model["id"]: model for model in httpx.get(f"{live.address}/v1/models").json()["data"]}
    assert models["chat"]["max_model_len"] == live.decoder.config.max_seq_len
    assert (models["chat"]["chat"], models["plain"]["chat"]) == (True, False)
    assert models["chat"]["parameters"] == sum(p.numel() for p in live.decoder.parameters())


def test_metrics_count_requests_by_route_and_status_and_tokens(live):
    def value(name: str, **labels: str) -> float:
        return live.metrics.registry.get_sample_value(name, labels) or 0.0

    def values() -> list[float]:
        return [
            value("lumi_requests_total", path=PATH, status="200"), value("lumi_requests_total", path="other", status="404"),
            value("lumi_generated_tokens_total", model="chat"), value("lumi_time_to_first_token_seconds_count"),
        ]  # fmt: skip

    before = values()
    live.exchange(raw(PATH, BODY))
    live.exchange(raw("/secret/path", b"", method="GET"))
    live.wait_until_idle()
    assert [after - then for after, then in zip(values(), before, strict=True)] == [1, 1, 4, 1]
    text = httpx.get(f"{live.address}/metrics").text
    assert 'lumi_requests_running{model="chat"} 0.0' in text
    assert "secret" not in text


def test_a_pair_becomes_a_row_that_preference_training_reads(live):
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "mu\x00"}]},
    ]
    pair = {"messages": messages, "chosen": "a", "rejected": "b", "seed": 3, "sampling": {"temperature": 1}}
    reply = httpx.post(f"{live.address}/v1/preferences", json=pair)
    lines = open(live.server.settings.preferences, encoding="utf-8").read().splitlines()  # noqa: PTH123, SIM115
    assert (reply.status_code, reply.json()) == (201, {"saved": True, "count": len(lines)})
    prompt = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "mu\x00"}]
    row = json.loads(lines[-1])
    assert set(row.pop("made_by")) == {"code", "versions"}
    assert row == {
        "prompt": prompt, "chosen": "a", "rejected": "b", "seed": 3, "sampling": {"temperature": 1}, "made_from": {}
    }  # fmt: skip
