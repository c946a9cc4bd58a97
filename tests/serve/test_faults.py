"""Something breaks or somebody leaves: only that request ends, its place is free at once, the others never notice."""

import contextlib
import json
import random
import socket
import time
from typing import Any

import httpx
import openai
import pytest

from .live import Live, events_of, raw, status_of, together, wait_for
from .load import exchange

PATH = "/v1/chat/completions"
PROMPTS = ["badoké li", "mu", "do ba 😀", "likéké", "ba", "li li li"]


def ask(prompt: str, **change: Any) -> dict[str, Any]:
    return {
        "model": "faulty",
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "max_tokens": 16,
        **change,
    }


async def post(live: Live, body: dict[str, Any]) -> httpx.Response:
    async with httpx.AsyncClient(timeout=30) as client:
        return await client.post(live.address + PATH, json=body)


def choice(reply: httpx.Response) -> dict[str, Any]:
    return reply.json()["choices"][0]


def lonely_token(live: Live) -> int:
    """A token that the first prompt's answer reads on its way, and no other one."""
    answers = [live.tokens_of(prompt) for prompt in PROMPTS]
    others = {token for answer in answers[1:] for token in answer}
    return next(token for token in answers[0][2:-2] if token not in others)


async def raw_post(live: Live, body: dict[str, Any]) -> dict[str, Any]:
    """As `post`, without a library: a hundred times in a row it is ten times as fast."""
    reply = await exchange(live.port, raw(PATH, body))
    return {"status": status_of(reply), **json.loads(reply.partition(b"\r\n\r\n")[2])}


@pytest.mark.matrix("S9")
def test_a_hundred_failures_each_hurt_one_request_of_a_batch(live, row):
    rng, wrong = random.Random(9), []
    bodies = [ask(prompt, logprobs=True, top_logprobs=5) for prompt in PROMPTS]
    alone = [together(raw_post(live, body))[0]["choices"] for body in bodies]
    too_long, lonely = ask("mu" * 80), lonely_token(live)
    for number in range(100):
        live.faulty.nan_token = lonely if number % 2 else None
        live.faulty.oom_len = None if number % 2 else 60
        mine = bodies if number % 2 else [*bodies, too_long]
        order = rng.sample(range(len(mine)), len(mine))
        found = dict(zip(order, together(*(raw_post(live, mine[i]) for i in order)), strict=True))
        victim = found[0 if number % 2 else len(mine) - 1]
        others = [i for i in range(len(bodies)) if found[i] is not victim]
        said = json.dumps(victim)
        fine = victim["status"] == 500 and "generation_failed" in said and "CUDA" not in said and "logits" not in said
        if not fine or any(found[i].get("choices") != alone[i] for i in others):
            wrong.append((number, said[:300]))
    row(trials=100, failures=len(wrong), seed=9, note=f"logits that are no numbers, or no memory{wrong or ''}")


@pytest.mark.parametrize("stream", [False, True])
def test_logits_that_are_no_numbers_fail_one_request_of_a_batch(live, stream):
    alone = [choice(*together(post(live, ask(prompt, logprobs=True, top_logprobs=5)))) for prompt in PROMPTS]
    live.faulty.nan_token = lonely_token(live)
    bodies = [ask(prompt, logprobs=True, top_logprobs=5) for prompt in PROMPTS[1:]]
    failed, *others = together(post(live, ask(PROMPTS[0], stream=stream)), *(post(live, body) for body in bodies))
    assert [choice(reply) for reply in others] == alone[1:]  # to the last bit of the logarithms
    events = events_of(failed.text) if stream else [failed.json()]
    assert (failed.status_code, events[-1]["error"]["code"]) == (200 if stream else 500, "generation_failed")
    assert "logits" not in failed.text


def test_the_client_of_a_stream_that_fails_gets_an_exception(live):
    live.faulty.nan_token = lonely_token(live)
    client = openai.OpenAI(base_url=f"{live.address}/v1", api_key="any", max_retries=0)
    stream = client.chat.completions.create(stream=True, **ask(PROMPTS[0]))
    found: list[str] = []
    with pytest.raises(openai.APIError, match="could not be made"):
        found.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    text = "".join(found)
    assert text
    assert live.answered(PROMPTS[0]).startswith(text)


def test_one_of_several_answers_that_fails_ends_the_call(live):
    live.faulty.nan_token = lonely_token(live)
    body = {"model": "faulty", "prompt": ["mu"], "n": 2, "temperature": 0, "max_tokens": 9}
    prompts = [live.prompt_of("mu"), live.prompt_of(PROMPTS[0])]
    for stream in (False, True):
        reply = httpx.post(f"{live.address}/v1/completions", json={**body, "prompt": prompts, "stream": stream})
        assert '"generation_failed"' in reply.text
        assert "[DONE]" not in reply.text
    live.wait_until_idle()


def test_a_prompt_that_does_not_fit_the_memory_fails_alone(live):
    live.faulty.oom_len = 60
    bodies = [ask(prompt) for prompt in PROMPTS]
    *others, failed = together(*(post(live, body) for body in bodies), post(live, ask("mu" * 80)))
    assert [choice(reply)["message"]["content"] for reply in others] == [live.answered(prompt) for prompt in PROMPTS]
    assert (failed.status_code, failed.json()["error"]["code"]) == (500, "generation_failed")
    assert "CUDA" not in failed.text


