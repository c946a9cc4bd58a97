"""Names and files of a study."""

import json
from pathlib import Path

import pytest

from lumi.errors import ConfigError, DataError
from lumi.sweep.space import Dimension, Space
from lumi.sweep.study import Study, job_label, short_key, study_name


def a_space(*typed: str) -> Space:
    dimensions = (Dimension(key="arch", choices=("a",)), Dimension(key="optim.lr", low=1, high=2))
    return Space(arguments=(), dimensions=dimensions, typed=typed)


def a_study(root: Path, kind: str = "grid") -> Study:
    return Study(root=root, name="s", kind=kind, overrides=["seed=0,1"], arguments=[])


@pytest.mark.parametrize(
    ("overrides", "label"),
    [
        (["arch=nano", "optim.lr=1e-3", "seed=0"], "03-arch_nano-lr_1e-3-seed_0"),
        (["optim.lr=1e-3", "data.lr=2"], "03-optim_lr_1e-3-data_lr_2"),
        (["+corpus@data.b=one"], "03-corpus_one"),
        (["optim/schedule=wsd"], "03-schedule_wsd"),
        (["source.path='a b/*.txt'"], "03-path_a_b_.txt"),
        ([], "03"),
    ],
)
def test_a_job_is_named_after_what_it_differs_in(overrides: list[str], label: str) -> None:
    assert job_label(3, overrides) == label


def test_a_name_needs_no_quotes_on_a_command_line_and_fits_a_folder() -> None:
    label = job_label(0, [f"key{number}=[1, 'x=y', {{a: b}}]" for number in range(40)])
    assert len(label) <= 100
    assert not set(label) & set("= ,'\"[]{}:/")


def test_the_last_word_of_a_key_stands_for_it_where_no_other_ends_so() -> None:
    assert short_key("optim.lr", ["optim.lr", "seed"]) == "lr"
    assert short_key("optim.lr", ["optim.lr", "head.lr"]) == "optim_lr"


def test_the_same_command_in_any_order_is_the_same_study() -> None:
    one, other = study_name(None, a_space("a=1", "b=2"), "grid"), study_name(None, a_space("b=2", "a=1"), "grid")
    assert one == other
    assert one.startswith("arch-lr-")
    assert study_name(None, a_space("a=1", "b=3"), "grid") != one
    assert study_name(None, a_space("a=1", "b=2"), "optuna") != one


@pytest.mark.parametrize("name", ["a b", "../up", "x=1", "", "-x"])
def test_a_study_has_the_name_of_a_folder(name: str) -> None:
    with pytest.raises(ConfigError, match="study="):
        study_name(name, a_space(), "grid")


def test_a_study_is_what_its_file_says(tmp_path: Path) -> None:
    study = a_study(tmp_path)
    study.set(study.add(["seed=0"], Path("runs/a")), "finished", seconds=1.24)
    study.set(study.add(["seed=1"], Path("runs/b")), "running")
    written = json.loads((tmp_path / "s" / "study.json").read_text())
    assert written["name"] == "s"
    assert written["sweep"] == {"kind": "grid", "overrides": ["seed=0,1"]}
    job = {"number": 0, "overrides": ["seed=0"], "run": "runs/a", "state": "finished", "error": None, "seconds": 1.2}
    assert written["jobs"][0] == job
    again = a_study(tmp_path)
    assert [job.state for job in again.jobs] == ["finished", "stopped"]  # who ran the second one is gone
    assert again.created == written["created"]


def test_a_grid_that_grows_keeps_the_numbers_of_its_jobs(tmp_path: Path) -> None:
    study = a_study(tmp_path)
    study.set(study.add(["seed=1"], Path("runs/b")), "failed", "x")
    again = a_study(tmp_path)
    assert [again.add([f"seed={seed}"], Path("runs/c")).number for seed in (0, 1)] == [1, 0]


def test_a_link_leads_to_the_run_and_follows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs/a").mkdir(parents=True)
    Path("runs/b").mkdir(parents=True)
    study = a_study(Path("multirun"))
    job = study.add(["seed=0"], Path("runs/a"))
    study.link(job)
    link = Path("multirun/s/00-seed_0")
    assert link.resolve() == Path("runs/a").resolve()
    assert link.readlink() == Path("../../runs/a")
    study.link(study.add(["seed=0"], Path("runs/b")))
    assert link.resolve() == Path("runs/b").resolve()


def test_a_study_keeps_its_kind(tmp_path: Path) -> None:
    a_study(tmp_path).save()
    with pytest.raises(ConfigError, match="study=s · was begun with sweep=grid · study=… begins another one"):
        a_study(tmp_path, kind="optuna")


def test_a_file_that_is_no_study_is_named(tmp_path: Path) -> None:
    a_study(tmp_path).save()
    (tmp_path / "s" / "study.json").write_text("{")
    with pytest.raises(DataError, match=r"study\.json · is not readable"):
        a_study(tmp_path)
