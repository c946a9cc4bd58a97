"""The benchmarks run, so that they do not rot; what they measure is no test."""

import importlib
import json
import random
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_signatures_and_packing_are_measured(tmp_path, monkeypatch):
    for package in ("datasketch", "rensa"):
        pytest.importorskip(package)
    monkeypatch.syspath_prepend(ROOT)
    words, rng = [f"word{number}" for number in range(500)], random.Random(0)
    texts = [" ".join(rng.choices(words, k=500)) for _ in range(30)]
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    out = tmp_path / "out.json"
    sizes = ["--documents", "40", "--repeats", "1", "--vocab-size", "400", "--cores", "1"]
    given = ["--text", str(tmp_path / "text.jsonl"), "--out", str(out), "--work", str(tmp_path)]
    importlib.import_module("benchmarks.corpus").main(["--only", "signatures", "pack", *sizes, *given])
    speed, quality = json.loads(out.read_text())["parts"]["signatures"]
    assert all(row["both/s"] > 0 for row in speed["rows"])
    missed = {row["contestant"]: row["missed >= 0.8 %"] for row in quality["rows"] if row["links"] == "grouped"}
    assert missed["Lumi"] < 25
