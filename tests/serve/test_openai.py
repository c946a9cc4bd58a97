"""OpenAI's own client against the server: every answer is the model's own, computed without the server."""

import asyncio

import httpx
import openai
import pytest
import torch

from .live import CONTEXT, Live, V, events_of

ASK = {"model": "chat", "temperature": 0, "max_tokens": 16}
WORDS = ["badoké li", "mu", "do ba 😀", "likéké", "", "a question of several words, which no training text holds"]


@pytest.fixture(scope="module")
def client(live_server: Live) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{live_server.address}/v1", api_key="any", max_retries=0)


def user(text: str) -> list:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize("text", WORDS)
def test_a_chat_answer_is_the_models_own(live, client, text):
    reply = client.chat.completions.create(messages=user(text), **ASK)
    assert reply.choices[0].message.content == live.answered(text)
    assert (reply.choices[0].finish_reason, reply.object, reply.model) == ("length", "chat.completion", "chat")
    assert reply.usage.completion_tokens == 16
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + 16


@pytest.mark.parametrize("text", WORDS)
def test_a_stream_adds_up_to_the_answer(live, client, text):
    chunks = list(client.chat.completions.create(messages=user(text), stream=True, **ASK))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == live.answered(text)
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


def test_many_at_once_each_get_their_own_answer(live):
    async def ask(client: openai.AsyncOpenAI, number: int) -> str:
        if number % 2:
            reply = await client.chat.completions.create(messages=user(f"{number} ba"), **ASK)
            return reply.choices[0].message.content or ""
        stream = await client.chat.completions.create(messages=user(f"{number} ba"), stream=True, **ASK)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def ask_all() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{live.address}/v1", api_key="any", max_retries=0) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(24)))

    assert asyncio.run(ask_all()) == [live.answered(f"{number} ba") for number in range(24)]


def test_n_answers_each_have_a_seed_of_their_own(live, client):
    reply = client.chat.completions.create(model="chat", messages=user("mu"), n=3, seed=7, max_tokens=8)
    alone = [
        client.chat.completions.create(model="chat", messages=user("mu"), seed=7 + i, max_tokens=8) for i in range(3)
    ]
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert [c.message.content for c in reply.choices] == [a.choices[0].message.content for a in alone]
    assert len({choice.message.content for choice in reply.choices}) == 3
    assert reply.usage.prompt_tokens == alone[0].usage.prompt_tokens
    assert reply.usage.completion_tokens == sum(a.usage.completion_tokens for a in alone)


def test_n_answers_stream_side_by_side(live, client):
    ask = {"model": "chat", "messages": user("mu"), "n": 3, "seed": 7, "max_tokens": 8}
    whole = client.chat.completions.create(**ask)
    texts = ["", "", ""]
    for chunk in client.chat.completions.create(stream=True, **ask):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices]


def test_a_seed_repeats_an_answer_and_another_does_not(live, client):
    texts = [
        client.chat.completions.create(model="chat", messages=user("li"), seed=seed, max_tokens=12)
        .choices[0]
        .message.content
        for seed in (1, 1, 2, -1, -1)
    ]
    assert texts[0] == texts[1] != texts[2]
    assert texts[3] == texts[4]


def test_an_answer_ends_before_a_stop_string_that_lies_across_tokens(live, client):
    ids = live.generated([live.tokenizer.bos_id, *live.tokenizer.encode("badoké")], n_tokens=32)
    pieces = [live.tokenizer.decode([token]) for token in ids]
    at = next(i for i in range(4, 31) if all("\ufffd" not in p and p for p in pieces[i : i + 2]))
    stop = pieces[at][-1] + pieces[at + 1][0]  # the end of one token and the beginning of the next
    text = live.continued("badoké", 32)
    for stream in (False, True):
        reply = client.completions.create(
            model="plain", prompt="badoké", temperature=0, max_tokens=32, stop=["never there", stop], stream=stream
        )
        parts = [chunk.choices[0] for chunk in reply] if stream else [reply.choices[0]]
        assert "".join(part.text for part in parts) == text[: text.index(stop)]
        assert parts[-1].finish_reason == "stop"


