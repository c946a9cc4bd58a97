"""The sums against a naive loop over single tokens, the definitions against numbers worked by hand."""

import math

import numpy as np
import pytest
import torch

from lumi.arch import Decoder, DecoderConfig
from lumi.errors import ConfigError, DataError, NumericError
from lumi.eval.perplexity import Perplexity, count_words, packed_perplexity, text_perplexity, weighted
from lumi.eval.windows import SlidingWindows, WholeDocuments

TEXT = "the quick brown fox jumps over the lazy dog, née 🦊"


@pytest.fixture(scope="module")
def model():
    config = DecoderConfig(
        vocab_size=258, n_layers=2, d_model=32, n_heads=4, n_kv_heads=2, d_ff=64, max_seq_len=64, dropout=0.5
    )
    torch.manual_seed(0)
    model = Decoder(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)  # far from uniform, so that context matters
    return model


@torch.no_grad()
def naive_nll(model, context, token):
    """-log p(token | context) in a forward pass of its own."""
    model.eval()
    logits = model.logits(model(torch.tensor([context])))[0, -1]
    model.train()
    return -torch.log_softmax(logits.double(), 0)[token].item()


def test_figures_follow_from_the_sums():
    score = Perplexity(nll_nats=8 * math.log(2), targets=4, bytes=16, words=2)
    assert math.isclose(score.token_perplexity, 4.0)  # 2 bits a token
    assert math.isclose(score.bits_per_byte, 0.5)
    assert score.word_perplexity is not None
    assert math.isclose(score.word_perplexity, 16.0)  # 4 bits a word


def test_scores_add_up():
    one, two = Perplexity(nll_nats=1.0, targets=2, bytes=3, words=4), Perplexity(nll_nats=10.0, targets=20, bytes=30)
    assert one + two == Perplexity(nll_nats=11.0, targets=22, bytes=33, words=None)


def test_a_word_as_long_as_a_page_does_not_overflow():
    assert Perplexity(nll_nats=1000.0, targets=1000, bytes=1000, words=1).word_perplexity == math.inf


def test_packed_data_counts_every_target_once(model, codec, make_split):
    split = make_split(["fox", "née", "a longer document than the others"])
    result = packed_perplexity(model, split, token_bytes=codec.token_bytes(), batch_size=2)
    documents = [split.tokens(*split.offsets[i : i + 2]).tolist() for i in range(3)]
    expected = sum(naive_nll(model, doc[:i], doc[i]) for doc in documents for i in range(1, len(doc)))
    assert math.isclose(result.nll_nats, expected, rel_tol=1e-5)
    assert (result.targets, result.bytes) == (3 + 4 + 33 + 3, 3 + 4 + 33)  # eos is a target and no byte


def test_the_batch_size_does_not_matter(model, codec, make_split):
    split = make_split(["one", "two", "three", "four", "five"])
    one, all_at_once = (packed_perplexity(model, split, token_bytes=codec.token_bytes(), batch_size=n) for n in (1, 9))
    assert math.isclose(one.nll_nats, all_at_once.nll_nats, rel_tol=1e-6)


def test_a_limit_spreads_over_the_whole_split(model, codec, make_split):
    split = make_split(["a" * n for n in range(1, 12)])
    result = packed_perplexity(model, split, token_bytes=codec.token_bytes(), batch_size=4, limit=3)
    assert result.bytes == 1 + 6 + 11


def test_one_window_for_a_short_text(model, codec):
    result = text_perplexity(model, codec, TEXT, window=64, stride=32)
    ids = [0, *codec.encode(TEXT)]
    expected = sum(naive_nll(model, ids[:i], ids[i]) for i in range(1, len(ids)))
    assert math.isclose(result.nll_nats, expected, rel_tol=1e-5)
    assert (result.targets, result.bytes, result.words) == (len(TEXT.encode()), len(TEXT.encode()), 11)


def test_stride_one_gives_every_token_the_longest_context(model, codec):
    result = text_perplexity(model, codec, TEXT, window=8, stride=1)
    ids = [0, *codec.encode(TEXT)]
    expected = sum(naive_nll(model, ids[max(0, i - 7) : i], ids[i]) for i in range(1, len(ids)))
    assert math.isclose(result.nll_nats, expected, rel_tol=1e-5)


