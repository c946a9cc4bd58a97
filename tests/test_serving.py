"""What `serve.py` composes: which models answer, by what, under which names."""

import asyncio
import io
import sys
from pathlib import Path

import pytest
from omegaconf import DictConfig

from lumi import serving
from lumi.config import resolve
from lumi.errors import ConfigError, DataError
from lumi.evaluate import answer
from lumi.generate import SamplingParams
from lumi.serve.metrics import Metrics
from lumi.serve.models import ServedModel
from lumi.serve.protocol import ChatRequest
from lumi.trained import load_trained

QUESTION = "Where does Vesna Lambourne live?"


@pytest.fixture(scope="session")
def runs(stages):
    return Path(stages["dpo"][-1].removeprefix("init_from=").strip("'")).parent


@pytest.fixture
def config(composed, runs):
    def compose(*overrides: str) -> DictConfig:
        return composed("serve", f"model='{runs / 'sft'}'", "device=cpu", "slots=2", *overrides)

    return compose


def ask(model: ServedModel, **fields) -> list[int]:
    """The tokens of one answer."""

    async def run() -> list[int]:
        model.scheduler.start()
        body = ChatRequest.model_validate({"messages": [{"role": "user", "content": QUESTION}], **fields})
        (ticket,) = model.scheduler.submit(model.chat_requests(body))
        async for _ in ticket.progress():
            pass
        model.scheduler.stop()
        return ticket.request.tokens

    return asyncio.run(run())


def served(cfg: DictConfig) -> ServedModel:
    settings = resolve(cfg)
    (trained,) = serving._load(settings)
    return serving._served("tiny", trained, settings, Metrics([]))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("mode=apis", "mode=apis.*api"),
        ("engine=lama", "engine=lama"),
        ("dtype=float64", "dtype=float64"),
        ("slots=0", "slots=0.*from 1"),
        ("server.host=0.0.0.0", "needs a key.*LUMI_API_KEY"),
        ("server.api_key=short", "at least 16"),
        ("sampling.temperature=-1", "sampling.temperature=-1"),
        ("+temperature=1", "is not a setting"),
        ("base=runs/other", "goes with an adapter"),
    ],
)
def test_a_setting_that_cannot_be_is_named_before_anything_is_served(config, override, message):
    with pytest.raises(ConfigError, match=message):
        serving.serve(config(override))


@pytest.mark.parametrize(("mode", "engine"), [("chat", "llamacpp"), ("chat", "vllm"), ("batch", "vllm")])
def test_a_mode_that_an_engine_cannot_answer_is_refused(config, mode, engine):
    with pytest.raises(ConfigError, match=f"engine={engine} · mode={mode} answers with engine=lumi"):
        serving.serve(config(f"mode={mode}", f"engine={engine}"))


@pytest.mark.parametrize("mode", ["chat", "batch", "api"])
def test_the_name_of_a_files_numbers_is_none_of_an_engine(config, mode):
    with pytest.raises(ConfigError, match="dtype=q8_0 · there is no such option"):
        serving.serve(config(f"mode={mode}", "dtype=q8_0"))


def test_a_model_that_is_not_there_is_named(composed):
    with pytest.raises(DataError, match="model=nowhere"):
        serving.serve(composed("serve", "model=nowhere"))


@pytest.mark.parametrize("mode", ["chat", "export"])
def test_only_the_api_takes_several_models(config, runs, mode):
    with pytest.raises(ConfigError, match="takes one model"):
        serving.serve(config(f"mode={mode}", f"model=['{runs / 'sft'}','{runs / 'sft'}']"))


def test_models_of_one_name_are_told_apart(runs):
    models = [load_trained(runs / name) for name in ("sft", "sft", "pretrain")]
    assert list(serving._names(models)) == ["sft", "sft-2", "pretrain"]


def test_the_terminal_answers_as_the_evaluation_does(config, runs, monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    sampling = ("sampling.temperature=0", "sampling.max_new_tokens=12")
    serving.serve(config("mode=chat", f"prompt='{QUESTION}'", *sampling))
    expected = answer(load_trained(runs / "sft"), QUESTION, SamplingParams(temperature=0, max_new_tokens=12))
    assert out.getvalue().strip() == expected.strip()


def test_the_served_model_answers_as_the_run_does(config, runs):
    model = served(config())
    trained = load_trained(runs / "sft")
    tokens = ask(model, temperature=0, max_tokens=12)
    assert trained.template is not None
    assert trained.template.read(trained.tokenizer, tokens).strip() == (
        answer(trained, QUESTION, SamplingParams(temperature=0, max_new_tokens=12)).strip()
    )


def test_llamacpp_behind_the_same_api_gives_the_same_greedy_answer(config):
    pytest.importorskip("xllamacpp")
    ours = ask(served(config()), temperature=0, max_tokens=12)
    theirs = ask(served(config("engine=llamacpp", "dtype=f32")), temperature=0, max_tokens=12)
    assert theirs == ours


def test_what_llamacpp_cannot_do_is_refused(config):
    pytest.importorskip("xllamacpp")
    with pytest.raises(ConfigError, match="not there with engine=llamacpp"):
        ask(served(config("engine=llamacpp", "dtype=f32")), no_repeat_ngram=2)


def test_vllm_that_is_not_installed_is_named(config):
    with pytest.raises(ConfigError, match="needs vLLM"):
        serving.serve(config("engine=vllm"))
