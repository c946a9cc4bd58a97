"""What changes in the course of a run, as a pure function of the step: weights of the sources, length of windows, batch size.

A phase is a line of settings and ends at a share of the run's *tokens*, because with batches of several sizes a share of the
steps would say little. Nothing is tokenised or packed again: shorter windows are pieces of the long ones. As nothing but the
step decides, there is no state to save, and a resumed run is where it would have been.
"""

import bisect
import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from lumi.data.mixture import Phase
from lumi.errors import ConfigError, did_you_mean

_KEYS = ("until", "weights", "seq_len", "batch_ratio")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhaseSettings:
    """One line of ``data.phases``.

    Attributes:
        until: where it ends, as a share of the run's tokens.
        weights: of each source, in their order.
        seq_len: tokens in a window; null is data.seq_len. The windows of a source are cut into so many pieces as fit, and
            pieces of one window follow each other.
        batch_ratio: windows of a micro-batch, over data.batch_size: by a ratio, the number of devices does not matter.
    """

    until: float
    weights: tuple[float, ...]
    seq_len: int | None = None
    batch_ratio: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stretch:
    """One phase in steps and samples.

    Attributes:
        first_step, first_sample, first_token: where it begins, counted over all ranks.
        batch_size: windows of a micro-batch on one device.
        seq_len: tokens in a window.
        pieces: so many of them make one of the source's windows.
        tokens_per_step: that all ranks read.
    """

    first_step: int
    first_sample: int
    first_token: int
    batch_size: int
    seq_len: int
    pieces: int
    tokens_per_step: int


class Curriculum:
    """The phases of a run whose batches are known.

    Args:
        phases: in order; the last ends at 1.
        batch_size: windows of a micro-batch on one device, where a phase says nothing else.
        seq_len: tokens in a window, likewise.
        micro_batches: of an optimizer step, over all devices.
        total_steps: of the run.

    Raises:
        ConfigError: a phase has no whole number of windows.
    """

    def __init__(
        self,
        phases: Sequence[PhaseSettings],
        *,
        batch_size: int,
        seq_len: int,
        micro_batches: int,
        total_steps: int = 0,
    ) -> None:
        self.phases, self.micro_batches, self.total_steps = list(phases), micro_batches, total_steps
        self._sizes = [windows(phase, number, batch_size) for number, phase in enumerate(phases)]
        self._lengths = [phase.seq_len or seq_len for phase in phases]
        rates = zip(self._sizes, self._lengths, strict=True)
        self._tokens_per_step = [size * (length - 1) * micro_batches for size, length in rates]
        self.stretches = self._lay_out(seq_len)

    @property
    def tokens_per_step(self) -> float:
        """On average over the run."""
        first = self._tokens_per_step[0]
        return first if set(self._tokens_per_step) == {first} else 1.0 / self._steps_per_token()[-1]

    def at(self, step: int) -> Stretch:
        """Where a step is."""
        return self.stretches[bisect.bisect_right(self.stretches, step, key=lambda stretch: stretch.first_step) - 1]

    def tokens(self, step: int) -> int:
        """Read by all ranks in the first ``step`` steps."""
        here = self.at(step)
        return here.first_token + (step - here.first_step) * here.tokens_per_step

    def samples(self, step: int) -> int:
        """Windows, or pieces of them, likewise."""
        here = self.at(step)
        return here.first_sample + (step - here.first_step) * here.batch_size * self.micro_batches

    def mixture_phases(self) -> list[Phase]:
        """For `lumi.data.mixture.Mixture`."""
        return [
            Phase(first_sample=stretch.first_sample, weights=phase.weights, pieces=stretch.pieces)
            for phase, stretch in zip(self.phases, self.stretches, strict=True)
        ]

    def _steps_per_token(self) -> list[float]:
        """Steps until the end of each phase, for a run of one token."""
        begins = [0.0, *(phase.until for phase in self.phases)]
        spans = [end - begin for begin, end in itertools.pairwise(begins)]
        return list(itertools.accumulate(s / t for s, t in zip(spans, self._tokens_per_step, strict=True)))

    def _lay_out(self, seq_len: int) -> list[Stretch]:
        ends = self._steps_per_token()
        same = len(set(self._tokens_per_step)) == 1
        shares = [0.0, *(phase.until if same else end / ends[-1] for phase, end in zip(self.phases, ends, strict=True))]
        stretches: list[Stretch] = []
        step = sample = token = 0
        for number, (size, length) in enumerate(zip(self._sizes, self._lengths, strict=True)):
            begin = round(shares[number] * self.total_steps)
            if stretches:
                steps = begin - step
                sample += steps * stretches[-1].batch_size * self.micro_batches
                token += steps * stretches[-1].tokens_per_step
            step = begin
            stretches.append(
                Stretch(
                    first_step=step,
                    first_sample=sample,
                    first_token=token,
                    batch_size=size,
                    seq_len=length,
                    pieces=(seq_len - 1) // (length - 1),
                    tokens_per_step=self._tokens_per_step[number],
                )
            )
        return stretches


