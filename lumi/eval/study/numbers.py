"""Figures as a person reads them; results.json and results.csv have them unrounded."""

from lumi.eval.study.statistics import Summary
from lumi.eval.table import number

_UNITS = ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"))


def score(value: float | None, digits: int = 4) -> str:
    """A loss or a share with four digits, a large figure with fewer."""
    if value is None:
        return number(None)
    return number(value, digits) if abs(value) < 100 else number(value, 1)


def signed(value: float) -> str:
    """A difference, with a true minus sign."""
    return f"{'−' if value < 0 else '+'}{score(abs(value))}"


def with_spread(found: Summary) -> str:
    """``2.9051 ± 0.0104``: mean and standard deviation."""
    return score(found.mean) + ("" if found.sd is None else f" ± {score(found.sd)}")


def interval(found: Summary, *, sign: bool = False) -> str:
    """``2.89 to 2.92``, or a dash where one measurement gives none."""
    if found.low is None or found.high is None:
        return number(None)
    return " to ".join(signed(end) if sign else score(end) for end in (found.low, found.high))


def probability(p: float | None) -> str:
    """A p value, not with more digits than it has."""
    if p is None:
        return number(None)
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.01 else f"{p:.3f}"


def large(value: float) -> str:
    """``1.31 M``."""
    for limit, unit in _UNITS:
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}" if abs(value) < 1000 * limit else f"{value:.2e}"
    return f"{value:.4g}"


def operations(value: float) -> str:
    """``2.1e14``."""
    return f"{value:.2e}".replace("e+", "e")


def duration(seconds: float) -> str:
    """``41 s``, ``12.4 min`` or ``3.2 h``."""
    for length, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.3g} s"


def count(n: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
