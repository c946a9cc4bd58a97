"""Clusters: the same bytes through SLURM's job script and through Ray as on this machine, and errors that come home."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lumi.config import build
from lumi.corpus import Corpus, Duplicates, Files, Local, Ray, Slurm, World, build_corpus
from lumi.errors import ConfigError, DataError

SBATCH = """#!/bin/bash
# Takes a job as SLURM would: keeps the script, and runs every task of its array, here and now.
script="${@: -1}"
number=$(ls "$FAKE_SLURM" | grep -c slurm$)
cp "$script" "$FAKE_SLURM/$number.slurm"
echo "$@" > "$FAKE_SLURM/$number.args"
last=$(grep -oP -- '--array=0-\\K[0-9]+' "$script")
for task in $(seq 0 "$last"); do
  SLURM_ARRAY_TASK_ID=$task RUN_OFFSET=0 SLURM_NODELIST=node1 bash "$script" > "$FAKE_SLURM/$number.$task.log" 2>&1
done
echo "Submitted batch job 4$number"
"""
SRUN = """#!/bin/bash
while [[ "$1" != launch_pickled_pipeline ]]; do shift; done
exec "$@"
"""
SCONTROL = "#!/bin/bash\necho node1\n"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that records what a cluster is asked; its commands stand first on the path."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("scontrol", SCONTROL), ("squeue", "#!/bin/bash\n")):
        path = folder / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(folder))
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    return folder


@pytest.fixture
def small(corpus) -> Corpus:
    duplicates = Duplicates(near=True, bands=2)  # a job is seconds of start for every task
    return corpus(sources={"one": World(name="one", megabytes=0.06)}, duplicates=duplicates)


@pytest.mark.slow
def test_slurm_gets_a_job_script_for_every_stage_and_gives_the_same_bytes(tmp_path, cluster, small, listing):
    slurm = Slurm(
        partition="cpu", time="01:00:00", workers=2, mem_per_cpu_gb=3, sbatch_args={"account": "lab"}, poll_seconds=0.1
    )
    build_corpus(small, tmp_path / "a", executor=slurm)
    build_corpus(small, tmp_path / "b")
    assert listing(tmp_path / "a") == listing(tmp_path / "b")
    scripts = [path.read_text() for path in sorted(cluster.glob("*.slurm"))]
    assert len(scripts) == 4  # read, process, match, write
    for line in ("partition=cpu", "time=01:00:00", "mem-per-cpu=3G", "cpus-per-task=1", "account=lab", "array=0-0%2"):
        assert f"#SBATCH --{line}\n" in scripts[0]
    assert f"source {Path(sys.prefix, 'bin', 'activate')}" in scripts[0] or sys.prefix == sys.base_prefix
    assert all("launch_pickled_pipeline" in script for script in scripts)
    assert "#SBATCH --array=0-2%2\n" in scripts[2]  # the exact hashes, and two bands


@pytest.mark.slow
def test_an_error_on_a_node_is_told_on_the_login_node(tmp_path, cluster):
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n{"texts": "y"}\n')
    broken = Corpus(name="c", sources={"a": Files(path=str(tmp_path / "a.jsonl"))})
    with pytest.raises(DataError, match=r"a\.jsonl:2 · has no 'text'; it has: texts · source\.text_key=texts"):
        build_corpus(broken, tmp_path / "c", executor=Slurm(partition="cpu", poll_seconds=0.1))


def test_a_job_that_vanishes_is_noticed(tmp_path, cluster, small):
    (cluster / "sbatch").write_text("#!/bin/bash\necho Submitted batch job 7\n")
    with pytest.raises(DataError, match=r"reading: 1 of 1 tasks did not finish · see the logs in .* same command"):
        build_corpus(small, tmp_path / "c", executor=Slurm(partition="cpu", poll_seconds=0.01))


def test_slurm_needs_slurm(tmp_path, monkeypatch, small):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match=r"executor=slurm · needs sbatch"):
        build_corpus(small, tmp_path / "c", executor=Slurm(partition="cpu"))


@pytest.mark.slow
def test_ray_gives_the_same_bytes(tmp_path, small, listing):
    ray = pytest.importorskip("ray")
    try:
        build_corpus(small, tmp_path / "a", executor=Ray(workers=2, mem_per_cpu_gb=0.5))
    finally:
        ray.shutdown()
    build_corpus(small, tmp_path / "b", executor=Local(workers=1))
    assert listing(tmp_path / "a") == listing(tmp_path / "b")


@pytest.mark.parametrize("key", ["workers", "cpus_per_task", "tasks_per_job"])
def test_a_count_of_nothing_is_refused(key):
    with pytest.raises(ConfigError, match=rf"executor\.{key}=0"):
        build({"_target_": "lumi.corpus.Slurm", "partition": "cpu", key: 0}, "executor")
    with pytest.raises(ConfigError, match=r"executor\.workers=0"):
        Local(workers=0)


def test_sbatch_that_refuses_is_quoted(tmp_path, cluster, small):
    (cluster / "sbatch").write_text("#!/bin/bash\nexit 1\n")
    with pytest.raises(ConfigError, match=r"executor=slurm · sbatch refused the job"):
        build_corpus(small, tmp_path / "c", executor=Slurm(partition="nowhere", poll_seconds=0.01))
    assert subprocess.run(["sbatch"], check=False).returncode == 1
