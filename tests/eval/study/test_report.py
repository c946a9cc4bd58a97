"""The files of a report, read back."""

import csv
import html.parser
import json
import re

import pytest

from lumi.errors import ConfigError
from lumi.eval.study.analysis import analyse
from lumi.eval.study.document import Cell, Document, Notes, Paragraph, Strong, Table, markdown_text, render_markdown
from lumi.eval.study.page import render_page
from lumi.eval.study.reading import read_study
from lumi.eval.study.report import compare_study, report_study
from lumi.eval.study.tables import left_out_table

from .runs import write_run

HOSTILE = "<script>alert(1)</script> | [x](javascript:alert(1)) `a` **b** $x$ \" ' https://e.vil @me\n# h"


class Tags(html.parser.HTMLParser):
    """All tags with their attributes, and the text between them."""

    def __init__(self, text):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def settings():
    return {"compare": "multirun/rates", "model": "???", "metric": "val/loss", "baseline": None, "out": None}


def test_a_report_is_written_beside_its_study(report):
    names = {path.name for path in report.iterdir()}
    assert report.parts[-3:] == ("multirun", "rates", "report")
    assert {
        "report.md",
        "report.html",
        "results.json",
        "results.csv",
        "curves.png",
        "pareto.png",
        "heat_map.png",
    } <= names


def test_the_text_has_every_picture_and_says_how_much_there_is(report):
    text = (report / "report.md").read_text()
    pictures = re.findall(r"\]\((\w+\.png)\)", text)
    assert len(pictures) >= 5
    assert all((report / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    assert "12 finished runs of 12 · 4 configurations · 3 seeds" in text


def test_figures_are_kept_unrounded(report):
    found = json.loads((report / "results.json").read_text())
    assert found["configurations"][0]["runs"]["1"]["figures"]["val/loss"] == 2.6
    assert [one["name"] for one in found["factors"]] == ["arch", "optim.lr"]
    assert found["comparisons"][0]["difference"]["n"] == 3


def test_the_table_of_runs_has_every_run_with_its_levels(report):
    with (report / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert (rows[1]["factor:arch"], rows[1]["seed"], rows[1]["val/loss"]) == ("nano", "1", "3.1")


def test_the_page_loads_nothing_and_names_no_host(report):
    page = (report / "report.html").read_text()
    tags = Tags(page).found
    assert not re.search(r"https?://", page)
    assert all(attrs["src"].startswith("data:image/png;base64,") for tag, attrs in tags if tag == "img")
    assert not [tag for tag, attrs in tags if tag in ("link", "iframe", "object") or (tag == "script" and attrs)]
    assert "default-src 'none'" in page


def test_the_command_gives_the_same_report_again(report):
    text = (report / "report.md").read_text()
    assert "metric=val/loss 'baseline={arch: micro, optim.lr: 0.003}'" in text


def test_hostile_names_are_text_in_the_page():
    table = Table([HOSTILE], [HOSTILE], [[Cell(HOSTILE, 1.0, is_strong=True)]])
    page = render_page(Document(HOSTILE, HOSTILE, [Paragraph([HOSTILE, Strong(HOSTILE)]), Notes([[HOSTILE]]), table]))
    tags = Tags(page)
    assert [tag for tag, _ in tags.found].count("script") == 1  # its own
    assert not [tag for tag, _ in tags.found if tag == "a"]
    assert (
        tags.text.count("<script>alert(1)</script>") == 9
    )  # title, heading, subtitle, two in the paragraph, note, three in the table


def test_hostile_names_are_text_in_markdown():
    table = Table([HOSTILE], [HOSTILE, "n"], [[Cell(HOSTILE), Cell("1")]])
    text = render_markdown(Document(HOSTILE, "", [Paragraph([HOSTILE]), table]))
    body = text.replace("**Table 1.**", "")
    assert not re.search(r"[<>`\[\]$@]|\*\*b|://|\n# h", body)
    (row,) = [line for line in text.splitlines() if line.endswith("|   1 |")]
    assert row.count("|") == 3


def test_names_that_are_no_markup_stay_readable():
    assert markdown_text("arch=nano, optim.lr=0.003 val/bits_per_byte") == "arch=nano, optim.lr=0.003 val/bits_per_byte"


def test_bold_words_end_before_the_space():
    assert "**One seed. **" not in render_markdown(Document("t", "", [Paragraph([Strong("One seed. "), "No."])]))
    assert "**One seed.** No." in render_markdown(Document("t", "", [Paragraph([Strong("One seed. "), "No."])]))


def test_a_hostile_setting_reaches_no_file_as_markup(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place, name in enumerate((HOSTILE, r"$\frac{", "x" * 300)):
        write_run(tmp_path / "runs" / f"r{place}", 2.0 + place, settings={"source": {}, "data": {"name": name}})
    folder = report_study(["runs/*"])
    assert [tag for tag, _ in Tags((folder / "report.html").read_text()).found].count("script") == 1
    assert "<script>" not in (folder / "report.md").read_text()


def test_an_unfinished_study_has_a_table_of_what_does_not_count(two_by_two, tmp_path):
    path = tmp_path / "multirun" / "rates" / "study.json"
    study = json.loads(path.read_text())
    study["jobs"][0] |= {"run": None, "state": "failed", "error": "NumericError: loss=nan | stopped"}
    path.write_text(json.dumps(study))
    table = left_out_table(analyse(read_study(["multirun/rates"])))
    text = render_markdown(Document("t", "", [table]))
    assert "| failed |" in text
    assert "NumericError: loss=nan &#124; stopped" in text


def test_one_run_alone_has_a_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "a", 2.0)
    text = (report_study(["runs/a"], out="here") / "report.md").read_text()
    assert "val/loss is **2.0000**" in text


def test_many_factors_and_configurations_have_a_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in range(12):
        node = {
            "optim": {"lr": 1e-4 * 1.3**place, "weight_decay": 0.1 * (place % 7)},
            "arch": {"d_ff": 8 * (place * 7 % 11)},
        }
        write_run(tmp_path / "runs" / f"{place:02d}", 3 - 0.1 * (place % 5), settings=node)
    names = {path.name for path in report_study(["runs"]).iterdir()}
    assert {"main_effects.png", "parallel.png"} <= names
    assert "heat_map.png" not in names


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"compare": 3}, "compare=3 · must be a study"),
        ({"compare": []}, r"compare=\[\] · must be a study"),
        ({"model": "runs/a"}, "model=runs/a · does not go with compare"),
        ({"metric": None}, "metric=None · must be the name of a metric"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, change, message):
    with pytest.raises(ConfigError, match=message):
        compare_study(settings | change)
