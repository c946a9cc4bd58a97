"""T10: the whole way from text to a chat model, twice: other folder, directory, user and hash seed, the same bytes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lumi.manifest import MANIFEST, sha256_file
from tests.conftest import TINY_CHAT, TINY_RUN
from tests.faults.ledger import Report

ROOT = Path(__file__).parents[3]
PIPELINE = """
import sys
from pathlib import Path
from hydra import compose, initialize_config_dir
from lumi.run import train
conf, root, pretrain, chat = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3].split("|"), sys.argv[4].split("|")
places = [f"paths.data='{root / 'data'}'", f"paths.runs='{root / 'runs'}'", "budget.epochs=null", "budget.steps=3"]
with initialize_config_dir(str(conf), version_base="1.3"):
    runs = [compose("train", [*pretrain, "name=base", *places]), compose("train", [*chat, "name=chat", *places])]
for cfg in runs:
    train(cfg)
"""

VARIANTS = {
    "another folder": {"folder": "another place/with a longer name"},
    "another directory to start from": {"cwd": True},
    "another user": {"USER": "vesna", "LOGNAME": "vesna", "HOME": True},
    "another hash seed": {"PYTHONHASHSEED": "12345"},
}
OF_THE_RUN = ("training.pt", "run.json", "config.yaml", "metrics.csv", MANIFEST)
"""Files that say where and when: paths, versions, seconds."""


def pipeline(root: Path, **changes: str | bool) -> dict[str, str]:
    """Run it; file → SHA-256 of everything that was made."""
    place = root / str(changes.pop("folder", "here"))
    elsewhere = root / "elsewhere"
    elsewhere.mkdir(parents=True)
    place.mkdir(parents=True)
    cwd = elsewhere if changes.pop("cwd", False) else ROOT
    home = {"HOME": str(elsewhere)} if changes.pop("HOME", False) else {}
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": str(ROOT),
        **home,
        **{k: str(v) for k, v in changes.items()},
    }
    pretrain, chat = (
        "|".join((*TINY_RUN, "arch.max_seq_len=128")),
        "|".join((*TINY_CHAT, f"init_from='{place}/runs/base'")),
    )
    command = [sys.executable, "-c", PIPELINE, str(ROOT / "conf"), str(place), pretrain, chat]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    files = [
        file
        for file in place.rglob("*")
        if file.is_file() and file.name not in OF_THE_RUN and not file.name.endswith(".lock")
    ]
    return {str(file.relative_to(place)): sha256_file(file) for file in files}


def everything(tmp_path: Path, names: tuple[str, ...]) -> tuple[int, int]:
    """Files of the first pipeline, and how many variants differ from it in any."""
    first = pipeline(tmp_path / "first")
    assert any(name.endswith("adapter_model.safetensors") for name in first)
    assert any(name.endswith("tokenizer.model") for name in first)
    assert any(name.endswith(".bin") for name in first)
    return len(first), sum(pipeline(tmp_path / name, **VARIANTS[name]) != first for name in names)


@pytest.mark.faults
@pytest.mark.matrix("T10")
def test_all_differences_at_once_change_no_byte(tmp_path: Path, row: Report) -> None:
    VARIANTS["all at once"] = {key: value for variant in VARIANTS.values() for key, value in variant.items()}
    n_files, failures = everything(tmp_path, ("all at once",))
    row(trials=1, failures=failures, note=f"{n_files} files, from the corpus to the adapter of a chat model")


@pytest.mark.faults
@pytest.mark.matrix("T10")
def test_no_difference_changes_a_byte(tmp_path: Path, row: Report) -> None:
    names = ("another folder", "another directory to start from", "another user", "another hash seed")
    n_files, failures = everything(tmp_path, names)
    row(trials=len(names), failures=failures, note=f"{n_files} files in each of five pipelines")
