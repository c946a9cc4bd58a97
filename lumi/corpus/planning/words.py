"""What a plan says in sentences: how the samples were taken, how far to trust them, and what would go wrong."""

from collections.abc import Mapping, Sequence

from lumi.corpus.corpus import Corpus
from lumi.corpus.document import Source
from lumi.corpus.hub_source import Hub
from lumi.corpus.planning.plan import SourcePlan
from lumi.corpus.planning.sample import Sample
from lumi.corpus.tokens import ESTIMATE_ERROR, TokenCounter

_FAULTS = {
    *("invalid UTF-8", "invalid JSON", "missing key", "wrong type", "not an object", "not a JSON object", "no id"),
    *("NUL character", "lone surrogate", "too large"),
}
"""Reasons to reject a row of which ``max_rejected_ratio`` allows only some; the others are no faults."""


def how_sampled(source: Source, sample: Sample) -> str:
    """What was read and tried of a source, as the end of a sentence."""
    n_rows, megabytes = f"{len(sample.rows):,}", f"{sample.read_bytes / 1e6:,.1f} MB"
    if sample.is_whole and not sample.unseen:
        return "all of it was tried: exact"
    if sample.is_whole:
        return f"all {megabytes} were read, and {n_rows} rows of them, drawn at random, were tried"
    if not sample.are_files:
        beginning = f"its first {n_rows} rows were tried; what follows is taken to be like them"
        if not sample.all_size:
            return f"{beginning}, but nobody knows how much that is"
        return (
            f"{beginning}, {sample.all_size:,.0f} rows by the hub's own count" if isinstance(source, Hub) else beginning
        )
    n_packed = sum((stretch.size or 0.0) / stretch.weight() for stretch in sample.stretches.values())
    files = "its file" if sample.n_parts == 1 else f"{len(sample.stretches):,} of its {sample.n_parts:,} files"
    return (
        f"{megabytes} were read from the beginning of {files} ({n_packed / max(1.0, sample.all_size):.1%} of the bytes on "
        f"disk), and {n_rows} rows of them, drawn at random, were tried; what was not read is taken to be like that"
    )


def notes(corpus: Corpus, plans: Sequence[SourcePlan], counter: TokenCounter) -> list[str]:
    """How far the figures can be trusted."""
    found = [f"{plan.name}: {plan.how}." for plan in plans if not plan.is_exact]
    duplicates = corpus.duplicates
    if found and (duplicates.exact or duplicates.near):
        found.append("Duplicates were looked for in the samples only; a corpus has more of them the larger it is.")
    if any(plan.budget for plan in plans):
        found.append("Of a source with a budget the first documents are taken, which may differ from its average.")
    if counter.tokenizer is None:
        found.append(
            f"Tokens are estimated for English prose and a vocabulary of 32,768 pieces, to {ESTIMATE_ERROR:.0%}; a smaller "
            "vocabulary gives more of them."
        )
    return found


def warnings(corpus: Corpus, plans: Sequence[SourcePlan], disk: Mapping[str, float]) -> list[str]:
    """What would go wrong."""
    found = [_faults(source, plan) for source, plan in zip(corpus.present, plans, strict=True)]
    found += [
        f"{plan.name} cannot fill its budget of {plan.budget:,} tokens: it has about {plan.budget_times.value:.0%} of them."
        for plan in plans
        if plan.enough == "no" and plan.budget_times is not None
    ]
    found += [f"Nothing is left of {plan.name} in the sample." for plan in plans if not plan.kept.value]
    needed = disk["building"] + disk["packed"]
    if needed > disk["free"]:
        found.append(
            f"The disk is too small: about {needed / 1e9:,.1f} GB are needed, {disk['free'] / 1e9:,.1f} GB are free."
        )
    return [sentence for sentence in found if sentence]


def _faults(source: Source, plan: SourcePlan) -> str:
    """Of a source that the build would refuse."""
    faults = {reason: count for reason, count in plan.left_out.items() if reason in _FAULTS}
    share, most = sum(faults.values()) / max(1, plan.sampled_rows), getattr(source, "max_rejected_ratio", 1.0)
    if share <= most:
        return ""
    rule = f"more than its max_rejected_ratio={most}, so the build would stop"
    return f"{share:.1%} of the rows of {plan.name} are faulty ({', '.join(faults)}), {rule}."
