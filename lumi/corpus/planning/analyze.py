"""What a corpus would be, without making it: ``python prepare.py corpus=… analyze_only=true``.

A sample of every source goes through the stages of the build, and what becomes of it is extrapolated, each figure with its
95 % interval: how much is left and why not more, whether the budgets can be filled, tokens, disk and time.
"""

import logging
import math
import shutil
import tempfile
from pathlib import Path

import numpy as np

from lumi.corpus.corpus import Corpus
from lumi.corpus.document import Source
from lumi.corpus.engine.build import RAW_BYTES_PER_TOKEN
from lumi.corpus.engine.executor import Executor, Local
from lumi.corpus.engine.finish import quantiles
from lumi.corpus.planning.extrapolate import Estimate, ratio, totals, wilson
from lumi.corpus.planning.plan import Amounts, Plan, SourcePlan
from lumi.corpus.planning.sample import Sample, draw_sample
from lumi.corpus.planning.trial import Outcome, try_out
from lumi.corpus.planning.words import how_sampled, notes, warnings
from lumi.corpus.tokens import ESTIMATE_ERROR, TokenCounter

log = logging.getLogger(__name__)


def analyze(
    corpus: Corpus,
    counter: TokenCounter,
    *,
    sample_megabytes: float,
    executor: Executor | None = None,
    token_bytes: int = 2,
    folder: Path = Path(),
) -> Plan:
    """Try a sample of every source.

    Args:
        corpus: that is not made.
        counter: of tokens.
        sample_megabytes: text of each source that goes through the steps, at most; ten times as much is read of files.
        executor: for which the time is estimated; None is this process alone.
        token_bytes: of a packed token.
        folder: where the corpus would be: how much is free there.

    Raises:
        DataError: a source or an evaluation task cannot be read.
    """
    samples: dict[str, Sample] = {}
    with tempfile.TemporaryDirectory(prefix="lumi-plan-") as work:
        for step in corpus.active_steps:
            step.prepare(Path(work))
        for source in corpus.present:
            log.info("corpus %s: reading a sample of %s", corpus.name, source.name)
            samples[source.name] = draw_sample(source, sample_megabytes * 1e6)
        outcomes, match_seconds = try_out(corpus, samples, counter, Path(work))
    budgets = corpus.budgets()
    plans = [
        _source_plan(source, samples[source.name], outcomes[source.name], budgets[source.name], token_bytes)
        for source in corpus.present
    ]
    taken = [plan.taken for plan in plans if plan.taken is not None]
    n_tried = sum(int(outcome.kept.sum()) for outcome in outcomes.values())
    whole = Amounts.sum(taken)
    n_processes = _processes(corpus, executor or Local(workers=1), whole)
    disk = {key: sum(plan.disk_bytes.get(key, 0.0) for plan in plans) for key in ("shards", "building", "packed")}
    disk["free"] = float(_free(folder))
    return Plan(
        name=corpus.name,
        sample_megabytes=sample_megabytes,
        tokens="estimated" if counter.tokenizer is None else "counted",
        estimate_error=ESTIMATE_ERROR if counter.tokenizer is None else None,
        sources=plans,
        taken=whole,
        unknown=[plan.name for plan in plans if plan.taken is None],
        disk_bytes=disk,
        token_bytes=token_bytes,
        seconds=_seconds(plans, n_processes, match_seconds * whole.documents.value / max(1, n_tried)),
        processes=n_processes,
        notes=notes(corpus, plans, counter),
        warnings=warnings(corpus, plans, disk),
    )


def _source_plan(source: Source, sample: Sample, outcome: Outcome, budget: int | None, token_bytes: int) -> SourcePlan:
    columns = _Columns(sample, outcome)
    whole = columns.whole(totals(list(sample.stretches.values()), sample.all_size, sample.n_parts))
    taken = whole if budget is None else columns.within(budget, whole)
    lengths = np.sort(outcome.n_chars[outcome.kept])
    return SourcePlan(
        name=source.name,
        sampled_rows=len(sample.rows),
        sampled_bytes=int(columns.raw.sum()),
        read_rows=sample.read_rows,
        read_bytes=sample.read_bytes,
        read_whole=sample.is_whole,
        how=how_sampled(source, sample),
        kept=columns.share,
        left_out=outcome.left_out,
        length_quantiles=quantiles(lengths),
        tokens_per_document=columns.per(outcome.n_tokens, outcome.kept),
        whole=whole,
        budget=budget,
        budget_times=None if whole is None or not budget else whole.tokens.times(1 / budget),
        taken=taken,
        disk_bytes={} if taken is None else _disk(columns, outcome, taken, token_bytes),
        seconds={} if taken is None else _work(columns, sample, outcome, taken),
    )


