"""What the loggers write, read back from their own files."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from omegaconf import DictConfig

from lumi.callbacks import MetricsCsv, read_metrics
from lumi.run import train

SAMPLER = (
    "callbacks.samples={_target_: lumi.callbacks.Samples, prompts: ['Once'],"
    " sampling: {_target_: lumi.generate.SamplingParams, max_new_tokens: 4, seed: 0}}"
)
BLOCK, FILE_HEADER, RECORD_HEADER = 32768, 7, 7


def wandb_records(path: Path) -> Iterator[bytes]:
    """The records of an offline W&B file: LevelDB's log format after a header of seven bytes."""
    data, at, parts = path.read_bytes(), FILE_HEADER, b""
    while at + RECORD_HEADER <= len(data):
        if BLOCK - at % BLOCK < RECORD_HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + RECORD_HEADER])
        parts += data[at + RECORD_HEADER : at + RECORD_HEADER + length]
        at += RECORD_HEADER + length
        if kind in (1, 4):  # a full record, or the last part of one
            yield parts
            parts = b""


@pytest.fixture(scope="module")
def offline_run(
    composed: Callable[..., DictConfig],
    tiny_run: tuple[str, ...],
    data_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A run of four steps with W&B offline and TensorBoard."""
    runs = tmp_path_factory.mktemp("logged")
    places = (f"paths.data='{data_folder}'", f"paths.runs='{runs}'", "name=run", "budget.steps=4")
    loggers = (
        "logger=wandb",
        "logger.wandb.offline=true",
        "+logger.tensorboard={_target_: lumi.callbacks.TensorBoard}",
    )
    train(composed("train", *tiny_run, *places, *loggers, "trainer.val_every_steps=2", SAMPLER))
    return runs / "run"


@pytest.fixture(scope="module")
def offline_text(offline_run: Path) -> str:
    """Everything in the offline W&B file, as protobuf's own text format."""
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue]  # made by protobuf

    file = next((offline_run / "wandb").glob("offline-run-*/run-*.wandb"))
    records = []
    for raw in wandb_records(file):
        record = Record()
        record.ParseFromString(raw)
        records.append(str(record))
    return "\n".join(records)


@pytest.mark.parametrize(
    "name",
    [
        *("train/loss", "val/loss", "val/bits_per_byte", "val/perplexity", "optim/lr", "optim/grad_norm"),
        *(
            "perf/tokens_per_second",
            "perf/mfu",
            "perf/memory_gb",
            "progress/tokens",
            "progress/percent",
            "progress/epochs",
        ),
        *("val/loss/second", "mix/world", "samples"),
    ],
)
def test_wandb_offline_has_every_metric_and_the_samples(offline_text: str, name: str) -> None:
    assert f'"{name}"' in offline_text


def test_wandb_offline_has_the_config_and_the_artefact_hashes(offline_text: str) -> None:
    assert "artefacts" in offline_text
    assert "lumi.optim.AdamW" in offline_text


def test_tensorboard_has_the_loss_and_the_samples(offline_run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(offline_run / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4]
    assert "samples/text_summary" in events.Tags()["tensors"]


def test_the_csv_has_the_same_losses(offline_run: Path) -> None:
    rows = read_metrics(offline_run / "metrics.csv")
    assert sorted(rows) == [1, 2, 3, 4]
    assert {"train/loss", "val/loss", "progress/epochs"} <= set(rows[2])


def test_rows_after_the_step_that_is_resumed_from_go(tmp_path: Path) -> None:
    first = MetricsCsv(tmp_path / "metrics.csv")
    for step in (1, 2, 3):
        first.log_metrics({"train/loss": float(step)}, step)
    MetricsCsv(tmp_path / "metrics.csv", from_step=2).log_metrics({"train/loss": 9.0}, 3)
    assert [row["train/loss"] for row in read_metrics(tmp_path / "metrics.csv").values()] == [1.0, 2.0, 9.0]


def test_a_metric_that_comes_later_gets_a_column(tmp_path: Path) -> None:
    log = MetricsCsv(tmp_path / "metrics.csv")
    log.log_metrics({"a": 1.0}, 1)
    log.log_metrics({"b": 2.0}, 2)
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["step,a,b", "1,1.0,", "2,,2.0"]


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,a,b\n1,1.0,2.0\n2,3.")
    assert read_metrics(tmp_path / "metrics.csv") == {1: {"a": 1.0, "b": 2.0}}
