"""Every limit of a request, on both sides of its bound: what is refused names its field, before anything is encoded."""

import http.client
import json
from typing import Any

import httpx
import pytest

from lumi.serve import protocol as p

from .live import CONTEXT, Live, V, raw, status_of

USER = {"role": "user", "content": "mu"}
CHAT = {"model": "chat", "messages": [USER], "max_tokens": 1, "temperature": 0}
TEXT = {"model": "plain", "prompt": "mu", "max_tokens": 1, "temperature": 0}
PAIR = {"messages": [USER], "chosen": "a", "rejected": "b"}
PATHS = {"chat": "/v1/chat/completions", "text": "/v1/completions", "pair": "/v1/preferences"}
BODIES = {"chat": CHAT, "text": TEXT, "pair": PAIR}


def talk(n: int) -> list[dict[str, str]]:
    """So many messages, in order."""
    turns = [{"role": "assistant" if i % 2 else "user", "content": ""} for i in range(n - 1 + n % 2)]
    return turns if n % 2 else [{"role": "system", "content": ""}, *turns]


def send(live: Live, kind: str, change: dict[str, Any]) -> httpx.Response:
    body = json.dumps({**BODIES[kind], **change})  # httpx would refuse what is not strict JSON
    headers = {"Content-Type": "application/json"}
    return httpx.post(live.address + PATHS[kind], content=body, headers=headers, timeout=60)


INSIDE = [
    ("chat", {"n": 1}), ("chat", {"n": 8}), ("chat", {"max_tokens": 10**6}), ("chat", {"temperature": 100}),
    ("chat", {"temperature": 0.0}), ("chat", {"temperature": 1e-300}), ("chat", {"temperature": 5e-324}),
    ("chat", {"top_p": 1}), ("chat", {"top_p": 5e-324, "temperature": 1}), ("chat", {"top_k": 10**6}),
    ("chat", {"top_k": 0, "no_repeat_ngram": 0}),
    ("chat", {"min_p": 0}), ("chat", {"min_p": 1, "temperature": 1}), ("chat", {"repetition_penalty": 0.01}),
    ("chat", {"repetition_penalty": 100}), ("chat", {"no_repeat_ngram": 10**6}), ("chat", {"min_tokens": 1}),
    ("chat", {"stop": ["x"] * 4}), ("chat", {"stop": "x" * 64}), ("chat", {"stop": []}), ("chat", {"stop": "\0"}),
    ("chat", {"seed": 2**63 - 1}), ("chat", {"seed": -(2**63)}), ("chat", {"seed": -0.0}), ("chat", {"n": 1.0}),
    ("chat", {"logprobs": True, "top_logprobs": 20}), ("chat", {"logprobs": True, "top_logprobs": 0}),
    ("chat", {"user": "u" * 512}), ("chat", {"metadata": {"k" * 256: "v" * 512}}), ("chat", {"messages": talk(4)}),
    ("chat", {"messages": [{"role": "user", "content": "\0"}]}), ("chat", {"frequency_penalty": -0.0}),
    ("text", {"logprobs": 20}), ("text", {"logprobs": 0}), ("text", {"prompt": ["mu"] * 64}), ("text", {"prompt": [V - 1]}),
    ("text", {"prompt": [1] * (CONTEXT - 1)}), ("text", {"prompt": ""}), ("text", {"best_of": 1, "n": 1}),
    ("pair", {"sampling": {"temperature": 1.5}}), ("pair", {"seed": 2**63 - 1}),
    ("chat", {"metadata": {str(i): "" for i in range(16)}}), ("text", {"user": "u"}),
    ("chat", {"max_completion_tokens": 10**6, "max_tokens": None}),
    ("chat", {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}] * 64}]}),
    ("chat", {"messages": [{**USER, "name": "n" * 256}]}),
]  # fmt: skip

