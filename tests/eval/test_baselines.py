"""xz against Python's own module, figures against counts by hand, and the cache."""

import dataclasses
import lzma
import math

import numpy as np
import pytest

from lumi.errors import DataError
from lumi.eval.baselines import TokenDocuments, ngram_bits_per_byte, packed_baselines, xz_bits_per_byte

TRAIN = [f"document {i} says that {i} times {i} is {i * i}" for i in range(60)]
VAL = ["document 7 says that 7 times 7 is 49", "née"]


def documents(split):
    return TokenDocuments.first(split, 10**9)


def test_xz_is_what_the_text_adds_to_the_training_text():
    train, val = [text.encode() for text in TRAIN], [text.encode() for text in VAL]
    before = b"".join(text + b"\0" for text in train)
    both = before + b"".join(text + b"\0" for text in val)
    sizes = [len(lzma.compress(data, preset=9)) for data in (before, both)]
    assert xz_bits_per_byte(train, val) == (sizes[1] - sizes[0]) * 8 / sum(map(len, val))


def test_xz_copies_what_it_has_seen():
    rng = np.random.default_rng(0)
    noise = [rng.bytes(50_000) for _ in range(3)]
    assert xz_bits_per_byte(noise, [noise[0]]) < 8 * 4 / 273  # LZMA copies 273 bytes at a time, for less than 4
    assert xz_bits_per_byte(noise, [rng.bytes(50_000)]) > 7.99


def test_unigram_cost_is_the_cross_entropy_with_eos(make_split):
    # Training: a a a b, eos twice. Counts 3, 1, 2 of 6, too few for estimates: 1.5, 0.5 and 1 go to all 257 tokens.
    split = make_split(["aa", "ab"])
    probs = {token: (count + 3.0 / 257) / 6 for token, count in {"a": 1.5, "b": 0.5, "eos": 1.0}.items()}
    expected = -math.log2(probs["a"] * probs["b"] * probs["eos"]) / 2
    val = documents(make_split(["ab"]))
    result = ngram_bits_per_byte(documents(split), val, vocab_size=258, order=1, n_bytes=2)
    assert math.isclose(result, expected)


def test_all_baselines_of_a_packed_data_set(make_split, codec):
    result = packed_baselines(make_split(TRAIN), make_split(VAL), codec)
    assert result.complete
    assert result.ngram_bits_per_byte < result.unigram_bits_per_byte < 8
    assert result.train_bytes == sum(len(text) for text in TRAIN)
    assert (result.val_bytes, result.val_tokens) == (36 + 4, 36 + 4 + 2 * 2)


def test_limits_take_whole_documents_and_say_so(make_split, codec):
    result = packed_baselines(make_split(["abc", "de", "fgh"]), make_split(VAL), codec, max_train_tokens=10)
    assert (result.train_tokens, result.train_bytes, result.complete) == (9, 5, False)


def test_a_first_document_beyond_the_limit_is_cut(make_split):
    assert len(TokenDocuments.first(make_split(["abcdef"]), 4).tokens) == 4


def test_a_cached_result_is_used_until_data_or_settings_change(make_split, codec, tmp_path):
    cache, train, val = tmp_path / "baselines.json", make_split(TRAIN), make_split(VAL)
    first = packed_baselines(train, val, codec, cache=cache)
    cache.write_text(cache.read_text().replace('"val_bytes": 40', '"val_bytes": 41'))  # to recognise it
    assert packed_baselines(train, val, codec, cache=cache) == dataclasses.replace(first, val_bytes=41)
    assert packed_baselines(train, val, codec, cache=cache, order=3).order == 3
    other = make_split(TRAIN[:30])
    assert packed_baselines(other, val, codec, cache=cache).train_tokens < first.train_tokens


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"fingerprint": "x"}'])
def test_a_damaged_cache_is_computed_anew(make_split, codec, tmp_path, content):
    cache = tmp_path / "baselines.json"
    cache.write_text(content)
    assert packed_baselines(make_split(TRAIN), make_split(VAL), codec, cache=cache).val_bytes == 40


def test_validation_documents_without_text_are_an_error(make_split, codec):
    with pytest.raises(DataError, match="no text to score"):
        packed_baselines(make_split(TRAIN), make_split([""]), codec)
