"""The workspace of W&B is valid, and refers only to what runs log."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from lumi.callbacks import read_metrics
from lumi.callbacks.dashboard import Workspace
from lumi.callbacks.names import PREFERENCE_UNITS, SUMMARY, UNITS
from lumi.errors import ConfigError
from lumi.evaluate import evaluate
from lumi.stage import DPO

from .wandb_records import OfflineRun

SPEC_KEYS = ("metrics", "xAxis", "targetKey", "columns", "x", "y", "metricRegex")


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    """What would be sent to the server."""
    return json.loads(Workspace(project="lumi").build("me")._to_model().spec.model_dump_json(by_alias=True))


@pytest.fixture(scope="module")
def logged(logged_run: Path) -> set[str]:
    """Every name that runs of all stages log: those of a run, and the figures of preference training."""
    of_dpo = {f"{split}/{name}" for split in ("train", "val") for name in DPO.figures}
    rows = read_metrics(logged_run / "metrics.csv").values()
    return {name for row in rows for name in row} | set(OfflineRun(logged_run).summary) | of_dpo


def panels(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for section in spec["section"]["panelBankConfig"]["sections"]:
        for panel in section["panels"]:
            yield section["name"], panel


def names_of(config: dict[str, Any]) -> set[str]:
    """The metrics that a panel refers to, settings left out."""
    found = [
        *(config.get("metrics") or []),
        config.get("xAxis"),
        config.get("targetKey"),
        config.get("x"),
        config.get("y"),
    ]
    found += [column["accessor"] for column in config.get("columns") or []]
    plain = [re.sub(r"^(summary[:.]|summary_metrics\.)", "", name) for name in found if isinstance(name, str)]
    return {name for name in plain if not name.startswith(("config:", "config.")) and name != "_step"}


def test_every_metric_of_a_panel_is_logged_under_that_name(spec: dict[str, Any], logged: set[str]) -> None:
    used = {name for _, panel in panels(spec) for name in names_of(panel["config"])}
    assert {"train/loss", "progress/flops", "val/margin", "best/val/loss", "perf/mfu"} <= used
    assert used - logged == set()


def test_every_pattern_of_a_panel_finds_a_metric(spec: dict[str, Any], logged: set[str]) -> None:
    patterns = {panel["config"]["metricRegex"] for _, panel in panels(spec) if panel["config"].get("metricRegex")}
    assert len(patterns) == 3
    assert [pattern for pattern in patterns if not any(re.search(pattern, name) for name in logged)] == []


def test_every_setting_of_a_panel_is_in_the_config_of_a_run(spec: dict[str, Any], logged_run: Path) -> None:
    text = json.dumps([panel["config"] for _, panel in panels(spec)])
    used = {name.replace(".value", "") for name in re.findall(r'"config[:.]([\w.]+)"', text)}
    assert {"optim.lr", "optim._target_", "seed"} <= used
    config = OfflineRun(logged_run).config
    for key in used:
        node: Any = config
        for part in key.split("."):
            assert part in node, key
            node = node[part]


def test_the_workspace_has_a_section_for_each_question(spec: dict[str, Any]) -> None:
    sections: dict[str, list[str]] = {}
    for section, panel in panels(spec):
        sections.setdefault(section, []).append(panel["viewType"])
    assert list(sections) == [
        "Loss", "Optimisation", "Speed", "Mixture", "Samples", "Responses (sft)", "Preferences (dpo)", "Studies"
    ]  # fmt: skip
    assert sections["Loss"] == ["Run History Line Plot"] * 5
    assert {"Parallel Coordinates Plot", "Parameter Importance", "Bar Chart"} <= set(sections["Studies"])


def test_loss_is_drawn_against_steps_tokens_and_operations(spec: dict[str, Any]) -> None:
    axes = [panel["config"]["xAxis"] for section, panel in panels(spec) if section == "Loss"]
    assert axes == ["_step", "progress/tokens", "progress/flops", "progress/tokens", "progress/flops"]


def test_every_logged_name_has_a_unit_and_every_unit_is_logged(logged: set[str]) -> None:
    of_dpo = {f"{split}/{name}" for split in ("train", "val") for name in PREFERENCE_UNITS}
    known = {name.replace("{source}", "world") for name in UNITS} | of_dpo | set(SUMMARY)
    assert known - logged == set()
    others = {name for name in logged - known if not name.startswith(("_", "samples")) and not name.endswith("/second")}
    assert others == set()


def test_the_page_of_the_documentation_names_every_metric() -> None:
    page = (Path(__file__).parents[2] / "docs" / "dashboards.md").read_text()
    names = [*UNITS, *(f"val/{name}" for name in PREFERENCE_UNITS), *SUMMARY]
    assert [name for name in names if f"`{name.replace('{source}', '<source>')}`" not in page] == []


def test_without_a_key_there_is_no_workspace(
    composed: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(ConfigError, match=r"workspace=wandb · needs a key · wandb login"):
        evaluate(composed("evaluate", "workspace=wandb"))