OUTSIDE = [
    ("chat", "n", {"n": 0}), ("chat", "n", {"n": 9}), ("chat", "n", {"n": 1.5}), ("chat", "n", {"n": True}),
    ("chat", "max_tokens", {"max_tokens": 0}), ("chat", "max_tokens", {"max_tokens": 10**6 + 1}),
    ("chat", "max_tokens", {"max_tokens": 10**4000}), ("chat", "max_completion_tokens", {"max_completion_tokens": -1}),
    ("chat", "temperature", {"temperature": 100.001}), ("chat", "temperature", {"temperature": -1e-9}),
    ("chat", "temperature", {"temperature": float("nan")}), ("chat", "temperature", {"temperature": float("inf")}),
    ("chat", "temperature", {"temperature": 10**400}), ("chat", "temperature", {"temperature": True}),
    ("chat", "temperature", {"temperature": "1"}), ("chat", "top_p", {"top_p": 0}), ("chat", "top_p", {"top_p": 1.0001}),
    ("chat", "top_p", {"top_p": float("-inf")}), ("chat", "top_k", {"top_k": -1}), ("chat", "top_k", {"top_k": 10**6 + 1}),
    ("chat", "min_p", {"min_p": -0.1}), ("chat", "min_p", {"min_p": 1.1}),
    ("chat", "repetition_penalty", {"repetition_penalty": 0.0099}),
    ("chat", "repetition_penalty", {"repetition_penalty": 100.1}), ("chat", "no_repeat_ngram", {"no_repeat_ngram": -1}),
    ("chat", "min_tokens", {"min_tokens": -1}), ("chat", "min_tokens", {"min_tokens": 2}),
    ("chat", "stop", {"stop": ["x"] * 5}), ("chat", "stop", {"stop": "x" * 65}), ("chat", "stop", {"stop": ""}),
    ("chat", "stop[1]", {"stop": ["x", ""]}), ("chat", "stop[0]", {"stop": ["x" * 65]}),
    ("chat", "seed", {"seed": 2**63}), ("chat", "seed", {"seed": -(2**63) - 1}), ("chat", "seed", {"seed": 1e300}),
    ("chat", "top_logprobs", {"logprobs": True, "top_logprobs": 21}),
    ("chat", "top_logprobs", {"logprobs": True, "top_logprobs": -1}),
    ("chat", "top_logprobs", {"top_logprobs": 1}), ("chat", "user", {"user": "u" * 513}),
    ("chat", "metadata", {"metadata": {"k": "v" * 513}}), ("chat", "metadata", {"metadata": {str(i): "" for i in range(17)}}),
    ("chat", "messages", {"messages": []}), ("chat", "messages", {"messages": talk(p.MAX_MESSAGES + 1)}),
    ("chat", "messages", {"messages": talk(2)[1:] + talk(2)[1:]}), ("chat", "messages", {"messages": "mu"}),
    ("chat", "messages[0].role", {"messages": [{"role": "tool", "content": ""}]}),
    ("chat", "messages[0].content", {"messages": [{"role": "user"}]}),
    ("chat", "messages[0].content", {"messages": [{"role": "user", "content": None}]}),
    ("chat", "messages[0].content", {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}] * 65}]}),
    ("chat", "messages", {"messages": [{"role": "user", "content": "x" * 10**6}]}),
    ("chat", "messages[0].content", {"messages": [{"role": "user", "content": "x" * (10**6 + 1)}]}),
    ("chat", "messages[0].content", {"messages": [{"role": "user", "content": "\ud800"}]}),
    ("chat", "frequency_penalty", {"frequency_penalty": 0.5}), ("chat", "logit_bias", {"logit_bias": {"1": 1}}),
    ("chat", "stream_options", {"stream_options": {}}), ("chat", "store", {"store": True}),
    ("chat", "max_tokens", {"max_completion_tokens": 2}), ("chat", "topk", {"topk": 1}),
    ("chat", "messages[0].x", {"messages": [{**USER, "x": 1}]}), ("chat", None, {"\ud800": 1}),
    ("text", "logprobs", {"logprobs": 21}), ("text", "logprobs", {"logprobs": True}), ("text", "prompt", {"prompt": []}),
    ("text", "prompt", {"prompt": ["mu"] * 65}), ("text", "prompt", {"prompt": [V]}), ("text", "prompt[0]", {"prompt": [-1]}),
    ("text", "prompt", {"prompt": [1] * CONTEXT}), ("text", "prompt[1]", {"prompt": [[1], []]}),
    ("text", "prompt[1][0]", {"prompt": [[1], [2**40]]}), ("text", "prompt", {"prompt": "\ud800"}),
    ("text", "prompt", {"prompt": None}), ("text", "best_of", {"best_of": 2}),
    ("text", "best_of", {"best_of": 1, "n": 2}), ("text", "suffix", {"suffix": "x"}),
    ("text", "echo", {"echo": True, "logprobs": 1}), ("text", "n", {"prompt": ["mu"] * 64, "n": 8, "model": "small"}),
    ("pair", "messages", {"messages": talk(3) + talk(3)}), ("pair", "rejected", {"rejected": "a"}),
    ("pair", "chosen", {"chosen": "\ud800"}), ("pair", "sampling.temperature", {"sampling": {"temperature": float("nan")}}),
    ("pair", "sampling.temperature", {"sampling": {"temperature": float("inf")}}),
    ("pair", "messages", {"messages": talk(3)[:2]}), ("chat", "no_repeat_ngram", {"no_repeat_ngram": 10**6 + 1}),
    ("chat", "min_tokens", {"min_tokens": 10**6 + 1}), ("chat", "max_completion_tokens", {"max_completion_tokens": 10**6 + 1}),
    ("chat", "messages[0].name", {"messages": [{**USER, "name": "n" * 257}]}),
    ("chat", "metadata", {"metadata": {"k" * 257: ""}}),
    ("chat", "min_p", {"min_p": float("nan")}), ("chat", "repetition_penalty", {"repetition_penalty": 10**400}),
]  # fmt: skip


