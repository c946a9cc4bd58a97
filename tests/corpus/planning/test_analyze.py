"""A plan without a corpus: exact where all was tried, else with intervals that hold the truth, and nothing written."""

import dataclasses
import gzip
import io
import json
import lzma
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from omegaconf import DictConfig
from rich.console import Console

from lumi.corpus import (
    Corpus,
    Document,
    Duplicates,
    Existing,
    Files,
    Hub,
    Local,
    Rejected,
    Source,
    TokenCounter,
    World,
    build_corpus,
)
from lumi.corpus.planning.analyze import analyze
from lumi.corpus.planning.extrapolate import Estimate
from lumi.corpus.planning.plan import Plan
from lumi.corpus.planning.table import WIDTH, show_plan
from lumi.corpus.steps.step import Step
from lumi.corpus.streams import metered, open_stream
from lumi.errors import ConfigError
from lumi.prepare import prepare

_WORDS = " ".join(str(number) for number in np.random.default_rng(0).integers(0, 10**6, 500_000))


@dataclasses.dataclass(kw_only=True, repr=False, eq=False)
class NoNines(Step):
    """Leaves out texts that begin with a 9: about one of nine."""

    name = "no_nines"

    def apply(self, document: Any) -> str | None:
        return "begins with 9" if document.text.startswith("9") else None


class Fixed(Source):
    """A source of a kind that nothing is known of."""

    def __init__(self, *texts: str, name: str = "fixed", tokens: int | None = None) -> None:
        self.texts, self.name, self.tokens = texts, name, tokens
        self.weight, self.licence, self.notes = 1.0, "", ""

    def settings(self) -> dict[str, Any]:
        return {}

    def documents(self) -> Iterator[Document | Rejected]:
        for number, text in enumerate(self.texts):
            yield Document(text=text, id=f"{number}") if text else Rejected(where=f"{number}", reason="empty text")


def some_texts(seed: int, n: int, mean: int = 400) -> list[str]:
    """Of very different lengths, as texts are."""
    rng = random.Random(seed)
    lengths = [max(2, round(rng.lognormvariate(0, 0.8) * mean)) for _ in range(n)]
    return [_WORDS[start : start + length].strip() for length in lengths for start in [rng.randrange(3_000_000)]]


def write_rows(path: Path, texts: list[str]) -> Path:
    """JSON lines, packed as the name says."""
    data = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    pack = {
        ".gz": lambda data: gzip.compress(data, 1),
        ".xz": lambda data: lzma.compress(data, preset=0),
        ".zst": zstandard.compress,
    }
    path.write_bytes(pack[path.suffix](data) if path.suffix in pack else data)
    return path


def plan_of(*sources: Source, megabytes: float = 1.0, step: Step | None = None, **settings: Any) -> Plan:
    corpus = Corpus(name="c", sources={s.name: s for s in sources}, steps={"no_nines": step}, **settings)
    return analyze(corpus, TokenCounter(), sample_megabytes=megabytes)


def truth_of(texts: Sequence[str]) -> list[int]:
    """Rows, their bytes, documents, their bytes and tokens, by counting all of them."""
    kept = [text for text in texts if not text.startswith("9")]
    tokens = sum(map(TokenCounter().count, kept))
    return [len(texts), sum(map(len, texts)), len(kept), sum(map(len, kept)), tokens]


def holds(plan: Plan, truth: list[int]) -> list[bool]:
    whole = plan.sources[0].whole
    assert whole is not None
    found = (whole.rows, whole.text_bytes, whole.documents, whole.bytes, whole.tokens)
    return [estimate.low <= value <= estimate.high for estimate, value in zip(found, truth, strict=True)]


