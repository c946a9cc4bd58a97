"""The vectorised model against a dictionary of counts written straight from the paper."""

import collections
import itertools
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from lumi.errors import DataError
from lumi.eval.ngram import NGram

BOS, EOS, V = 0, 1, 12


def stream(documents):
    offsets = np.concatenate(([0], np.cumsum([len(document) for document in documents])))
    return np.concatenate(documents).astype(np.uint16), offsets


def corpus(seed, n_documents=60):
    """Documents over 10 words, Zipf-like so that counts of one, two, three and four all occur."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, V - 1)
    lengths = rng.integers(0, 12, n_documents)
    return [[BOS, *(rng.choice(V - 2, n, p=share / share.sum()) + 2), EOS] for n in lengths]


class Reference:
    """Interpolated modified Kneser-Ney, one gram and one probability at a time."""

    def __init__(self, documents, order):
        self.order, self.counts = order, [collections.Counter() for _ in range(order + 1)]
        for k in range(1, order + 1):
            longer, raw = set(), collections.Counter()
            for doc in documents:
                longer |= {tuple(doc[i - k : i + 1]) for i in range(k, len(doc))}
                raw.update(tuple(doc[i - k + 1 : i + 1]) for i in range(max(1, k - 1), len(doc)))
            adjusted = collections.Counter(gram[1:] for gram in longer)
            starts = {gram: n for gram, n in raw.items() if gram[0] == BOS}
            self.counts[k] = raw if k == order else adjusted + collections.Counter(starts)

    def discount(self, k, count):
        n = collections.Counter(self.counts[k].values())
        if not all(n[i] for i in (1, 2, 3, 4)):
            return [0, 0.5, 1.0, 1.5][min(count, 3)]
        y, i = n[1] / (n[1] + 2 * n[2]), min(count, 3)
        return min(max(i - (i + 1) * y * n[i + 1] / n[i], 0), i) if count else 0

    def prob(self, history, word, k=None):
        if k is None:
            k = min(self.order, len(history) + 1)
        if k == 0:
            return 1 / (V - 1)
        context = tuple(history[len(history) - k + 1 :])
        after = {g: n for g, n in self.counts[k].items() if g[:-1] == context}
        lower = self.prob(history, word, k - 1)
        if not after:
            return lower
        own = after.get((*context, word), 0)
        spare = sum(self.discount(k, n) for n in after.values())
        return (own - self.discount(k, own) + spare * lower) / sum(after.values())


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_every_probability_is_the_papers(order):
    train, held_out = corpus(0), corpus(1, 25)
    reference = Reference(train, order)
    expected = [math.log(reference.prob(d[:i], d[i])) for d in held_out for i in range(1, len(d))]
    result = NGram(*stream(train), vocab_size=V, order=order).log_probs(*stream(held_out))
    assert_allclose(result, expected, rtol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 5])
@pytest.mark.parametrize("context", [[BOS], [BOS, 2], [BOS, 2, 3, 2, 2, 4], [BOS, 11, 11, 11, 11, 11]])
def test_probabilities_after_any_context_sum_to_one(order, context):
    probs = NGram(*stream(corpus(0)), vocab_size=V, order=order).distribution(context)
    assert probs[BOS] == 0
    assert_allclose(probs.sum(), 1.0, rtol=1e-12)
    assert (np.delete(probs, BOS) > 0).all()


def test_a_bigram_by_hand():
    # "2 3" three times and "2 4" once, after bos "2": discounts 0.5, 1, 1.5 because there are too few counts.
    model = NGram(*stream([[BOS, 2, 3]] * 3 + [[BOS, 2, 4]]), vocab_size=5, order=2)
    # Order 1: each of 2, 3, 4 follows one token: (1 - 0.5 + 1.5 * 1/4) / 3. Order 2: (3 - 1.5 + 2 * that) / 4.
    assert_allclose(model.distribution([BOS, 2])[3], (1.5 + 2 * (0.5 + 1.5 / 4) / 3) / 4, rtol=1e-12)


def test_documents_are_independent():
    model = NGram(*stream(corpus(0)), vocab_size=V, order=5)
    first, second = corpus(1, 2)
    apart = [model.log_probs(*stream([document])) for document in (first, second)]
    assert np.array_equal(model.log_probs(*stream([first, second])), np.concatenate(apart))


def test_more_context_predicts_a_pattern_better():
    cycle = [BOS, *itertools.islice(itertools.cycle([2, 3, 2, 4, 2, 5]), 60), EOS]
    costs = [-NGram(*stream([cycle] * 4), vocab_size=V, order=k).log_probs(*stream([cycle])).mean() for k in (1, 2, 3)]
    assert costs[0] > costs[1] > costs[2]


def test_unseen_tokens_have_a_finite_cost():
    model = NGram(*stream([[BOS, 2, EOS]]), vocab_size=V, order=3)
    assert np.isfinite(model.log_probs(*stream([[BOS, 9, 10, 9, EOS]]))).all()


def test_nothing_to_learn_from_is_an_error():
    with pytest.raises(DataError, match="2 documents"):
        NGram(*stream([[BOS], [BOS]]), vocab_size=V, order=2)
