"""T5: every key of the configuration is refused, free or warned of when a run goes on, as the page says; changes are noted."""

import copy
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from lumi.config import resolve
from lumi.errors import ConfigError, DataError
from lumi.identity import decisive
from lumi.resume import check_same_data, refused, versions
from lumi.run import train
from lumi.settings import check
from tests.conftest import CONF
from tests.faults.ledger import Report
from tests.faults.training.classes import PAGE, RULES, rule_of, table
from tests.faults.training.conftest import LENGTH, Config, ends
from tests.scale.conftest import after_step

pytestmark = pytest.mark.matrix("T5")

OF_OTHER_SCRIPTS = ("step", "smoke", "suite", "workspace", "hydra")
IN_DATA = {"chat": "data.sources.x", "preference": "data.sources.x"}


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(key, value) of everything below a node that is no mapping."""
    if isinstance(node, dict) and node:
        for name, value in node.items():
            yield from leaves(value, f"{key}.{name}" if key else name)
    else:
        yield key, node


def of_files() -> Iterator[tuple[str, Any]]:
    """Every leaf of every file of ``conf/`` that train.py can compose, at the key where it then stands."""
    for file in sorted(CONF.rglob("*.yaml")):
        group = file.relative_to(CONF).parent.as_posix()
        top = group.split("/")[0]
        if group == "." or top in OF_OTHER_SCRIPTS:
            continue
        text = file.read_text()
        is_global = "@package _global_" in text
        ladder = top in ("arch", "corpus") or "/" not in group
        place = "" if is_global else IN_DATA.get(top, top if ladder else group.replace("/", "."))
        node = plain(OmegaConf.load(file))
        yield from leaves(node, place) if node else ()


def changed(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return f"{value}x"
    return [*value, "x"] if isinstance(value, list) else "x"


def put(settings: dict[str, Any], key: str, value: Any) -> None:
    *parents, name = key.split(".")
    node = settings
    for parent in parents:
        node = node[parent] if isinstance(node.get(parent), dict) else node.setdefault(parent, {})
    node[name] = value


@pytest.fixture(scope="module")
def stages_settings(composed: Config) -> list[dict[str, Any]]:
    """Complete settings of a run of each stage."""
    return [resolve(composed("train", f"stage={name}", "name=x")) for name in ("pretrain", "sft", "dpo")]


def keys_of(stages_settings: list[dict[str, Any]]) -> dict[str, tuple[dict[str, Any], Any]]:
    """Key → settings that it is changed in, and its value."""
    found = {key: (settings, value) for settings in stages_settings for key, value in leaves(settings)}
    root = plain(OmegaConf.load(CONF / "train.yaml"))
    for key, value in [*of_files(), *leaves(root)]:
        found.setdefault(key, (stages_settings[0], value))
    return found


def plain(cfg: Any) -> dict[str, Any]:
    node: Any = OmegaConf.to_container(cfg, resolve=False) or {}
    return {key: value for key, value in node.items() if key not in ("defaults", "hydra")}


def is_refused(settings: dict[str, Any], key: str, value: Any) -> bool:
    """Whether a run with these settings would not go on with another value of this key."""
    before, after = copy.deepcopy(settings), copy.deepcopy(settings)
    if key in ("trainer.devices", "trainer.num_nodes", "trainer.accumulate"):  # the same windows, differently spread
        windows = before["data"]["batch_size"]
        put(after, key, 2 * value)
        put(after, "data.batch_size", windows // 2)
    elif key == "data.batch_size":
        put(after, key, value // 2)
        put(after, "trainer.accumulate", 2 * before["trainer"]["accumulate"])
    else:
        put(before, key, value)
        put(after, key, changed(value))
    return bool(refused(decisive(before), decisive(after), after))


def test_every_key_is_refused_or_free_as_the_page_says(stages_settings: list[dict[str, Any]], row: Report) -> None:
    keys = keys_of(stages_settings)
    wrong = [
        f"{key}: {class_}"
        for key, (settings, value) in keys.items()
        for _, class_, _ in [rule_of(key)]
        if is_refused(settings, key, value) != (class_ in ("refused", "never"))
    ]
    assert wrong == []
    unused = {rule for rule, _, _ in RULES} - {rule_of(key)[0] for key in keys} - {"resume_allow"}
    assert unused == set()
    row(trials=len(keys), failures=len(wrong), note="every key of conf/, with the class that the page says")


def test_another_number_of_windows_in_a_step_is_refused(stages_settings: list[dict[str, Any]], row: Report) -> None:
    after = copy.deepcopy(stages_settings[0])
    after["data"]["batch_size"] += 1
    row(trials=1, failures=int(refused(decisive(stages_settings[0]), decisive(after), after) == []))


def test_the_page_has_the_table() -> None:
    assert table() in PAGE.read_text(), "run: python -m tests.faults.training.classes"


@pytest.mark.parametrize("key", ["arch.d_model", "tokenizer", "pack.seed", "stage", "data._target_", "template.name"])
def test_what_the_weights_hang_on_cannot_be_allowed(composed: Config, key: str) -> None:
    with pytest.raises(ConfigError, match=r"resume_allow=\[.*\] · .* cannot change within a run"):
        check(resolve(composed("train", f"resume_allow=[{key}]")))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """What a checkpoint says of its run."""
    facts = {
        "data": {"world": "1", "second": "2"},
        "threads": torch.get_num_threads(),
        "compiled": False,
        "versions": versions(),
    }
    (tmp_path / "run.json").write_text(json.dumps(facts))
    return tmp_path


def test_other_data_are_refused_by_name(checkpoint: Path, row: Report) -> None:
    check_same_data(checkpoint, {"world": "1", "second": "2"}, compiled=False)
    with pytest.raises(DataError, match=r"was trained on other data \(second\)") as caught:
        check_same_data(checkpoint, {"world": "1", "second": "3"}, compiled=False)
    row(trials=1, failures=int(caught.value.exit_code != 3))


@pytest.mark.parametrize("name", [*versions(), "threads"])
def test_other_versions_threads_and_devices_are_said(checkpoint: Path, row: Report, caplog: Any, name: str) -> None:
    facts = json.loads((checkpoint / "run.json").read_text())
    facts["versions"] |= {name: "0.1"} if name != "threads" else {}
    facts["threads"] += name == "threads"
    (checkpoint / "run.json").write_text(json.dumps(facts))
    check_same_data(checkpoint, facts["data"], compiled=False)
    row(trials=1, failures=int(f"{name}: 0.1 -> " not in caplog.text and "threads instead of" not in caplog.text))


def test_what_is_allowed_changes_and_is_written_down(run_config: Config, row: Report, tmp_path: Path) -> None:
    cut = run_config(*LENGTH)
    killed = lambda: after_step(5, lambda: os.kill(os.getpid(), signal.SIGKILL))  # noqa: E731
    assert ends(lambda: (killed(), train(cut)))[0] == -signal.SIGKILL
    code, text, _ = ends(lambda: train(run_config(*LENGTH, "optim.lr=0.001")))
    assert code == 2
    assert "optim.lr: 0.002 -> 0.001" in text
    assert "resume_allow=[optim.lr]" in text
    code, text, _ = ends(lambda: train(run_config(*LENGTH, "optim.lr=0.001", "resume_allow=[optim.lr]")))
    written = json.loads((tmp_path / "run" / "changes.jsonl").read_text())
    row(
        trials=1,
        failures=int((code, written["step"], written["changed"]) != (0, 4, ["optim.lr: 0.002 -> 0.001"])),
        note=text,
    )
