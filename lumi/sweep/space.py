"""What a command sweeps over, in Hydra's own syntax, as a list of dimensions.

``arch=nano,micro seed=range(0,3) optim.lr=interval(1e-4,1e-2) optim.lr=tag(log,interval(1e-4,1e-2))``
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from lumi.errors import ConfigError

_OF_THE_SWEEP = ("sweep", "study", "slots")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dimension:
    """One key that is swept over: by ``choices``, or between ``low`` and ``high``.

    Attributes:
        key: as typed, with a ``+`` or a package where it has one.
        choices: values in the form of the command line.
        low: of an interval; whole numbers make an interval of whole numbers.
        high: of an interval, included.
        log: whether equal ratios are equally likely, not equal differences.
    """

    key: str
    choices: tuple[str, ...] = ()
    low: float | int = 0
    high: float | int = 0
    log: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether an interval holds whole numbers only."""
        return not self.choices and isinstance(self.low, int) and isinstance(self.high, int)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Space:
    """A command taken apart.

    Attributes:
        arguments: what all jobs share, as typed.
        dimensions: what they differ in, in the order of the command.
        typed: all of it that decides what is trained, as typed.
    """

    arguments: tuple[str, ...]
    dimensions: tuple[Dimension, ...]
    typed: tuple[str, ...]

    def grid(self) -> Iterator[list[str]]:
        """Every combination, the last key the fastest.

        Raises:
            ConfigError: an interval cannot be enumerated.
        """
        for dimension in self.dimensions:
            if not dimension.choices:
                raise ConfigError(
                    f"{dimension.key}=interval({number_text(dimension.low)},{number_text(dimension.high)})",
                    "a grid needs values to enumerate",
                    "list them, or take sweep=optuna",
                )
        lists = [[f"{one.key}={value}" for value in one.choices] for one in self.dimensions]
        return (list(combination) for combination in itertools.product(*lists))


def read_space(overrides: Sequence[Override]) -> Space:
    """Split parsed overrides; a key that is given twice has its last value."""
    last = {override.get_key_element(): override for override in overrides}
    kept = [one for one in last.values() if one.key_or_group.split(".")[0] not in _OF_THE_SWEEP]
    for override in last.values():
        if override not in kept and override.is_sweep_override():
            raise ConfigError(str(override.input_line), "belongs to the study, so it has one value")
    swept = [one for one in kept if one.is_sweep_override()]
    return Space(
        arguments=tuple(str(one.input_line) for one in kept if one not in swept),
        dimensions=tuple(map(_dimension, swept)),
        typed=tuple(str(one.input_line) for one in kept),
    )


def _dimension(override: Override) -> Dimension:
    key, value = override.get_key_element(), override.value()
    if isinstance(value, IntervalSweep):
        return _interval(key, value, str(override.input_line))
    if isinstance(value, RangeSweep) and value.shuffle:
        raise ConfigError(str(override.input_line), "a study keeps its order", "leave shuffle out")
    choices = tuple(override.sweep_iterator(transformer=_as_text))
    if not choices:
        raise ConfigError(str(override.input_line), "holds no value", "give at least one")
    if len(set(choices)) < len(choices):
        raise ConfigError(str(override.input_line), "names a value twice", "each value once")
    return Dimension(key=key, choices=tuple(map(str, choices)))


def _interval(key: str, interval: IntervalSweep, typed: str) -> Dimension:
    low, high = interval.start, interval.end
    assert low is not None, "Hydra's grammar needs both ends"
    assert high is not None, "Hydra's grammar needs both ends"
    unknown = interval.tags - {"log"}
    if unknown:
        raise ConfigError(typed, f"has an unknown tag {sorted(unknown)[0]!r}", "tag(log,interval(…)) is the only one")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(typed, "must go from a number to a greater one")
    if "log" in interval.tags and low <= 0:
        raise ConfigError(typed, "a logarithmic interval begins above 0")
    return Dimension(key=key, low=low, high=high, log="log" in interval.tags)


def _as_text(value: Any) -> str:
    if isinstance(value, float):
        return number_text(value)
    if isinstance(value, bool):
        return str(value).lower()
    return Override._get_value_element_as_str(value)


def number_text(value: float) -> str:
    """A number as a person types it: 0.0003 is ``3e-4``; reading it gives the same number."""
    if isinstance(value, int) or not math.isfinite(value) or value == 0 or 0.01 <= abs(value) < 1e5:
        return str(value)
    return f"{Decimal(repr(value)).normalize():e}".replace("e+", "e")
