"""``python evaluate.py workspace=wandb``: a W&B workspace with the panels that matter, made from code.

The panels name metrics by the names that runs log (see `lumi.callbacks.names`). A panel of something that a run does not have
stays empty, so one workspace serves all stages. What is changed in the browser stays there; the command makes a new view.
"""

import logging
from collections.abc import Sequence
from typing import Any

from lumi.callbacks.metrics import need
from lumi.callbacks.names import PREFERENCE_UNITS, UNITS
from lumi.callbacks.wandb import check_key, first_line
from lumi.errors import ConfigError, DataError

log = logging.getLogger(__name__)

AXES = ("Step", "progress/tokens", "progress/flops")
"""Loss is drawn against each: batches of different sizes compare at equal tokens, models of different sizes at equal cost."""

SWEPT = (
    "optim._target_", "optim.lr", "optim.schedule.warmup_ratio", "optim.weight_decay", "data.batch_size",
    "arch.n_layers", "arch.d_model", "seed",
)  # fmt: skip
"""Settings that a study is likely to vary; the columns of the parallel coordinates."""


class Workspace:
    """A view of a project.

    Args:
        project: that the runs are logged to.
        entity: team or user; null is the default one.
        name: of the view.
    """

    def __init__(self, *, project: str = "lumi", entity: str | None = None, name: str = "Lumi") -> None:
        need("wandb_workspaces", extra="wandb")
        self.project, self.entity, self.name = project, entity, name

    def save(self) -> str:
        """Put it on the server; returns its address.

        Raises:
            ConfigError: there is no key.
            DataError: the server cannot be reached, or refuses.
        """
        check_key("workspace=wandb")
        import requests
        import wandb

        try:
            entity = self.entity or wandb.Api().default_entity
            if entity is None:
                raise ConfigError("workspace.entity=null", "this key belongs to no default team or user", "name one")
            address = self.build(entity).save().url
        except (wandb.Error, requests.RequestException, ValueError, OSError) as error:
            raise DataError(
                f"workspace=wandb: the server did not take it ({first_line(error)})",
                "it is made on the server only",
                "see that it can be reached, that the key is valid (wandb login --relogin) and may write to the project",
            ) from None
        log.info("workspace: %s", address)
        return address

    def build(self, entity: str) -> Any:
        """The workspace as an object of wandb-workspaces."""
        import wandb_workspaces.workspaces as ws

        sections = {
            "Loss": _loss(),
            "Optimisation": [
                _line("Learning rate", ["optim/lr"]),
                _line("Gradient norm", ["optim/grad_norm"], log_y=True),
            ],
            "Speed": [
                _line("Tokens per second", ["perf/tokens_per_second"]),
                _line("Share of the peak", ["perf/mfu"]),
                _line("Memory", ["perf/memory_gb"]),
            ],
            "Mixture": [
                _matching("Validation loss by source", r"^val/loss/.+"),
                _matching("Bits per byte by source", r"^val/bits_per_byte/.+"),
                _matching("Observed shares", r"^mix/.+"),
            ],
            "Samples": _samples(),
            "Responses (sft)": [
                _line("Loss of the responses", ["train/loss", "val/loss"], x="progress/epochs"),
                _line("Perplexity of the responses", ["val/perplexity"], x="progress/epochs"),
            ],
            "Preferences (dpo)": _preferences(),
            "Studies": _studies(),
        }
        return ws.Workspace(
            entity=entity,
            project=self.project,
            name=self.name,
            sections=[ws.Section(name=name, panels=panels, is_open=True) for name, panels in sections.items()],
            settings=ws.WorkspaceSettings(max_runs=50),
            runset_settings=ws.RunsetSettings(
                pinned_columns=[
                    f"summary:{name}" for name in ("best/val/loss", "plan/parameters", "plan/tokens", "state")
                ]
            ),
        )


def _loss() -> list[Any]:
    panels = [_line("Loss", ["train/loss", "val/loss"], x=x, log_x=x == "progress/flops") for x in AXES]
    return [*panels, *(_line("Bits per byte", ["val/bits_per_byte"], x=x) for x in AXES[1:])]


def _preferences() -> list[Any]:
    return [
        _line(name.replace("_", " ").capitalize(), [f"train/{name}", f"val/{name}"])
        for name in ("margin", "accuracy", "drift_chosen")
    ] + [_line("Chosen and rejected answers", ["val/logprob_chosen", "val/logprob_rejected"])]


def _samples() -> list[Any]:
    from wandb_workspaces.reports.v2 import interface as wr

    return [wr.WeavePanelSummaryTable(table_name="samples", layout=wr.Layout(w=24, h=12))]


def _studies() -> list[Any]:
    from wandb_workspaces.reports.v2 import interface as wr

    column = wr.ParallelCoordinatesPlotColumn
    columns = [column(wr.Config(key), log=key == "optim.lr") for key in SWEPT]
    return [
        wr.ParallelCoordinatesPlot(
            title="Settings and loss", columns=[*columns, column(wr.SummaryMetric("best/val/loss"))],
            layout=wr.Layout(w=24, h=10),
        ),
        wr.ParameterImportancePlot(with_respect_to="best/val/loss"),
        *(
            wr.BarPlot(
                title=f"Best validation loss by {key}", metrics=["best/val/loss"], groupby=wr.Config(key),
                groupby_aggfunc="mean", groupby_rangefunc="stderr",
            )
            for key in ("optim._target_", "optim.lr")
        ),
        wr.ScatterPlot(
            title="Loss and cost", x=wr.SummaryMetric("plan/flops"), y=wr.SummaryMetric("best/val/loss"), log_x=True
        ),
    ]  # fmt: skip


def _line(title: str, names: Sequence[str], *, x: str = "Step", log_x: bool = False, log_y: bool = False) -> Any:
    from wandb_workspaces.reports.v2 import interface as wr

    return wr.LinePlot(
        title=title if x == "Step" else f"{title} against {x.rpartition('/')[2]}",
        x=x, y=list(names), title_x=_label(x), title_y=_unit(names[0]), log_x=log_x or None, log_y=log_y or None,
    )  # fmt: skip


def _matching(title: str, pattern: str) -> Any:
    from wandb_workspaces.reports.v2 import interface as wr

    return wr.LinePlot(title=title, x="progress/tokens", metric_regex=pattern, title_x="tokens")


def _label(axis: str) -> str:
    return "step" if axis == "Step" else UNITS[axis]


def _unit(name: str) -> str:
    return UNITS[name] if name in UNITS else PREFERENCE_UNITS[name.partition("/")[2]]
