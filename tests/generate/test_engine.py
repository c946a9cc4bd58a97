"""The batched engine against the slowest possible loop, and what it must leave alone."""

import itertools

import pytest
import torch

from lumi.arch import Decoder, DecoderConfig
from lumi.arch.fused import FusedDecoder
from lumi.errors import DataError, NumericError
from lumi.generate import Engine, Request, SamplingParams, generate, stream

GREEDY = SamplingParams(temperature=0, max_new_tokens=12)
PROMPTS = [[1, 5, 9], [1], [1, 7, 7, 7, 7, 7, 7, 7, 7], [1, 2, 3, 4, 5], [60, 61]]
EOS = 2


@pytest.fixture(scope="module")
def model():
    config = DecoderConfig(
        vocab_size=64,
        n_layers=2,
        d_model=32,
        n_heads=4,
        n_kv_heads=2,
        d_ff=64,
        max_seq_len=24,
        dropout=0.5,
    )
    torch.manual_seed(0)
    model = Decoder(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)  # far from uniform, so that no two tokens are nearly equally likely
    return model


def naive_greedy(model, prompt, n_tokens):
    """Read everything again for every token: no cache, no batch."""
    tokens = list(prompt)
    model.eval()
    with torch.no_grad():
        for _ in range(n_tokens):
            tokens.append(int(model.logits(model(torch.tensor([tokens])))[0, -1].argmax()))
    model.train()
    return tokens[len(prompt) :]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_equals_the_naive_loop(model, prompt):
    (completion,) = generate(model, [prompt], GREEDY, eos_id=None)
    assert completion.tokens == naive_greedy(model, prompt, 12)
    assert completion.finish_reason == "length"


def test_a_batch_of_ragged_prompts_equals_each_alone(model):
    together = generate(model, PROMPTS, GREEDY, eos_id=None)
    assert [c.tokens for c in together] == [naive_greedy(model, prompt, 12) for prompt in PROMPTS]


def test_rows_that_stop_early_leave_the_others_as_they_were(model):
    answers = [naive_greedy(model, prompt, 12) for prompt in PROMPTS]
    stop = answers[1][3]
    for completion, answer in zip(generate(model, PROMPTS, GREEDY, eos_id=stop), answers, strict=True):
        end = answer.index(stop) if stop in answer else 12
        assert completion.tokens == answer[:end]
        assert (completion.finish_reason, completion.stop_id) == (
            ("stop", stop) if stop in answer else ("length", None)
        )


def test_sampled_tokens_do_not_depend_on_the_neighbours(model):
    params = [SamplingParams(seed=i, temperature=2.0, top_p=0.9, max_new_tokens=9 + i) for i in range(5)]
    together = generate(model, PROMPTS, params, eos_id=EOS)
    alone = [generate(model, [prompt], p, eos_id=EOS)[0] for prompt, p in zip(PROMPTS, params, strict=True)]
    assert together == alone
    assert generate(model, PROMPTS, params, eos_id=EOS, batch_size=2) == alone


def test_a_drawn_seed_is_named_and_repeats_the_answer(model):
    (first,) = generate(model, [[1]], SamplingParams(temperature=3.0), eos_id=None)
    (again,) = generate(model, [[1]], SamplingParams(temperature=3.0, seed=first.seed), eos_id=None)
    assert again == first


def test_different_seeds_give_different_answers(model):
    params = [SamplingParams(seed=i, temperature=3.0) for i in range(4)]
    answers = {tuple(c.tokens) for c in generate(model, [[1]] * 4, params, eos_id=None)}
    assert len(answers) == 4


def test_a_request_ends_where_the_context_is_full(model):
    (completion,) = generate(model, [[1] * 20], SamplingParams(max_new_tokens=99, temperature=0), eos_id=None)
    assert len(completion.tokens) == 4
    assert completion.finish_reason == "length"


def test_min_new_tokens_holds_the_stop_back(model):
    first = naive_greedy(model, [1], 1)[0]
    params = SamplingParams(temperature=0, min_new_tokens=3, max_new_tokens=6)
    (completion,) = generate(model, [[1]], params, eos_id=first)
    assert len(completion.tokens) >= 3
    assert generate(model, [[1]], GREEDY, eos_id=first)[0].tokens == []


def test_stop_ids_work_beside_eos(model):
    answer = naive_greedy(model, [1, 5, 9], 12)
    params = SamplingParams(temperature=0, stop_ids=(answer[2],))
    (completion,) = generate(model, [[1, 5, 9]], params, eos_id=EOS)
    assert completion.tokens == answer[: answer.index(answer[2])]


def test_no_repeat_ngram_holds_over_prompt_and_answer(model):
    params = SamplingParams(temperature=0, no_repeat_ngram=2, max_new_tokens=15)
    (completion,) = generate(model, [[7, 7, 7, 7]], params, eos_id=None)
    tokens = [7, *completion.tokens]  # the prompt's own repetitions are the user's
    pairs = list(itertools.pairwise(tokens))
    assert len(set(pairs)) == len(pairs)
    assert (7, 7) not in pairs


def test_a_strong_repetition_penalty_gives_distinct_tokens(model):
    params = SamplingParams(temperature=0, repetition_penalty=1e6, max_new_tokens=8)
    (completion,) = generate(model, [[1]], params, eos_id=None)
    assert len(set(completion.tokens)) == 8


def test_stream_yields_what_generate_returns(model):
    params = SamplingParams(seed=3, temperature=2.0, max_new_tokens=10)
    (completion,) = generate(model, [[1, 5]], params, eos_id=EOS)
    assert list(stream(model, [1, 5], params, eos_id=EOS)) == completion.tokens


