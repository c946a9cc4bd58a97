"""What a model answers: judged by models whose answers are known beforehand."""

import math

import numpy as np
import pytest
import torch

from lumi.arch import Decoder, DecoderConfig
from lumi.corpus.chat import Conversation
from lumi.corpus.preference import Pair
from lumi.errors import DataError
from lumi.eval import chat as chat_module
from lumi.eval.answers import chat_table, comparison_table, preference_table, samples, summary
from lumi.eval.chat import OPEN, run_chat, word_f1
from lumi.eval.preference import run_preference
from lumi.eval.results import Results
from lumi.generate import Completion
from lumi.tokenizer import Message, Template, TokenizerConfig, train_tokenizer
from lumi.tokenizer.frozen import Tokenizer

CHATML = Template(
    name="chatml",
    system=["<|im_start|>system\n", "<|im_end|>\n"],
    user=["<|im_start|>user\n", "<|im_end|>\n"],
    assistant=["<|im_start|>assistant\n", "<|im_end|>\n"],
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer") / "t"
    lines = [
        f"Who has the {thing}? {name} has the {thing}." for thing in ("cup", "hat", "key") for name in ("Ada", "Bo")
    ]
    config = TokenizerConfig(name="t", vocab_size=400, num_threads=1, exact_size=False)
    train_tokenizer(lambda: iter(lines * 20), folder, config, parents={})
    return Tokenizer.load(folder)


@pytest.fixture(scope="module")
def decoder(tokenizer):
    torch.manual_seed(0)
    return Decoder(
        DecoderConfig(
            vocab_size=tokenizer.vocab_size, n_layers=1, d_model=32, n_heads=2, n_kv_heads=2, d_ff=64, max_seq_len=96
        )
    ).eval()


def conversation(question, answer, task=None, number=0):
    messages = (Message(role="user", content=question), Message(role="assistant", content=answer))
    return Conversation(messages=messages, id=f"c{number}", meta={"task": task} if task else {})


ITEMS = [
    conversation("Who has the cup?", "Ada has the cup.", "who", 0),
    conversation("Who has the hat?", "Bo has the hat.", "who", 1),
    conversation("Who has the key?", "Ada has the key.", "who", 2),
    conversation("Say something.", "Ada and Bo.", None, 3),
]


@pytest.fixture
def scripted(monkeypatch, tokenizer):
    """A generator that says what the test wants, and records what it was asked for."""
    asked = []

    def install(answers, *, stops=True):
        script = {
            tuple(CHATML.prompt(tokenizer, item.messages[:-1])): text for item, text in zip(ITEMS, answers, strict=True)
        }

        def generate(model, prompts, params, *, eos_id, batch_size):
            asked.extend(zip(prompts, params, strict=True))
            return [
                Completion(
                    tokens=tokenizer.encode(script[tuple(prompt)]),
                    finish_reason="stop" if stops else "length",
                    stop_id=eos_id if stops else None,
                    seed=0,
                )
                for prompt in prompts
            ]

        monkeypatch.setattr(chat_module, "generate", generate)
        return asked

    return install


def test_right_wrong_and_unstopped_answers_are_counted(decoder, tokenizer, scripted):
    scripted(["Ada has the cup.", " Bo has the hat.\n", "Bo has the key.", "Ada or Bo."])
    report = run_chat(decoder, tokenizer, CHATML, ITEMS, split="test")
    who, other = report.as_dict()["tasks"]["who"], report.as_dict()["tasks"][OPEN]
    assert (who["n"], who["exact"], who["stopped"], who["checkable"]) == (3, pytest.approx(2 / 3), 1.0, True)
    assert (other["n"], other["exact"], other["checkable"]) == (1, 0.0, False)
    assert other["f1"] == pytest.approx(2 * 2 / 6)
    assert who["answer_nats_per_token"] == pytest.approx(math.log(tokenizer.vocab_size), rel=0.05)  # untrained


def test_an_answer_that_does_not_stop_is_told_from_one_that_does(decoder, tokenizer, scripted):
    asked = scripted(["Ada has the cup."] * 4, stops=False)
    report = run_chat(decoder, tokenizer, CHATML, ITEMS, split="test").as_dict()
    assert report["tasks"]["who"]["stopped"] == 0.0
    longest = max(len(tokenizer.encode(item.messages[1].content)) + 2 for item in ITEMS[:3])  # two ends
    assert {params.max_new_tokens for prompt, params in asked if "Say" not in tokenizer.decode(prompt)} == {
        2 * longest + 16
    }
    assert all(params.greedy and tokenizer.eos_id in params.stop_ids for _, params in asked)


def test_only_the_first_line_counts_for_a_model_without_turns(decoder, tokenizer, scripted):
    scripted(["Ada has the cup.\nQuestion: x"] * 4)
    whole = run_chat(decoder, tokenizer, CHATML, ITEMS, split="test")
    line = run_chat(decoder, tokenizer, CHATML, ITEMS, split="test", first_line=True)
    assert [answer.exact for answer in whole.answers] == [False] * 4
    assert [answer.exact for answer in line.answers] == [True, False, False, False]


def test_the_limit_is_of_each_task_and_what_is_too_long_is_counted(decoder, tokenizer, scripted):
    long = conversation("word " * 100, "yes", "who", 9)
    scripted(["Ada has the cup."] * 4)
    report = run_chat(decoder, tokenizer, CHATML, [long, *ITEMS], split="test", limit=2)
    assert [answer.id for answer in report.answers] == ["c0", "c1", "c3"]
    assert report.too_long == 1
    with pytest.raises(DataError, match="none fits"):
        run_chat(decoder, tokenizer, CHATML, [long], split="test")


def test_a_model_is_asked_in_the_bytes_that_it_was_trained_on(decoder, tokenizer, scripted):
    asked = scripted(["x"] * 4)
    run_chat(decoder, tokenizer, CHATML, ITEMS, split="test")
    rendered = {
        tuple(CHATML.render(tokenizer, item.messages).tokens[: len(prompt)]) for item in ITEMS for prompt, _ in asked
    }
    assert all(tuple(prompt) in rendered for prompt, _ in asked)


@pytest.mark.parametrize(
    ("one", "other", "f1"), [("a b", "a b", 1.0), ("a", "b", 0.0), ("a b c", "a a", 0.4), ("", "a", 0.0)]
)
def test_word_f1(one, other, f1):
    assert word_f1(one, other) == pytest.approx(f1)


CUP = (Message(role="user", content="Who has the cup?"),)
PAIRS = [
    Pair(prompt=CUP, chosen="Ada has the cup.", rejected="Bo", id="p0", meta={"kind": "fact"}),
    Pair(prompt=CUP, chosen="Bo.", rejected="Bo. Bo.", id="p1", rejected_ends=False, meta={"kind": "no stop"}),
]


def naive(model, tokenizer, prompt, answer, *, ends=True):
    whole = CHATML.render(tokenizer, [*prompt, Message(role="assistant", content=answer)], ends=ends)
    ids = torch.tensor(whole.tokens)
    with torch.no_grad():
        log_probs = model.logits(model(ids[None]))[0].log_softmax(-1)
    return sum(log_probs[i - 1, ids[i]].item() for i in range(1, len(ids)) if whole.loss_mask[i])


def test_pairs_are_judged_by_naively_computed_likelihoods(decoder, tokenizer):
    report = run_preference(decoder, tokenizer, CHATML, PAIRS, split="test", reference=decoder)
    for pair, judged in zip(PAIRS, report.pairs, strict=True):
        assert judged.chosen == pytest.approx(naive(decoder, tokenizer, pair.prompt, pair.chosen), abs=1e-4)
        rejected = naive(decoder, tokenizer, pair.prompt, pair.rejected, ends=pair.rejected_ends)
        assert judged.rejected == pytest.approx(rejected, abs=1e-4)
        assert judged.reward_margin == pytest.approx(0.0, abs=1e-5)  # the model is its own reference
    kinds = report.as_dict()["kinds"]
    assert kinds["fact"]["accuracy"] == float(report.pairs[0].chosen > report.pairs[0].rejected)
    assert kinds["no stop"]["n"] == 1


def test_several_models_stand_side_by_side(decoder, tokenizer, scripted):
    pairs = run_preference(decoder, tokenizer, CHATML, PAIRS, split="test")
    found = []
    for answers in (["Ada has the cup."] * 4, [item.messages[1].content for item in ITEMS]):
        scripted(answers)
        report = run_chat(decoder, tokenizer, CHATML, ITEMS, split="test")
        found.append(Results(model={"name": "x"}, chat={"own": report}, preference={"own": pairs}).as_dict())
    assert summary(found[0])["exact answers"] == pytest.approx(1 / 3)
    assert summary(found[1]) == {"bits per byte": None, "exact answers": 1.0, "stop rate": 1.0, "preference accuracy": np.mean([
        kind["accuracy"] for kind in found[1]["preference"]["own"]["kinds"].values()])}  # fmt: skip
    table = comparison_table(["one", "two"], found)
    assert "| own: who " in table
    assert "33.3 % | 100.0 % |" in table
    assert "0.0 % |" in table.splitlines()[-1]  # the same likelihoods: nobody wins
    assert "100.0 % (43.9–100.0)" in chat_table(found[1])
    assert "own: no stop" in preference_table(found[1])
    assert any(heading.startswith("who · expected: Bo has the hat.") for heading, _ in samples(found[0]["chat"]["own"]))
