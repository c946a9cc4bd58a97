"""K1 to K3: corpus, tokenizer and packed data, killed at any moment, come out as if nothing had happened."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lumi.corpus import Local, build_corpus
from lumi.data.pack import PackConfig, pack
from lumi.manifest import verify
from tests.corpus.conftest import make_corpus
from tests.faults.conftest import make_tokenizer
from tests.faults.crash.trials import Kills, forked, hashes, is_whole_or_absent, leftovers, seconds_of
from tests.faults.ledger import Report

SEED = 1
LATER = pytest.mark.faults


class Watching:
    """The executor of this machine; sees which of the blocks that were there already are written again."""

    def __init__(self, work: Path) -> None:
        self.local, self.redone = Local(workers=1), set[Path]()
        blocks = [path for path in work.rglob("*.zst") if path.name[0] != "."]
        self.before = {path: path.stat().st_mtime_ns for path in blocks}

    def threads(self, n_tasks: int) -> int:
        """As the executor's."""
        return self.local.threads(n_tasks)

    def run(self, title: str, pipeline: Sequence[Any], n_tasks: int, folder: Path) -> None:
        """As the executor's; then look."""
        self.local.run(title, pipeline, n_tasks, folder)
        now = {path: path.stat().st_mtime_ns for path in self.before if path.exists()}
        self.redone.update(path for path, when in now.items() if when != self.before[path])


@pytest.mark.matrix("K1")
@pytest.mark.parametrize("n_kills", [3, pytest.param(200, marks=LATER)])
def test_a_corpus_killed_at_any_moment_gives_the_same_bytes(
    tmp_path: Path, made: Path, listing: Callable[[Path], dict[str, bytes]], row: Report, n_kills: int
) -> None:
    expected, target = listing(made / "c"), tmp_path / "c"
    kills = Kills(SEED, seconds_of(lambda: build_corpus(make_corpus(), tmp_path / "first")))
    done = most_redone = 0
    wrong: list[str] = []
    while done < n_kills:
        shutil.rmtree(target, ignore_errors=True)
        if not kills.kill(lambda: build_corpus(make_corpus(), target)):
            continue
        executor, torn = Watching(tmp_path / ".c.work"), not is_whole_or_absent(target)
        build_corpus(make_corpus(), target, executor=executor)
        most_redone = max(most_redone, len(executor.redone))
        faults = {
            "torn": torn,
            "other bytes": listing(target) != expected,
            f"{len(executor.redone)} files written again": len(executor.redone) > 2,
            "work left behind": (tmp_path / ".c.work").exists() or bool(leftovers(tmp_path)),
        }
        wrong += [f"kill {done}: {fault}" for fault, is_so in faults.items() if is_so]
        done += 1
    note = "; ".join([f"files of blocks written again: at most {most_redone}", *wrong])
    row(trials=done, failures=len(wrong), seed=SEED, note=note)


@pytest.mark.matrix("K2")
@pytest.mark.parametrize("n_kills", [2, pytest.param(50, marks=LATER)])
def test_a_tokenizer_killed_at_any_moment_is_absent_or_whole(
    tmp_path: Path, made: Path, row: Report, n_kills: int
) -> None:
    expected, target = hashes(made / "t"), tmp_path / "t"
    kills = Kills(SEED, seconds_of(lambda: make_tokenizer(tmp_path / "first")))
    done = failures = 0
    while done < n_kills:
        shutil.rmtree(target, ignore_errors=True)
        if not kills.kill(lambda: make_tokenizer(target, force=False)):
            continue
        torn = not is_whole_or_absent(target)
        assert forked(lambda: make_tokenizer(target, force=False)) == 0, "the second training fails"
        failures += torn or hashes(target) != expected or bool(leftovers(tmp_path))
        done += 1
    row(trials=done, failures=failures, seed=SEED)


@pytest.mark.matrix("K3")
@pytest.mark.parametrize("n_kills", [5, pytest.param(200, marks=LATER)])
def test_packing_killed_at_any_moment_gives_the_same_bytes_and_split(
    tmp_path: Path, made: Path, row: Report, n_kills: int
) -> None:
    expected, target = hashes(made / "p"), tmp_path / "p"

    def work(folder: Path = target) -> None:
        pack(made / "c", made / "t", folder, PackConfig())

    kills = Kills(SEED, seconds_of(lambda: work(tmp_path / "first")))
    done = failures = 0
    while done < n_kills:
        shutil.rmtree(target, ignore_errors=True)
        if not kills.kill(work):
            continue
        torn = not is_whole_or_absent(target)
        assert forked(work) == 0, "the second packing fails"
        splits = verify(target).info["splits"] == verify(made / "p").info["splits"]
        left = leftovers(tmp_path) or (tmp_path / ".p.work").exists()
        failures += torn or hashes(target) != expected or not splits or bool(left)
        done += 1
    row(trials=done, failures=failures, seed=SEED)


def test_what_a_killed_build_had_no_time_to_remove_goes_the_next_time(tmp_path: Path, made: Path) -> None:
    shutil.copytree(made / "c", tmp_path / "c")
    shutil.copytree(made / "p", tmp_path / "p")
    for name in (".c.work", ".p.work"):  # the kill came between the renaming and this
        (tmp_path / name).mkdir()
    build_corpus(make_corpus(), tmp_path / "c")
    pack(tmp_path / "c", made / "t", tmp_path / "p", PackConfig())
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.endswith(".work")) == []
