"""Duplicates: exactly those that brute force finds, but for pairs at the threshold."""

import random
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from lumi.corpus import Corpus, Document, Duplicates, Source, build_corpus, read_corpus
from lumi.corpus.duplicates import Signature, match
from lumi.corpus.duplicates.match import groups
from lumi.corpus.duplicates.signature import similarities
from lumi.errors import ConfigError

WORDS = [f"{first}{second}" for first in "bdfgklmnprst" for second in ("a", "en", "il", "o", "ur")]


class Texts(Source):
    """A source of given texts."""

    weight, licence, notes = 1.0, "CC0-1.0", ""

    def __init__(self, texts: list[str], name: str = "texts") -> None:
        self.texts, self.name = texts, name

    def settings(self) -> dict[str, list[str]]:
        return {"texts": self.texts}

    def documents(self):
        for number, text in enumerate(self.texts):
            yield Document(text=text, id=f"{number}")


def jaccard(one: str, other: str, n: int = 3) -> float:
    """By sets of word n-grams, with nothing of the code under test."""
    first, second = (
        {tuple(words[i : i + n]) for i in range(len(words) - n + 1)} for words in (one.split(), other.split())
    )
    return len(first & second) / len(first | second)


def prose(rng: random.Random, n_words: int) -> list[str]:
    return [rng.choice(WORDS) for _ in range(n_words)]


def changed(rng: random.Random, words: list[str], share: float) -> str:
    return " ".join(rng.choice(WORDS) if rng.random() < share else word for word in words)


def kept(folder: Path, texts: list[str], **settings) -> list[int]:
    corpus = Corpus(name="c", sources={"a": Texts(texts)}, duplicates=Duplicates(**settings), block_megabytes=0.01)
    build_corpus(corpus, folder / "c", force=True)
    return [int(document.id) for document in read_corpus(folder / "c")]


@pytest.mark.parametrize("n_words", [12, 60, 400])
def test_the_estimate_is_the_jaccard_similarity(n_words):
    rng, signature, errors = random.Random(n_words), Signature(3, 32, 8), []
    for _ in range(60):
        words = prose(rng, n_words)
        one, other = " ".join(words), changed(rng, words, 0.06)
        minima, _ = signature.of([one, other])
        errors.append(float(similarities(minima[0], minima[1:])[0]) - jaccard(one, other))
    # 256 minima: a standard deviation of at most 0.03 each, and of 0.004 for the mean of 60; short texts borrow minima.
    assert abs(np.mean(errors)) < 0.02
    assert np.std(errors) < (0.09 if n_words == 12 else 0.04)


def test_what_is_similar_is_found_and_nothing_else(tmp_path):
    rng = random.Random(0)
    originals = [prose(rng, 150) for _ in range(40)]
    texts = [" ".join(words) for words in originals]
    texts += [changed(rng, words, rng.choice([0.005, 0.02, 0.05, 0.1])) for words in originals for _ in range(3)]
    similar = {pair for pair in combinations(range(len(texts)), 2) if jaccard(texts[pair[0]], texts[pair[1]]) >= 0.8}
    clear = {pair for pair in combinations(range(len(texts)), 2) if jaccard(texts[pair[0]], texts[pair[1]]) < 0.7}
    left_out = set(range(len(texts))) - set(kept(tmp_path, texts, near=True))
    certain = {j for i, j in similar if jaccard(texts[i], texts[j]) >= 0.88}
    assert certain <= left_out  # 256 minima: three standard deviations are 0.06
    assert all(any((i, j) not in clear for i in range(j)) for j in left_out)
    assert len(certain) > 30


def test_exact_duplicates_are_counted_by_themselves(tmp_path):
    texts = ["a b c d", "e f g h", "a b c d", "A, b c d!", "e f g h"]
    assert kept(tmp_path, texts) == [0, 1, 3]
    assert kept(tmp_path, texts, near=True) == [0, 1]
    assert kept(tmp_path, texts, exact=False) == [0, 1, 2, 3, 4]


def test_the_first_one_stays_in_the_order_of_the_sources(tmp_path):
    sources = {"one": Texts(["x y z", "p q r"], "one"), "two": Texts(["p q r", "u v w"], "two")}
    manifest = build_corpus(Corpus(name="c", sources=sources), tmp_path / "c")
    assert [document.text for document in read_corpus(tmp_path / "c", "two")] == ["u v w"]
    assert manifest.info["sources"]["two"]["dropped"] == {"duplicates: exact": 1}
    (line,) = (tmp_path / "c" / "dropped" / "two.jsonl").read_text().splitlines()
    assert '"kept":"one: 1"' in line


def test_documents_without_words_are_like_nothing(tmp_path):
    assert kept(tmp_path, ["!!!", "???", "!!! ..."], near=True) == [0, 1, 2]


def test_short_documents_are_compared_as_a_whole(tmp_path):
    assert kept(tmp_path, ["Yes.", "No.", "yes", "yes no"], near=True) == [0, 1, 3]


@pytest.mark.parametrize("most", [1, 3, 7, 10**9])
def test_the_memory_that_may_be_used_changes_nothing(tmp_path, monkeypatch, most):
    rng = random.Random(1)
    words = [prose(rng, 60) for _ in range(6)]
    texts = [changed(rng, one, 0.01) for one in words for _ in range(5)] * 2
    expected = kept(tmp_path, texts, near=True)
    monkeypatch.setattr("lumi.corpus.duplicates.match._MOST_SORTED", most)
    assert kept(tmp_path, texts, near=True) == expected


def test_portions_hold_every_run_and_cut_long_ones(monkeypatch):
    monkeypatch.setattr(match, "_MOST_COMPARED", 10)
    starts, sizes = np.array([0, 5, 40, 100, 103]), np.array([3, 25, 2, 2, 2])
    portions = list(match._portions(starts, sizes))
    runs = [run for portion in portions for run in zip(*map(np.ndarray.tolist, portion), strict=True)]
    assert runs == [(0, 3), (5, 10), (15, 10), (25, 5), (40, 2), (100, 2), (103, 2)]
    assert max(int(portion[1].sum()) for portion in portions) <= 20


def test_groups_reach_over_chains():
    members, first = groups(np.array([[7, 9], [0, 5], [5, 9], [2, 3], [20, 21], [19, 20]]))
    assert dict(zip(members.tolist(), first.tolist(), strict=True)) == {3: 2, 5: 0, 7: 0, 9: 0, 20: 19, 21: 19}


@pytest.mark.parametrize(
    ("key", "value"), [("threshold", 0.0), ("bands", 3), ("rows", 0), ("shingle_words", 1.5), ("near", 1)]
)
def test_a_wrong_setting_is_named(key, value):
    with pytest.raises(ConfigError, match=rf"corpus\.duplicates\.{key}|corpus\.duplicates\.bands"):
        Duplicates(**{key: value})
