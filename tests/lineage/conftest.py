"""One tiny pipeline with everything that Lumi writes: from files of text to a study, made once for all tests here."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from omegaconf import DictConfig

from lumi.corpus import Document, World
from lumi.manifest import sha256_file
from tests.conftest import TINY_CHAT, TINY_PAIRS, TINY_RUN

Compose = Callable[..., DictConfig]

LONG = "arch.max_seq_len=128"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
    """Where everything lies, and how to make more of it.

    Attributes:
        root: of it all. texts: the files that the corpus was read from.
        compose: configs as the scripts would have them, with the folders of this pipeline.
    """

    root: Path
    texts: Path
    compose: Compose

    def run(self, name: str) -> Path:
        """Folder of a run."""
        return self.root / "runs" / name


def write_texts(folder: Path) -> Path:
    """Two files of a small world, as somebody would bring them."""
    folder.mkdir()
    world = World(seed=0, megabytes=0.2)
    rows = [json.dumps({"text": one.text}) for one in world.documents() if isinstance(one, Document)]
    for number, part in enumerate((rows[: len(rows) // 2], rows[len(rows) // 2 :])):
        (folder / f"part-{number}.jsonl").write_text("\n".join(part) + "\n")
    return folder


def stage_words(root: Path, texts: Path) -> dict[str, Sequence[str]]:
    """Overrides of each stage's run: text from files beside a generated world, an adapter, pairs."""
    files = ("source=files", f"source.path='{texts}/*.jsonl'", "source.name=texts", "corpus.name=both")
    tiny = (*(word for word in TINY_RUN if not word.startswith("source.")), LONG, *files)
    return {
        "base": tiny,
        "chat": (*TINY_CHAT, f"init_from='{root}/runs/base'", "data.replay=0.2", "stage.lora.merge=true"),
        "liked": (*TINY_PAIRS, f"init_from='{root}/runs/chat'"),
    }


@pytest.fixture(scope="session")
def made(composed: Compose, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Three runs, one after the other, with what is made from them."""
    from lumi.run import train  # late: seconds of import

    root = tmp_path_factory.mktemp("lineage")
    texts = write_texts(root / "texts")

    def compose(name: str, *words: str) -> DictConfig:
        places = (f"paths.data='{root}/data'", f"paths.runs='{root}/runs'") if name in ("train", "prepare") else ()
        return composed(name, *words, *places)

    for name, words in stage_words(root, texts).items():
        train(compose("train", *words, f"name={name}", "budget.epochs=null", "budget.steps=4", "trainer.accumulate=2"))
    return Made(root=root, texts=texts, compose=compose)


@pytest.fixture(scope="session")
def reported(made: Made) -> Made:
    """The same with evaluations, a comparison, a study's report and an export."""
    from lumi.evaluate import evaluate
    from lumi.serving import serve

    base, chat = made.run("base"), made.run("chat")
    for name, words in (("base", ["parts=[packed,baselines]"]), ("liked", ["parts=[preference]", "limit=4"])):
        evaluate(made.compose("evaluate", f"model='{made.run(name)}'", *words))
    both = f"model=['{base}','{chat}']"
    evaluate(made.compose("evaluate", both, "parts=[packed]", f"out='{made.root}/comparison'"))
    evaluate(made.compose("evaluate", f"compare=['{base}']", f"out='{made.root}/study'"))
    serve(made.compose("serve", f"model='{chat}'", "mode=export", "format=hf"))
    return made


@contextlib.contextmanager
def changed(path: Path) -> Iterator[str]:
    """One byte of a file is another one while the block runs; gives the hash it has then."""
    whole = path.read_bytes()
    at = len(whole) // 2
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    try:
        yield sha256_file(path)
    finally:
        path.write_bytes(whole)


@contextlib.contextmanager
def gone(path: Path) -> Iterator[None]:
    """A file or folder is not there while the block runs."""
    aside = path.with_name(f"{path.name}.aside")
    path.rename(aside)
    try:
        yield
    finally:
        aside.rename(path)
