"""Rows of the hub: every preset on local rows of the real schema, a stream that goes on where it broke, every fault."""

import gzip
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from omegaconf import OmegaConf

from lumi.config import build
from lumi.corpus import hub
from lumi.corpus.document import Document, Rejected
from lumi.corpus.hub_source import Hub
from lumi.errors import ConfigError, DataError

CONF = Path(__file__).parents[2] / "conf"
ROWS = [{"text": f"text {number}"} for number in range(6)]
LONG = "It was the best of times, it was the worst of times. " * 3
SCHEMAS = {
    "c4": {"text": LONG, "timestamp": "2019-04-25T12:57:54Z", "url": "https://example.org/a"},
    "fineweb_edu": {
        "text": LONG,
        "id": "<urn:uuid:1>",
        "dump": "CC-MAIN-2024-10",
        "url": "https://example.org/a",
        "file_path": "s3://commoncrawl/a.warc.gz",
        "language": "en",
        "language_score": 0.97,
        "token_count": 40,
        "score": 3.2,
        "int_score": 3,
    },
    "gutenberg": {"TEXT": LONG, "SOURCE": "gutenberg", "METADATA": '{"text_id": 98, "title": "A Tale of Two Cities"}'},
    "wikipedia": {"id": "12", "url": "https://en.wikipedia.org/wiki/A", "title": "A", "text": LONG},
}
MIXES = {
    "tokenizer_mix": 100e6,
    "micro": 200e6,
    "tiny": 600e6,
    "small": 900e6,
    "medium": 1.8e9,
    "base_a": 1.5e9,
    "base_b": 1.5e9,
}


