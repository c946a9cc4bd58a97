"""The engine: the same bytes with any number of workers, after any kill; budgets to the document; faults named."""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lumi.corpus import (
    Corpus,
    Document,
    Files,
    Local,
    Source,
    TokenCounter,
    build_corpus,
    read_corpus,
)
from lumi.corpus.steps import Clean
from lumi.errors import DataError, LockedError, ResourceError
from lumi.lock import folder_lock
from lumi.manifest import verify


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, corpus, listing) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed") / "c"
    build_corpus(corpus(), folder)
    return listing(folder)


def test_two_workers_give_the_bytes_of_one(tmp_path, undisturbed, corpus, listing):
    build_corpus(corpus(), tmp_path / "c", executor=Local(workers=2))
    assert listing(tmp_path / "c") == undisturbed
    assert not list(tmp_path.glob(".c.work"))
    assert len([name for name in undisturbed if name.endswith(".zst")]) >= 12


def test_every_row_is_accounted_for(undisturbed):
    info = json.loads(undisturbed["MANIFEST.json"])["info"]
    for facts in [info, *info["sources"].values()]:
        assert facts["rows"] == facts["documents"] + sum(facts["rejected"].values()) + sum(facts["dropped"].values())
    assert sum(facts["documents"] for facts in info["sources"].values()) == info["documents"]


RUN = """
import sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from lumi.corpus import Local, build_corpus
from conftest import make_corpus
if __name__ == "__main__":
    build_corpus(make_corpus(), Path({target!r}), executor=Local(workers={workers}))
"""


def start(tmp_path: Path, workers: int) -> "subprocess.Popen[bytes]":
    script = tmp_path / "run.py"
    script.write_text(RUN.format(folder=str(Path(__file__).parents[1]), target=str(tmp_path / "c"), workers=workers))
    return subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE, start_new_session=True)


def wait_for_work(tmp_path: Path, n_files: int) -> None:
    """Until a build has left so many records."""
    for _ in range(3000):
        if len(list((tmp_path / ".c.work").rglob("*.json"))) >= n_files or (tmp_path / "c").exists():
            return
        time.sleep(0.01)
    raise AssertionError("the build does not begin")


@pytest.mark.matrix("K1")
@pytest.mark.parametrize(("workers", "n_files"), [(1, 2), (1, 9), (2, 17), (2, 40)])
def test_a_killed_build_goes_on_to_the_same_bytes(tmp_path, undisturbed, workers, n_files, corpus, listing, row):
    process = start(tmp_path, workers)
    wait_for_work(tmp_path, n_files)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / ".c.work").rglob("*.zst") if path.name[0] != "."}
    seen: dict[Path, int] = {}

    class Watching(Local):
        def run(self, title: str, pipeline: Any, n_tasks: int, folder: Path) -> None:
            super().run(title, pipeline, n_tasks, folder)
            seen.update({path: path.stat().st_mtime_ns for path in before if path.exists()})

    build_corpus(corpus(), tmp_path / "c", executor=Watching(workers=1))
    assert listing(tmp_path / "c") == undisturbed
    redone = [path for path, when in seen.items() if before[path] != when]
    assert len(redone) <= 2 * workers  # only what was open: a block and its processed form for each worker
    row(trials=1, note=f"{workers} workers, {len(redone)} files of blocks written again")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_within_seconds_and_loses_nothing(tmp_path, undisturbed, number, corpus, listing):
    process = start(tmp_path, 2)
    wait_for_work(tmp_path, 15)
    begin = time.monotonic()
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=20)
    assert time.monotonic() - begin < 10
    assert process.returncode != 0
    assert f"stopped by {number.name}".encode() in errors
    build_corpus(corpus(), tmp_path / "c", executor=Local(workers=2))
    assert listing(tmp_path / "c") == undisturbed


@pytest.mark.parametrize("end", ["read/*/00001.jsonl.zst", "process/*/00002.facts.npy", "process/*/00001.jsonl.zst"])
def test_what_disappears_between_the_steps_is_made_again(tmp_path, undisturbed, end, corpus, listing):
    class Losing(Local):
        def run(self, title: str, pipeline: Any, n_tasks: int, folder: Path) -> None:
            super().run(title, pipeline, n_tasks, folder)
            for path in (tmp_path / ".c.work").glob(end):
                path.unlink()

    with pytest.raises(DataError, match=r"disappeared|has lost a file|cannot be read"):
        build_corpus(corpus(), tmp_path / "c", executor=Losing(workers=1))
    build_corpus(corpus(), tmp_path / "c", executor=Local(workers=1))
    assert listing(tmp_path / "c") == undisturbed


def test_another_writer_is_named(tmp_path, corpus):
    with folder_lock(tmp_path / "c"), pytest.raises(LockedError, match=rf"process {os.getpid()} on .* since 20"):
        build_corpus(corpus(), tmp_path / "c", wait=False)


