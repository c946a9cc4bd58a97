"""A grid as it is typed: jobs side by side, failures, rerunning, stopping. The runs are those of quick.py."""

import json
import signal
import time

LENGTH = "budget.steps=4"


def test_a_job_that_fails_stops_no_other_and_only_it_is_tried_again(place) -> None:
    words = (LENGTH, "slots=2", "seed=0,99,1")
    code, said = place.run(*words)
    assert code == 1, said
    assert "JobsFailed: " in said
    assert "1 of 3 jobs failed" in said
    assert place.states() == ["finished", "failed", "finished"]
    assert place.study()["jobs"][1]["error"] == "ConfigError: seed=99 · is refused · take another"
    assert (place.folder / place.study()["jobs"][0]["run"] / "metrics.csv").exists()
    before = place.log("00-seed_0")
    code, said = place.run("seed=0,99,1", LENGTH)  # in another order, with other slots
    assert code == 1, said
    assert place.log("00-seed_0") == before == "begins after step 0\n"
    assert place.log("01-seed_99").count("ConfigError") == 2


def test_a_stopped_study_is_continued_by_the_same_command(place) -> None:
    words = ("budget.steps=25", "slots=2", "optim.lr=1e-3,2e-3,3e-3")
    code, said = place.stop_when(lambda: len([*place.folder.glob("runs/*/metrics.csv")]) == 2, *words)
    assert code == 143, said
    assert "the same command continues it" in said
    assert place.states() == ["stopped", "stopped", "waiting"]
    code, said = place.run(*words)
    assert code == 0, said
    assert place.states() == ["finished"] * 3
    begun = [int(line.split()[-1]) for line in place.log("00-lr_1e-3").splitlines() if line.startswith("begins")]
    assert begun[0] == 0 < begun[1] < 25
    link = place.folder / "multirun" / place.study()["name"] / "00-lr_1e-3"
    assert link.resolve() == (place.folder / place.study()["jobs"][0]["run"]).resolve()


def test_jobs_end_with_a_study_that_is_killed(place) -> None:
    process = place.start("budget.steps=1000", "seed=0", "study=k")
    while not [*place.folder.glob("runs/*/metrics.csv")]:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (run,) = place.folder.glob("runs/*")
    sizes = [-1, -2]
    while sizes[-1] != sizes[-2]:
        sizes.append((run / "metrics.csv").stat().st_size)
        time.sleep(0.5)
    assert sizes[-1] < 1000 * len("1,1.0000")  # it did not go on to the end


def test_two_jobs_that_would_be_one_run_are_refused_before_any_begins(place) -> None:
    code, said = place.run(LENGTH, "seed=0,1", "name=x")
    assert code == 2
    assert "seed=0 and seed=1 · would both be runs/x · leave name=… out" in said
    assert not (place.folder / "runs").exists()


def test_a_mistake_in_one_value_is_found_before_any_job_begins(place) -> None:
    code, said = place.run(LENGTH, "arch=nano,mcro")
    assert code == 2
    assert "arch=mcro · there is no such option · did you mean 'micro'?" in said
    assert not (place.folder / "runs").exists()


def test_a_job_knows_its_study_so_that_loggers_group_its_runs(place) -> None:
    code, said = place.run(LENGTH, "seed=0,1", "study=both")
    assert code == 0, said
    states = [json.loads(file.read_text()) for file in place.folder.glob("runs/*/run.json")]
    assert [state["settings"]["study"] for state in states] == ["both", "both"]


def test_a_study_that_only_plans_finishes_nothing(place) -> None:
    code, said = place.run(LENGTH, "seed=0,1", "study=p", "plan=true")
    assert code == 0, said
    assert place.states() == ["planned", "planned"]
    code, said = place.run(LENGTH, "seed=0,1", "study=p")
    assert code == 0, said
    assert place.states() == ["finished", "finished"]


def test_a_search_does_not_plan(place) -> None:
    code, said = place.run(LENGTH, "optim.lr=1e-3,2e-3", "sweep=optuna", "plan=true")
    assert code == 2
    assert "sweep=optuna · trains, and plan=true and doctor=true do not · sweep=grid" in said
