"""What the engine makes of a sample: its own stages, run in this process on one block of each source, in a passing folder."""

import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document as Flowing

from lumi.corpus.corpus import Corpus
from lumi.corpus.document import Document, Rejected, Source
from lumi.corpus.duplicates.match import MatchDocuments, groups
from lumi.corpus.engine.blocks import COMPRESSIONS, BlockId, read_array, read_json
from lumi.corpus.engine.stages import META, RAW, OpenBlocks, ReadSources, WriteProcessed
from lumi.corpus.engine.write import EXACT, KEPT, NEAR, REASONS
from lumi.corpus.planning.sample import Sample
from lumi.corpus.steps.step import BITS, LANGUAGE, SOURCE
from lumi.corpus.tokens import TokenCounter

log = logging.getLogger(__name__)

_ONE_BLOCK = 1 << 62
_NOTES = (".facts.npy", ".ids.json", ".minima.npy", ".bands.npy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of the rows of one source's sample.

    Attributes:
        kept: whether the row is a document in the end, (rows,) bool.
        n_bytes, n_chars, n_tokens: of that document, (rows,) int64; 0 where there is none.
        left_out: reason → rows; they and those that are kept are all rows.
        raw_bytes: of the block that the stages read, compressed.
        shard_bytes: of the documents before duplicates are left out, compressed as the shards are; and their text.
        processed_bytes: text of these documents.
        note_bytes: of what the stages write down about them.
        read_seconds: for writing the block that the stages read.
        process_seconds: for the steps, counting tokens, hashing and writing.
    """

    kept: np.ndarray
    n_bytes: np.ndarray
    n_chars: np.ndarray
    n_tokens: np.ndarray
    left_out: dict[str, int]
    raw_bytes: int
    shard_bytes: int
    processed_bytes: int
    note_bytes: int
    read_seconds: float
    process_seconds: float


class _Given(Source):
    """The rows of a sample in place of their source; a document's id is its number in the sample."""

    def __init__(self, source: Source, sample: Sample) -> None:
        self.name, self.weight, self.licence, self.notes = source.name, source.weight, source.licence, source.notes
        self.max_chars, self._sample = source.max_chars, sample

    def settings(self) -> dict[str, Any]:
        return {}  # nobody asks: what is made of it does not stay

    def documents(self) -> Iterator[Document | Rejected]:
        for number, drawn in enumerate(self._sample.rows):
            row = drawn.row
            yield dataclasses.replace(row, id=f"{number}") if isinstance(row, Document) else row


def try_out(
    corpus: Corpus, samples: Mapping[str, Sample], counter: TokenCounter, folder: Path
) -> tuple[dict[str, Outcome], float]:
    """The outcome for each source, and the seconds that looking for duplicates took.

    Args:
        corpus: whose steps are prepared.
        samples: of each of its sources.
        counter: of tokens.
        folder: for what the stages write.

    Raises:
        DataError: a row breaks the rules for documents.
    """
    read, process = folder / "read", folder / "process"
    sources, blocks = corpus.present, [BlockId(source.name, 0) for source in corpus.present]
    given: list[Source] = [_Given(source, samples[source.name]) for source in sources]
    reader = ReadSources(read, given, _ONE_BLOCK, dict.fromkeys(samples))
    languages = {source.name: source.language for source in sources}
    opener = OpenBlocks(read, blocks, RAW, languages)
    writer = WriteProcessed(process, blocks, corpus.compression, corpus.duplicates.signature(), counter, 0)
    # What the steps load at their first document is loaded once by every worker, not once for each block.
    about = {SOURCE: sources[0].name, LANGUAGE: "en", BITS: None, META: {}}
    list(_through(corpus, [Flowing(text="This is to warm up.", id="", metadata=about)]))
    seconds: list[tuple[float, float]] = []
    for rank, source in enumerate(sources):
        log.info("corpus %s: trying %s rows of %s", corpus.name, f"{len(samples[source.name].rows):,}", source.name)
        begin = time.perf_counter()
        reader.work(None, rank)
        middle = time.perf_counter()
        writer.work(_through(corpus, opener.run(rank=rank)), rank)
        seconds.append((middle - begin, time.perf_counter() - middle))
    begin = time.perf_counter()
    verdicts = _verdicts(corpus, blocks, folder)
    match_seconds = time.perf_counter() - begin
    outcomes = {
        block.source: _outcome(block, len(samples[block.source].rows), folder, corpus.compression, verdict, times)
        for block, verdict, times in zip(blocks, verdicts, seconds, strict=True)
    }
    return outcomes, match_seconds


def _through(corpus: Corpus, documents: Iterable[Flowing]) -> Iterable[Flowing]:
    for step in corpus.active_steps:
        documents = step.run(documents)
    return documents


def _verdicts(corpus: Corpus, blocks: list[BlockId], folder: Path) -> list[np.ndarray]:
    """`KEPT`, `EXACT` or `NEAR` for every document of each block, as the build decides, but for budgets."""
    process = folder / "process"
    sizes = [read_json(block.path(process, ".json"))["documents"] for block in blocks]
    step = MatchDocuments(folder / "match", process, blocks, sizes, corpus.duplicates)
    for rank in range(step.n_tasks):
        step.work(None, rank)
    exact, *near = (read_array(step.result(rank)) for rank in range(step.n_tasks))
    verdict = np.full(sum(sizes), KEPT, dtype=np.uint8)
    if near:
        verdict[groups(np.concatenate([exact, *near]))[0]] = NEAR
    verdict[exact[:, 1]] = EXACT
    return np.split(verdict, np.cumsum(sizes)[:-1])


def _outcome(
    block: BlockId,
    n_rows: int,
    folder: Path,
    compression: str,
    verdict: np.ndarray,
    seconds: tuple[float, float],
) -> Outcome:
    read, process = folder / "read", folder / "process"
    facts = read_array(block.path(process, ".facts.npy"))
    survivors = np.array(read_json(block.path(process, ".ids.json")), dtype=np.int64)[verdict == KEPT]

    def by_row(column: str) -> np.ndarray:
        values = np.zeros(n_rows, dtype=np.int64)
        values[survivors] = facts[column][verdict == KEPT]
        return values

    kept = np.zeros(n_rows, dtype=bool)
    kept[survivors] = True
    reasons = Counter(read_json(block.path(read, ".json"))["rejected"])
    reasons.update(read_json(block.path(process, ".json"))["dropped"])
    reasons.update({REASONS[code]: int((verdict == code).sum()) for code in (EXACT, NEAR)})
    notes = [path for end in _NOTES if (path := block.path(process, end)).exists()]
    return Outcome(
        kept=kept,
        n_bytes=by_row("bytes"),
        n_chars=by_row("chars"),
        n_tokens=by_row("tokens"),
        left_out={reason: count for reason, count in reasons.most_common() if count},
        raw_bytes=block.path(read, RAW).stat().st_size,
        shard_bytes=block.path(process, COMPRESSIONS[compression]).stat().st_size,
        processed_bytes=int(facts["bytes"].sum(dtype=np.int64)),
        note_bytes=sum(path.stat().st_size for path in notes),
        read_seconds=seconds[0],
        process_seconds=seconds[1],
    )