def test_a_step_that_fails_fails_what_ran_and_nothing_after_it(live):
    live.faulty.fail_decoding = True
    replies = together(*(post(live, ask(prompt)) for prompt in PROMPTS))
    assert {reply.status_code for reply in replies} <= {200, 500}
    assert 500 in {reply.status_code for reply in replies}
    for prompt, reply in zip(PROMPTS, together(*(post(live, ask(prompt)) for prompt in PROMPTS)), strict=True):
        assert choice(reply)["message"]["content"] == live.answered(prompt)


def test_twenty_failures_in_a_row_leave_no_trace(live):
    live.faulty.nan_token = lonely_token(live)
    replies = [together(post(live, ask(PROMPTS[0])))[0] for _ in range(20)]
    assert {reply.status_code for reply in replies} == {500}
    assert len({reply.json()["error"]["message"] for reply in replies}) == 20  # each has a number of its own in the log
    live.faulty.reset()
    assert choice(*together(post(live, ask(PROMPTS[0]))))["message"]["content"] == live.answered(PROMPTS[0])


def n_steps_after_leaving(live: Live, connection: socket.socket) -> int:
    n_before = live.faulty.n_steps
    connection.close()
    wait_for(lambda: live.models["faulty"].scheduler.n_running == 0, 10)
    return live.faulty.n_steps - n_before


@pytest.mark.matrix("S5")
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_stops_its_answer_within_two_steps(live, row, stream, n):
    live.faulty.step_seconds = 0.05
    connection = live.socket()
    connection.sendall(raw(PATH, ask("mu", stream=stream, max_tokens=200, n=n)))
    wait_for(lambda: live.faulty.n_steps > 5, 10)
    assert live.models["faulty"].scheduler.n_running == n
    n_steps = n_steps_after_leaving(live, connection)
    row(trials=1, failures=int(n_steps > 2), note=f"{n_steps} forward passes after the client had gone")


def test_a_client_that_leaves_before_its_turn_is_never_begun(live):
    live.faulty.step_seconds = 0.05
    runs = live.socket()
    runs.sendall(raw(PATH, ask("mu", max_tokens=200, n=8)))  # takes all places
    wait_for(lambda: live.models["faulty"].scheduler.n_running == 8, 10)
    for stream in (False, True):
        waits = live.socket()
        waits.sendall(raw(PATH, ask("ba", max_tokens=200, stream=stream)))
        wait_for(lambda: live.models["faulty"].scheduler.n_waiting == 1, 10)
        waits.close()
        wait_for(lambda: live.models["faulty"].scheduler.n_waiting == 0, 10)
    assert live.models["faulty"].scheduler.n_running == 8
    assert n_steps_after_leaving(live, runs) <= 2


def test_a_stop_string_frees_the_place_within_two_steps(live):
    live.faulty.step_seconds = 0.05
    text = live.answered("mu", 64)
    stop = next(text[i : i + 2] for i in range(3, 20) if "\ufffd" not in text[i : i + 2])
    reply = httpx.post(live.address + PATH, json=ask("mu", max_tokens=200, stop=stop))
    n_then = live.faulty.n_steps
    wait_for(lambda: live.models["faulty"].scheduler.n_running == 0, 10)
    assert live.faulty.n_steps - n_then <= 2
    assert choice(reply)["message"]["content"] == text[: text.index(stop)]


def leave_at_some_time(live: Live, rng: random.Random) -> None:
    """Send all or a part of a request, read something or nothing, go: politely or not."""
    n_answers = rng.choice([1, 1, 2])
    data = raw(
        PATH, ask("mu", model="chat", max_tokens=100, stream=rng.random() < 0.6, n=n_answers), close=rng.random() < 0.5
    )
    connection = live.socket()
    connection.sendall(data if rng.random() < 0.8 else data[: rng.randrange(len(data))])
    if rng.random() < 0.5:
        connection.settimeout(rng.choice([0.001, 0.01, 0.05]))
        with contextlib.suppress(TimeoutError):
            connection.recv(rng.choice([1, 100, 10_000]))
    if rng.random() < 0.3:  # a reset instead of an end
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


@pytest.mark.matrix("S5")
@pytest.mark.parametrize("n_clients", [500, pytest.param(5000, marks=pytest.mark.faults)])
def test_clients_that_leave_at_any_time_leave_nothing_behind(live, row, n_clients):
    rng = random.Random(n_clients)
    for _ in range(n_clients):
        leave_at_some_time(live, rng)
    live.wait_until_idle()
    scheduler = live.models["chat"].scheduler
    assert (scheduler.n_running, scheduler.n_waiting, scheduler.idle) == (0, 0, True)
    wait_for(lambda: not live.server.server_state.connections, 12)  # some sent half a request: their clock runs out
    assert not live.server.server_state.tasks
    guard: Any = live.server.config.app
    assert guard.held_bytes == 0
    reply = live.exchange(raw(PATH, ask("mu", model="chat")))
    assert status_of(reply) == 200
    row(trials=n_clients, seed=n_clients, note="no request, connection, task or byte of a body is left")


def test_a_place_that_becomes_free_is_taken_at_once(live):
    started = time.monotonic()
    replies = together(*(post(live, ask(prompt, model="small")) for prompt in PROMPTS[:4]))
    assert [choice(reply)["message"]["content"] for reply in replies] == [
        live.answered(prompt) for prompt in PROMPTS[:4]
    ]
    assert time.monotonic() - started < 10
