"""Each rule against numbers worked by hand, and all of them against Hugging Face's warpers."""

import math
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from lumi.errors import ConfigError
from lumi.generate import SamplingParams, sampling

INF = math.inf
LOGITS = torch.tensor([0.5, 0.25, 0.125, 0.0625, 0.0625]).log()  # probabilities that can be added in the head


def kept(logits):
    return (~logits.isneginf()).nonzero().flatten().tolist()


def test_top_k_keeps_the_k_most_likely():
    assert kept(sampling.keep_top_k(LOGITS, 2)) == [0, 1]


def test_top_k_keeps_all_that_tie_with_the_last():
    assert kept(sampling.keep_top_k(LOGITS, 4)) == [0, 1, 2, 3, 4]


def test_top_k_larger_than_the_vocabulary_keeps_everything():
    assert torch.equal(sampling.keep_top_k(LOGITS, 99), LOGITS)


@pytest.mark.parametrize(
    ("p", "expected"),
    [(0.4, [0]), (0.6, [0, 1]), (0.8, [0, 1, 2]), (1.0, [0, 1, 2, 3, 4])],
)
def test_top_p_keeps_the_fewest_tokens_that_reach_p(p, expected):
    assert kept(sampling.keep_top_p(LOGITS, p)) == expected


def test_top_p_works_row_by_row_and_in_any_token_order():
    rows = torch.stack((LOGITS, LOGITS.flip(0)))
    result = sampling.keep_top_p(rows, 0.6)
    assert [kept(row) for row in result] == [[0, 1], [3, 4]]


def test_top_p_keeps_all_that_tie_with_the_last():
    assert kept(sampling.keep_top_p(LOGITS, 0.9)) == [0, 1, 2, 3, 4]


def test_top_p_reaches_far_into_a_flat_distribution():
    logits = torch.arange(9000) * 1e-6 + torch.zeros(2, 1)
    logits[0, 7] = 20.0  # one row needs one token, the other nearly 60 % of all
    weights = torch.arange(8999, -1, -1).double().mul(1e-6).exp()
    expected = int((weights.cumsum(0) < 0.6 * weights.sum()).sum()) + 1
    assert [len(kept(row)) for row in sampling.keep_top_p(logits, 0.6)] == [1, expected]


@pytest.mark.parametrize(
    ("min_p", "expected"),
    [(1.0, [0]), (0.4, [0, 1]), (0.2, [0, 1, 2]), (0.0, [0, 1, 2, 3, 4])],
)
def test_min_p_is_relative_to_the_most_likely(min_p, expected):
    assert kept(sampling.keep_min_p(LOGITS, min_p)) == expected


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits():
    logits, seen = torch.tensor([2.0, -2.0, 3.0]), torch.tensor([True, True, False])
    assert sampling.penalise_repetition(logits, seen, 4.0).tolist() == [0.5, -8.0, 3.0]


def test_no_repeat_ngram_bans_what_followed_the_same_pair():
    history = torch.tensor([1, 2, 3, 1, 2, 0, 1, 2])  # after "1 2" came 3 and 0
    assert kept(sampling.ban_repeated_ngrams(torch.zeros(5), history, 3)) == [1, 2, 4]


def test_no_repeat_unigram_bans_every_token_seen():
    assert kept(sampling.ban_repeated_ngrams(torch.zeros(4), torch.tensor([3, 0]), 1)) == [1, 2]


def test_a_ban_of_every_token_is_dropped():
    logits = torch.tensor([1.0, 2.0])
    assert torch.equal(sampling.ban_repeated_ngrams(logits, torch.tensor([0, 1]), 1), logits)


def test_temperature_divides_and_comes_before_top_p():
    # At temperature 0.5 the probabilities are squared: 256 64 16 4 4 of 344. The first alone reaches 0.7.
    params = SamplingParams(temperature=0.5, top_p=0.7)
    result = sampling.warp(LOGITS, params)
    assert kept(result) == [0]
    assert_close(result[0], 2 * LOGITS[0])


def test_top_k_comes_before_top_p():
    # Of the best two, renormalised to 2/3 and 1/3, the first alone reaches 0.6; of all five it does not.
    assert kept(sampling.warp(LOGITS, SamplingParams(top_k=2, top_p=0.6))) == [0]


def test_greedy_is_not_warped():
    assert torch.equal(sampling.warp(LOGITS, SamplingParams(temperature=0, top_k=1)), LOGITS)


