"""The figures of a corpus that is not there yet, as `lumi.corpus.planning.analyze` finds them: for a person, and as JSON."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from lumi.corpus.planning.extrapolate import Estimate, total
from lumi.provenance import made_by


@dataclasses.dataclass(frozen=True, kw_only=True)
class Amounts:
    """Of a source, or of a corpus.

    Attributes:
        rows: that are read.
        text_bytes: of these rows, in UTF-8.
        documents: that they become.
        bytes: of their text.
        tokens: of their text, without bos and eos.
    """

    rows: Estimate
    text_bytes: Estimate
    documents: Estimate
    bytes: Estimate
    tokens: Estimate

    @classmethod
    def sum(cls, parts: list["Amounts"]) -> "Amounts":
        """Of several sources."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: total(getattr(part, name) for part in parts) for name in names})


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourcePlan:
    """Of one source.

    Attributes:
        name: of the source.
        sampled_rows, sampled_bytes: that went through all steps.
        read_rows, read_bytes: that were read to draw these from.
        read_whole: whether the source was read to its end.
        how: in words, what was read and how far the figures can be trusted.
        kept: share of the sample's rows that become documents.
        left_out: reason → rows of the sample.
        length_quantiles: of the documents in the sample, in characters.
        tokens_per_document: on average.
        whole: of the source; None where its size is unknown.
        budget: tokens that are wanted of it; None is all.
        budget_times: how many times the source could fill its budget; None where that is unknown.
        taken: by the corpus, within the budget; None where that is unknown.
        disk_bytes: of its shards, while it is made, of its packed tokens.
        seconds: of one process: to read what is taken, to process it.
    """

    name: str
    sampled_rows: int
    sampled_bytes: int
    read_rows: int
    read_bytes: int
    read_whole: bool
    how: str
    kept: Estimate
    left_out: Mapping[str, int]
    length_quantiles: Mapping[str, int]
    tokens_per_document: Estimate
    whole: Amounts | None
    budget: int | None
    budget_times: Estimate | None
    taken: Amounts | None
    disk_bytes: Mapping[str, float]
    seconds: Mapping[str, float]

    @property
    def is_exact(self) -> bool:
        """Whether all of it was tried."""
        return self.read_whole and self.sampled_rows == self.read_rows

    @property
    def enough(self) -> str:
        """Whether the source can fill its budget: yes, no, perhaps, unknown; empty where it has none."""
        if not self.budget:
            return ""
        times = self.budget_times
        if times is None:
            return "unknown"
        return "yes" if times.low >= 1 else "no" if times.high < 1 else "perhaps"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Of a corpus.

    Attributes:
        name: of the corpus.
        sample_megabytes: text that was tried of each source at most.
        tokens: counted or estimated.
        estimate_error: of the count of tokens, relative, besides their intervals; None where they were counted.
        sources: in their order.
        taken: of all sources of which it is known.
        unknown: names of the others.
        disk_bytes: of the shards, while it is made (the shards included), of packed tokens, and what is free.
        token_bytes: of a packed token.
        seconds: to read, to process, to find duplicates and write, and all together.
        processes: at the same time, on this machine.
        notes, warnings: sentences.
    """

    name: str
    sample_megabytes: float
    tokens: str
    estimate_error: float | None
    sources: list[SourcePlan]
    taken: Amounts
    unknown: list[str]
    disk_bytes: Mapping[str, float]
    token_bytes: int
    seconds: Mapping[str, float]
    processes: int
    notes: list[str]
    warnings: list[str]

    def to_json(self, settings: Mapping[str, Any] | None = None) -> str:
        """All of it, with what was planned and by which code; an estimate is its value and the ends of its 95 % interval."""
        fields = dataclasses.asdict(self)
        for plan, source in zip(fields["sources"], self.sources, strict=True):
            plan |= {"is_exact": source.is_exact, "enough": source.enough}
        found = {**_rounded(fields), "settings": dict(settings or {}), "made_by": made_by()}
        return json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    if isinstance(value, float):
        return round(value) if abs(value) >= 1000 or value.is_integer() else float(f"{value:.4g}")
    return value
