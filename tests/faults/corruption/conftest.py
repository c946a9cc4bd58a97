"""One small artefact of each kind, made once a session, and the reader that a program would use for it."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lumi.arch.weights import read_config
from lumi.callbacks import list_checkpoints
from lumi.callbacks.checkpoint import FolderCheckpointIO, RunFacts
from lumi.corpus import read_corpus
from lumi.data.packed import PackedStream
from lumi.manifest import sha256_file
from lumi.tokenizer import Tokenizer
from lumi.trained import load_trained
from tests.export.conftest import adapter, chat_run, export, hf, trained

__all__ = ["adapter", "chat_run", "export", "hf", "trained"]


@dataclasses.dataclass(frozen=True)
class Artefact:
    """A folder of this test session's own, the file in it that is damaged, and its reader."""

    folder: Path
    file: str
    read: Callable[[Path], Any]

    @property
    def path(self) -> Path:
        return self.folder / self.file

    @property
    def other(self) -> Path:
        """A file to exchange it with."""
        files = (path for path in sorted(self.folder.iterdir()) if path.is_file() and path.name != "MANIFEST.json")
        return next(path for path in files if path != self.path and path.read_bytes() != self.path.read_bytes())


def resumer(checkpoint: Path) -> Callable[[Path], dict[str, Any]]:
    """Reads what a run continues from, as the run of this checkpoint does."""
    config = read_config(checkpoint)
    sha256 = sha256_file(checkpoint / "tokenizer.model")
    facts = RunFacts(decoder=config, tokenizer=b"", tokenizer_sha256=sha256, facts={}, tokens=lambda step: step)
    return FolderCheckpointIO(facts).load_checkpoint


@pytest.fixture(scope="session")
def checkpoint(stages: dict[str, tuple[str, ...]]) -> Path:
    """Of a pretrained model; not to be changed."""
    run = next(Path(word.partition("=")[2].strip("'")) for word in stages["sft"] if word.startswith("init_from="))
    return list_checkpoints(run / "checkpoints")[0][1]


@pytest.fixture(scope="session")
def artefacts(
    checkpoint: Path, chat_run: Path, data_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Artefact]:
    """Kind → artefact, copies that a test may damage and has to mend."""
    root = tmp_path_factory.mktemp("artefacts")
    made = {
        "corpus": data_folder / "corpus" / "world",
        "packed": data_folder / "packed" / "world" / "world" / "world",
        "tokenizer": data_folder / "tokenizer" / "world",
        "checkpoint": checkpoint,
        "adapter": list_checkpoints(chat_run / "checkpoints")[0][1],
    }
    copies = {name: Path(shutil.copytree(folder, root / name)) for name, folder in made.items()}
    shards = json.loads((copies["corpus"] / "MANIFEST.json").read_bytes())["info"]["sources"]["world"]["shards"]

    def packed(folder: Path) -> PackedStream:
        return PackedStream(folder, "train", 8)

    return {
        "corpus shard": Artefact(copies["corpus"], shards[0], lambda folder: list(read_corpus(folder))),
        "index": Artefact(copies["packed"], "train.offsets.npy", packed),
        "packed bin": Artefact(copies["packed"], "train-00000.bin", packed),
        "manifest": Artefact(copies["packed"], "MANIFEST.json", packed),
        "spm.model": Artefact(copies["tokenizer"], "tokenizer.model", Tokenizer.load),
        "config": Artefact(copies["checkpoint"], "decoder.json", load_trained),
        "weights": Artefact(copies["checkpoint"], "model.safetensors", load_trained),
        "optimizer": Artefact(copies["checkpoint"], "training.pt", resumer(checkpoint)),
        "adapter": Artefact(copies["adapter"], "adapter_model.safetensors", load_trained),
    }
