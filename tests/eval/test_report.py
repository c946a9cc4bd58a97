"""What the files of an evaluation say, read back as text."""

import dataclasses
import json
import math

import pytest

from lumi.callbacks import written_samples
from lumi.errors import DataError
from lumi.eval.baselines import Baselines
from lumi.eval.perplexity import Perplexity
from lumi.eval.report import render_report, write_comparison, write_report
from lumi.eval.results import Results, SourceResult, TextResult, read_results
from lumi.eval.smoke import MEASURES, Sample, SmokeReport

BITS = Perplexity(nll_nats=250 * math.log(2), targets=100, bytes=1000, words=50)  # 0.25 bits per byte
OTHERS = Baselines(
    unigram_bits_per_byte=2.0,
    ngram_bits_per_byte=0.5,
    xz_bits_per_byte=0.4,
    order=5,
    train_tokens=9000,
    train_bytes=36000,
    val_tokens=100,
    val_bytes=400,
    complete=False,
)
METRICS = "step,progress/tokens,train/loss,val/loss,val/bits_per_byte/world\n1,100,5,,\n2,200,4,4.5,1.5\n3,300,3.5,,\n"


@pytest.fixture
def results():
    sample = Sample(
        category="free", prompt="Once", text=" ```upon``` a time", finish_reason="length", seed=0, measures={}
    )
    return Results(
        model={"name": "nano", "parameters": 1_234_567, "training_tokens": 5_000_000, "dropout": 0.0},
        commands=["python evaluate.py model=runs/nano"],
        sources={"world": SourceResult(score=BITS, exact_bits_per_byte=0.2, baselines=OTHERS)},
        mixture={"loss": 1.0, "token_perplexity": math.e, "bits_per_byte": 0.25},
        texts={"wikitext": TextResult(score=BITS, window=64, stride=32)},
        smoke=SmokeReport(
            suite="quick", samples=[sample], categories={"free": dict.fromkeys(MEASURES, 0.5)}, failures=["x"]
        ),
    )


def cells(text, name):
    """The cells of the table row that begins with ``name``."""
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {name} ")]
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_results_come_back_exactly(results, tmp_path):
    written = write_report(tmp_path, results)
    assert read_results(tmp_path) == written == read_results(tmp_path / "results.json")
    assert written["sources"]["world"]["score"]["nll_nats"] == BITS.nll_nats
    assert written["sources"]["world"]["baselines"]["xz_bits_per_byte"] == 0.4


def test_the_model_stands_beside_the_others_with_its_gap(results, tmp_path):
    write_report(tmp_path, results)
    row = cells((tmp_path / "report.md").read_text(), "world")
    assert row[1:7] == ["0.2500", "0.2000", "+25.0 %", "0.5000", "0.4000", "2.0000"]


def test_a_report_has_facts_texts_samples_and_commands(results, tmp_path):
    write_report(tmp_path, results)
    report = (tmp_path / "report.md").read_text()
    assert cells(report, "parameters")[1] == "1,234,567"
    assert cells(report, "wikitext")[1:4] == ["5.66", "32.00", "0.2500"]  # 2.5 bits a token, 5 bits a word
    assert "learnt from 9,000 tokens and were scored on 100, a part" in report
    assert "python evaluate.py model=runs/nano" in report
    assert "![" not in report


def test_a_sample_cannot_end_its_block(results, tmp_path):
    write_report(tmp_path, results)
    assert "````text\n‹Once› ```upon``` a time …\n````" in (tmp_path / "report.md").read_text()


def test_the_loss_curve_is_drawn_from_the_metrics(results, tmp_path):
    (tmp_path / "metrics.csv").write_text(METRICS)
    write_report(tmp_path, results, metrics=tmp_path / "metrics.csv")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert "(loss.png)" in (tmp_path / "report.md").read_text()


def test_an_infinite_perplexity_is_null_in_json(tmp_path):
    score = Perplexity(nll_nats=1e6, targets=1, bytes=1)
    found = write_report(tmp_path, Results(model={}, sources={"a": SourceResult(score=score)}))
    assert found["sources"]["a"]["score"]["token_perplexity"] is None
    assert json.loads((tmp_path / "results.json").read_text()) == found
    assert cells((tmp_path / "report.md").read_text(), "a")[7] == "–"


def test_a_report_can_be_made_again_from_results_json(results, tmp_path):
    write_report(tmp_path, results)
    assert render_report(read_results(tmp_path), with_curve=False) == (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    ("content", "message"), [("{", "not a result"), ("[]", "not a result"), ('{"schema_version": 99}', "schema 99")]
)
def test_something_else_is_not_read_as_results(tmp_path, content, message):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_results(tmp_path)


def test_models_are_compared_by_source(results, tmp_path):
    one = results.as_dict()
    other = Results(model={"name": "tiny"}, sources={"prose": SourceResult(score=BITS)}).as_dict()
    table = write_comparison(tmp_path, [one, other])
    assert cells(table, "nano") == ["nano", "1,234,567", "5,000,000", "0.2500", "–"]
    assert cells(table, "tiny")[3:] == ["–", "0.2500"]
    assert cells(table, "xz")[3:] == ["0.4000", "–"]
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_figures_on_different_texts_are_marked(results, tmp_path):
    longer = Perplexity(nll_nats=1.0, targets=1, bytes=2000)
    other = Results(model={"name": "tiny"}, sources={"world": SourceResult(score=longer)}).as_dict()
    write_comparison(tmp_path, [results.as_dict(), other])
    assert (
        "world: the models were scored on different texts (1,000, 2,000 bytes)"
        in (tmp_path / "comparison.md").read_text()
    )


def test_models_need_names_of_their_own(results, tmp_path):
    with pytest.raises(DataError, match="'nano', 'nano'"):
        write_comparison(tmp_path, [results.as_dict()] * 2)


def test_what_was_written_during_training_is_shown(results, tmp_path):
    samples = tmp_path / "samples"
    samples.mkdir()
    for step in (0, 100, 200, 300, 1000):
        (samples / f"step_{step:08d}.md").write_text(f"# Samples after step {step}\n\n## Once\n\n> ## at {step}\n")
    written = written_samples(samples)
    assert written == {step: f"#### Once\n\n> ## at {step}\n" for step in ("0", "200", "1000")}
    report = render_report(dataclasses.replace(results, written=written).as_dict(), with_curve=False)
    assert "### Step 1,000\n\n#### Once\n\n> ## at 1000" in report
    assert written_samples(tmp_path / "none") == {}
