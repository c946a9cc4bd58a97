"""Each measure on samples written by hand, and a whole suite on a small model."""

import pytest
import torch

from lumi.arch import Decoder, DecoderConfig
from lumi.errors import ConfigError
from lumi.eval import smoke
from lumi.eval.smoke import SmokeSuite, TokenKinds, distinct_share, held_out_prompts, is_valid_utf8, measure, run_smoke
from lumi.generate import Completion, SamplingParams
from lumi.generate.request import FinishReason

SAMPLING = SamplingParams(seed=0, max_new_tokens=12)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Decoder(
        DecoderConfig(vocab_size=258, n_layers=1, d_model=16, n_heads=2, n_kv_heads=1, d_ff=16, max_seq_len=64)
    )


def completion(tokens, finish_reason: FinishReason = "stop"):
    return Completion(tokens=list(tokens), finish_reason=finish_reason, stop_id=None, seed=0)


def measured(codec, text, **kwargs):
    return measure(completion(codec.encode(text), **kwargs), text, TokenKinds(codec))


def test_distinct_share_counts_ngrams():
    assert distinct_share([1, 2, 1, 2, 1], 2) == 2 / 4  # 12 21 12 21
    assert distinct_share([1, 2], 4) is None


def test_a_loop_is_repetition(codec):
    assert measured(codec, "abababab")["repetition"] == 1 - 2 / 5  # abab baba abab baba abab
    assert measured(codec, "abcdefgh")["repetition"] == 0


def test_an_empty_answer_has_no_shares(codec):
    result = measured(codec, "")
    assert result["non_empty"] == 0
    assert result["repetition"] is result["distinct_1"] is result["byte_fallback"] is None


def test_white_space_is_empty(codec):
    assert measured(codec, " \n")["non_empty"] == 0


def test_bytes_without_a_piece_are_counted(codec):
    assert measured(codec, "ab 1")["byte_fallback"] == 0.5


def test_control_tokens_are_counted(codec):
    assert measure(completion([0, 2 + 65]), "A", TokenKinds(codec))["control_tokens"] == 0.5


def test_finished_means_that_the_model_ended_it(codec):
    assert measured(codec, "a")["finished"] == 1
    assert measured(codec, "a", finish_reason="length")["finished"] == 0


@pytest.mark.parametrize(
    ("data", "cut", "valid"),
    [
        ("née 🦊".encode(), False, True),
        ("🦊".encode()[:2], True, True),  # the limit fell within the character
        ("🦊".encode()[:2], False, False),
        ("🦊".encode()[:2] + b"a", True, False),
        (b"\xff", True, False),
    ],
)
def test_bytes_must_form_characters(codec, data, cut, valid):
    assert is_valid_utf8([byte + 2 for byte in data], TokenKinds(codec), cut=cut) is valid


def test_a_suite_measures_every_prompt_as_often_as_asked(model, codec):
    suite = SmokeSuite(name="t", categories={"a": ["x", ""], "b": ["y"]}, samples_per_prompt=2, sampling=SAMPLING)
    report = run_smoke(model, codec, suite)
    jobs = [(sample.category, sample.prompt, sample.seed) for sample in report.samples[:4]]
    assert jobs == [("a", "x", 0), ("a", "x", 1), ("a", "", 2), ("a", "", 3)]
    assert set(report.categories) == {"a", "b"}
    assert report.passed
    assert run_smoke(model, codec, suite, batch_size=1) == report


def test_same_answers_to_one_prompt_are_not_distinct(model, codec):
    greedy = SamplingParams(temperature=0, seed=0, max_new_tokens=4)
    suite = SmokeSuite(name="t", categories={"a": ["x"]}, samples_per_prompt=2, sampling=greedy)
    assert run_smoke(model, codec, suite).categories["a"]["distinct_texts"] == 0


def test_a_broken_limit_is_named(model, codec):
    suite = SmokeSuite(
        name="t", categories={"a": ["x"]}, sampling=SAMPLING, minimum={"new_tokens": 99}, maximum={"new_tokens": 0.5}
    )
    report = run_smoke(model, codec, suite)
    assert not report.passed
    assert [line.split(",")[1] for line in report.failures] == [" must be at least 99", " must be at most 0.5"]
    assert report.failures[1] in smoke.smoke_table(report.as_dict())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"minimum": {"non_emty": 1}}, "minimum.non_emty.*did you mean 'non_empty'"),
        ({"categories": {"a": "one prompt"}}, "categories.a='one prompt'"),
        ({"sampling": SamplingParams()}, "sampling.seed=null"),
        ({"samples_per_prompt": 0}, "samples_per_prompt=0"),
    ],
)
def test_a_wrong_suite_is_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        SmokeSuite(**{"name": "t", "categories": {}, "sampling": SAMPLING} | settings)


def test_held_out_prompts_are_beginnings_spread_over_the_split(make_split, codec):
    split = make_split([f"{i} is a number" for i in range(9)])
    assert held_out_prompts(split, codec, n_prompts=3, n_tokens=4) == ["0 is", "4 is", "8 is"]


def test_held_out_prompts_are_a_category_for_each_source(model, codec, make_split):
    suite = SmokeSuite(name="t", categories={}, sampling=SAMPLING, held_out_prompts=2, held_out_tokens=3)
    report = run_smoke(model, codec, suite, splits={"world": make_split(["abcdef", "ghijkl"])})
    assert {sample.category for sample in report.samples} == {"world, held out"}
    assert [sample.prompt for sample in report.samples] == ["abc", "ghi"]


def test_held_out_prompts_leave_something_to_write(make_split, codec):
    assert held_out_prompts(make_split(["abc"]), codec, n_prompts=2, n_tokens=99) == ["abc"]
    assert held_out_prompts(make_split(["abc"]), codec, n_prompts=0, n_tokens=4) == []
