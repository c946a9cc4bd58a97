"""The launcher: starts ranks, passes signals on, ends what is left, and takes its place where others have started them."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from lumi import ranks
from lumi.callbacks import list_checkpoints
from lumi.errors import ConfigError
from lumi.run import train
from tests.scale.conftest import Started

TORCHRUN = {
    "RANK": "5",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "8",
    "GROUP_RANK": "1",
    "MASTER_ADDR": "a",
    "MASTER_PORT": "7",
}
SRUN = {
    "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NODEID": "1",
    "SLURM_JOB_ID": "123456", "SLURM_STEP_NODELIST": "gpu[03-04]",
}  # fmt: skip


def are_gone(processes: list[int]) -> bool:
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{process}").exists() for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(Path(f"/proc/{process}").exists() for process in processes)


def test_a_signal_to_the_launcher_is_one_to_every_rank(started: Started, tmp_path: Path) -> None:
    launcher, children = started
    launcher.send_signal(signal.SIGUSR1)
    _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == 143
    assert "everything up to it is saved" in errors.decode()
    step = list_checkpoints(tmp_path / "run" / "checkpoints")[0][0]
    assert f"after step {step} of" in errors.decode()
    assert are_gone(children)


def test_a_killed_rank_ends_the_run_and_says_which(started: Started) -> None:
    launcher, children = started
    os.kill(children[1], signal.SIGKILL)
    _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == 137
    assert "rank 1 of 2 was killed by signal 9" in errors.decode()
    assert are_gone(children)


def test_what_torchrun_says_is_read() -> None:
    here = ranks.placed(TORCHRUN)
    assert here == ranks.Ranks(rank=5, local_rank=1, world_size=8, node=1, main_address="a", main_port=7)


def test_what_srun_says_is_read() -> None:
    here = ranks.placed(SRUN)
    assert here == ranks.Ranks(rank=5, local_rank=1, world_size=8, node=1, main_address="gpu03", main_port=18456)


def test_a_batch_script_that_is_not_a_rank_is_none() -> None:
    assert ranks.placed({"SLURM_JOB_ID": "123456", "SLURM_NTASKS": "8"}) is None


@pytest.mark.parametrize(
    ("nodes", "first"), [("gpu1", "gpu1"), ("a,b", "a"), ("gpu[03-05,9],cpu1", "gpu03"), ("n-[7,9]", "n-7")]
)
def test_the_first_of_a_list_of_machines(nodes: str, first: str) -> None:
    assert ranks.first_host(nodes) == first


def test_other_processes_than_the_settings_say_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in TORCHRUN.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(ConfigError, match=r"x trainer\.num_nodes=2 · must be the 8 processes"):
        ranks.starts_alone(2, 2)


def test_several_machines_need_a_process_on_each(run_config: Callable[..., DictConfig]) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.num_nodes=2 · needs a process on every machine"):
        train(run_config("trainer=ddp", "trainer.num_nodes=2"))