def local(folder, rows, **settings) -> Hub:
    """A source of these rows in a file."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Hub(path=str(path), **settings)


def texts(source, start=0):
    return [item.text if isinstance(item, Document) else item.reason for item in source.documents_from(start)]


class Package:
    """Stands for `datasets`: every stream that it opens breaks at the row that ``breaks`` names next, None at none.

    Args:
        error: what a break raises; None is a lost connection.
    """

    def __init__(self, *breaks, rows=ROWS, error=None):
        self.breaks, self.rows, self.opened = list(breaks), rows, []
        self.error = error or ConnectionError("connection reset")

    def load_dataset(self, *names, **settings):
        self.opened.append((names, settings))
        return Stream(self, self.breaks.pop(0) if self.breaks else None)

    def get_dataset_config_names(self, dataset, revision):
        return ["b", "a"]


class Stream:
    def __init__(self, package, breaks, first=0):
        self.package, self.breaks, self.first = package, breaks, first

    def skip(self, number):
        return Stream(self.package, self.breaks, self.first + number)

    def __iter__(self):
        for number in range(self.first, len(self.package.rows) + 1):
            if number == self.breaks:
                raise self.package.error
            if number < len(self.package.rows):
                yield self.package.rows[number]


@pytest.fixture
def pauses(monkeypatch):
    """The seconds that were waited, without waiting."""
    found = []
    monkeypatch.setattr(hub.time, "sleep", found.append)
    return found


@pytest.fixture
def streamed(monkeypatch, pauses):
    """``streamed(3, None)``: a package whose first stream breaks at row 3 and whose second one does not."""

    def make(*breaks, **settings):
        package = Package(*breaks, **settings)
        monkeypatch.setattr(hub, "_package", lambda: package)
        return package

    return make


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("suffix", [".json.gz", ".parquet"])
def test_every_preset_reads_the_rows_of_its_dataset(tmp_path, composed, name, suffix):
    path = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([SCHEMAS[name]]), path)
    else:
        path.write_bytes(gzip.compress(json.dumps([SCHEMAS[name]]).encode()))
    node = composed(f"source/{name}", f"source.path='{path}'").source
    source = build(OmegaConf.to_container(node, resolve=True), "source")
    (item,) = source.documents()
    identity = {"fineweb_edu": "<urn:uuid:1>", "wikipedia": "12"}.get(name, f"{path.name}:1")
    assert item == Document(text=f"A\n\n{LONG}" if name == "wikipedia" else LONG, id=identity)
    assert (source.name, source.language, source.weight, source.tokens) == (name, "en", 1.0, None)
    assert source.licence != "unknown"
    assert source.dataset in source.notes


def test_the_configuration_shows_the_defaults_of_the_class():
    shown = yaml.safe_load((CONF / "source" / "hub.yaml").read_text(encoding="utf-8"))
    assert shown.pop("_target_") == "lumi.corpus.Hub"
    assert shown == {**vars(Hub(dataset="x/y")), "dataset": "???"}


@pytest.fixture(scope="module")
def mixes(composed):
    """Every mix as composed."""
    return {name: composed("prepare", f"corpus={name}").corpus for name in MIXES}


@pytest.mark.parametrize("name", MIXES)
def test_every_mix_of_presets_has_its_budget(mixes, name):
    sources = {key: source for key, source in mixes[name].sources.items() if source is not None}
    assert mixes[name].name == name
    assert mixes[name].tokens == MIXES[name]
    assert list(sources) == ["c4", "fineweb_edu", "wikipedia", "gutenberg"]
    assert sum(source.weight for source in sources.values()) == pytest.approx(1.0)


def test_the_phases_of_the_base_model_stream_other_pages(mixes):
    first, second = mixes["base_a"].sources, mixes["base_b"].sources
    assert (first.c4.subset, second.c4.subset) == ("en", "realnewslike")
    assert (first.fineweb_edu.subset, second.fineweb_edu.subset) == ("sample-10BT", "CC-MAIN-2024-10")


def test_the_hub_is_asked_for_what_the_settings_name(streamed):
    package = streamed()
    items = list(Hub(dataset="x/y", subset="en", split="test", revision="abc").documents())
    assert package.opened == [(("x/y", "en"), {"split": "test", "revision": "abc", "streaming": True})]
    assert items[:1] == [Document(text="text 0", id="x/y/en:test:0")]


@pytest.mark.parametrize("start", [0, 1, 4, 6, 9])
def test_a_stream_goes_on_at_any_row(streamed, tmp_path, start):
    streamed(rows=[{"text": ""}, *ROWS[1:]])
    for source in (Hub(dataset="x/y"), Hub(dataset="x/y", subset="*"), local(tmp_path, [{"text": ""}, *ROWS[1:]])):
        assert list(source.documents_from(start)) == list(source.documents())[start:]


def test_all_subsets_are_one_stream(streamed):
    streamed(rows=ROWS[:2])
    ids = [item.id for item in Hub(dataset="x/y", subset="*").documents_from(1) if isinstance(item, Document)]
    assert ids == ["x/y/a:train:1", "x/y/b:train:0", "x/y/b:train:1"]


def test_a_stream_that_breaks_goes_on_at_the_row_it_had_reached(streamed, pauses):
    package = streamed(2, 2, 5, None)
    assert texts(Hub(dataset="x/y")) == [row["text"] for row in ROWS]
    assert len(package.opened) == 4
    assert pauses == [2.0, 4.0, 2.0]  # the third break comes after progress


def test_a_stream_that_breaks_after_its_last_row_is_asked_again(streamed, pauses):
    streamed(6, None)
    assert texts(Hub(dataset="x/y"), start=4) == ["text 4", "text 5"]
    assert pauses == [2.0]


def test_a_packed_file_that_the_network_cuts_short_is_read_again(streamed):
    streamed(3, None, error=EOFError("Compressed file ended before the end-of-stream marker was reached"))
    assert texts(Hub(dataset="x/y")) == [row["text"] for row in ROWS]


def test_four_breaks_at_one_row_are_the_end(streamed, pauses):
    streamed(2, 2, 2, 2)
    rows = Hub(dataset="x/y").documents()
    assert [next(rows), next(rows)] == [Document(text=f"text {n}", id=f"x/y:train:{n}") for n in (0, 1)]
    with pytest.raises(DataError, match=r"x/y cannot .*connection reset.*needs a network · source.path=FILE"):
        next(rows)
    assert pauses == [2.0, 4.0, 8.0]


class Refused(OSError):
    """What the hub answers, as `huggingface_hub` raises it."""

    def __init__(self, status):
        super().__init__(f"status {status}")
        self.response = SimpleNamespace(status_code=status)


@pytest.mark.parametrize("error", [ValueError("Bad split"), FileNotFoundError("x/y doesn't exist"), Refused(403)])
def test_what_another_attempt_cannot_mend_is_not_tried_again(streamed, pauses, error):
    streamed(0, error=error)
    with pytest.raises(DataError, match=r"x/y cannot .*check its name.*HF_TOKEN.* · source.path=FILE"):
        list(Hub(dataset="x/y").documents())
    assert pauses == []


def test_too_many_requests_are_tried_again(streamed, pauses):
    streamed(0, None, error=Refused(429))
    assert len(texts(Hub(dataset="x/y"))) == len(ROWS)
    assert pauses == [2.0]


def test_without_the_package_its_installation_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"pip install 'lumi\[hub\]'"):
        list(Hub(dataset="x/y").documents())


def test_rows_with_other_values_or_lesser_numbers_are_left_out(tmp_path):
    rows = [
        {"text": text, "data": {"lang": lang}, "score": score}
        for text, lang, score in [("a", "en", 3), ("b", "de", 5), ("c", "en", 2.9), ("d", "en", None), ("e", "en", 4.5)]
    ]
    source = local(tmp_path, rows, keep={"data.lang": "en"}, at_least={"score": 3})
    assert texts(source) == ["a", "data.lang is not 'en'", "score is below 3", "score is below 3", "e"]
    assert list(source.documents())[2] == Rejected(
        where="rows.jsonl:3", reason="score is below 3", detail="score is 2.9"
    )


def test_nested_texts_are_joined_without_the_empty_ones(tmp_path):
    rows = [
        {"a": {"b": ["x", "one\r\ntwo"]}, "c": "three"},
        {"a": {"b": ["x", None]}, "c": "four"},
        {"a": None, "c": "5"},
    ]
    source = local(tmp_path, rows, text_key=["a.b.1", "c"], separator=" + ")
    assert texts(source) == ["one\ntwo + three", "four", "5"]


def test_ids_come_from_their_key_or_count_the_rows(tmp_path):
    rows = [{"text": "a", "n": 7}, {"text": "b", "n": "x"}]
    assert [item.id for item in local(tmp_path, rows).documents() if isinstance(item, Document)] == [
        "rows.jsonl:1",
        "rows.jsonl:2",
    ]
    assert [item.id for item in local(tmp_path, rows, id_key="n").documents() if isinstance(item, Document)] == [
        "7",
        "x",
    ]


FAULTS = [
    ([1], {}, "not a JSON object", "is not a JSON object"),
    ({"body": "a"}, {}, "missing key", "has no 'text'; it has: body · set source.text_key to"),
    ({"text": "a", "m": {}}, {"text_key": "m.text"}, "missing key", "has no 'm.text'; it has: text, m"),
    ({"text": 3}, {}, "wrong type", "text is 3, not a string"),
    ({"text": "a"}, {"keep": {"lang": "en"}}, "missing key", "has no 'lang'; it has: text · set source.keep to"),
    ({"text": "a"}, {"at_least": {"score": 3}}, "missing key", "has no 'score'"),
    ({"text": "a", "score": "4"}, {"at_least": {"score": 3}}, "wrong type", "score is '4', not a number"),
    ({"text": "a"}, {"id_key": "id"}, "missing key", "has no 'id'"),
    ({"text": "a", "id": None}, {"id_key": "id"}, "no id", "id is None, which is no id"),
    ({"text": "a\0b"}, {}, "NUL character", "holds a NUL character (at character 2)"),
    ({"text": "ab\ud800"}, {}, "lone surrogate", "holds the lone surrogate U+D800"),
    ({"text": "ä" * 9}, {"max_doc_bytes": 17}, "too large", "has 18 bytes, more than source.max_doc_bytes=17"),
]


@pytest.mark.parametrize(("row", "settings", "reason", "message"), FAULTS, ids=range(len(FAULTS)))
def test_a_faulty_row_stops_with_its_place_or_is_counted(tmp_path, row, settings, reason, message):
    source = local(tmp_path, [row], **settings)
    with pytest.raises(DataError) as caught:
        list(source.documents())
    assert f"{caught.value}".startswith(f"{tmp_path / 'rows.jsonl'}:1 · {message}")
    assert "source.on_error=skip" in f"{caught.value}"
    (item,) = local(tmp_path, [row], on_error="skip", **settings).documents()
    assert isinstance(item, Rejected)
    assert (item.where, item.reason) == ("rows.jsonl:1", reason)


def test_a_faulty_row_of_the_hub_is_named_by_its_number(streamed):
    streamed(rows=[{"text": "a"}, {"text": None, "url": "b"}, {"content": "c"}])
    with pytest.raises(DataError, match=r"^x/y:train:2 · has no 'text'; it has: content · set source.text_key"):
        list(Hub(dataset="x/y").documents())


def test_rows_without_text_and_short_ones_are_never_an_error(tmp_path):
    rows = [{"text": ""}, {"text": None}, {"text": " \n"}, {"text": "ab"}, {"text": "abc"}]
    assert texts(local(tmp_path, rows, min_chars=3)) == ["empty text"] * 3 + ["too short", "abc"]


def test_too_many_faulty_rows_stop_the_reading(tmp_path):
    rows = [{"text": "a"}] * 98 + [{"text": 1}] * 2
    with pytest.raises(DataError, match=r"2 of 100 rows are faulty \(2 wrong type\)"):
        texts(local(tmp_path, rows, on_error="skip"))
    assert len(texts(local(tmp_path, rows, on_error="skip", max_rejected_ratio=0.02))) == 100


def test_a_file_that_is_cut_short_is_an_error_always(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(ROWS[0]).encode())[:-9])
    with pytest.raises(DataError, match="is cut short"):
        list(Hub(path=str(path), on_error="skip").documents())


def test_rows_of_a_list_and_of_a_table_are_named_by_their_number(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([{"text": "a"}, {"text": 1}]))
    pq.write_table(pa.Table.from_pylist([{"text": "b"}, {"text": "c\0"}]), tmp_path / "b.parquet")
    items = list(Hub(path=str(tmp_path), on_error="skip").documents())
    assert [item.id if isinstance(item, Document) else item.where for item in items] == [
        "a.json:1",
        "a.json:1 (row 2)",
        "b.parquet:1",
        "b.parquet row 2",
    ]


def test_settings_follow_the_content_of_files_and_not_their_place(tmp_path):
    sources = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        sources.append(local(tmp_path / name, ROWS, dataset=name))
    assert sources[0].settings() == sources[1].settings()
    local(tmp_path / "here", ROWS[1:])
    assert sources[0].settings() != sources[1].settings()


def test_settings_name_the_rows_of_the_hub_and_what_decides_about_them():
    changed = [{"subset": "a"}, {"split": "test"}, {"revision": "b"}, {"text_key": "a"}, {"id_key": "a"}]
    changed += [{"separator": ""}, {"keep": {"a": 1}}, {"at_least": {"a": 1}}, {"min_chars": 2}, {"max_doc_bytes": 9}]
    settings = [Hub(dataset="x/y", **{"revision": "a", **change}).settings() for change in [{}, *changed]]
    assert len({json.dumps(one, sort_keys=True) for one in settings}) == len(settings)
    assert settings[0]["kind"] == "hub"
    same = Hub(dataset="x/y", revision="a", weight=2.0, max_rejected_ratio=0.5, notes="a").settings()
    assert same == settings[0]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("dataset", ""),
        ("subset", 1),
        ("split", "train[:10]"),
        ("revision", 1),
        ("path", []),
        ("text_key", [1]),
        ("separator", None),
        ("id_key", ""),
        ("keep", ["a"]),
        ("at_least", {"score": "3"}),
        ("at_least", {"score": float("nan")}),
        ("min_chars", 0),
        ("on_error", "ignore"),
        ("max_rejected_ratio", 2),
        ("max_doc_bytes", 1.5),
        ("weight", -1),
        ("language", "English"),
    ],
)
def test_a_wrong_setting_is_refused_at_once(setting, value):
    with pytest.raises(ConfigError, match=rf"source\.{setting}="):
        Hub(**{"dataset": "x/y", setting: value})


def test_all_wrong_settings_are_in_one_error():
    with pytest.raises(ConfigError, match=r"3 settings(?s:.*)source.dataset=OWNER/NAME"):
        Hub(on_error="ignore", tokens=0)


def test_the_token_is_no_setting():
    assert not [field for field in vars(Hub(dataset="x/y")) if "token" in field and field != "tokens"]
