"""The card says what was measured, and how to load the folder."""

import json
import re
from pathlib import Path

import pytest

from lumi.export.card import model_card
from lumi.export.source import Source


@pytest.fixture
def source(trained, tmp_path) -> Source:
    return Source(
        decoder=trained.decoder,
        tokenizer=trained.tokenizer,
        template=trained.template,
        facts=trained.facts,
        checkpoint=trained.checkpoint,
        run=tmp_path,
    )


def test_it_names_the_runs_that_made_the_model(hf, trained):
    card = (Path(hf["folder"]) / "README.md").read_text()
    assert "| trained as | chat (sft)" in card
    assert "| which began from | pretrain (pretrain)" in card
    assert trained.tokenizer.sha256 in card


def test_its_code_loads_the_model(hf, monkeypatch, capsys):
    folder = Path(hf["folder"])
    monkeypatch.chdir(folder.parent)
    match = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert match
    exec(match[1].replace("max_new_tokens=64", "max_new_tokens=4"), {})
    assert capsys.readouterr().out.endswith("\n")


def test_results_of_an_evaluation_are_in_it(source, hf, tmp_path):
    found = {
        "sources": {"world": {"score": {"bits_per_byte": 1.25}}},
        "chat": {"x": {"tasks": {"copy": {"exact": 0.5, "n": 8}}}},
    }
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "results.json").write_text(json.dumps(found))
    card = model_card(source, "m", {"format": "hf", "dtype": "float32", "parity": hf["parity"]})
    assert "| bits per byte, world | 1.2500 |" in card
    assert "| x, copy | 50.0% right of 8 |" in card


def test_limits_that_were_measured_are_in_it(source):
    parity = {
        "ids": {"texts": 90, "different": 0, "inexact": 10},
        "conversations": {"rendered": 8, "different": 0, "joined": 2},
    }
    card = model_card(source, "m", {"format": "gguf", "dtype": "f16", "parity": parity})
    assert "10 of the texts that were compared (10.0%" in card
    assert "In 2 of 8 conversations" in card
