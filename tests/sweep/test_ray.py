"""Jobs on a Ray cluster: the same study, the same files, whatever becomes of a job or of the command."""

import importlib.util
from collections.abc import Callable

import pytest

from lumi.errors import ConfigError
from lumi.sweep.ray import Resources

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray")
RAY = "hydra/launcher=ray"


@needs_ray
@pytest.mark.slow
def test_a_job_that_fails_stops_no_other_and_what_is_finished_is_not_trained_again(place) -> None:
    words = (RAY, "budget.steps=2")
    code, said = place.run(*words, "seed=99,0,1")
    assert code == 1, said
    assert place.states() == ["failed", "finished", "finished"]
    assert place.study()["jobs"][0]["error"] == "ConfigError: seed=99 · is refused · take another"
    code, said = place.run(*words, "seed=99,0,1")
    assert code == 1, said
    assert place.log("01-seed_0").count("begins after step") == 1  # only the failed one was tried again


@needs_ray
@pytest.mark.faults
def test_a_study_that_is_stopped_has_its_jobs_save_their_state_and_goes_on(place) -> None:
    words = (RAY, "budget.steps=12", "optim.lr=0.02,0.021")
    begun: Callable[[], bool] = lambda: any(place.folder.glob("runs/*/metrics.csv"))  # noqa: E731
    code, said = place.stop_when(begun, *words)
    assert code == 143, said
    assert "stopped" in place.states()
    assert set(place.states()) <= {"stopped", "finished"}
    code, said = place.run(*words)
    assert code == 0, said
    assert place.states() == ["finished"] * 2


@pytest.mark.parametrize(("key", "value"), [("num_cpus", 0), ("num_gpus", -1), ("at_once", 0)])
def test_amounts_that_cannot_be_are_named(key: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"hydra.launcher.{key}={value} · must be"):
        Resources(**{key: value})  # pyright: ignore[reportArgumentType]