def test_an_abandoned_stream_leaves_the_model_in_training_mode(model):
    model.train()
    next(stream(model, [1], GREEDY, eos_id=None))
    assert all(module.training for module in model.modules())


def test_every_part_is_in_its_own_mode_afterwards(model):
    model.train()
    model.model.norm.eval()
    generate(model, [[1]], GREEDY, eos_id=None)
    assert [module.training for module in (model, model.model.norm)] == [True, False]
    model.train()


def test_the_global_random_state_is_untouched(model):
    before = torch.get_rng_state()
    generate(model, PROMPTS, SamplingParams(temperature=1.5), eos_id=EOS)
    assert torch.equal(torch.get_rng_state(), before)


def test_training_goes_on_after_generation(model):
    generate(model, [[1]], GREEDY, eos_id=None)
    model.logits(model(torch.tensor([[1, 2]]))).sum().backward()
    assert model.lm_weight.grad is not None
    model.zero_grad()


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "prompt 1 is empty"),
        ([1] * 24, "24 tokens.*max_seq_len=24"),
        ([1, 64], "ids from 1 to 64"),
        ([-1], "ids from -1"),
    ],
)
def test_a_prompt_that_cannot_be_continued_is_named(model, prompt, message):
    with pytest.raises(DataError, match=message):
        generate(model, [[1], prompt], GREEDY, eos_id=None)


def test_logits_that_are_not_numbers_are_reported(model):
    broken = Decoder(model.config)
    torch.nn.init.constant_(broken.lm_head.weight, torch.nan)
    with pytest.raises(NumericError, match="not numbers"):
        generate(broken, [[1]], GREEDY, eos_id=None)


def request(model, prompt, params=GREEDY, **more):
    return Request(prompt, params, model.config, eos_id=None, **more)


def run(engine):
    while engine.busy:
        engine.step()


def test_who_joins_late_and_who_leaves_early_change_nothing(model):
    engine = Engine(FusedDecoder(model), n_rows=3, prompt_part=4)
    params = [SamplingParams(temperature=0, max_new_tokens=n) for n in (3, 12, 7, 5, 9)]
    requests = [request(model, prompt, p) for prompt, p in zip(PROMPTS, params, strict=True)]
    for newcomer in requests:
        engine.add(newcomer)
        engine.step()
        assert engine.n_active <= 3
    run(engine)
    for each, prompt, p in zip(requests, PROMPTS, params, strict=True):
        assert each.tokens == naive_greedy(model, prompt, p.max_new_tokens)


def test_a_cancelled_request_leaves_with_the_next_step_and_a_waiting_one_takes_its_place(model):
    engine = Engine(FusedDecoder(model), n_rows=2)
    requests = [request(model, prompt) for prompt in PROMPTS[:4]]
    for each in requests:
        engine.add(each)
    engine.step()
    requests[0].cancel()
    requests[3].cancel()
    engine.step()
    assert (engine.n_active, engine.n_waiting) == (2, 0)
    n_written = len(requests[0].tokens)
    run(engine)
    assert len(requests[0].tokens) == n_written
    assert [each.reason for each in requests] == ["cancelled", "length", "length", "cancelled"]
    assert requests[2].tokens == naive_greedy(model, PROMPTS[2], 12)


def test_a_request_whose_logits_are_not_numbers_fails_alone(model):
    broken = Decoder(model.config)
    broken.load_state_dict(model.state_dict())
    with torch.no_grad():
        broken.model.embed_tokens.weight[50] = torch.nan  # who reads token 50 gets nothing but NaN
    engine = Engine(FusedDecoder(broken), n_rows=4)
    requests = [request(model, prompt) for prompt in ([1, 5, 9], [1, 50], [1, 2, 3, 4, 5])]
    for each in requests:
        engine.add(each)
    run(engine)
    assert [each.reason for each in requests] == ["length", "error", "length"]
    assert isinstance(requests[1].error, NumericError)
    assert requests[0].tokens == naive_greedy(model, [1, 5, 9], 12)
    assert requests[2].tokens == naive_greedy(model, [1, 2, 3, 4, 5], 12)


def test_abandoning_leaves_nothing_to_do(model):
    engine = Engine(FusedDecoder(model), n_rows=1)
    requests = [request(model, prompt) for prompt in PROMPTS[:3]]
    for each in requests:
        engine.add(each)
    engine.step()
    assert engine.abandon() == requests
    assert not engine.busy


def test_logprobs_are_the_models_own_whatever_the_sampling(model):
    params = SamplingParams(temperature=0.5, top_k=3, repetition_penalty=1.5, seed=0, max_new_tokens=4)
    engine = Engine(FusedDecoder(model), n_rows=1)
    asked = request(model, [1, 5, 9], params, top_logprobs=2)
    engine.add(asked)
    run(engine)
    model.eval()
    with torch.no_grad():
        wanted = model.logits(model(torch.tensor([[1, 5, 9, *asked.tokens]])))[0].log_softmax(dim=-1)
    for place, (token, logprobs) in enumerate(zip(asked.tokens, asked.logprobs, strict=True), start=2):
        assert logprobs.chosen == pytest.approx(wanted[place, token].item(), abs=1e-4)
        values, tokens = wanted[place].topk(2)
        assert [token for token, _ in logprobs.top] == tokens.tolist()
        assert [value for _, value in logprobs.top] == pytest.approx(values.tolist(), abs=1e-4)
