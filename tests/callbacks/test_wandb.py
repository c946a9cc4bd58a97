"""What ``logger=wandb`` writes, read back from its own file."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from lumi.callbacks import Progress, list_checkpoints, read_metrics
from lumi.errors import ConfigError, Interrupted
from lumi.manifest import MANIFEST, read_manifest, sha256_file
from lumi.run import train

from .conftest import LOGGERS, SAMPLER
from .wandb_records import OfflineRun


@pytest.fixture(scope="module")
def offline(logged_run: Path) -> OfflineRun:
    return OfflineRun(logged_run)


@pytest.fixture
def stops_at_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that begins anew is stopped by a signal after its second step."""
    plain, sent = Progress.on_train_batch_end, []

    def deadly(self: Progress, trainer: Any, *rest: Any) -> None:
        plain(self, trainer, *rest)
        if trainer.global_step == 2 and not sent:
            sent.append(os.kill(os.getpid(), signal.SIGTERM))

    monkeypatch.setattr(Progress, "on_train_batch_end", deadly)


def test_the_csv_tensorboard_and_wandb_have_the_same_names_steps_and_values(
    logged_run: Path, offline: OfflineRun
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(logged_run / "tensorboard")).Reload()
    of_tensorboard: dict[int, dict[str, float]] = {}
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            of_tensorboard.setdefault(event.step, {})[name] = event.value
    of_wandb = {
        step: {name: value for name, value in row.items() if name != "samples"} for step, row in offline.rows.items()
    }
    of_csv = read_metrics(logged_run / "metrics.csv")
    assert of_wandb == of_csv
    assert of_tensorboard == {step: pytest.approx(row, rel=1e-6) for step, row in of_csv.items()}  # float32 there
    assert of_csv[4]["progress/flops"] == of_csv[4]["progress/tokens"] * offline.config["plan"]["flops_per_token"]


def test_panels_can_be_drawn_against_tokens_and_operations(offline: OfflineRun) -> None:
    defined = {metric.name or metric.glob_name: metric.step_metric for metric in offline.of("metric")}
    assert defined == {"progress/tokens": "", "progress/flops": "", "*": "progress/tokens"}


def test_the_config_has_settings_hashes_code_and_plan(offline: OfflineRun, logged_run: Path) -> None:
    config = offline.config
    state = json.loads((logged_run / "run.json").read_bytes())
    checkpoint = json.loads((list_checkpoints(logged_run / "checkpoints")[0][1] / "run.json").read_bytes())
    assert config["optim"] == state["settings"]["optim"]
    assert config["artefacts"] == {"tokenizer": checkpoint["tokenizer_sha256"], **checkpoint["data"]}
    assert config["plan"] == state["plan"]
    assert len(config["code"]["commit"]) == 40
    assert isinstance(config["code"]["dirty"], bool)


def test_a_run_has_its_stage_and_tags_and_no_group_by_itself(offline: OfflineRun) -> None:
    run = offline.of("run")[0]
    assert (run.job_type, sorted(run.tags), run.run_group) == ("pretrain", ["2x32", "adamw", "world"], "")
    assert (run.project, run.display_name) == ("lumi", "run")


def test_the_summary_has_the_best_validation_the_plan_and_the_state(offline: OfflineRun, logged_run: Path) -> None:
    summary, plan = offline.summary, offline.config["plan"]
    losses = {
        step: row["val/loss"] for step, row in read_metrics(logged_run / "metrics.csv").items() if "val/loss" in row
    }
    assert summary["best/val/loss"] == min(losses.values())
    assert losses[summary["best/step"]] == min(losses.values())
    assert summary["val/loss"] == losses[4]
    assert summary["plan/tokens"] == 4 * plan["tokens_per_step"]
    assert summary["plan/flops"] == summary["plan/tokens"] * plan["flops_per_token"]
    assert (summary["plan/parameters"], summary["state"]) == (plan["parameters"], "finished")
    assert [ended.exit_code for ended in offline.of("exit")] == [0]