@pytest.mark.parametrize(("name", "n", "megabytes"), [("a.jsonl", 5000, 0.1), ("a.jsonl.gz", 12000, 0.2)])
def test_the_intervals_hold_the_truth(tmp_path, name, n, megabytes):
    held, n_seeds = [], 6 if name == "a.jsonl" else 3
    for seed in range(n_seeds):
        texts = some_texts(seed, n)
        source = Files(path=str(write_rows(tmp_path / name, texts)))
        plan = plan_of(source, megabytes=megabytes, step=NoNines(), duplicates=Duplicates(exact=False))
        assert not plan.sources[0].read_whole
        held.append(holds(plan, truth_of(texts)))
    assert np.mean(held) >= 0.9
    assert (np.mean(held, axis=0) >= 0.6).all()


def test_many_files_are_sampled_all_over(tmp_path):
    held, how = [], ""
    for seed in range(5):
        rng = random.Random(seed)
        texts = [some_texts(100 * seed + file, rng.randint(100, 300), rng.randint(200, 600)) for file in range(20)]
        for file, own in enumerate(texts):
            write_rows(tmp_path / f"{file}.jsonl", own)
        plan = plan_of(Files(path=str(tmp_path)), megabytes=0.05, step=NoNines(), duplicates=Duplicates(exact=False))
        held.append(holds(plan, truth_of([text for own in texts for text in own])))
        how = plan.sources[0].how
    assert "of its 20 files" in how
    assert np.mean(held) >= 0.9


def test_rows_of_parquet_are_counted_without_reading_them(tmp_path):
    texts = some_texts(0, 4000)
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    source = Files(path=str(tmp_path / "a.parquet"))
    plan = plan_of(source, megabytes=0.05, step=NoNines(), duplicates=Duplicates(exact=False))
    whole = plan.sources[0].whole
    assert whole is not None
    assert (round(whole.rows.value), plan.sources[0].read_rows < 2000) == (4000, True)
    assert all(holds(plan, truth_of(texts))[1:])


def test_what_was_tried_whole_is_what_the_build_makes(tmp_path):
    texts = some_texts(1, 60)
    write_rows(tmp_path / "a.jsonl", [*texts, texts[3], texts[5] + " more", ""])
    write_rows(tmp_path / "b.jsonl.gz", [*some_texts(2, 60), texts[7]])
    sources = {name: Files(path=str(tmp_path / f"{name}.jsonl*"), name=name, max_chars=900) for name in "ab"}
    corpus = Corpus(name="c", sources=sources, steps={"s": NoNines()}, duplicates=Duplicates(near=True))
    plan = analyze(corpus, TokenCounter(), sample_megabytes=1)
    info = build_corpus(corpus, tmp_path / "c").info
    taken = plan.taken
    assert all(source.is_exact for source in plan.sources)
    assert all(getattr(taken, name).is_exact for name in vars(taken))
    for name in ("documents", "bytes", "tokens", "rows"):
        assert getattr(taken, name).value == info[name]
    for source in plan.sources:
        facts = info["sources"][source.name]
        assert source.left_out == {**facts["rejected"], **facts["dropped"]}
        assert source.length_quantiles == facts["length_quantiles"]


def test_every_row_of_the_sample_is_accounted_for(tmp_path):
    texts = some_texts(3, 300)
    source = Files(path=str(write_rows(tmp_path / "a.jsonl", [*texts, *texts[:50], *[""] * 50])))
    found = plan_of(source, megabytes=0.06, step=NoNines()).sources[0]
    assert found.sampled_rows < found.read_rows == 400
    assert set(found.left_out) == {"no_nines: begins with 9", "duplicates: exact", "empty text"}
    assert found.sampled_rows == sum(found.left_out.values()) + round(found.kept.value * found.sampled_rows)


def test_a_sample_of_rows_prefers_neither_long_nor_short_ones(tmp_path):
    source = Files(path=str(write_rows(tmp_path / "a.jsonl", ["short"] * 4000 + ["long " * 40] * 4000)))
    found = plan_of(source, megabytes=0.1, duplicates=Duplicates(exact=False)).sources[0]
    assert found.read_whole
    assert found.sampled_bytes / found.sampled_rows == pytest.approx((5 + 200) / 2, rel=0.05)


def test_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "a.jsonl", some_texts(0, 20))
    plan_of(Files(path="a.jsonl"), step=NoNines(), duplicates=Duplicates(near=True))
    assert [path.name for path in tmp_path.rglob("*")] == ["a.jsonl"]


