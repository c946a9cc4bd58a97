"""The scripts as a user calls them: exit codes, messages, and that nothing is left behind by a mistake."""

import dataclasses
import json
import os
import runpy
import sys
import tempfile
import traceback
from pathlib import Path
from typing import IO

import pytest

import lumi.evaluate
import lumi.prepare
import lumi.run  # noqa: F401  # imported before the forks

ROOT = Path(__file__).parent.parent

MISTAKES = {
    "unknown key": ("train.py", ["arch.n_layer=3"], "arch.n_layer · is not a setting · did you mean 'n_layers'?"),
    "unknown root": ("train.py", ["+typo=3"], "typo=3 · is not a setting"),
    "unknown option": ("train.py", ["arch=tny"], "arch=tny · there is no such option · did you mean 'tiny'?"),
    "wrong type": ("train.py", ["arch.n_layers=seven"], "arch.n_layers=seven · must be a whole number"),
    "wrong rule": ("train.py", ["arch.n_heads=3"], "arch.d_model=128"),
    "several at once": ("train.py", ["optim.lr=-1", "data.batch_size=0"], "2 settings need a change"),
    "too long": ("train.py", ["data.seq_len=512"], "data.seq_len=512 · must be at most arch.max_seq_len=256"),
    "study without -m": ("train.py", ["slots=2"], "slots=2 · is about several runs · add -m"),
    "two budgets": ("train.py", ["budget.steps=1", "budget.tokens=10"], "at most one may be set"),
    "foreign class": ("train.py", ["optim._target_=os.system"], "must be one of Lumi's own classes"),
    "callback": (
        "train.py",
        ["callbacks.progress.every_steps=x"],
        "callbacks.progress.every_steps=x · must be a whole",
    ),
    "unknown step": (
        "prepare.py",
        ["step=tokeniser"],
        "step=tokeniser · there is no such option · did you mean 'tokenizer'?",
    ),
    "no path": ("prepare.py", ["source=files"], "source.path"),
    "no model": ("evaluate.py", [], "model"),
}


@dataclasses.dataclass(frozen=True)
class Done:
    """How a script ended and what it said."""

    returncode: int
    stdout: str
    stderr: str


