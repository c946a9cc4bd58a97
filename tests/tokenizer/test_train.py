"""Training: the same bytes from the same text, nothing dropped silently, and errors that say what to type."""

import re

import pytest

from lumi.errors import ConfigError, DataError
from lumi.manifest import read_manifest
from lumi.tokenizer import Tokenizer

KINDS = pytest.mark.parametrize("model_type", ["unigram", "bpe"])


def learned(folder):
    return {piece.text for piece in Tokenizer.load(folder).pieces if piece.kind == "normal"}


@KINDS
def test_the_same_text_and_settings_give_the_same_bytes(train, tmp_path, model_type):
    one, two = (train(folder=tmp_path / name, model_type=model_type) for name in ("one", "two"))
    for name in ("tokenizer.model", "TOKENIZER_CARD.md", "MANIFEST.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_scores_are_multiples_of_which_float32_adds_a_thousand_exactly(train):
    scores = [256 * piece.score for piece in Tokenizer.load(train(model_type="unigram")).pieces]
    assert all(score == round(score) for score in scores)
    # The worst character costs the lowest score and 10 more: a thousand of them need fewer than float32's 24 bits.
    assert (10 * 256 - min(scores)) * 1000 < 2**24


def test_the_model_holds_no_path(train, tmp_path):
    assert str(tmp_path).encode() not in (train() / "tokenizer.model").read_bytes()


def test_one_long_line_is_learned_from(train, documents):
    line = " ".join(" ".join(documents).split())
    assert len(line) > 100_000
    info = read_manifest(train(texts=[line])).info
    assert info["train_bytes"] == len(line.encode())
    assert info["measured"]["bytes_per_token"] > 2


def test_a_sentence_with_the_sign_for_unknown_is_learned_from(train):
    pieces = learned(train(texts=["▅ bananarama ▅\n" * 300 + "xyz"], exact_size=False))
    assert any("banana" in piece for piece in pieces)
    assert not any("▅" in piece for piece in pieces)


def test_runs_of_newlines_and_of_spaces_are_pieces(train, documents):
    pieces = learned(train())
    assert {"\n", "\n\n", "▁▁▁▁"} <= pieces


def test_a_word_that_always_has_the_same_neighbour_is_one_piece(train):
    pieces = learned(train(texts=["Question: from the bana to the nuda.\nAnswer: bana.\n" * 50], exact_size=False))
    assert {"Question", "▁from", "Answer"} <= pieces


def test_digits_stay_apart(train):
    assert not any(re.search(r"\d.|.\d", piece.replace("▁", "")) for piece in learned(train()))


@KINDS
def test_a_vocabulary_that_the_text_cannot_fill_is_refused_with_one_that_it_can(train, model_type):
    texts = ["the cat sat on the mat and the dog ate the cat food\n" * 50]
    with pytest.raises(ConfigError, match=r"tokenizer\.vocab_size=9000 · this text has only \d+ pieces") as caught:
        train(texts=texts, vocab_size=9000, model_type=model_type)
    most = int(re.findall(r"\d+", caught.value.rule)[0])
    assert Tokenizer.load(train(texts=texts, vocab_size=most, model_type=model_type)).vocab_size == most


def test_inexact_size_takes_the_pieces_that_there_are(train):
    texts = ["the cat sat on the mat and the dog ate the cat food\n" * 50]
    assert 276 < Tokenizer.load(train(texts=texts, vocab_size=9000, exact_size=False)).vocab_size < 400


def test_a_vocabulary_too_small_for_the_characters_is_refused_with_their_number(train):
    with pytest.raises(ConfigError, match=r"tokenizer\.vocab_size=280 · is too small .* need 3\d\d "):
        train(vocab_size=280)


@pytest.mark.parametrize("texts", [[], ["", "\n"]])
def test_no_text_is_refused(train, texts):
    with pytest.raises(DataError, match="no text to learn from"):
        train(texts=texts)


def test_half_a_surrogate_pair_is_refused(train):
    with pytest.raises(DataError, match="half a surrogate pair"):
        train(texts=["ok", "a\ud800"])


def test_the_second_call_does_nothing(train):
    folder = train()
    before = (folder / "tokenizer.model").stat().st_mtime_ns
    assert (train() / "tokenizer.model").stat().st_mtime_ns == before


def test_other_settings_are_refused_by_name_and_forced_on_demand(train):
    train()
    with pytest.raises(
        DataError, match=r"tokenizer\.seed was 0, is 5.*tokenizer\.vocab_size was 600, is 601 · force=true"
    ):
        train(vocab_size=601, seed=5)
    assert Tokenizer.load(train(vocab_size=601, force=True)).vocab_size == 601


def test_more_text_than_asked_for_is_sampled_the_same_way_each_time(train, tmp_path):
    one, two = (read_manifest(train(folder=tmp_path / name, train_megabytes=0.06)) for name in "ab")
    assert 40_000 < one.info["train_bytes"] < 80_000
    assert one.info == two.info
    other = read_manifest(train(folder=tmp_path / "c", train_megabytes=0.06, seed=1))
    assert other.info["sha256"] != one.info["sha256"]


def test_documents_are_held_out_for_the_card(train, documents):
    folder = train()
    info = read_manifest(folder).info
    assert info["held_out"]
    assert info["train_bytes"] + info["measured"]["bytes"] <= info["text_bytes"]
    assert info["measured"]["round_trip_failures"] == info["measured"]["unknown_ratio"] == 0
    card = (folder / "TOKENIZER_CARD.md").read_text()
    assert info["sha256"] in card
    assert "held-out" in card


def test_a_single_document_is_measured_on_itself(train, documents):
    info = read_manifest(train(texts=["".join(documents)])).info
    assert not info["held_out"]
    assert info["measured"]["documents"] == 1


def test_the_card_counts_what_it_says(train):
    texts = ["abab\n" * 3000]
    folder = train(texts=texts, exact_size=False, model_type="bpe")
    ids = Tokenizer.load(folder).encode(texts[0])
    measured = read_manifest(folder).info["measured"]
    assert (measured["bytes"], measured["tokens"]) == (15_000, len(ids))
    assert measured["bytes_per_token"] == round(15_000 / len(ids), 4)