@pytest.mark.matrix("S2")
def test_what_is_just_inside_a_bound_is_answered(live, row):
    replies = [(kind, change, send(live, kind, change)) for kind, change in INSIDE]
    wrong = [(kind, change, reply.text) for kind, change, reply in replies if reply.status_code not in (200, 201)]
    row(trials=len(INSIDE), failures=len(wrong), note=f"just inside a bound{str(wrong)[:2000] if wrong else ''}")


def fault(live: Live, kind: str, param: str | None, change: dict[str, Any]) -> str | None:
    """What is wrong with the reply to a field out of its bounds."""
    read = live.metrics.registry.get_sample_value("lumi_prompt_tokens_total", {"model": "chat"})
    reply = send(live, kind, change)
    error = reply.json().get("error", {})
    named = (reply.status_code, error.get("param"), error.get("type")) == (400, param, "invalid_request_error")
    unread = read == live.metrics.registry.get_sample_value("lumi_prompt_tokens_total", {"model": "chat"})
    return (
        None if named and unread and len(reply.content) < 1000 else f"{kind} {str(change)[:100]}: {reply.text[:1000]}"
    )


@pytest.mark.matrix("S2")
def test_what_is_just_outside_a_bound_names_its_field(live, row):
    wrong = [found for case in OUTSIDE if (found := fault(live, *case)) is not None]
    row(trials=len(OUTSIDE), failures=len(wrong), note=f"just outside a bound{wrong or ''}")


@pytest.mark.parametrize("change", [
    {"top_p": 5e-324}, {"top_p": 1e-9}, {"top_k": 1}, {"min_p": 1}, {"temperature": 5e-324}, {"temperature": 1e-6},
    {"top_p": 5e-324, "top_k": 3}, {"min_p": 1, "top_k": 400, "top_p": 0.999},
])  # fmt: skip
def test_settings_that_leave_one_token_give_the_greedy_answer(live, change):
    greedy = send(live, "text", {"max_tokens": 8}).json()["choices"]
    drawn = send(live, "text", {"max_tokens": 8, "temperature": 1, "seed": 3, **change}).json()["choices"]
    assert drawn == greedy