@pytest.mark.parametrize("stride", [1, 3, 5, 7])
@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 23])
def test_each_token_is_a_target_once_with_enough_context(stride, length):
    stream = SlidingWindows(np.arange(length + 1), window=8, stride=stride)
    batch = stream.windows(np.arange(len(stream)))
    assert sorted(batch["tokens"][batch["loss_mask"]].tolist()) == list(range(1, length + 1))
    context = np.tile(np.arange(batch["tokens"].shape[1]), (len(stream), 1))
    assert (context[1:][batch["loss_mask"][1:]] >= 8 - stride).all()


@pytest.mark.parametrize("stride", [1, 3, 7])
@pytest.mark.parametrize("lengths", [[5], [3, 5, 8, 2], [1, 30, 4, 9, 2, 6], [20, 20], [0, 0, 0, 0, 0]])
def test_whole_documents_are_scored_once_with_their_beginning(make_split, lengths, stride):
    split = make_split(["abcdefghijklmnopqrstuvwxyzabcd"[:length] for length in lengths])
    stream = WholeDocuments(split, window=8, stride=stride)
    batch = stream.windows(np.arange(len(stream)))
    tokens, documents, mask = batch["tokens"], batch["doc_ids"], batch["loss_mask"]
    targets = [token for doc in range(len(lengths)) for token in split.tokens(*split.offsets[doc : doc + 2])[1:]]
    assert tokens[mask].tolist() == targets
    for row, position in np.argwhere(mask):
        context = (documents[row, :position] == documents[row, position]).sum()
        begins = tokens[row, position - context] == 0  # bos
        assert begins or context >= 8 - stride
    assert (tokens[documents == -1] == 0).all()


def test_the_end_of_a_document_is_scored_after_its_beginning(model, codec, make_split):
    split = make_split(["fox", "a longer document than the others"])
    stream = WholeDocuments(split, window=40, stride=20)
    result = packed_perplexity(model, stream, token_bytes=codec.token_bytes(), batch_size=2)
    documents = [split.tokens(*split.offsets[i : i + 2]).tolist() for i in range(2)]
    expected = sum(naive_nll(model, doc[:i], doc[i]) for doc in documents for i in range(1, len(doc)))
    assert math.isclose(result.nll_nats, expected, rel_tol=1e-5)


def test_eos_is_scored_only_on_request(model, codec):
    without, with_eos = (text_perplexity(model, codec, TEXT, score_eos=flag) for flag in (False, True))
    assert (without.targets + 1, without.bytes) == (with_eos.targets, with_eos.bytes)
    end = naive_nll(model, [0, *codec.encode(TEXT)], 1)
    assert math.isclose(with_eos.nll_nats - without.nll_nats, end, abs_tol=1e-3)


def test_training_mode_random_state_and_gradients_are_left_alone(model, codec):
    model.train()
    before = torch.get_rng_state()
    text_perplexity(model, codec, TEXT)
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 65}, "window=65.*64"),
        ({"window": 1}, "window=1"),
        ({"window": 8, "stride": 8}, "stride=8"),
    ],
)
def test_a_window_or_stride_that_does_not_fit_is_named(model, codec, settings, message):
    with pytest.raises(ConfigError, match=message):
        text_perplexity(model, codec, TEXT, **settings)


def test_an_empty_text_is_an_error(model, codec):
    with pytest.raises(DataError, match="is empty"):
        text_perplexity(model, codec, "")


def test_a_loss_that_is_not_a_number_is_reported(model, codec):
    broken = Decoder(model.config)
    torch.nn.init.constant_(broken.lm_head.weight, torch.inf)
    with pytest.raises(NumericError, match="the loss on text"):
        text_perplexity(broken, codec, TEXT)


def test_words_are_what_stands_between_white_space():
    assert count_words(" = Title = \n \n A line , with <unk> . \n") == 9


def test_a_mixture_weighs_figures_not_sizes():
    big = Perplexity(nll_nats=1000 * math.log(2), targets=1000, bytes=1000)
    small = Perplexity(nll_nats=3 * math.log(2), targets=1, bytes=1)
    result = weighted({"big": big, "small": small}, {"big": 1.0, "small": 3.0, "absent": 5.0})
    assert math.isclose(result["bits_per_byte"], 0.25 * 1 + 0.75 * 3)
    assert math.isclose(result["token_perplexity"], 2**2.5)


def test_a_mixture_without_weights_is_an_error():
    with pytest.raises(ConfigError, match="above 0"):
        weighted({"a": Perplexity(nll_nats=1.0, targets=1, bytes=1)}, {"b": 1.0})
