"""Every kind of work that writes an artefact, each a function of the folder to write into; what they read is made once."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from lumi.corpus import World, build_corpus
from lumi.data.pack import PackConfig, pack
from lumi.tokenizer import TokenizerConfig
from lumi.tokenizer.train import train_tokenizer
from tests.conftest import TINY_CHAT
from tests.corpus.conftest import make_corpus

Work = Callable[[Path], object]

TOKENIZER = TokenizerConfig(name="t", vocab_size=700, num_threads=1, train_megabytes=1.0)


def make_tokenizer(folder: Path, *, force: bool = True) -> None:
    """From a small world, without a corpus: it takes any texts. By default one that is there is made again."""

    def texts():
        return (document.text for document in World(name="one", seed=0, megabytes=0.2).documents())

    train_tokenizer(texts, folder, TOKENIZER, parents={"corpus": "0"}, force=force)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an undisturbed corpus ``c``, tokenizer ``t`` and packed data ``p``."""
    folder = tmp_path_factory.mktemp("undisturbed")
    build_corpus(make_corpus(), folder / "c")
    make_tokenizer(folder / "t")
    pack(folder / "c", folder / "t", folder / "p", PackConfig())
    return folder


@pytest.fixture(scope="session")
def adapter_run(
    composed: Callable[..., DictConfig],
    stages: dict[str, tuple[str, ...]],
    data_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A chat model of three steps, an adapter over a pretrained one."""
    from lumi.run import train  # late: seconds of import

    runs = tmp_path_factory.mktemp("adapter")
    places = (f"paths.data='{data_folder}'", f"paths.runs='{runs}'", "name=chat")
    train(composed("train", *stages["sft"], *places, "budget.epochs=null", "budget.steps=3"))
    return runs / "chat"


@pytest.fixture(scope="session")
def works(
    made: Path, adapter_run: Path, composed: Callable[..., DictConfig], tiny_run: tuple[str, ...], data_folder: Path
) -> dict[str, Work]:
    """By name; all of them write below the folder they are given, and made again they replace what is there."""
    from lumi.evaluate import evaluate
    from lumi.export import export_model
    from lumi.prepare import prepare
    from lumi.run import train
    from lumi.trained import load_trained, save_trained

    chat = [one for one in TINY_CHAT if one.startswith("data.sources.")]
    conversations = composed("prepare", "step=chat", "data=chat", "force=true", *chat)
    pretrain = composed("train", *tiny_run, f"paths.data='{data_folder}'", "name=run", "budget.steps=4")
    pretrain.callbacks.checkpoint.every_steps = 1
    evaluation = composed(
        "evaluate", f"model='{adapter_run}'", "suite=quick", "force=true", "skip=[smoke,text,tasks,baselines]"
    )
    model = load_trained(adapter_run)

    def at(cfg: DictConfig, key: str, folder: Path) -> DictConfig:
        cfg = cfg.copy()
        cfg[key] = {**cfg[key], **{name: str(folder) for name in ("runs", "data")}} if key == "paths" else str(folder)
        return cfg

    def export(folder: Path) -> None:
        export_model(
            decoder=model.decoder,
            tokenizer=model.tokenizer,
            template=model.template,
            facts=model.facts,
            checkpoint=model.checkpoint,
            run=model.run,
            folder=folder / "export",
            format="hf",
        )

    def training(folder: Path) -> None:
        cfg = pretrain.copy()
        cfg.paths.runs = str(folder)
        train(cfg)

    return {
        "corpus": lambda folder: build_corpus(make_corpus(), folder / "c", force=True),
        "tokenizer": lambda folder: make_tokenizer(folder / "t"),
        "packed": lambda folder: pack(made / "c", made / "t", folder / "p", PackConfig(), force=True),
        "conversations": lambda folder: prepare(at(conversations, "paths", folder)),
        "training": training,
        "merge": lambda folder: save_trained(model, folder / "merged"),
        "export": export,
        "evaluation": lambda folder: evaluate(at(evaluation, "out", folder / "eval")),
    }
