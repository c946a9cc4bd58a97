"""Nothing that a run writes or sends holds a key, and nothing that is sent holds the home folder."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from lumi.errors import ConfigError
from lumi.run import train
from tests.faults.ledger import Report

from .conftest import LOGGERS, SAMPLER
from .wandb_records import OfflineRun

SECRETS = {
    "WANDB_API_KEY": "plantedkey0123456789abcdef0123456789abcdef",
    "HF_TOKEN": "planted-hub-token-1",
    "LUMI_API_KEY": "planted-server-key-1",
    "MY_PASSWORD": "planted-password-1",
}


@pytest.fixture
def secretive_run(
    composed: Callable[..., DictConfig], tiny_run: tuple[str, ...], data_folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:  # fmt: skip
    """A run below a home folder, with keys in the environment."""
    home = tmp_path / "home-of-vesna"
    monkeypatch.setenv("HOME", str(home))
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    places = (f"paths.data='{data_folder}'", f"paths.runs='{home / 'runs'}'", "name=run", "budget.steps=2")
    train(composed("train", *tiny_run, *places, *LOGGERS, SAMPLER))
    return home / "runs" / "run"


@pytest.mark.matrix("T9")
def test_no_file_of_a_run_holds_a_key_and_nothing_sent_holds_the_home_folder(secretive_run: Path, row: Report) -> None:
    files = [file for file in secretive_run.rglob("*") if file.is_file()]
    assert {"config.yaml", "run.json", "metrics.csv", "hparams.yaml"} <= {file.name for file in files}
    assert any(file.suffix == ".wandb" for file in files)
    leaks = [file for file in files if b"planted" in file.read_bytes()]
    assert "home-of-vesna" not in sent_text(secretive_run)
    row(trials=len(SECRETS), failures=len(leaks), note=f"offline, {len(files)} files")


def sent_text(run: Path) -> str:
    """All records as text, and the media; where a file lies on this machine is in the record and is not sent."""
    offline = OfflineRun(run)
    for artifact in offline.of("artifact"):
        for entry in artifact.manifest.contents:
            entry.ClearField("local_path")
    media = [file.read_text() for file in (offline.folder / "files").rglob("*") if file.is_file()]
    return "\n".join([*map(str, offline.records), *media])


def test_a_key_in_a_setting_stops_the_run_before_anything_is_written(
    run_config: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRETS["HF_TOKEN"])
    with pytest.raises(ConfigError, match="the value of HF_TOKEN") as caught:
        train(run_config("source.name=x-planted-hub-token-1"))
    assert "planted" not in str(caught.value)
    assert not list(tmp_path.iterdir())
