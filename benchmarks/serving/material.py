"""The model that everybody serves: one step of training, then the files that each program reads, all from the same weights."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.training.driver import ROOT, Failed
from benchmarks.training.material import data_overrides, make_text, make_tokenizer
from benchmarks.training.options import vocab_size_of


def make_model(folder: Path, arch: str) -> Path:
    """A run of one step; what a model says costs the same time whether it is right or not."""
    run = folder / "serve" / arch
    if (run / "checkpoints").is_dir():
        return run
    vocab_size = vocab_size_of(arch)
    make_text(folder)
    make_tokenizer(folder, vocab_size)
    overrides = [
        f"arch={arch}",
        "budget.steps=1",
        "trainer.compile=false",
        "callbacks.samples=null",
        "data.batch_size=1",
        f"name={arch}",
        f"paths.runs='{run.parent}'",
        *data_overrides(folder, vocab_size, "long"),
    ]
    _run("train.py", overrides)
    return run


def export(run: Path, format_name: str, dtype: str | None = None) -> Path:
    """The exported folder, made once."""
    out = run / "export" / f"{format_name}-{dtype or 'default'}"
    if not out.is_dir():
        words = [f"model='{run}'", "mode=export", f"format={format_name}", f"out='{out}'"]
        _run("serve.py", [*words, *([f"dtype={dtype}"] if dtype else [])])
    return out


def _run(script: str, overrides: Sequence[str]) -> None:
    done = subprocess.run([sys.executable, script, *overrides], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{script} ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