def padded(n_bytes: int) -> bytes:
    """A body of so many bytes, most of them white space."""
    body = json.dumps(CHAT).encode()
    return body + b" " * (n_bytes - len(body))


@pytest.mark.matrix("S2")
def test_a_body_of_two_million_bytes_is_read_and_one_more_is_not(live, row):
    path = PATHS["chat"]
    assert status_of(live.exchange(raw(path, padded(p.MAX_BODY_BYTES)))) == 200
    reply = live.exchange(raw(path, padded(p.MAX_BODY_BYTES + 1)))
    assert status_of(reply) == 413
    assert json.loads(reply.partition(b"\r\n\r\n")[2])["error"]["code"] == "too_large"
    row(trials=2, note="body of 2,000,000 bytes, and one more")


def test_a_body_that_is_too_long_is_refused_while_it_is_read(live):
    head = raw(PATHS["chat"], b"").replace(b"Content-Length: 0", b"Content-Length: 1000000000000")
    with live.socket() as connection:
        connection.sendall(head + b" " * (p.MAX_BODY_BYTES + 1))
        assert status_of(connection.recv(4096)) == 413  # though most of it is still to come


NONSENSE = {
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "deep inside a field": b'{"messages": ' + b"[" * 900 + b"]" * 900 + b"}",
    "no body": b"",
    "a list": b"[]",
    "a text": b'"x"',
    "null": b"null",
    "half": b'{"messages": [',
    "two": b"{} {}",
    "single quotes": b"{'messages': []}",
    "not UTF-8": b'{"model": "\xff\xfe"}',
    "UTF-16": '{"model": "x"}'.encode("utf-16"),
    "a digit too many": b'{"seed": ' + b"9" * 5000 + b"}",
    "NUL": b"\0" * 100,
    "a comment": b"{} // x",
}


@pytest.mark.matrix("S6")
@pytest.mark.parametrize("path", PATHS.values())
def test_a_body_that_is_no_request_is_refused(live, path, row):
    replies = {name: live.exchange(raw(path, body)) for name, body in NONSENSE.items()}
    refused = [
        name for name, reply in replies.items() if status_of(reply) == 400 and b'"invalid_request_error"' in reply
    ]
    wrong = {name: replies[name][:1000] for name in set(NONSENSE) - set(refused)}
    row(trials=len(NONSENSE), failures=len(wrong), note=f"bodies for {path}{wrong or ''}")


def test_of_a_key_that_comes_twice_the_last_holds(live):
    body = json.dumps(CHAT).encode()[:-1] + b', "n": 99, "n": 2}'
    reply = live.exchange(raw(PATHS["chat"], body))
    assert len(json.loads(reply.partition(b"\r\n\r\n")[2])["choices"]) == 2


def test_the_longest_conversation_is_answered_or_too_long_for_the_model(live):
    reply = send(live, "chat", {"messages": talk(p.MAX_MESSAGES - 1)})
    assert reply.json()["error"]["code"] == "context_length_exceeded"
    assert send(live, "chat", {"messages": talk(99)}).status_code == 200


def test_a_connection_is_as_good_after_an_error_as_before(live):
    connection = http.client.HTTPConnection("127.0.0.1", live.port, timeout=20)
    connection.connect()
    first = connection.sock
    for body, status in ((b"{", 400), (json.dumps(CHAT).encode(), 200), (b"[]", 400), (padded(3000), 200)):
        connection.request("POST", PATHS["chat"], body, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        assert (reply.status, len(reply.read()) > 50) == (status, True)
    assert connection.sock is first
    connection.close()