@pytest.mark.parametrize(("uniform", "token"), [(0.0, 0), (0.49, 0), (0.51, 1), (0.76, 2), (0.99, 4)])
def test_draw_is_the_inverse_of_the_cumulative_distribution(uniform, token):
    assert sampling.draw(LOGITS[None], torch.tensor([uniform], dtype=torch.float64)).tolist() == [token]


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
def test_draw_never_takes_an_excluded_token(uniform):
    logits = torch.tensor([[-INF, 0.0, -INF, 1.0, -INF]])
    assert sampling.draw(logits, torch.tensor([uniform], dtype=torch.float64)).item() in (1, 3)


def test_draw_has_the_frequencies_of_the_probabilities():
    uniform = torch.rand(100_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    counts = sampling.draw(LOGITS.expand(100_000, -1), uniform).bincount()
    assert_close(counts / 100_000, LOGITS.exp(), atol=0.005, rtol=0)  # 3 standard errors of p = 0.5


def test_warp_agrees_with_hugging_face():
    transformers = pytest.importorskip("transformers.generation.logits_process")
    logits = torch.randn(50, 40, generator=torch.Generator().manual_seed(0)) * 3
    expected = logits / 0.7
    warpers = (
        transformers.TopKLogitsWarper(20),
        transformers.TopPLogitsWarper(0.9),
        transformers.MinPLogitsWarper(0.05),
    )
    for warper in warpers:
        expected = warper(None, expected)
    params = SamplingParams(temperature=0.7, top_k=20, top_p=0.9, min_p=0.05)
    assert_close(sampling.warp(logits, params), expected)


def test_repetition_rules_agree_with_hugging_face():
    transformers = pytest.importorskip("transformers.generation.logits_process")
    generator = torch.Generator().manual_seed(0)
    history, logits = (
        torch.randint(6, (1, 60), generator=generator),
        torch.randn(1, 6, generator=generator),
    )
    seen = torch.zeros(1, 6, dtype=torch.bool).scatter(1, history, True)
    expected = transformers.RepetitionPenaltyLogitsProcessor(1.3)(history, logits)
    assert torch.equal(sampling.penalise_repetition(logits, seen, 1.3), expected)
    expected = transformers.NoRepeatNGramLogitsProcessor(3)(history, logits)
    assert torch.equal(sampling.ban_repeated_ngrams(logits[0], history[0], 3), expected[0])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", "hot"),
        ("top_k", 0),
        ("top_k", 1.5),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("min_p", -0.5),
        ("repetition_penalty", 0),
        ("no_repeat_ngram", 0),
        ("max_new_tokens", True),
        ("min_new_tokens", -1),
        ("stop_ids", (-1,)),
        ("stop_ids", "</s>"),
        ("seed", -1),
    ],
)
def test_a_setting_out_of_range_is_named(key, value):
    with pytest.raises(ConfigError, match=rf"sampling\.{key}="):
        SamplingParams(**{key: value})


def test_all_violations_are_named_at_once():
    with pytest.raises(ConfigError, match=r"(?s)sampling\.top_k=0.*sampling\.top_p=2"):
        SamplingParams(top_k=0, top_p=2)


def test_min_new_tokens_above_max_new_tokens_is_refused():
    with pytest.raises(ConfigError, match=r"min_new_tokens=5.*max_new_tokens=4"):
        SamplingParams(min_new_tokens=5, max_new_tokens=4)


def test_a_list_of_stop_ids_from_a_config_file_is_taken():
    settings: dict[str, Any] = {"stop_ids": [2, 7]}
    assert SamplingParams(**settings).stop_ids == (2, 7)


SETTINGS = [
    SamplingParams(temperature=0.7, top_k=1),
    SamplingParams(temperature=1.3, top_k=50, top_p=0.8, min_p=0.02),
    SamplingParams(top_p=0.95),
    SamplingParams(top_p=0.5, min_p=0.1),
    SamplingParams(top_p=1.0),
    SamplingParams(top_k=700),
    SamplingParams(temperature=2.0),
    SamplingParams(min_p=0.1),
]


@pytest.mark.parametrize("params", SETTINGS, ids=str)
@pytest.mark.parametrize("scale", [0.1, 1.0, 8.0])
def test_pick_is_draw_of_warp(params, scale):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(64, 3000, generator=generator) * scale
    uniform = torch.rand(64, dtype=torch.float64, generator=generator)
    expected = sampling.draw(sampling.warp(logits, params), uniform)
    assert torch.equal(sampling.pick(logits, params, uniform), expected)


def test_pick_keeps_what_ties_with_the_last_of_top_k():
    uniform = torch.linspace(0, 0.999, 50, dtype=torch.float64)
    picked = sampling.pick(LOGITS.expand(50, -1), SamplingParams(top_k=4), uniform)
    assert set(picked.tolist()) == {0, 1, 2, 3, 4}
