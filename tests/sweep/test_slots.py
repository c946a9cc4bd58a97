"""Shares of a machine, and what is said of a process that failed."""

import io
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from lumi.errors import ConfigError, Interrupted
from lumi.sweep.curve import Curve
from lumi.sweep.grid import Queue
from lumi.sweep.screen import Screen, ended_line, running_line
from lumi.sweep.slots import Slots, check_slots, child_script, environments, last_error, share_of
from lumi.sweep.study import Job, Study

GPUS = ["0", "1", "2", "3"]


def test_processors_are_divided_among_slots() -> None:
    assert [one["OMP_NUM_THREADS"] for one in environments(3, {}, 8, [])] == ["2", "2", "2"]
    assert environments(4, {}, 2, [])[3]["OMP_NUM_THREADS"] == "1"


def test_a_number_of_threads_that_was_given_is_kept_and_one_slot_changes_nothing() -> None:
    assert environments(2, {"OMP_NUM_THREADS": "7"}, 8, [])[1]["OMP_NUM_THREADS"] == "7"
    assert environments(1, {"A": "b"}, 8, GPUS) == [{"A": "b"}]


def test_several_gpus_are_divided_and_a_single_one_is_shared() -> None:
    assert [share_of(GPUS, slot, 2) for slot in range(2)] == [["0", "1"], ["2", "3"]]
    assert [share_of(GPUS, slot, 3) for slot in range(3)] == [["0"], ["1"], ["2", "3"]]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in environments(5, {}, 8, GPUS)] == ["0", "1", "2", "3", "0"]
    assert "CUDA_VISIBLE_DEVICES" not in environments(2, {}, 8, ["0"])[0]


@pytest.mark.parametrize("slots", [0, -1, 1.5, "two", True, None])
def test_slots_are_counted(slots: object) -> None:
    with pytest.raises(ConfigError, match=r"slots=.* must be a whole number from 1"):
        check_slots(slots)


def test_a_job_is_begun_with_the_same_configuration_files() -> None:
    words = ["train.py", "-m", "--config-name", "other", "-cd", "more", "seed=0,1"]
    assert child_script(words) == [sys.executable, "train.py", "--config-name", "other", "--config-dir", "more"]
    assert child_script(["train.py", "-m", "seed=0,1"]) == [sys.executable, "train.py"]


@pytest.mark.parametrize(
    ("log", "code", "error"),
    [
        ("step 1\n\nConfigError: optim.lr=-1 · must be above 0\n", 2, "ConfigError: optim.lr=-1 · must be above 0"),
        ("Traceback …\n  File x\nValueError: no\n", 1, "ValueError: no"),
        (
            "ConfigError: 2 settings need a change:\n  - a\n  - b\n",
            2,
            "ConfigError: 2 settings need a change:\n  - a\n  - b",
        ),
        ("only words\n", 3, "only words"),
        ("", 3, "exit code 3"),
        ("step 1\n", -9, "killed by SIGKILL: too little memory?"),
        ("step 1\n", -11, "killed by SIGSEGV"),
    ],
)
def test_why_a_job_failed_is_read_from_its_output(log: str, code: int, error: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(log)
    assert last_error(tmp_path / "log", code) == error


def test_a_running_job_has_a_line_with_its_step_and_its_last_loss(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,train/loss,val/loss\r\n10,5.0,\r\n20,4.0,4.5\r\n30,3.9,\r\n40,")
    (tmp_path / "run.json").write_text('{"plan": {"total_steps": 90}}')
    job, curve = Job(number=0, overrides=["optim.lr=1e-3"], run=str(tmp_path)), Curve(tmp_path, "val/loss")
    assert running_line(job, curve, 5) == "▸ 00-lr_1e-3  starting  0:05"
    assert curve.update()
    assert not curve.update()
    assert running_line(job, curve, 65) == "▸ 00-lr_1e-3  step 30 of 90  val/loss 4.5000  1:05"


def test_an_ended_job_says_how_it_ended() -> None:
    job = Job(number=1, overrides=["seed=1"], run="runs/x", state="failed", error="ConfigError: a\n  - b", seconds=2.4)
    assert ended_line(job) == "✗ 01-seed_1  failed  2 s  ConfigError: a"


def test_a_terminal_has_a_line_a_job_that_is_drawn_again(tmp_path: Path) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    study = Study(root=tmp_path, name="s", kind="grid", overrides=[], arguments=[])
    job = study.add(["seed=0"], tmp_path)
    job.state = "running"
    terminal = Terminal()
    screen = Screen(study, 3, terminal)
    screen.show([(job, Curve(tmp_path, "val/loss"), 1)])
    screen.show([(job, Curve(tmp_path, "val/loss"), 2)])
    screen.close()
    block = "▸ 00-seed_0  starting  0:0{}\n  1 running of 3\n"
    clear = "\x1b[2F\x1b[J"
    assert terminal.getvalue() == block.format(1) + clear + block.format(2) + clear


DEAF = "import pathlib, signal, time; signal.signal(15, signal.SIG_IGN); pathlib.Path('ready').touch(); time.sleep(100)"


def test_a_second_signal_ends_a_job_that_does_not_listen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = Study(root=tmp_path, name="s", kind="grid", overrides=[], arguments=[])
    jobs = [study.add([f"seed={seed}"], tmp_path / "run") for seed in (0, 1)]

    def insist() -> None:
        while not Path("ready").exists():
            time.sleep(0.05)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)

    threading.Thread(target=insist).start()
    with pytest.raises(Interrupted, match=r"study=s was stopped by SIGTERM · 1 waiting, 1 stopped"):
        Slots(study, [sys.executable, "-c", DEAF], slots=1).run(Queue(jobs))
    assert [job.state for job in jobs] == ["stopped", "waiting"]