def windows(phase: PhaseSettings, number: int, batch_size: int) -> int:
    """Of a micro-batch in this phase.

    Raises:
        ConfigError: no whole number.
    """
    exact = phase.batch_ratio * batch_size
    size = round(exact)
    if size < 1 or not math.isclose(exact, size, rel_tol=1e-6):
        raise ConfigError(
            f"data.phases[{number}].batch_ratio={phase.batch_ratio}",
            f"must give a whole number of windows of data.batch_size={batch_size}",
            f"try {max(1, size) / batch_size:g}",
        )
    return size


def read_phases(
    phases: Sequence[Mapping[str, Any]] | None, own: Mapping[str, float], *, seq_len: int, batch_size: int, cuts: bool
) -> list[PhaseSettings]:
    """The settings of ``data.phases``, checked.

    Args:
        own: source → its weight where a phase names none.
        cuts: whether windows may be cut into pieces.

    Raises:
        ConfigError: a key, a source or a number is not what it may be.
    """
    if phases is None:
        return [PhaseSettings(until=1.0, weights=tuple(own.values()))]
    result, begin = [], 0.0
    for number, phase in enumerate(phases):
        key = f"data.phases[{number}]"
        for name in phase:
            if name not in _KEYS:
                raise ConfigError(f"{key}.{name}", "is not a setting", did_you_mean(str(name), _KEYS))
        until = phase.get("until")
        if not isinstance(until, int | float) or not begin < until <= 1.0:
            raise ConfigError(f"{key}.until={until}", f"must be a share of the run above {begin} and at most 1")
        settings = PhaseSettings(
            until=float(until),
            weights=_weights(phase.get("weights"), own, key),
            seq_len=_length(phase.get("seq_len"), seq_len, cuts, key),
            batch_ratio=_ratio(phase.get("batch_ratio", 1.0), key),
        )
        windows(settings, number, batch_size)
        result.append(settings)
        begin = float(until)
    if begin != 1.0:
        raise ConfigError(f"data.phases[-1].until={begin}", "the last phase must end at 1.0")
    return result


def _weights(weights: Any, own: Mapping[str, float], key: str) -> tuple[float, ...]:
    if weights is None:
        return tuple(own.values())
    for name in weights:
        if name not in own:
            raise ConfigError(f"{key}.weights.{name}", "is not a source", did_you_mean(name, own))
    shares = [weights.get(name, 0.0) for name in own]
    if not all(_is_share(share) for share in shares) or not any(shares):
        raise ConfigError(f"{key}.weights={dict(weights)}", "must be numbers of 0 or more, and not all 0")
    return tuple(float(share) for share in shares)


def _length(length: Any, longest: int, cuts: bool, key: str) -> int | None:
    if length is None:
        return None
    if not cuts:
        raise ConfigError(f"{key}.seq_len={length}", "is for packed text: an example is never cut", "leave it out")
    if not isinstance(length, int) or isinstance(length, bool) or not 2 <= length <= longest:
        raise ConfigError(f"{key}.seq_len={length}", f"must be a whole number from 2 to data.seq_len={longest}")
    return length


def _ratio(ratio: Any, key: str) -> float:
    if not _is_share(ratio) or ratio == 0:
        raise ConfigError(f"{key}.batch_ratio={ratio}", "must be a number above 0")
    return float(ratio)


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
