"""Words and hashes of their n-grams."""

import random
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumi.corpus.steps import words
from lumi.corpus.steps.words import find_words, ngram_hashes, split_words, word_hashes, word_lengths


def test_words_are_runs_of_letters_and_digits_in_lower_case():
    text = "The “quick” Fox—jumps; ÜBER 3 Dogs' 中文。日本 «ok» a_b ½"
    expected = ["the", "quick", "fox", "jumps", "über", "3", "dogs", "中文", "日本", "ok", "a", "b"]
    assert [word.decode() for word in split_words(text)] == expected
    assert word_lengths(text).tolist() == list(map(len, expected))


@given(st.text(alphabet=st.characters(codec="ascii"), max_size=200))
def test_ascii_words_are_those_of_a_regular_expression(text):
    assert [word.decode() for word in split_words(text)] == re.findall("[a-z0-9]+", text.lower())


@given(st.text(max_size=100))
def test_any_text_has_as_many_hashes_and_lengths_as_words(text):
    assert len(split_words(text)) == len(word_hashes(text)) == len(word_lengths(text))
    assert word_lengths(text).tolist() == [len(word.decode("utf-8", "replace")) for word in split_words(text)]


@pytest.mark.parametrize("chunk", [1, 7, 1 << 18])
def test_a_word_has_one_hash_wherever_it_stands(monkeypatch, chunk):
    monkeypatch.setattr(words, "_CHUNK_BYTES", chunk)
    rng = random.Random(0)
    drawn = [rng.choice(["a", "b", "ab", "ba", "söd", "x" * 50, "0"]) for _ in range(500)]
    text = f"{' '.join(drawn)} {chunk}"  # another text for each chunk: results are kept
    by_word: dict[str, set[int]] = {}
    for word, value in zip(drawn, word_hashes(text).tolist(), strict=False):
        by_word.setdefault(word, set()).add(value)
    assert all(len(values) == 1 for values in by_word.values())
    assert len({value for values in by_word.values() for value in values}) == len(by_word)


@pytest.mark.parametrize("n", [1, 2, 3, 13])
def test_ngrams_are_equal_where_their_words_are(n):
    rng = random.Random(n)
    drawn = [rng.choice("abc") for _ in range(400)]
    hashes = ngram_hashes(" ".join(drawn), n).tolist()
    grams = [tuple(drawn[i : i + n]) for i in range(len(drawn) - n + 1)]
    assert len(hashes) == len(grams)
    assert len(set(zip(grams, hashes, strict=True))) == len(set(grams)) == len(set(hashes))


def test_the_order_of_words_matters():
    assert ngram_hashes("a b c", 3)[0] != ngram_hashes("c b a", 3)[0]
    assert ngram_hashes("ab c", 2)[0] != ngram_hashes("a bc", 2)[0]


def test_a_text_without_words_has_none():
    assert len(find_words("… !").starts) == len(ngram_hashes("… !", 1)) == 0
    assert len(ngram_hashes("two words", 3)) == 0


def test_many_words_do_not_collide():
    text = " ".join(f"{first}{second}" for first in range(300) for second in "abcdefghij" * 3)
    distinct = {*split_words(text)}
    assert len(np.unique(word_hashes(text))) == len(distinct)