class Counted(Source):
    """Documents of a hundred words each; says how many were read."""

    weight, licence, notes = 1.0, "CC0-1.0", ""

    def __init__(self, name: str, n_documents: int, tokens: int | None = None, weight: float = 1.0) -> None:
        self.name, self.n_documents, self.tokens, self.weight, self.n_read = name, n_documents, tokens, weight, 0

    def settings(self) -> dict[str, Any]:
        return {"n": self.n_documents}

    def documents(self):
        for number in range(self.n_documents):
            self.n_read = max(self.n_read, number + 1)
            words = random.Random(f"{self.name} {number}").choices([f"w{i}" for i in range(500)], k=100)
            yield Document(text=" ".join(words), id=f"{number}")


def tokens_of(folder: Path, name: str) -> list[int]:
    counter = TokenCounter()
    return [counter.count(item.text) for item in read_corpus(folder, name)]


def test_a_budget_ends_with_the_document_that_reaches_it(tmp_path):
    sources = {"a": Counted("a", 400, tokens=5000), "b": Counted("b", 30)}
    manifest = build_corpus(Corpus(name="c", sources=sources, block_megabytes=0.01), tmp_path / "c")
    counts = tokens_of(tmp_path / "c", "a")
    assert sum(counts[:-1]) < 5000 <= sum(counts) == manifest.info["sources"]["a"]["tokens"]
    assert manifest.info["sources"]["b"]["documents"] == 30
    assert manifest.info["sources"]["a"]["rows"] < 400


def test_a_budget_of_the_corpus_is_shared_by_weight(tmp_path):
    sources = {"a": Counted("a", 400, weight=3.0), "b": Counted("b", 400), "c": Counted("c", 400, tokens=1000)}
    mixed = Corpus(name="c", sources=sources, tokens=9000, block_megabytes=0.01)
    assert mixed.budgets() == {"a": 6000, "b": 2000, "c": 1000}
    build_corpus(mixed, tmp_path / "c")
    for name, budget in mixed.budgets().items():
        counts = tokens_of(tmp_path / "c", name)
        assert budget is not None
        assert sum(counts[:-1]) < budget <= sum(counts)


def test_reading_goes_on_until_the_budget_is_full(tmp_path):
    class Half(Clean):
        name = "half"

        def apply(self, document):
            return "odd" if int(document.id) % 4 else None

    source = Counted("a", 2000, tokens=20_000)
    mixed = Corpus(name="c", sources={"a": source}, steps={"half": Half()}, block_megabytes=0.01)
    manifest = build_corpus(mixed, tmp_path / "c")
    counts = tokens_of(tmp_path / "c", "a")
    assert sum(counts[:-1]) < 20_000 <= sum(counts)
    assert source.n_read < 1500  # a quarter of the documents is kept, and nothing is read for nothing
    assert manifest.info["sources"]["a"]["read_whole"] is False


def test_a_source_that_has_too_little_says_so(tmp_path, caplog):
    build_corpus(Corpus(name="c", sources={"a": Counted("a", 10, tokens=10**6)}), tmp_path / "c")
    assert "a has only" in caplog.text
    assert "(it has no more)" in (tmp_path / "c" / "DATA_CARD.md").read_text()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_fault_in_a_worker_is_told_as_if_there_were_none(tmp_path, workers):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl.gz").write_bytes(gzip.compress(b'{"text": "x"}\n' * 500))
    damaged = tmp_path / "b.jsonl.gz"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    sources = {name: Files(path=str(tmp_path / f"{name}.jsonl.gz"), name=name) for name in ("a", "b")}
    with pytest.raises(DataError, match=r"b\.jsonl\.gz · is cut short: its compressed data has no end · fetch"):
        build_corpus(Corpus(name="c", sources=sources), tmp_path / "c", executor=Local(workers=workers))
    assert not (tmp_path / "c").exists()


def test_a_full_disk_costs_nothing_but_time(tmp_path, undisturbed, monkeypatch, corpus, listing):
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("lumi.corpus.engine.write.os.link", full)
        with pytest.raises(ResourceError, match=r"no space left while writing .* free some space, then run the same"):
            build_corpus(corpus(), tmp_path / "c")
    build_corpus(corpus(), tmp_path / "c")
    assert listing(tmp_path / "c") == undisturbed


@pytest.mark.parametrize("compression", ["gz", "none"])
def test_shards_may_be_compressed_otherwise(tmp_path, compression, corpus, listing):
    for name in ("a", "b"):
        build_corpus(corpus(compression=compression), tmp_path / name)
    assert listing(tmp_path / "a") == listing(tmp_path / "b")
    verify(tmp_path / "a", kind="corpus")
    assert (
        len(list(read_corpus(tmp_path / "a")))
        == json.loads((tmp_path / "a" / "MANIFEST.json").read_text())["info"]["documents"]
    )
