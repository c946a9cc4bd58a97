"""What a check says: one line when all is well, and what, why and the fix when it is not."""

import dataclasses
from typing import Literal

from lumi.errors import ConfigError, LumiError

Status = Literal["ok", "warning", "error", "not applicable"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """The answer of one check.

    Attributes:
        status: an ``error`` makes the run worthless and stops it; a ``warning`` is likely a mistake.
        found: what was seen, with its numbers; why not, when the check does not apply.
        why: why it matters; empty when all is well.
        fix: the setting, the command or the place in the code that mends it.
        kind: class of the error, which decides the exit code.
    """

    status: Status
    found: str
    why: str = ""
    fix: str = ""
    kind: type[LumiError] = ConfigError


def ok(found: str) -> Finding:
    """All is well."""
    return Finding(status="ok", found=found)


def not_applicable(reason: str) -> Finding:
    """There is nothing to check here."""
    return Finding(status="not applicable", found=reason)


def warning(found: str, why: str, fix: str) -> Finding:
    """Likely a mistake; a run goes on."""
    return Finding(status="warning", found=found, why=why, fix=fix)


def error(found: str, why: str, fix: str, kind: type[LumiError] = ConfigError) -> Finding:
    """A run with this is worthless."""
    return Finding(status="error", found=found, why=why, fix=fix, kind=kind)
