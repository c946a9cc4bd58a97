"""lm-evaluation-harness and our own tasks give the same figures for the same data."""

import json
from typing import Any

import pytest
import torch

from lumi.arch import Decoder, DecoderConfig
from lumi.eval.choice import run_task
from lumi.eval.tasks import Task
from lumi.tokenizer import TokenizerConfig, train_tokenizer
from lumi.tokenizer.frozen import Tokenizer

lm_eval = pytest.importorskip("lm_eval")

WORDS = ("ice", "sun", "stone", "river", "cold", "hot", "wet", "hard")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer") / "t"
    lines = [f"Question: is the {one} {other}? Answer: the {other} {one}" for one in WORDS for other in WORDS]
    train_tokenizer(
        lambda: iter(lines),
        folder,
        TokenizerConfig(name="t", vocab_size=400, num_threads=1, exact_size=False),
        parents={},
    )
    tokenizer = Tokenizer.load(folder)
    torch.manual_seed(0)
    config = DecoderConfig(
        vocab_size=tokenizer.vocab_size,
        n_layers=2,
        d_model=32,
        n_heads=2,
        n_kv_heads=2,
        d_ff=64,
        max_seq_len=64,
        init_std=0.2,
    )
    return Decoder(config).eval(), tokenizer


def test_one_task_gives_the_same_figures(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    from lm_eval.tasks import TaskManager

    from lumi.eval.harness import LumiLM

    rows = []
    for n in range(40):
        goal, longer, shorter = (
            f"the {WORDS[n % 8]} {WORDS[n // 8 % 8]}",
            f"{WORDS[n * 3 % 8]} river stone",
            WORDS[n * 5 % 7],
        )
        rows.append({"goal": goal, "sol1": longer, "sol2": shorter, "label": n % 2})
    path = tmp_path / "piqa.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "task": "own_piqa",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"validation": str(path)}, "cache_dir": str(tmp_path / "cache")},
        "validation_split": "validation",
        "output_type": "multiple_choice",
        "doc_to_text": "Question: {{goal}}\nAnswer:",
        "doc_to_target": "label",
        "doc_to_choice": "{{[sol1, sol2]}}",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }
    manager = TaskManager(include_defaults=False)
    found: Any = lm_eval.simple_evaluate(
        model=LumiLM(*model), tasks=[settings], task_manager=manager, bootstrap_iters=0
    )
    theirs = found["results"]["own_piqa"]
    decoder, tokenizer = model
    ours = run_task(decoder, tokenizer, list(Task(name="piqa", reader="piqa", path=str(path)).items()))
    assert 0.0 < ours.accuracy["plain"] < 1.0
    assert theirs["acc,none"] == pytest.approx(ours.accuracy["plain"])
    assert theirs["acc_norm,none"] == pytest.approx(ours.accuracy["per_character"])


def test_the_whole_text_and_generation(model):
    from lm_eval.api import instance

    from lumi.eval.harness import LumiLM
    from lumi.eval.perplexity import text_perplexity

    Instance: Any = instance.Instance  # noqa: N806 - its own name
    decoder, tokenizer = model
    harness: Any = LumiLM(decoder, tokenizer)
    text = "the ice is cold " * 40
    request = Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text,), idx=0)
    expected = text_perplexity(decoder, tokenizer, text, window=64, stride=32)
    assert harness.loglikelihood_rolling([request])[0] == pytest.approx(-expected.nll_nats, rel=1e-5)
    ask = Instance(
        request_type="generate_until", doc={}, arguments=("Question:", {"until": ["e"], "max_gen_toks": 12}), idx=0
    )
    assert "e" not in harness.generate_until([ask])[0]
