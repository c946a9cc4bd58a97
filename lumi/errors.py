"""The errors that a user can meet, and the one form in which they speak.

Every message reads *key = value · rule · fix*: what was found, what would have been right, what to type next. The class
decides the exit code, so that a script around Lumi can tell a typo (2) from a damaged file (3) or a full disk (5).
"""

import difflib
from collections.abc import Iterable


class LumiError(Exception):
    """Base of everything that is the user's to fix; shown without a traceback.

    Args:
        found: what was found, best as ``key=value`` or ``file:line``.
        rule: what must hold instead.
        fix: the setting or the command that mends it.
    """

    exit_code = 1

    def __init__(self, found: str, rule: str = "", fix: str = "") -> None:
        self.found, self.rule, self.fix = found, rule, fix
        super().__init__(" · ".join(part for part in (found, rule, fix) if part))

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        # Crossing a process border (a data worker, a pool) must not lose the three parts.
        return type(self), (self.found, self.rule, self.fix)


class ConfigError(LumiError):
    """A setting is unknown, of the wrong type, out of range, or does not go with another one."""

    exit_code = 2


class DataError(LumiError):
    """A file or an artefact is missing, damaged, or not what its manifest says."""

    exit_code = 3


class TokenizerMismatch(DataError):
    """Two artefacts that meet were made with different tokenizers."""


class CheckpointError(DataError):
    """A checkpoint cannot be read or does not belong to this run."""


class LockedError(LumiError):
    """Another process is writing the same folder."""

    exit_code = 4


class ResourceError(LumiError):
    """The disk or the memory does not suffice."""

    exit_code = 5


class NumericError(LumiError):
    """A loss or a gradient is not a finite number."""

    exit_code = 6


class RankError(LumiError):
    """A rank of the run has ended, and the run with it.

    Args:
        exit_code: of the process.
    """

    def __init__(self, found: str, rule: str = "", fix: str = "", exit_code: int = 1) -> None:
        super().__init__(found, rule, fix)
        self.exit_code = exit_code


class Interrupted(LumiError):
    """A signal asked the run to end; what was done is saved and can be resumed.

    Args:
        signal_number: the signal, so that the exit code is 128 plus it, as shells expect.
    """

    def __init__(self, found: str, rule: str = "", fix: str = "", signal_number: int = 15) -> None:
        super().__init__(found, rule, fix)
        self.exit_code = 128 + signal_number


def join_violations(violations: list[ConfigError]) -> ConfigError:
    """One error that lists every violation, because a user wants to fix them in one go."""
    if len(violations) == 1:
        return violations[0]
    lines = "\n".join(f"  - {violation}" for violation in violations)
    return ConfigError(f"{len(violations)} settings need a change:\n{lines}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``did you mean 'n_layers'?`` or, when nothing is near, the list of what is known."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known: {', '.join(known)}" if known else "--cfg job shows all settings"
