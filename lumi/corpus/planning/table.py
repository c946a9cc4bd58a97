"""A plan as tables on a terminal, 100 columns wide at most."""

from collections import Counter
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from lumi.corpus.planning.extrapolate import Estimate
from lumi.corpus.planning.plan import Plan, SourcePlan

WIDTH = 100
_MOST_REASONS = 12
_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
_BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def show_plan(plan: Plan, console: Console) -> None:
    """Print it."""
    console.print(f"\n[bold]Plan of the corpus {plan.name}[/], by trying {_sampled(plan)}")
    console.print("± is the 95% interval; figures without it are exact, or about right where it says so.")
    console.print(_has(plan))
    if any(source.budget is not None for source in plan.sources):
        console.print(_takes(plan))
    console.print(_lengths(plan))
    console.print(_left_out(plan))
    console.print(_together(plan))
    console.print()
    for sentence in plan.notes:
        console.print(Padding(f"· {sentence}", (0, 0, 0, 1)))
    for sentence in plan.warnings:
        console.print(Padding(f"[bold yellow]! {sentence}[/]", (0, 0, 0, 1)))


def _sampled(plan: Plan) -> str:
    if all(source.is_exact for source in plan.sources):
        return "all of it"
    return f"at most {plan.sample_megabytes:,g} MB of each source"


def _has(plan: Plan) -> Table:
    """What each source has to give."""
    rows = [
        (
            source.name,
            f"{source.sampled_rows:,}",
            _share(source.kept),
            *(
                (count(source.whole.rows), count(source.whole.documents), size(source.whole.bytes))
                if source.whole
                else ("unknown", "unknown", "unknown")
            ),
            count(source.whole.tokens) if source.whole else "unknown",
        )
        for source in plan.sources
    ]
    return _table("What the sources have", ("source", "tried", "kept", "rows", "documents", "text", "tokens"), rows)


def _takes(plan: Plan) -> Table:
    """What the corpus takes of each."""
    rows = []
    for source in plan.sources:
        taken = source.taken
        amounts = (size(taken.text_bytes), count(taken.documents), count(taken.tokens)) if taken else ("unknown",) * 3
        rows.append((source.name, "all" if source.budget is None else _short(source.budget), _enough(source), *amounts))
    head = ("source", "budget", "has it enough?", "to be read", "documents", "tokens")
    return _table("What is taken of them", head, rows)


def _enough(source: SourcePlan) -> str:
    times = source.budget_times
    if times is None:
        return source.enough
    if source.enough == "no":
        return f"no, {times.value:.0%} of it"
    return f"{source.enough}, about {times.value:,.{0 if times.value >= 10 else 1}f} times"


def _lengths(plan: Plan) -> Table:
    names = next((list(source.length_quantiles) for source in plan.sources if source.length_quantiles), [])
    rows = [
        (
            source.name,
            *(f"{source.length_quantiles[name]:,}" if source.length_quantiles else "" for name in names),
            count(source.tokens_per_document) if source.length_quantiles else "",
        )
        for source in plan.sources
    ]
    return _table("Characters of a document in the sample", ("source", *names, "mean tokens"), rows)


def _left_out(plan: Plan) -> Table:
    reasons: Counter[str] = Counter()
    for source in plan.sources:
        reasons.update(source.left_out)
    n_rows = max(1, sum(source.sampled_rows for source in plan.sources))
    rows = [
        (
            reason,
            f"{n:,}",
            f"{n / n_rows:.2%}",
            ", ".join(f"{source.name} {own:,}" for source in plan.sources if (own := source.left_out.get(reason, 0))),
        )
        for reason, n in reasons.most_common(_MOST_REASONS)
    ]
    if more := reasons.most_common()[_MOST_REASONS:]:
        n = sum(n for _, n in more)
        rows.append((f"{len(more)} more reasons", f"{n:,}", f"{n / n_rows:.2%}", "see the JSON"))
    if not rows:
        rows.append(("nothing", "0", "", ""))
    return _table(
        "What is left out of the sample", ("reason", "rows", "of all", "where"), rows, left=("reason", "where")
    )


def _together(plan: Plan) -> Table:
    taken, disk, seconds = plan.taken, plan.disk_bytes, plan.seconds
    doubt = ""
    if plan.estimate_error is not None:
        doubt = f", and ±{plan.estimate_error:.0%} because no tokenizer counted them"
    cores = "1 free core" if plan.processes == 1 else f"{plan.processes} free cores"
    parts = f"reading {_time(seconds['read'])}, steps {_time(seconds['process'])}"
    rows = [
        ("documents", count(taken.documents)),
        ("text", size(taken.bytes)),
        ("tokens", f"{count(taken.tokens)}{doubt}"),
        ("to be read", f"{size(taken.text_bytes)} of text, {count(taken.rows)} rows"),
        ("shards on disk", f"about {_bytes(disk['shards'])}"),
        ("while it is made", f"about {_bytes(disk['building'])}, the shards included; {_bytes(disk['free'])} are free"),
        ("packed tokens", f"about {_bytes(disk['packed'])}, {plan.token_bytes} bytes each"),
        ("time", f"about {_time(seconds['all'])} on {cores} of this machine ({parts})"),
    ]
    if plan.unknown:
        rows.append(("not counted here", ", ".join(plan.unknown)))
    return _table("The corpus", ("", ""), rows, left=("",))


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]], left: Sequence[str] = ("source",)) -> Table:
    table = Table(
        title=f"\n{title}",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_header=any(head),
        show_edge=False,
        padding=(0, 1),
        collapse_padding=True,
    )
    for name in head:
        table.add_column(name, justify="left" if name in left else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def count(estimate: Estimate) -> str:
    """``3,130`` where it is exact, else ``20.2 M ±4%``."""
    if estimate.is_exact:
        return f"{round(estimate.value):,}"
    return f"{_short(estimate.value)}{_error(estimate)}"


def size(estimate: Estimate) -> str:
    """``1.43 MB`` or ``91.0 MB ±4%``."""
    return _bytes(estimate.value) + ("" if estimate.is_exact else _error(estimate))


def _share(estimate: Estimate) -> str:
    if estimate.is_exact:
        return f"{estimate.value:.1%}"
    return f"{estimate.value:.1%} ({100 * estimate.low:.1f}–{100 * estimate.high:.1f})"


def _error(estimate: Estimate) -> str:
    if not estimate.value:
        return f" to {_short(estimate.high)}"
    error = (estimate.high - estimate.low) / 2 / estimate.value
    return " ±<0.1%" if error < 0.0005 else f" ±{100 * error:.{1 if error < 0.0095 else 0}f}%"


def _short(value: float) -> str:
    return (_with_unit(value, _UNITS) if value >= 1e4 else "") or f"{value:,.0f}"


def _bytes(value: float) -> str:
    return _with_unit(value, _BYTES) or f"{value:,.0f} B"


def _with_unit(value: float, units: Sequence[tuple[float, str]]) -> str:
    """Three figures, or empty below the smallest unit."""
    for factor, unit in units:
        if value >= factor * 0.9995:
            number = value / factor
            return f"{number:,.{2 if number < 9.995 else 1 if number < 99.95 else 0}f} {unit}"
    return ""


def _time(seconds: float) -> str:
    for length, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:,.0f} s" if seconds >= 9.5 else f"{seconds:,.1f} s"
