"""``evaluate.py reproduce=…``: the run again, to the last bit, and what is said where it is another one."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lumi.errors import ConfigError, DataError
from lumi.evaluate import evaluate
from lumi.lineage.compare import compare_metrics, compare_runs
from lumi.manifest import MANIFEST, fingerprint, write_manifest

from .conftest import Made, changed


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Path:
    """The first run, to be tampered with."""
    return Path(shutil.copytree(made.run("base"), tmp_path / "base"))


def rewritten(path: Path, **more: Any) -> None:
    """Settings in a run.json are other ones."""
    said = json.loads(path.read_bytes())
    said["settings"] |= more
    path.write_text(json.dumps(said))


@pytest.mark.parametrize("name", ["base", "liked"])
def test_a_run_is_made_again_bit_for_bit(made: Made, tmp_path: Path, name: str) -> None:
    again = tmp_path / "again"
    evaluate(made.compose("evaluate", f"reproduce='{made.run(name)}'", f"out='{again}'"))
    found = json.loads((again / "reproduction.json").read_bytes())
    assert found["identical"]
    assert (found["metrics"]["rows"], found["weights"]["step"], found["changed_since"]) == (4, 4, [])
    assert all(one == two for one, two in found["weights"]["sha256"].values())


def test_a_few_steps_are_those_of_the_whole_run(made: Made, tmp_path: Path) -> None:
    again = tmp_path / "again"
    evaluate(made.compose("evaluate", f"reproduce='{made.run('chat')}'", "reproduce_steps=3", f"out='{again}'"))
    found = json.loads((again / "reproduction.json").read_bytes())
    assert found["identical"]
    assert (found["metrics"]["rows"], found["weights"]["step"]) == (3, 3)


def test_another_seed_in_the_record_is_found_and_named(made: Made, copied: Path) -> None:
    rewritten(copied / "run.json", seed=1)
    with pytest.raises(
        DataError, match=r"step 1 train/loss 0x1.*0x1.*disagree about the settings: seed: 0 -> 1"
    ) as caught:
        evaluate(made.compose("evaluate", f"reproduce='{copied}'", "reproduce_steps=3"))
    assert caught.value.exit_code == 3
    assert "after step 3 tensor" in str(caught.value)


def test_a_changed_data_file_is_found_and_named(made: Made, tmp_path: Path) -> None:
    shard = made.root / "data/packed/both/both/second/train-00000.bin"
    with changed(shard), pytest.raises(DataError, match=f"{shard} has sha256"):
        evaluate(made.compose("evaluate", f"reproduce='{made.run('base')}'", f"out='{tmp_path / 'again'}'"))


def test_another_initial_model_is_found_before_a_step_is_trained(made: Made, tmp_path: Path) -> None:
    path = shutil.copytree(made.run("chat"), tmp_path / "chat") / "run.json"
    said = json.loads(path.read_bytes())
    said["initial"]["weights"]["model.safetensors"] = "0" * 64
    path.write_text(json.dumps(said))
    with pytest.raises(DataError, match=r"model.safetensors has sha256 .* the run began from 000000000000"):
        evaluate(made.compose("evaluate", f"reproduce='{tmp_path / 'chat'}'"))
    assert not list(tmp_path.glob("chat-again-*"))


def test_one_bit_of_one_weight_is_named_with_its_tensor(made: Made, copied: Path) -> None:
    checkpoint = max((copied / "checkpoints").glob("step_*"))
    weights = load_file(checkpoint / "model.safetensors")
    name = sorted(weights)[2]
    weights[name].view(-1).view(torch.int32)[5] ^= 1
    save_file(weights, checkpoint / "model.safetensors")
    (checkpoint / MANIFEST).unlink()
    write_manifest(checkpoint, kind="checkpoint", name=checkpoint.name, fingerprint=fingerprint(1), info={"step": 4})
    found = compare_runs(made.run("base"), copied)
    assert found.first is None
    assert found.tensor is not None
    assert (found.tensor["tensor"], found.tensor["values"]) == (name, 1)
    assert not found.identical


def test_the_first_figure_that_differs_is_the_one_that_is_named() -> None:
    before = {1: {"loss": 2.0, "perf/seconds": 1.0}, 2: {"loss": 1.0, "norm": 3.0}, 3: {"loss": 0.5}}
    after = {1: {"loss": 2.0, "perf/seconds": 9.0}, 2: {"loss": 1.0 + 2**-52, "norm": 4.0}}
    rows, figures, first = compare_metrics(before, after)
    assert (rows, figures) == (2, 3)
    assert first is not None
    assert (first["step"], first["metric"], first["after"]) == (2, "loss", "0x1.0000000000001p+0")


def test_a_second_try_gets_a_folder_of_its_own(made: Made, copied: Path) -> None:
    for _ in range(2):
        evaluate(made.compose("evaluate", f"reproduce='{copied}'", "reproduce_steps=1"))
    assert sorted(path.name for path in copied.parent.glob("base-again-*")) == ["base-again-1", "base-again-2"]


@pytest.mark.parametrize("words", [("reproduce=none",), ("reproduce=none", "reproduce_steps=0")])
def test_what_is_no_run_is_refused(made: Made, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="reproduce"):
        evaluate(made.compose("evaluate", *words))
