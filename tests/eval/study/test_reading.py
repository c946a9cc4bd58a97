"""Which runs a study has, and what becomes of those that are not finished."""

import json

import pytest

from lumi.errors import DataError
from lumi.eval.study.reading import read_study

from .runs import write_run, write_study


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_run_has_its_last_metrics_its_cost_and_its_settings(tmp_path):
    write_run(tmp_path / "runs" / "a", 2.0, settings={"optim": {"lr": 0.1, "betas": [0.9, 0.95]}})
    (run,) = read_study(["runs/a"]).runs
    assert (run.name, run.seed, run.state) == ("a", 0, "finished")
    assert run.settings["optim.lr"] == 0.1
    assert run.settings["optim.betas"] == "[0.9, 0.95]"
    assert run.values["val/loss"] == 2.0
    assert run.values["plan/flops"] == 400 * 5000
    assert run.values["plan/flops_6nd"] == 6 * 1000 * 400
    assert run.values["perf/tokens_per_second"] == 400 / 8.0


def test_a_pattern_passes_over_what_is_no_run(tmp_path):
    write_run(tmp_path / "runs" / "a", 2.0)
    write_run(tmp_path / "runs" / "b", 2.1)
    (tmp_path / "runs" / "comparison").mkdir()
    assert [run.name for run in read_study(["runs/*"]).runs] == ["a", "b"]
    assert [run.name for run in read_study(["runs"]).runs] == ["a", "b"]
    assert [run.name for run in read_study([str(tmp_path / "runs" / "b*")]).runs] == ["b"]


def test_a_run_that_is_named_twice_counts_once(tmp_path):
    write_run(tmp_path / "runs" / "a", 2.0)
    assert len(read_study(["runs/a", "runs/*"]).runs) == 1


def test_a_study_says_what_became_of_every_job(tmp_path):
    write_run(tmp_path / "runs" / "done", 2.0)
    write_run(tmp_path / "runs" / "half", 2.0, status="running")
    jobs = [
        {"overrides": ["seed=0"], "run": "runs/done"},
        {"overrides": ["seed=1"], "run": "runs/half", "state": "pruned"},
        {"overrides": ["seed=2"], "run": None, "state": "failed", "error": "NumericError: loss=nan"},
        {"overrides": ["seed=3"], "run": "runs/gone"},
        {"overrides": ["seed=4"], "run": None, "state": "waiting"},
    ]
    study = read_study([str(write_study(tmp_path, jobs))])
    assert [run.state for run in study.runs] == ["finished", "pruned", "failed", "missing", "waiting"]
    assert (study.runs[2].error, study.runs[2].seed) == ("NumericError: loss=nan", "2")
    assert study.runs[1].values["val/loss"] == 2.0  # its last row


def test_what_the_run_itself_says_counts(tmp_path):
    write_run(tmp_path / "runs" / "a", 2.0)
    folder = write_study(tmp_path, [{"overrides": [], "run": "runs/a", "state": "running"}])
    assert read_study([str(folder)]).runs[0].state == "finished"


def test_runs_are_found_from_another_folder(tmp_path, monkeypatch):
    write_run(tmp_path / "runs" / "a", 2.0)
    folder = write_study(tmp_path, [{"overrides": [], "run": "runs/a"}])
    monkeypatch.chdir(folder)
    assert read_study([str(folder / "study.json")]).runs[0].state == "finished"


@pytest.mark.parametrize(
    ("file", "text"),
    [("run.json", "{"), ("metrics.csv", "a,b\n1,2\n"), ("run.json", "[1]"), ("run.json", '{"settings": 3}')],
)
def test_a_damaged_run_is_left_out_and_harms_no_other(tmp_path, file, text):
    write_run(tmp_path / "runs" / "a", 2.0)
    write_run(tmp_path / "runs" / "b", 2.1)
    (tmp_path / "runs" / "b" / file).write_text(text)
    assert [run.state for run in read_study(["runs/*"]).runs] == ["finished", "unreadable"]


def test_without_run_json_the_settings_come_from_config_yaml(tmp_path):
    write_run(tmp_path / "runs" / "a", 2.0, settings={"optim": {"lr": 0.1}})
    (tmp_path / "runs" / "a" / "run.json").unlink()
    (run,) = read_study(["runs/a"]).runs
    assert (run.state, run.settings["optim.lr"]) == ("running", 0.1)


def test_figures_of_an_evaluation_stand_beside_those_of_training(tmp_path):
    write_run(tmp_path / "runs" / "a", 2.0)
    found = {"texts": {}, "chat": {}, "preference": {}, "schema_version": 3, "mixture": None}
    found |= {"sources": {"world": {"score": {"bits_per_byte": 0.25}}}, "tasks": {"boolq": {"accuracy": 0.6}}}
    (tmp_path / "runs" / "a" / "eval").mkdir()
    (tmp_path / "runs" / "a" / "eval" / "results.json").write_text(json.dumps(found))
    values = read_study(["runs/a"]).runs[0].values
    assert values["eval/bits_per_byte"] == values["eval/bits_per_byte/world"] == 0.25
    assert values["eval/boolq, accuracy"] == 0.6


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("runs/c", "compare=runs/c · does not exist · known: multirun/rates"),
        ("runs/c*", r"compare=runs/c\* · matches no run"),
        ("empty", "compare=empty · is neither a study"),
        ("multirun/ratse", "did you mean 'multirun/rates'"),
    ],
)
def test_what_is_no_study_is_refused_with_those_that_are(tmp_path, name, message):
    write_study(tmp_path, [])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        read_study([name])


@pytest.mark.parametrize("text", ["{", "[]", '{"jobs": 3}', '{"jobs": [3]}', '{"jobs": [{}]}'])
def test_a_damaged_table_of_jobs_is_named(tmp_path, text):
    (write_study(tmp_path, []) / "study.json").write_text(text)
    with pytest.raises(DataError, match="is not the table of a study"):
        read_study(["multirun/rates"])


def test_a_study_without_jobs_holds_no_run(tmp_path):
    write_study(tmp_path, [])
    with pytest.raises(DataError, match="holds no run"):
        read_study(["multirun/rates"])
