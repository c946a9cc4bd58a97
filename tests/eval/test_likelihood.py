"""Likelihoods against a naive computation, one document at a time."""

import numpy as np
import pytest
import torch

from lumi.errors import DataError, NumericError
from lumi.eval.interval import wilson
from lumi.eval.likelihood import score_documents


@pytest.fixture
def documents():
    rng = np.random.default_rng(0)
    made = []
    for length in (3, 9, 17, 5, 40, 64):
        mask = rng.random(length) < 0.6
        mask[0], mask[-1] = False, True
        made.append((rng.integers(4, 64, length).astype(np.int32), mask))
    return made


def naive(model, tokens, mask):
    """Each supervised token's log-probability, from the logits of a single unpadded document."""
    ids = torch.from_numpy(tokens).long()
    with torch.no_grad():
        log_probs = model.logits(model(ids[None]))[0].log_softmax(-1)
    places = [place for place in range(1, len(ids)) if mask[place]]
    return [log_probs[place - 1, ids[place]].item() for place in places], [
        int(log_probs[place - 1].argmax()) == int(ids[place]) for place in places
    ]


def test_packed_scores_are_those_of_single_documents(tiny_decoder, documents):
    scores = score_documents(tiny_decoder, documents, batch_size=2)
    for index, (tokens, mask) in enumerate(documents):
        values, hits = naive(tiny_decoder, tokens, mask)
        assert scores.log_probs[index] == pytest.approx(sum(values), abs=1e-4)  # float32 sums in another order
        assert scores.n_tokens[index] == len(values)
        assert scores.greedy[index] == all(hits)


def test_a_greedy_continuation_is_known_as_one(tiny_decoder):
    tokens = [1, 5]
    for _ in range(4):
        hidden = tiny_decoder(torch.tensor([tokens]))
        tokens.append(int(tiny_decoder.logits(hidden)[0, -1].argmax()))
    mask = np.array([False, False, True, True, True, True])
    scores = score_documents(tiny_decoder, [(np.array(tokens, dtype=np.int32), mask)])
    assert scores.greedy.tolist() == [True]


def test_what_cannot_be_scored_is_named(tiny_decoder):
    long = (np.full(65, 5, dtype=np.int32), np.ones(65, dtype=bool))
    with pytest.raises(DataError, match="65 tokens"):
        score_documents(tiny_decoder, [long])
    with pytest.raises(DataError, match="no token to score"):
        score_documents(tiny_decoder, [(np.array([1, 2]), np.array([True, False]))])


def test_a_broken_model_is_noticed(tiny_decoder, documents):
    with torch.no_grad():
        tiny_decoder.model.norm.weight.fill_(float("nan"))
    with pytest.raises(NumericError, match="not a finite"):
        score_documents(tiny_decoder, documents)


def test_wilson_agrees_with_the_textbook():
    low, high = wilson(8, 10)
    assert (low, high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 20)[0] == 0.0
    assert wilson(0, 20)[1] == pytest.approx(0.1611, abs=1e-4)
    assert wilson(20, 20)[1] == 1.0
