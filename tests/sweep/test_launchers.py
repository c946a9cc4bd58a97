"""Where jobs are trained when hydra/launcher says so: the presets, SLURM's job script, and what is said without a package."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from lumi.sweep import plugins

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf" / "hydra" / "launcher"

SBATCH = """#!/bin/bash
# Takes a job array as SLURM would: keeps the script, answers, then runs every task when submitit has written what it needs.
cp "$1" "$FAKE_SLURM/script"
last=$(grep -oP -- '--array=0-\\K[0-9]+' "$1")
for task in $(seq 0 "$last"); do
  (
    folder=$(grep -oP 'submitit.core._submit \\K\\S+' "$FAKE_SLURM/script" | sed "s/%j/41_$task/")
    until [ -e "$(echo "$folder" | tr -d "'")/41_${task}_submitted.pkl" ]; do sleep 0.1; done
    SLURM_ARRAY_JOB_ID=41 SLURM_ARRAY_TASK_ID=$task SLURM_JOB_ID=4$task SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 \\
    SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_JOB_NODELIST=node1 bash "$FAKE_SLURM/script"
  ) > "$FAKE_SLURM/$task.log" 2>&1 &
done
echo "Submitted batch job 41"
"""
SRUN = """#!/bin/bash
while [[ "$1" == -* ]]; do
  if [[ "$1" == --output || "$1" == --error ]]; then shift; fi
  shift
done
exec "$@"
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands of SLURM that stand first on the path."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", "#!/bin/bash\n"), ("scontrol", "#!/bin/bash\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(folder))
    return folder


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="needs submitit")
def test_slurm_gets_one_array_for_the_jobs_and_the_study_what_became_of_them(place, cluster) -> None:
    resources = ("partition=gpu", "gpus_per_node=1", "timeout_min=90", "array_parallelism=2", "account=lab", "mem_gb=7")
    launcher = [f"hydra.launcher.{one}" for one in resources]
    code, said = place.run("hydra/launcher=submitit_slurm", *launcher, "seed=0,99", "budget.steps=2")
    assert code == 1, said
    script = (cluster / "script").read_text().splitlines()
    wanted = ["partition=gpu", "gpus-per-node=1", "time=90", "account=lab", "mem=7GB", "nodes=1", "ntasks-per-node=1"]
    wanted += ["cpus-per-task=4", "array=0-1%2", "job-name=lumi", "signal=USR2@120", "open-mode=append"]
    assert [one for one in wanted if f"#SBATCH --{one}" not in script] == []
    assert f" {sys.executable} -u -m submitit.core._submit " in script[-1]
    assert place.states() == ["finished", "failed"]
    assert place.study()["jobs"][1]["error"] == "ConfigError: seed=99 · is refused · take another"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("joblib") is None, reason="needs joblib")
def test_joblib_trains_in_its_own_processes_and_a_failure_stops_no_other(place) -> None:
    code, said = place.run("hydra/launcher=joblib", "slots=2", "seed=99,0", "budget.steps=2")
    assert code == 1, said
    assert place.states() == ["failed", "finished"]


@pytest.mark.parametrize("name", ["joblib", "submitit_slurm", "submitit_local"])
def test_a_preset_names_every_key_of_its_plugin_and_no_other(name: str) -> None:
    plugins.register()  # which has Hydra read what is installed
    stored = ConfigStore.instance().load(f"hydra/launcher/{name}.yaml").node if _is_stored(name) else None
    if stored is None:
        pytest.skip("the plugin is not installed")
    preset = OmegaConf.load(CONF / f"{name}.yaml")
    assert set(preset) == set(stored)
    assert OmegaConf.select(preset, "_target_") == stored["_target_"]


def _is_stored(name: str) -> bool:
    return f"{name}.yaml" in ConfigStore.instance().list("hydra/launcher")


def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it(place, monkeypatch) -> None:
    (place.folder / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name.endswith('hydra_joblib_launcher') else find(name, *more)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(place.folder))
    code, said = place.run("hydra/launcher=joblib", "seed=0")
    assert code == 2
    assert "hydra/launcher=joblib · needs the package hydra-joblib-launcher · pip install -c constraints.txt" in said
