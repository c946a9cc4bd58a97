"""Part 4, the whole pipeline: raw text to packed tokens on one core and on several, and where the time goes."""

import dataclasses
import functools
import shutil
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep
from hydra import compose, initialize_config_dir

from benchmarks.measure import Seconds, Table, n_bytes, percent, rate
from benchmarks.packing import Places, pack_all, train
from benchmarks.stepwise import measure_stepwise
from benchmarks.texts import Invented, read_texts, sample, write_jsonl
from lumi.config import build, resolve
from lumi.corpus import Corpus, Duplicates, Local, Source, build_corpus
from lumi.corpus.steps import Decontaminate

_CONF = Path(__file__).parent.parent / "conf"
_FEWEST_BLOCKS = 8
"""Of a small text, so that there is work for several workers."""
_LIMIT = "reading and writing alone"


@dataclasses.dataclass
class Stopwatch:
    """An executor that notes how long each stage takes."""

    inner: Local
    seconds: dict[str, float] = dataclasses.field(default_factory=lambda: defaultdict(float))

    def threads(self, n_tasks: int) -> int:
        """As the executor inside."""
        return self.inner.threads(n_tasks)

    def run(self, title: str, pipeline: Sequence[PipelineStep], n_tasks: int, folder: Path) -> None:
        """Run, timed under the name of the stage."""
        start = time.perf_counter()
        self.inner.run(title, pipeline, n_tasks, folder)
        stage = "packing" if title.startswith("packing") else title.rsplit(": ", maxsplit=1)[-1]
        self.seconds[stage] += time.perf_counter() - start


def measure_pipeline(
    texts: Sequence[str],
    work: Path,
    *,
    data: Path | None,
    tokenizer: Path | None,
    vocab_size: int,
    model_type: Any,
    workers: Sequence[int],
    megabytes: float,
    repeats: int,
    seed: int,
) -> list[Table]:
    """The steps of ``corpus=demo_real`` on the sources of a folder that has them, or those of ``corpus=clean`` on the text."""
    corpus = demo_real(data) if data else cleaned(write_jsonl(texts, work / "text.jsonl"), texts)
    texts = read_texts(corpus.present, None, seed) if data else texts
    places = Places(work / "corpus", tokenizer or work / "tokenizer", work / "packed")
    build_corpus(corpus, places.corpus, executor=Local())
    if tokenizer is None:
        train(places, vocab_size, model_type)
    total, stages = _alternate(corpus, places, workers, repeats)
    raw_megabytes = n_bytes(texts) / 1e6
    limit = raw_megabytes / statistics.median(total[_LIMIT])
    return [
        _totals(corpus, total, raw_megabytes, workers),
        *(_stages(count, total, stages, raw_megabytes) for count in workers),
        measure_stepwise(corpus, sample(texts, megabytes, seed), places, repeats, limit),
    ]


def demo_real(folder: Path) -> Corpus:
    """``corpus=demo_real`` with its sources and tasks in ``folder``."""
    return _composed("corpus=demo_real", f"corpus.path={folder.absolute()}")


def cleaned(source: Source, texts: Sequence[str]) -> Corpus:
    """``corpus=clean`` of a source; its tasks, which are on the hub, are replaced by one of words from ``texts``."""
    corpus = _composed("corpus=clean")
    words = sorted({word for text in texts[:1000] for word in text.split() if word.isalpha()})
    steps = {**corpus.steps, "decontaminate": Decontaminate(tasks={"invented": Invented(words)})}
    megabytes = min(corpus.block_megabytes, max(0.1, n_bytes(texts) / 1e6 / _FEWEST_BLOCKS))
    return dataclasses.replace(
        corpus, name=source.name, sources={source.name: source}, steps=steps, block_megabytes=megabytes
    )


def _composed(*overrides: str) -> Corpus:
    with initialize_config_dir(str(_CONF), version_base="1.3"):
        return build(resolve(compose("prepare", list(overrides)))["corpus"], "corpus")


def _alternate(
    corpus: Corpus, places: Places, workers: Sequence[int], repeats: int
) -> tuple[Seconds, dict[int, dict[str, list[float]]]]:
    """Seconds of the runs in turns, all of them and by stage, and those of the same corpus without any step."""
    bare = dataclasses.replace(corpus, name="bare", steps={}, duplicates=Duplicates())
    total: Seconds = defaultdict(list)
    stages: dict[int, dict[str, list[float]]] = {count: defaultdict(list) for count in workers}
    for _ in range(repeats):
        for count in workers:
            watch = Stopwatch(Local(workers=count))
            seconds = _fresh(places, functools.partial(_run, corpus, places, watch))
            total[_workers(count)].append(seconds)
            for stage, part in {**watch.seconds, "rest": seconds - sum(watch.seconds.values())}.items():
                stages[count][stage].append(part)
        places_of_bare = places._replace(corpus=places.corpus.with_name("bare"))
        run = functools.partial(build_corpus, bare, places_of_bare.corpus, executor=Local(workers=1))
        total[_LIMIT].append(_fresh(places_of_bare, run))
    return total, stages


def _run(corpus: Corpus, places: Places, executor: Stopwatch) -> None:
    build_corpus(corpus, places.corpus, executor=executor)
    pack_all(places, executor, num_threads=1)


def _fresh(places: Places, run: Callable[[], object]) -> float:
    """Seconds from nothing."""
    for folder in (places.corpus, places.target):
        shutil.rmtree(folder, ignore_errors=True)
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _workers(count: int) -> str:
    return f"{count} worker{'s' if count > 1 else ''}"


def _totals(corpus: Corpus, total: Seconds, megabytes: float, workers: Sequence[int]) -> Table:
    counts = {**{_workers(count): count for count in workers}, _LIMIT: 1}
    limit = rate(megabytes, total[_LIMIT])
    rows = [
        {
            "run": name,
            "MB/s": rate(megabytes, total[name]),
            "MB/s a core": rate(megabytes, total[name]) / count,
            "% of the limit a core": percent(rate(megabytes, total[name]) / count, limit),
        }
        for name, count in counts.items()
    ]
    steps = ", ".join(step.name for step in corpus.active_steps)
    notes = [
        f"{megabytes:.1f} MB of raw text in {len(corpus.present)} sources: {steps}, exact and near duplicates, tokens",
        f"{_LIMIT}: the same sources to a corpus with no step but exact duplicates, not packed, 1 worker",
    ]
    return Table(
        title="Raw text to packed tokens", rows=rows, notes=notes, raw={"megabytes": megabytes, "seconds": total}
    )


def _stages(count: int, total: Seconds, stages: dict[int, dict[str, list[float]]], megabytes: float) -> Table:
    whole = statistics.median(total[_workers(count)])
    rows = [
        {
            "stage": stage,
            "seconds": statistics.median(seconds),
            "% of the time": percent(statistics.median(seconds), whole),
            "MB/s a core": rate(megabytes, seconds) / count,
        }
        for stage, seconds in stages[count].items()
    ]
    notes = ["rest: hashing the sources, verifying, joining, the data card; MB/s of raw text"]
    return Table(title=f"Stages with {_workers(count)}", rows=rows, notes=notes, raw={"seconds": stages[count]})
