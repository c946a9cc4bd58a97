"""Learning-rate schedules as pure functions: (step, total steps) -> factor on the peak rate.

There is no scheduler state to save, so a resumed run cannot be on another point of the curve.
"""

import dataclasses
import math
from typing import Literal, Protocol

from lumi.errors import ConfigError


class Schedule(Protocol):
    """What a stage asks of a schedule."""

    def factor(self, step: int, total_steps: int) -> float:
        """Factor on the peak rate for the optimizer step with this index, from 0."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant:
    """Linear warm-up, then the peak rate to the end.

    Attributes:
        warmup_steps: optimizer steps of warm-up; null takes ``warmup_ratio``.
        warmup_ratio: the same as a share of the whole run.
        min_ratio: rate that a decaying schedule has reached when the run is over, as a share of the peak.
    """

    warmup_steps: int | None = None
    warmup_ratio: float = 0.02
    min_ratio: float = 0.0

    def __post_init__(self) -> None:
        """Raises ConfigError when a value is out of range."""
        if self.warmup_steps is not None and self.warmup_steps < 0:
            raise ConfigError(f"optim.schedule.warmup_steps={self.warmup_steps}", "must be 0 or more, or null")
        for name in ("warmup_ratio", "min_ratio"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"optim.schedule.{name}={getattr(self, name)}", "must be in [0, 1]")

    def factor(self, step: int, total_steps: int) -> float:
        """Warm-up reaches 1 on its last step; ``min_ratio`` is reached after the last step, so none has the rate 0."""
        warmup = self.warmup_steps if self.warmup_steps is not None else round(self.warmup_ratio * total_steps)
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, total_steps - warmup)
        return self._after_warmup(min(1.0, done))

    def _after_warmup(self, done: float) -> float:
        """Factor when the share ``done`` in [0, 1] of what follows the warm-up is behind us."""
        return 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine(Constant):
    """Half a cosine from the peak to ``min_ratio`` (arXiv:1608.03983, without restarts)."""

    def _after_warmup(self, done: float) -> float:
        return self.min_ratio + (1.0 - self.min_ratio) * 0.5 * (1.0 + math.cos(math.pi * done))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear(Constant):
    """A straight line from the peak to ``min_ratio``."""

    def _after_warmup(self, done: float) -> float:
        return self.min_ratio + (1.0 - self.min_ratio) * (1.0 - done)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WSD(Constant):
    """Warm-up, stable, decay: the peak rate for most of the run, then down (arXiv:2404.06395).

    A run can be prolonged from its stable part without having guessed its length.

    Attributes:
        decay_ratio: share of what follows the warm-up that decays.
        shape: ``linear``, or ``sqrt`` for 1 - sqrt(x), better in arXiv:2405.18392.
    """

    decay_ratio: float = 0.2
    shape: Literal["linear", "sqrt"] = "sqrt"

    def __post_init__(self) -> None:
        """Raises ConfigError when a value is out of range."""
        super().__post_init__()
        if not 0.0 < self.decay_ratio <= 1.0:
            raise ConfigError(f"optim.schedule.decay_ratio={self.decay_ratio}", "must be in (0, 1]")
        if self.shape not in ("linear", "sqrt"):
            raise ConfigError(f"optim.schedule.shape={self.shape}", "must be linear or sqrt")

    def _after_warmup(self, done: float) -> float:
        into_decay = (done - (1.0 - self.decay_ratio)) / self.decay_ratio
        if into_decay <= 0.0:
            return 1.0
        fall = math.sqrt(into_decay) if self.shape == "sqrt" else into_decay
        return self.min_ratio + (1.0 - self.min_ratio) * (1.0 - fall)
