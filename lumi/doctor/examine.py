"""The list of checks, and the two ways to run it: all of them with a report, or the quick ones before a run's first step."""

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence

from lumi.doctor import attention, cost, parameters, preference, targets, tokens, training
from lumi.doctor.finding import Finding, error
from lumi.doctor.subject import Subject, undisturbed
from lumi.errors import LumiError
from lumi.trainer import release_memory

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """One question to a run.

    Attributes:
        name: as the report has it.
        ask: its function; the docstring says what it does.
        is_quick: whether it is asked before every run.
    """

    name: str
    ask: Callable[[Subject], Finding]
    is_quick: bool = True


CHECKS = (
    Check(name="tokenizer chain", ask=tokens.tokenizer_chain),
    Check(name="template round trip", ask=tokens.template_round_trip),
    Check(name="mask audit", ask=targets.mask_audit),
    Check(name="embeddings", ask=parameters.embeddings),
    Check(name="unused pieces", ask=parameters.unused_pieces, is_quick=False),
    Check(name="optimizer groups", ask=parameters.groups),
    Check(name="next token", ask=targets.next_token),
    Check(name="causality", ask=attention.causality),
    Check(name="document leak", ask=attention.document_leak),
    Check(name="first loss", ask=targets.first_loss),
    Check(name="dpo step 0", ask=preference.dpo_step_0),
    Check(name="accumulation", ask=training.accumulation, is_quick=False),
    Check(name="overfit one batch", ask=training.overfit, is_quick=False),
    Check(name="learning rate", ask=training.learning_rate, is_quick=False),
    Check(name="speed and memory", ask=cost.cost, is_quick=False),
)


def examine(subject: Subject, checks: Sequence[Check] = CHECKS) -> dict[str, Finding]:
    """Ask all checks; the run is afterwards as it was before."""
    with undisturbed(subject):
        return {check.name: _asked(check, subject) for check in checks}


def _asked(check: Check, subject: Subject) -> Finding:
    try:
        return check.ask(subject)
    except LumiError as found:  # what a part refuses by itself is a finding as well
        return error(found.found, found.rule, found.fix, type(found))


def report(findings: dict[str, Finding]) -> list[str]:
    """One line a check; below a finding why it matters and what mends it."""
    lines = []
    for name, finding in findings.items():
        lines.append(f"{finding.status:<15} {name:<20} {finding.found}")
        if finding.status in ("warning", "error"):
            lines += [f"{'':<36} why: {finding.why}", f"{'':<36} fix: {finding.fix}"]
    counts = {status: [f.status for f in findings.values()].count(status) for status in ("error", "warning")}
    total = ", ".join(f"{count} {status}{'s' * (count != 1)}" for status, count in counts.items())
    return [*lines, f"{len(findings)} checks: {total}"]


def say_all(subject: Subject) -> None:
    """Everything, as ``doctor=true``.

    Raises:
        LumiError: of the kind of the first error that was found.
    """
    findings = examine(subject)
    for line in report(findings):
        log.info("%s", line)
    refuse(findings)


def ask_quickly(subject: Subject) -> None:
    """What costs next to nothing, before a run's first step: warnings are logged.

    Raises:
        LumiError: of the kind of the first error that was found.
    """
    begin = time.perf_counter()
    findings = examine(subject, [check for check in CHECKS if check.is_quick])
    release_memory()
    refuse(findings)
    found = {name: finding for name, finding in findings.items() if finding.status == "warning"}
    for name, finding in found.items():
        log.warning("doctor: %s: %s · %s · %s", name, finding.found, finding.why, finding.fix)
    asked = sum(finding.status != "not applicable" for finding in findings.values())
    seconds = time.perf_counter() - begin
    words = f"{asked - len(found)} of {asked} quick checks well, in {seconds:.2f} s (doctor=true makes all of them)"
    log.info("doctor          %s", words)


def refuse(findings: dict[str, Finding]) -> None:
    """Raise what was found, if anything is an error; further ones are named in the same message.

    Raises:
        LumiError: of the kind of the first one.
    """
    errors = [(name, finding) for name, finding in findings.items() if finding.status == "error"]
    if not errors:
        return
    name, first = errors[0]
    more = f" (and: {', '.join(other for other, _ in errors[1:])})" if errors[1:] else ""
    raise first.kind(f"doctor: {name}: {first.found}{more}", first.why, first.fix)
