"""What the loggers write, read back from their own files."""

from pathlib import Path

from lumi.callbacks import MetricsCsv, read_metrics


def test_tensorboard_has_the_loss_and_the_samples(logged_run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(logged_run / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4]
    assert "samples/text_summary" in events.Tags()["tensors"]


def test_tensorboard_has_the_settings_beside_the_best_loss_and_a_layout(logged_run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData  # pyright: ignore[reportAttributeAccessIssue]  # made by protobuf

    events = EventAccumulator(str(logged_run / "tensorboard")).Reload()
    data = HParamsPluginData()
    data.ParseFromString(events.summary_metadata["_hparams_/session_start_info"].plugin_data.content)
    assert data.session_start_info.hparams["optim.lr"].number_value == 0.002
    assert data.session_start_info.hparams["state"].string_value == "finished"
    assert "custom_scalars__config__" in events.Tags()["tensors"]


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