def test_what_nobody_knows_is_unknown():
    endless = plan_of(Fixed(*some_texts(0, 500)), megabytes=0.05)
    ended = plan_of(Fixed(*some_texts(0, 50)), megabytes=0.05)
    assert (endless.sources[0].whole, endless.sources[0].taken, endless.unknown) == (None, None, ["fixed"])
    assert ended.taken.rows == Estimate.exactly(50)


def test_a_budget_is_filled_or_not():
    texts = some_texts(0, 400)
    n_tokens = sum(map(TokenCounter().count, texts))
    sources = (
        Fixed(*texts, name="enough", tokens=n_tokens // 3),
        Fixed(*[f"{text}." for text in texts], name="lacking", tokens=2 * n_tokens),
    )
    enough, lacking = plan_of(*sources).sources
    assert (enough.enough, lacking.enough) == ("yes", "no")
    assert enough.taken is not None
    assert lacking.taken == lacking.whole
    assert enough.taken.tokens == Estimate.exactly(n_tokens // 3)
    assert enough.taken.documents.value == pytest.approx(400 / 3, rel=0.01)


def test_a_budget_of_a_source_without_known_size_is_taken_for_filled():
    plan = plan_of(Fixed(*some_texts(0, 500), tokens=1_000_000), megabytes=0.05)
    found = plan.sources[0]
    assert (found.enough, found.budget_times, plan.unknown) == ("unknown", None, [])
    assert plan.taken.tokens == Estimate.exactly(1_000_000)
    assert plan.taken.text_bytes.value >= 5.4e6  # what the build reads before it looks


def test_a_budget_that_may_be_just_filled_is_doubtful(tmp_path):
    path = str(write_rows(tmp_path / "a.jsonl", some_texts(0, 2000)))
    whole = plan_of(Files(path=path), megabytes=0.03).sources[0].whole
    assert whole is not None
    assert plan_of(Files(path=path, tokens=round(whole.tokens.value)), megabytes=0.03).sources[0].enough == "perhaps"


def test_the_world_knows_its_megabytes():
    whole = plan_of(World(megabytes=0.5), megabytes=0.05).sources[0].whole
    assert whole is not None
    documents = list(World(megabytes=0.5).documents())
    assert whole.rows.low < len(documents) < whole.rows.high
    assert whole.text_bytes.value == 500_000


def test_a_corpus_knows_its_documents(tmp_path):
    texts = some_texts(0, 300)
    corpus = Corpus(name="c", sources={"a": Fixed(*texts, name="a"), "b": Fixed("other text", name="b")})
    n_documents = build_corpus(corpus, tmp_path / "c").info["documents"]
    whole = plan_of(Existing(path=str(tmp_path / "c")), megabytes=0.03).sources[0].whole
    assert whole is not None
    assert whole.rows.value == n_documents


@pytest.mark.parametrize("known", [True, False])
def test_the_hub_is_asked_for_its_count(monkeypatch, known):
    rows = [{"text": text} for text in some_texts(0, 200)]
    splits = {"train": SimpleNamespace(num_examples=200)} if known else None
    package = SimpleNamespace(
        disable_progress_bars=lambda: None,
        load_dataset=lambda *names, **settings: rows,
        load_dataset_builder=lambda *names, **settings: SimpleNamespace(info=SimpleNamespace(splits=splits)),
    )
    monkeypatch.setitem(sys.modules, "datasets", package)
    found = plan_of(Hub(dataset="o/n"), megabytes=0.03).sources[0]
    assert found.whole is None if not known else found.whole is not None and found.whole.rows.value == 200


def test_faulty_rows_beyond_what_the_build_allows_are_a_warning(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "good"}\n{"body": "bad"}\n')
    warnings = plan_of(Files(path=str(path), on_error="skip")).warnings
    assert any("50.0% of the rows of files are faulty (missing key)" in warning for warning in warnings)


def test_a_disk_that_is_too_small_is_a_warning(monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=100))
    assert "The disk is too small" in plan_of(Fixed(*some_texts(0, 9))).warnings[-1]


def test_a_plan_is_plain_json():
    plan = plan_of(Fixed(*some_texts(0, 500)), World(megabytes=0.1), World(name="all", megabytes=0.05), megabytes=0.06)
    fields = json.loads(plan.to_json())
    assert [source["name"] for source in fields["sources"]] == ["fixed", "world", "all"]
    assert fields["sources"][0]["whole"] is None
    assert set(fields["taken"]["tokens"]) == {"value", "low", "high"}
    assert fields["estimate_error"] == 0.1


def test_the_table_fits_into_100_columns(tmp_path):
    path = write_rows(tmp_path / "a.jsonl", some_texts(0, 2000))
    sources = (
        Files(path=str(path), name="a_source_with_a_long_name", tokens=1000),
        Fixed(*some_texts(5, 150), name="small"),
        Fixed(*some_texts(6, 900), name="endless", tokens=10**9),
    )
    screen = io.StringIO()
    show_plan(plan_of(*sources, megabytes=0.1, step=NoNines()), Console(file=screen, width=WIDTH, highlight=False))
    lines = screen.getvalue().splitlines()
    cells = [line.split() for line in lines]
    assert max(map(len, lines)) <= 100
    n_kept = truth_of(sources[1].texts)[2]
    assert ["small", "150", f"{n_kept / 150:.1%}", "150", f"{n_kept}"] in [row[:5] for row in cells]
    assert ["endless", "1.00", "B", "unknown"] in [row[:4] for row in cells]
    assert ["a_source_with_a_long_name", "1,000", "yes,"] in [row[:3] for row in cells]
    assert any(line.startswith(" no_nines: begins with 9") for line in lines)
    assert any("±10% because no tokenizer counted them" in line for line in lines)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.xz", "a.jsonl.zst"])
def test_a_meter_counts_the_bytes_on_disk(tmp_path, name):
    path = write_rows(tmp_path / name, [_WORDS[start : start + 1000] for start in range(0, 3_000_000, 1000)])
    with metered() as meter, open_stream(path) as stream:
        n_lines = len(stream.readlines(1_500_000))
        halfway = meter.n_bytes
        n_lines += len(stream.readlines())
    assert n_lines == 3000
    assert 0.49 < halfway / path.stat().st_size < 0.71  # to the end of a piece of a megabyte
    assert meter.n_bytes == path.stat().st_size


def test_the_time_is_shared_among_processes():
    corpus = Corpus(name="c", sources={"a": World(megabytes=400)})
    one, four = (
        analyze(corpus, TokenCounter(), sample_megabytes=0.3, executor=Local(workers=workers)) for workers in (1, 4)
    )
    assert (one.processes, four.processes) == (1, 4)
    assert one.seconds["process"] > 2 * four.seconds["process"]


@pytest.fixture
def planned(composed: Callable[..., DictConfig], tmp_path: Path) -> Callable[..., Path]:
    """``planned("step=corpus", …)``: the folder of data after this plan."""

    def run(*overrides: str) -> Path:
        prepare(composed("prepare", "analyze_only=true", f"paths.data='{tmp_path}'", *overrides))
        return tmp_path

    return run


def test_the_command_prints_the_plan_and_keeps_it(planned, capsys):
    folder = planned("source.megabytes=0.2")
    assert [path.relative_to(folder).as_posix() for path in folder.rglob("*.*")] == ["corpus/world.plan.json"]
    assert json.loads((folder / "corpus" / "world.plan.json").read_text())["taken"]["text_bytes"]["value"] > 200_000
    assert "Plan of the corpus world, by trying all of it" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("step=pack",), "step=corpus or step=all"),
        (("analyze_only=1",), "analyze_only=1"),
        (("sample_megabytes=0",), "must be a number above 0"),
        (("data=chat",), "is about text"),
    ],
)
def test_a_plan_of_something_else_is_refused(planned, overrides, message):
    with pytest.raises(ConfigError, match=message):
        planned(*overrides)