def test_the_table_of_samples_grows_with_every_validation(offline: OfflineRun) -> None:
    logged = {step: row["samples"] for step, row in offline.rows.items() if "samples" in row}
    assert {step: table["nrows"] for step, table in logged.items()} == {2: 2, 4: 4}
    tables = {
        step: json.loads((offline.folder / "files" / table["path"]).read_bytes()) for step, table in logged.items()
    }
    assert [table["columns"] for table in tables.values()] == [["step", "prompt", "continuation"]] * 2
    assert [row[:2] for step in (2, 4) for row in tables[step]["data"]] == [
        [2, "Once"],
        [2, "The"],
        [4, "Once"],
        [4, "The"],
    ]


def test_artifacts_lead_from_the_text_to_the_model_by_our_hashes(
    offline: OfflineRun, logged_run: Path, data_folder: Path
) -> None:
    used, made = offline.artifacts(used=True), offline.artifacts(used=False)
    assert {one.name: one.type for one in used.values()} == {
        "dataset-world": "dataset", "tokenizer-world": "tokenizer", "packed-world": "packed", "packed-second": "packed"
    }  # fmt: skip
    facts = {name: json.loads(one.metadata) for name, one in {**used, **made}.items()}
    packed, model = facts["packed-world"], facts["model-run"]
    assert packed["parents"]["corpus"] in json.dumps(facts["dataset-world"]["info"])
    assert packed["parents"]["tokenizer"] == facts["tokenizer-world"]["info"]["sha256"]
    assert model["parents"]["world"] == packed["fingerprint"]
    checkpoint = list_checkpoints(logged_run / "checkpoints")[0][1]
    assert model["sha256"] == sha256_file(checkpoint / MANIFEST)
    assert "step-4" in made["model-run"].aliases


def test_manifests_are_sent_and_no_data_unless_asked(offline: OfflineRun) -> None:
    everything = [*offline.artifacts(used=True).values(), *offline.artifacts(used=False).values()]
    assert {entry.path for one in everything for entry in one.manifest.contents} == {MANIFEST}


def test_artifacts_with_files_have_every_file_of_the_manifest(logged_run: Path) -> None:
    from lumi.callbacks.lineage import describe

    checkpoint = list_checkpoints(logged_run / "checkpoints")[0][1]
    artifact = describe(checkpoint, "files")
    assert set(artifact.manifest.entries) == {MANIFEST, *read_manifest(checkpoint).files}


def test_system_metrics_are_on_and_the_console_is_not_sent(offline: OfflineRun) -> None:
    assert any("cpu" in item.key for stats in offline.of("stats") for item in stats.item)
    assert not offline.of("output")
    assert not offline.of("output_raw")


@pytest.mark.usefixtures("stops_at_two")
def test_a_stopped_run_says_so_and_continues_as_the_same_run(
    composed: Callable[..., DictConfig], tiny_run: tuple[str, ...], data_folder: Path, tmp_path: Path
) -> None:
    places = (f"paths.data='{data_folder}'", f"paths.runs='{tmp_path}'", "name=run", "budget.steps=4")
    cfg = composed("train", *tiny_run, *places, *LOGGERS, "trainer.val_every_steps=4", SAMPLER, "study=widths")
    with pytest.raises(Interrupted):
        train(cfg)
    train(cfg)
    stopped, resumed = OfflineRun(tmp_path / "run", 0), OfflineRun(tmp_path / "run", 1)
    assert stopped.of("run")[0].run_id == resumed.of("run")[0].run_id
    assert {run.of("run")[0].run_group for run in (stopped, resumed)} == {"widths"}
    assert (stopped.summary["state"], resumed.summary["state"]) == ("stopped", "finished")
    assert [max(stopped.rows), *resumed.rows] == [2, 3, 4]
    assert not stopped.artifacts(used=False)


def test_without_a_key_the_run_does_not_begin(
    composed: Callable[..., DictConfig], tiny_run: tuple[str, ...], data_folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    places = (f"paths.data='{data_folder}'", f"paths.runs='{tmp_path}'", "name=run", "budget.steps=1")
    with pytest.raises(ConfigError, match=r"logger=wandb · needs a key · wandb login"):
        train(composed("train", *tiny_run, *places, "logger=wandb"))