def test_usage_counts_up_to_the_token_that_completes_the_stop_string(live, client):
    ids = live.generated([live.tokenizer.bos_id, *live.tokenizer.encode("badoké")], n_tokens=32)
    text = live.continued("badoké", 32)
    stop = next(text[i : i + 2] for i in range(3, 30) if "\ufffd" not in text[i : i + 2])
    n_needed = next(n for n in range(1, 33) if stop in live.tokenizer.decode(ids[:n]))
    for _ in range(5):  # how far the engine was ahead of the reader differs
        reply = client.completions.create(
            model="plain", prompt="badoké", temperature=0, max_tokens=32, stop=stop, logprobs=0
        )
        assert reply.usage.completion_tokens == n_needed == len(reply.choices[0].logprobs.tokens)


def test_logprobs_are_the_log_softmax_of_the_decoder(live, client):
    prompt = [live.tokenizer.bos_id, *live.tokenizer.encode("badoké")]
    ids = live.generated(prompt, n_tokens=6)
    with torch.no_grad():
        hidden = live.decoder(torch.tensor([prompt + ids]))
        expected = live.decoder.logits(hidden)[0, len(prompt) - 1 : -1].log_softmax(dim=-1)
    found = client.completions.create(model="plain", prompt=prompt, temperature=0, max_tokens=6, logprobs=3)
    logprobs = found.choices[0].logprobs
    chosen = expected.gather(1, torch.tensor(ids).unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(torch.tensor(logprobs.token_logprobs), chosen, rtol=1e-4, atol=1e-4)
    for row, top in zip(expected, logprobs.top_logprobs, strict=True):
        best = torch.tensor(sorted(top.values(), reverse=True))
        torch.testing.assert_close(best, row.topk(3).values, rtol=1e-4, atol=1e-4)


def test_chat_logprobs_name_every_token_with_its_bytes(live, client):
    plain = client.chat.completions.create(messages=user("mu"), **ASK)
    reply = client.chat.completions.create(messages=user("mu"), logprobs=True, top_logprobs=2, **ASK)
    content = reply.choices[0].logprobs.content
    data = b"".join(bytes(token.bytes) for token in content)
    assert data.decode(errors="replace") == reply.choices[0].message.content == plain.choices[0].message.content
    assert plain.choices[0].logprobs is None
    assert len(content) == reply.usage.completion_tokens
    for token in content:  # greedy: the likeliest one was taken
        assert len(token.top_logprobs) == 2
        assert token.top_logprobs[0].token == token.token
        assert token.top_logprobs[0].logprob == token.logprob >= token.top_logprobs[1].logprob


def test_streamed_logprobs_are_those_of_the_whole_answer(live, client):
    ask = {"messages": user("do ba 😀"), "logprobs": True, "top_logprobs": 1, **ASK}
    whole = client.chat.completions.create(**ask).choices[0].logprobs.content
    chunks = [chunk.choices[0] for chunk in client.chat.completions.create(stream=True, **ask)]
    assert [token for choice in chunks if choice.logprobs for token in choice.logprobs.content] == whole


def test_include_usage_adds_a_last_chunk_without_choices(live, client):
    options = {"include_usage": True}
    *chunks, last = client.chat.completions.create(messages=user("mu"), stream=True, stream_options=options, **ASK)
    assert last.choices == []
    assert last.usage == client.chat.completions.create(messages=user("mu"), **ASK).usage
    assert all(chunk.usage is None for chunk in chunks)


def test_both_names_of_the_limit_hold(live, client):
    for limit in ({"max_tokens": 5}, {"max_completion_tokens": 5}):
        reply = client.chat.completions.create(model="chat", messages=user("mu"), temperature=0, **limit)
        assert reply.usage.completion_tokens == 5
        assert reply.choices[0].message.content == live.answered("mu", 5)


def test_an_answer_ends_where_the_context_does(live, client):
    prompt = [live.tokenizer.bos_id] * (CONTEXT - 3)
    reply = client.completions.create(model="plain", prompt=prompt, max_tokens=99, temperature=0)
    assert (reply.usage.completion_tokens, reply.choices[0].finish_reason) == (3, "length")


def test_parts_of_a_message_are_joined_and_a_developer_is_the_system(live, client):
    parts = [{"type": "text", "text": "bado"}, {"type": "text", "text": "ké li"}]
    assert client.chat.completions.create(messages=[{"role": "user", "content": parts}], **ASK).choices[
        0
    ].message.content == live.answered("badoké li")
    replies = [
        client.chat.completions.create(messages=[{"role": role, "content": "be brief"}, *user("mu")], **ASK)
        for role in ("system", "developer")
    ]
    assert replies[0].choices == replies[1].choices
    assert replies[0].choices[0].message.content != live.answered("mu")


def test_several_prompts_are_answered_in_their_order(live, client):
    reply = client.completions.create(model="plain", prompt=WORDS, temperature=0, max_tokens=8)
    assert [choice.text for choice in reply.choices] == [live.continued(text, 8) for text in WORDS]
    tokens = [[live.tokenizer.bos_id, *live.tokenizer.encode(text)] for text in WORDS]
    by_ids = client.completions.create(model="plain", prompt=tokens, temperature=0, max_tokens=8)
    assert by_ids.choices == reply.choices
    assert reply.usage.prompt_tokens == sum(map(len, tokens))


def test_echo_puts_the_prompt_before_the_answer(live, client):
    ask = {"model": "plain", "prompt": ["badoké", "mu"], "temperature": 0, "max_tokens": 8, "n": 2, "echo": True}
    texts = [text + live.continued(text, 8) for text in ("badoké", "badoké", "mu", "mu")]
    assert [choice.text for choice in client.completions.create(**ask).choices] == texts
    streamed = [""] * 4
    for chunk in client.completions.create(stream=True, **ask):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == texts


def test_completions_have_sixteen_tokens_unless_said_otherwise(live, client):
    assert client.completions.create(model="plain", prompt="mu").usage.completion_tokens <= 16


def test_models_are_listed_and_retrieved(live, client):
    models = client.models.list().data
    assert [model.id for model in models] == ["chat", "plain", "small", "faulty"]
    assert client.models.retrieve("plain") == models[1]
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt")
    assert caught.value.code == "model_not_found"


def test_a_stream_has_the_form_that_openai_describes(live):
    body = {"messages": user("mu"), "stream": True, "stream_options": {"include_usage": True}, **ASK}
    reply = httpx.post(f"{live.address}/v1/chat/completions", json=body)
    assert reply.headers["content-type"].startswith("text/event-stream")
    *chunks, usage, end = events_of(reply.text)
    assert end == "[DONE]"
    assert chunks[0]["choices"] == [
        {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    ]
    assert all(set(chunk["choices"][0]["delta"]) <= {"content"} for chunk in chunks[1:])
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert all(chunk["object"] == "chat.completion.chunk" and chunk["usage"] is None for chunk in chunks)
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 16)


@pytest.mark.parametrize(
    ("error", "param", "change"),
    [
        (openai.BadRequestError, "temperature", {"temperature": -1}),
        (openai.BadRequestError, "messages", {"messages": user("ba" * 2000)}),
        (openai.BadRequestError, "messages", {"messages": [{"role": "assistant", "content": "mu"}]}),
        (openai.BadRequestError, "model", {"model": "plain"}),
        (openai.BadRequestError, "tools", {"tools": [{"type": "function", "function": {"name": "f"}}]}),
        (openai.BadRequestError, "messages[0].content[0].type", {
            "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
        }),
        (openai.NotFoundError, "model", {"model": "gpt"}),
    ],
)  # fmt: skip
def test_errors_are_the_clients_classes_and_name_the_field(live, client, error, param, change):
    with pytest.raises(error) as caught:
        client.chat.completions.create(**{"messages": user("mu"), **ASK, **change})
    assert caught.value.param == param
    assert caught.value.body["message"]


def test_a_full_queue_is_a_rate_limit_with_a_time_to_come_again(live):
    async def ask(one: openai.AsyncOpenAI) -> str:
        try:
            await one.chat.completions.create(model="small", messages=user("mu"), max_tokens=200, n=2)
        except openai.RateLimitError as error:
            return error.response.headers["retry-after"]
        return "answered"

    async def ask_all() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{live.address}/v1", api_key="any", max_retries=0) as one:
            return await asyncio.gather(*(ask(one) for _ in range(5)))

    assert sorted(asyncio.run(ask_all())) == ["2", "2", "2", "answered", "answered"]  # 2 places and 2 that wait


def test_a_token_that_the_model_does_not_know_is_refused(live, client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="plain", prompt=[1, V])
    assert caught.value.param == "prompt"
