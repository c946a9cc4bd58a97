"""The scripts as a user calls them: exit codes, messages, and that nothing is left behind by a mistake."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

MISTAKES = {
    "unknown key": ("train.py", ["arch.n_layer=3"], "arch.n_layer · is not a setting · did you mean 'n_layers'?"),
    "unknown root": ("train.py", ["+typo=3"], "typo=3 · is not a setting"),
    "unknown option": ("train.py", ["arch=tny"], "arch=tny · there is no such option · did you mean 'tiny'?"),
    "wrong type": ("train.py", ["arch.n_layers=seven"], "arch.n_layers=seven · must be a whole number"),
    "wrong rule": ("train.py", ["arch.n_heads=3"], "arch.d_model=128"),
    "several at once": ("train.py", ["optim.lr=-1", "data.batch_size=0"], "2 settings need a change"),
    "too long": ("train.py", ["data.seq_len=512"], "data.seq_len=512 · must be at most arch.max_seq_len=256"),
    "two budgets": ("train.py", ["budget.steps=1", "budget.tokens=10"], "at most one may be set"),
    "foreign class": ("train.py", ["optim._target_=os.system"], "must be one of Lumi's own classes"),
    "unknown step": ("prepare.py", ["step=tokeniser"], "step=tokeniser · is not a step · did you mean 'tokenizer'?"),
    "no path": ("prepare.py", ["source=files"], "source.path"),
    "no model": ("evaluate.py", [], "model"),
}


def call(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The script in a folder of its own, as from a fresh shell."""
    return subprocess.run(
        [sys.executable, ROOT / script, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_with_code_2_and_one_message(mistake: str, tmp_path: Path) -> None:
    script, arguments, message = MISTAKES[mistake]
    done = call(script, *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_missing_model_is_named_with_code_3(tmp_path: Path) -> None:
    done = call("evaluate.py", "model=runs/nothing", cwd=tmp_path)
    assert done.returncode == 3
    assert "model=runs/nothing · is not a run or a checkpoint" in done.stderr


@pytest.mark.parametrize("script", ["train.py", "prepare.py", "evaluate.py"])
def test_help_shows_groups_and_examples(script: str, tmp_path: Path) -> None:
    done = call(script, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"python {script}" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_resolved_config_can_be_read(tmp_path: Path) -> None:
    done = call("train.py", "--cfg", "job", "--resolve", cwd=tmp_path)
    assert done.returncode == 0
    assert "seq_len: 256" in done.stdout


def test_the_scripts_are_short() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in ROOT.glob("*.py")}
    assert set(lengths) == {"train.py", "prepare.py", "evaluate.py"}
    assert max(lengths.values()) <= 30, lengths