def call(script: str, *arguments: str, cwd: Path) -> Done:
    """The script in a folder of its own, in a forked process: importing torch and Lightning anew takes seconds."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if child == 0:
            os._exit(_run_script(script, arguments, cwd, out, err))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        err.seek(0)
        return Done(code, out.read(), err.read())


def _run_script(script: str, arguments: tuple[str, ...], cwd: Path, out: IO[str], err: IO[str]) -> int:
    sys.stdout, sys.stderr, sys.argv = out, err, [str(ROOT / script), *arguments]
    os.chdir(cwd)
    code: object = 1
    try:
        runpy.run_path(str(ROOT / script), run_name="__main__")
        code = 0
    except SystemExit as stop:
        code = stop.code
    except BaseException:  # noqa: BLE001  # the child must never return into pytest
        err.write(traceback.format_exc())
    out.flush()
    err.flush()
    return code if isinstance(code, int) else 0


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_with_code_2_and_one_message(mistake: str, tmp_path: Path) -> None:
    script, arguments, message = MISTAKES[mistake]
    done = call(script, *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_output_that_nobody_reads_to_its_end_ends_quietly(tmp_path: Path) -> None:
    """``python prepare.py --help | head -1``."""
    reader, writer = os.pipe()
    os.close(reader)
    with (tmp_path / "errors").open("w+") as err:
        child = os.fork()
        if child == 0:
            os.dup2(writer, 1)
            os.dup2(err.fileno(), 2)
            os.execv(sys.executable, [sys.executable, str(ROOT / "prepare.py"), "--help"])
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 141
        err.seek(0)
        assert err.read() == ""
    os.close(writer)


def test_from_text_files_to_an_answer(tmp_path: Path) -> None:
    """The whole way by the scripts alone: files, tokenizer, packing, training, evaluation, a prompt, a comparison."""
    texts = tmp_path / "my texts, really"
    texts.mkdir()
    for number in range(40):
        words = [f"{a} {b} {number}." for a in ("red", "blue", "green") for b in ("house", "tree", "river", "bird")]
        (texts / f"{number}.txt").write_text("\r\n".join(words) + "\r\n", encoding="utf-8-sig")
    (tmp_path / "held out.txt").write_text("red house 7. blue tree 9.")
    source = ("source=files", f"source.path='{texts}/*.txt'", "source.name=mine", "tokenizer.vocab_size=310")
    quick = (
        "arch=debug",
        "data.batch_size=2",
        "pack.val_ratio=0.2",
        "trainer.accelerator=cpu",
        "callbacks.samples=null",
    )
    for seed in (0, 1):
        done = call("train.py", *source, *quick, "budget.steps=4", f"seed={seed}", f"name=r{seed}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "not prepared yet" not in done.stderr  # the second run finds everything
    parts = ("model=[runs/r0,runs/r1]", "text='held out.txt'", "out=both", "smoke.held_out_prompts=1")
    done = call("evaluate.py", *parts, "smoke.categories={free: ['']}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "evaluated already" not in done.stderr
    assert (
        call("evaluate.py", *parts, "smoke.categories={free: ['']}", cwd=tmp_path).stderr.count("evaluated already")
        == 2
    )
    results = json.loads((tmp_path / "runs" / "r0" / "eval" / "results.json").read_text())
    assert results["texts"]["held out.txt"]["score"]["bytes"] == 25
    assert {"report.md", "loss.png"} <= {path.name for path in (tmp_path / "runs" / "r0" / "eval").iterdir()}
    assert (tmp_path / "both" / "comparison.md").exists()
    done = call("evaluate.py", "model=runs/r0", "prompt=red", "sampling.max_new_tokens=3", cwd=tmp_path)
    assert done.returncode == 0
    assert "red" in done.stderr + done.stdout


BAD_INPUT = {
    "no file": ({}, "matches no file"),
    "empty file": ({"a.txt": b""}, "gave no document"),
    "invalid UTF-8": ({"a.txt": b"good\nbad \xff\xfe here\n"}, "a.txt:2"),
    "broken JSON": ({"a.jsonl": b'{"text": "good"}\n{"text": \n'}, "a.jsonl:2"),
    "missing key": ({"a.jsonl": b'{"txet": "good"}\n'}, "txet"),
    "NUL": ({"a.txt": b"good\0bad"}, "a.txt"),
    "one document": ({"a.txt": b"just one document, " * 200}, "source.document=paragraph"),
}


@pytest.mark.parametrize("kind", BAD_INPUT)
def test_bad_input_ends_with_code_3_and_leaves_nothing_half_done(kind: str, tmp_path: Path) -> None:
    files, message = BAD_INPUT[kind]
    (tmp_path / "in").mkdir()
    for name, data in files.items():
        (tmp_path / "in" / name).write_bytes(data)
    done = call("prepare.py", "source=files", "source.path='in/*'", "tokenizer.vocab_size=290", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.tmp-*"))
    assert not (tmp_path / "data" / "packed").exists() or not list((tmp_path / "data" / "packed").rglob("*.bin"))


def test_a_missing_model_is_named_with_code_3(tmp_path: Path) -> None:
    done = call("evaluate.py", "model=runs/nothing", cwd=tmp_path)
    assert done.returncode == 3
    assert "model=runs/nothing · is not a run or a checkpoint" in done.stderr


@pytest.mark.parametrize(
    ("script", "setting"), [("train.py", "seed=0"), ("prepare.py", "seed=0"), ("evaluate.py", "out=x")]
)
def test_help_is_what_hydra_itself_prints(script: str, setting: str, tmp_path: Path) -> None:
    ours, from_hydra = call(script, "--help", cwd=tmp_path), call(script, "--help", setting, cwd=tmp_path)
    assert ours.returncode == from_hydra.returncode == 0
    assert f"python {script}" in ours.stdout
    assert ours.stdout == from_hydra.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_resolved_config_can_be_read(tmp_path: Path) -> None:
    done = call("train.py", "--cfg", "job", "--resolve", cwd=tmp_path)
    assert done.returncode == 0
    assert "seq_len: 256" in done.stdout


def test_the_scripts_are_short() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in ROOT.glob("*.py")}
    assert set(lengths) == {"train.py", "prepare.py", "evaluate.py", "serve.py"}
    assert max(lengths.values()) <= 30, lengths
