"""Accuracies by models whose preferences are known, and by hand."""

import math

import numpy as np
import pytest
import torch

from lumi.arch import Decoder, DecoderConfig
from lumi.errors import DataError
from lumi.eval.choice import bootstrap, choice_document, run_task, tasks_table
from lumi.eval.tasks import Item
from lumi.tokenizer import TokenizerConfig, train_tokenizer
from lumi.tokenizer.frozen import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer") / "t"
    lines = [
        "Question: is the ice cold? Answer: yes",
        "Question: is the sun cold? Answer: no",
        "Ice is cold. The sun is not.",
    ]
    config = TokenizerConfig(name="t", vocab_size=400, num_threads=1, exact_size=False)
    train_tokenizer(lambda: iter(lines * 20), folder, config, parents={})
    return Tokenizer.load(folder)


def make(tokenizer, *, max_seq_len=64):
    torch.manual_seed(0)
    return Decoder(
        DecoderConfig(
            vocab_size=tokenizer.vocab_size,
            n_layers=1,
            d_model=32,
            n_heads=2,
            n_kv_heads=2,
            d_ff=64,
            max_seq_len=max_seq_len,
        )
    ).eval()


def constant(tokenizer, favourite):
    """A model that gives every token but one the same probability, whatever came before."""
    model = make(tokenizer)
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.ones_like(model.model.embed_tokens.weight))
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "lm_head.weight")):
                parameter.zero_()
        for token in favourite:
            model.lm_head.weight[token] = 0.1
    return model


BOOLQ = [
    Item(context=f"Is it {n}?\nAnswer:", choices=(" no", " yes"), label=int(n % 5 > 1)) for n in range(20)
]  # 12 yes


def test_a_constant_model_scores_the_majority_baseline(tokenizer):
    first_tokens = set(tokenizer.encode("Answer: yes")) - set(tokenizer.encode("Answer: no"))
    found = run_task(constant(tokenizer, first_tokens), tokenizer, BOOLQ, name="boolq")
    assert found.accuracy["plain"] == found.baseline == 0.6
    assert found.accuracy["prior_corrected"] == 0.5  # what it says does not depend on the question: all ties


def test_a_model_that_finds_all_alike_scores_chance(tokenizer):
    items = [Item(context="Ice", choices=(" is", " is", " is"), label=n % 3) for n in range(4)]
    found = run_task(constant(tokenizer, ()), tokenizer, items)
    assert found.accuracy["plain"] == pytest.approx(1 / 3)
    assert found.chance == pytest.approx(1 / 3)


def naive(model, tokenizer, context, choice):
    whole, before = tokenizer.encode(context + choice), len(tokenizer.encode(context))
    ids = torch.tensor([tokenizer.bos_id, *whole])
    with torch.no_grad():
        log_probs = model.logits(model(ids[None]))[0].log_softmax(-1)
    return sum(log_probs[i - 1, ids[i]].item() for i in range(before + 1, len(ids)))


def test_choices_are_compared_by_naively_computed_likelihoods(tokenizer):
    model = make(tokenizer)
    items = [
        Item(context="Question: is the sun cold?\nAnswer:", choices=(" no", " yes", " the ice is cold"), label=label)
        for label in range(3)
    ]
    found = run_task(model, tokenizer, items)
    plain = [naive(model, tokenizer, items[0].context, choice) for choice in items[0].choices]
    prior = [naive(model, tokenizer, "Answer:", choice) for choice in items[0].choices]
    lengths = [2, 3, 15]
    expected = {
        "plain": plain,
        "per_character": [value / n for value, n in zip(plain, lengths, strict=True)],
        "prior_corrected": [one - other for one, other in zip(plain, prior, strict=True)],
    }
    for way, values in expected.items():
        right = [float(np.argmax(values) == label) for label in range(3)]
        assert found.accuracy[way] == pytest.approx(sum(right) / 3)
    assert found.baseline == pytest.approx(1 / 3)


def test_one_choice_is_right_when_greedy_decoding_gives_it(tokenizer):
    model = make(tokenizer)
    context = "The sun"
    ids = [tokenizer.bos_id, *tokenizer.encode(context)]
    with torch.no_grad():
        likeliest = int(model.logits(model(torch.tensor([ids])))[0, -1].argmax())
    assert likeliest not in tokenizer.encode(" is")
    found = run_task(model, tokenizer, [Item(context=context, choices=(" is",), label=0)])
    assert found.accuracy == {"plain": 0.0}
    assert found.perplexity == pytest.approx(math.exp(-naive(model, tokenizer, context, " is")), rel=1e-4)


def test_a_long_context_is_cut_on_the_left_and_counted(tokenizer):
    model = make(tokenizer, max_seq_len=24)
    long = Item(context="ice " * 30 + "Answer:", choices=(" no", " yes"), label=0)
    impossible = Item(context="Answer:", choices=(" no", " cold" * 60), label=0)
    found = run_task(model, tokenizer, [long, impossible, BOOLQ[0]])
    assert (found.n, found.cut, found.left_out) == (2, 1, 1)
    with pytest.raises(DataError, match="no question"):
        run_task(model, tokenizer, [impossible])


def test_spaces_belong_to_the_choice(tokenizer):
    one, other = choice_document(tokenizer, "Answer: ", "yes"), choice_document(tokenizer, "Answer:", " yes")
    assert one[0].tolist() == other[0].tolist()
    assert one[1].tolist() == other[1].tolist()
    tokens, mask = choice_document(tokenizer, "", "Ice is cold.")
    assert mask.tolist() == [False] + [True] * (len(tokens) - 1)


def test_the_bootstrap_is_that_of_the_binomial():
    values = np.array([1.0] * 60 + [0.0] * 40)
    low, high = bootstrap(values)
    assert low == pytest.approx(0.6 - 1.96 * math.sqrt(0.24 / 100), abs=0.012)
    assert high == pytest.approx(0.6 + 1.96 * math.sqrt(0.24 / 100), abs=0.012)
    assert bootstrap(values) == (low, high)


def test_the_table_has_every_figure(tokenizer):
    items = [Item(context="", choices=("Ice is cold.", "Ice cold is."), label=0, group=group) for group in "ab"]
    found = {"blimp": run_task(make(tokenizer), tokenizer, items).as_dict()}
    lines = tasks_table(found).splitlines()
    assert len(lines) == 5
    assert "50.0 %" in lines[2]


def test_choices_without_a_question_have_no_prior_to_correct(tokenizer):
    items = [Item(context="", choices=("the sun is cold", "the ice is cold"), label=0)]
    found = run_task(make(tokenizer), tokenizer, items)
    assert set(found.accuracy) == {"plain", "per_character"}
    row = tasks_table({"pairs": found.as_dict()}).splitlines()[-1]
    assert [cell.strip() for cell in row.split("|")][5] == "–"