class _Columns:
    """What is known of each row of a sample, and ratios between these columns."""

    def __init__(self, sample: Sample, outcome: Outcome) -> None:
        self.outcome, self.unseen = outcome, sample.unseen
        self.raw = np.array([drawn.n_bytes for drawn in sample.rows], dtype=np.int64)
        self.weights, self.clusters = sample.weights(), sample.clusters()
        squares = (self.weights**2).sum()
        n = self.weights.sum() ** 2 / squares if squares else 0.0  # rows of equal weight that would say as much
        kept = (self.weights * outcome.kept).sum() / max(self.weights.sum(), 1e-9)
        self.share = wilson(kept, n / self.unseen if self.unseen else math.inf)

    def per(self, above: np.ndarray, below: np.ndarray) -> Estimate:
        """Sum of one column for each of another."""
        return ratio(self.weights * above, self.weights * below, self.clusters, self.unseen)

    def whole(self, size: tuple[Estimate, Estimate] | None) -> Amounts | None:
        """Of a source with so many rows and bytes."""
        if size is None:
            return None
        rows, text_bytes = size
        outcome, ones = self.outcome, np.ones(len(self.raw))
        # Rows of a chunk may share their fate, which the interval of the share does not see.
        apart, near = self.share, self.per(outcome.kept, ones)
        documents = Estimate(apart.value, min(apart.low, near.low), min(1.0, max(apart.high, near.high)))
        return Amounts(
            rows=rows,
            text_bytes=text_bytes,
            documents=rows.by(documents).within(outcome.kept.sum()),
            bytes=text_bytes.by(self._kept_of(outcome.n_bytes)).within(outcome.n_bytes.sum()),
            tokens=text_bytes.by(self._kept_of(outcome.n_tokens)).within(outcome.n_tokens.sum()),
        )

    def _kept_of(self, column: np.ndarray) -> Estimate:
        """Of each byte that is read; a sample of which all or nothing was kept does not say how far that may vary."""
        found = self.per(column, self.raw)
        if self.share.value == 0:
            return Estimate(0.0, 0.0, self.share.high)  # a byte of a byte, and a token has one at least
        if self.share.value == 1:
            return Estimate(found.value, min(found.low, found.value * self.share.low), found.high)
        return found

    def within(self, budget: int, whole: Amounts | None) -> Amounts | None:
        """What is taken, in order, until the budget is reached."""
        tokens, outcome = self.outcome.n_tokens, self.outcome
        if whole is not None and whole.tokens.value <= budget:
            return Amounts(**{**vars(whole), "tokens": whole.tokens.within(0, budget)})
        if not tokens.any():
            return None
        wanted = Estimate.exactly(budget) if whole is None else whole.tokens.within(0, budget)
        most = vars(whole) if whole is not None else {}
        read = self.per(self.raw, tokens)
        # The build reads so much before it looks how much is left.
        least = Estimate(*(max(part, RAW_BYTES_PER_TOKEN) for part in (read.value, read.low, read.high)))
        more = least.value / read.value
        found = {
            "rows": self.per(np.ones(len(tokens)), tokens).times(more),
            "text_bytes": least,
            "documents": self.per(outcome.kept, tokens),
            "bytes": self.per(outcome.n_bytes, tokens),
        }
        return Amounts(
            tokens=wanted,
            **{
                name: wanted.by(value).within(0, most[name].value if most else math.inf)
                for name, value in found.items()
            },
        )


def _disk(columns: _Columns, outcome: Outcome, taken: Amounts, token_bytes: int) -> dict[str, float]:
    """Bytes on disk: of the shards, of these and all that is there beside them for a while, of packed tokens."""
    text, n_documents = max(1, int(columns.raw.sum())), taken.documents.value
    shards = taken.bytes.value * outcome.shard_bytes / max(1, outcome.processed_bytes)
    stages = taken.text_bytes.value * (outcome.raw_bytes + outcome.shard_bytes + outcome.note_bytes) / text
    packed = taken.tokens.value * token_bytes + n_documents * (2 * token_bytes + 8)  # bos, eos, and where it begins
    return {"shards": shards, "building": shards + stages, "packed": packed}


def _work(columns: _Columns, sample: Sample, outcome: Outcome, taken: Amounts) -> dict[str, float]:
    """Seconds of one process."""
    tried, read = max(1, int(columns.raw.sum())), max(1, sample.read_bytes)
    text = taken.text_bytes.value
    return {
        "read": text * (sample.seconds / read + outcome.read_seconds / tried),
        "process": text * outcome.process_seconds / tried,
        # Shards that lose documents are written again, which is the work of writing them first.
        "write": taken.bytes.value * outcome.read_seconds / tried,
    }


def _seconds(plans: list[SourcePlan], n_processes: int, match_seconds: float) -> dict[str, float]:
    """Of all sources, by so many processes: a source is read by one, everything else is shared."""
    each = {key: [plan.seconds.get(key, 0.0) for plan in plans] for key in ("read", "process", "write")}
    seconds = {
        "read": max(*each["read"], sum(each["read"]) / n_processes, 0.0),
        "process": sum(each["process"]) / n_processes,
        "finish": (sum(each["write"]) + match_seconds) / n_processes,
    }
    return {**seconds, "all": sum(seconds.values())}


def _processes(corpus: Corpus, executor: Executor, whole: Amounts) -> int:
    """As many as work at the same time on this machine; of another one nothing is known."""
    if not isinstance(executor, Local):
        return 1
    n_blocks = whole.text_bytes.value / (corpus.block_megabytes * 1e6) + len(corpus.present) / 2
    return max(1, min(executor.workers or Local().threads(1), math.ceil(n_blocks)))


def _free(folder: Path) -> int:
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free
