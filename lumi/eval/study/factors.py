"""What varies between runs: the factors of a study, found from the settings, and the configurations that they span.

Settings that change together (width and depth of an architecture) are one factor. ``seed`` is not a factor but the axis of
replicates, and so is any other ``….seed`` that goes with it.
"""

import dataclasses
import json
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from lumi.errors import ConfigError, did_you_mean
from lumi.eval.study.reading import Run

_IGNORED = ("name", "resume", "paths", "logger", "task", "executor", "source", "corpus", "hydra")
"""Keys at the root that change no number, or do so as a part of ``data``; for `_IGNORED_BELOW` the same."""
_IGNORED_BELOW = ("callbacks.checkpoint", "callbacks.progress", "callbacks.samples")

_ABSENT = "–"
_MOST_SHOWN = 3
_MOST_ARCHITECTURES = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Factor:
    """Something that was varied.

    Attributes:
        name: as it is typed, or the key that stands for those that changed with it.
        keys: settings that it stands for.
        levels: labels of its values; numbers ascending, other values in the order of the runs.
        of_run: label by the number of the run in the list that was searched.
    """

    name: str
    keys: tuple[str, ...]
    levels: tuple[str, ...]
    of_run: tuple[str, ...]

    @property
    def numbers(self) -> tuple[float, ...] | None:
        """The levels as numbers, where all of them are finite ones."""
        found = [_number(level) for level in self.levels]
        return None if any(value is None for value in found) else tuple(value for value in found if value is not None)


Levels = tuple[str, ...]
"""A label for each factor, in their order."""


def find_factors(runs: Sequence[Run]) -> list[Factor]:
    """The factors of runs whose settings are known, those that a study names first."""
    varied = {key: column for key, column in _columns(runs).items() if len(set(column)) > 1}
    factors = _named(runs, varied)
    seeds = tuple(str(run.seed) for run in runs)
    rest = {
        key: column
        for key, column in varied.items()
        if key != "seed"
        and not (key.endswith(".seed") and _follows(column, [seeds]))
        and not (factors and _follows(column, [factor.of_run for factor in factors]))
    }
    return factors + _grouped(rest, {factor.name for factor in factors})


def configurations(runs: Sequence[Run], factors: Sequence[Factor]) -> dict[Levels, list[Run]]:
    """The runs by their levels, in the order of the runs."""
    found: dict[Levels, list[Run]] = {}
    for place, run in enumerate(runs):
        found.setdefault(tuple(factor.of_run[place] for factor in factors), []).append(run)
    return found


def wanted_levels(wanted: Any, runs: Sequence[Run], factors: Sequence[Factor]) -> dict[str, str]:
    """Factor → level that ``baseline=…`` means: conditions, or the name of a run.

    Raises:
        ConfigError: there is no such factor, level or run.
    """
    if isinstance(wanted, str) and "=" not in wanted:
        return _levels_of_run(wanted, runs, factors)
    by_name = {factor.name: factor for factor in factors}
    found = {}
    for name, value in _conditions(wanted):
        word = f"{name}={value}"
        if name not in by_name:
            raise ConfigError(f"baseline={word}", f"{name} does not vary in this study", did_you_mean(name, by_name))
        same = [level for level in by_name[name].levels if level == value or _equal(level, value)]
        if not same:
            known = ", ".join(by_name[name].levels)
            raise ConfigError(f"baseline={word}", "no finished run has it", f"{name} is one of {known}")
        found[name] = same[0]
    return found


def _levels_of_run(name: str, runs: Sequence[Run], factors: Sequence[Factor]) -> dict[str, str]:
    names = [run.name for run in runs]
    if name not in names:
        fix = did_you_mean(name, [*names, *(factor.name for factor in factors)])
        raise ConfigError(f"baseline={name}", "is neither {KEY: VALUE} nor a finished run of this study", fix)
    return {factor.name: factor.of_run[names.index(name)] for factor in factors}


def _conditions(wanted: Any) -> list[tuple[str, str]]:
    """Key and value of each condition: of a mapping, of ``KEY=VALUE,KEY=VALUE``, or of a list of such words."""
    if isinstance(wanted, Mapping):
        return [
            (str(key), json.dumps(value) if isinstance(value, list) else _label(value)) for key, value in wanted.items()
        ]
    words = wanted if isinstance(wanted, list | tuple) else str(wanted).split(",")
    parts = [str(word).strip().partition("=") for word in words]
    return [(key, value) for key, _, value in parts]


def _columns(runs: Sequence[Run]) -> dict[str, tuple[str, ...]]:
    """Every setting that may matter, with its label in each run."""
    keys = dict.fromkeys(key for run in runs for key in run.settings if not _is_ignored(key))
    return {key: tuple(_label(run.settings[key]) if key in run.settings else _ABSENT for run in runs) for key in keys}


def _is_ignored(key: str) -> bool:
    return key.split(".", maxsplit=1)[0].split("/", maxsplit=1)[0] in _IGNORED or key.startswith(_IGNORED_BELOW)


def _named(runs: Sequence[Run], varied: Mapping[str, tuple[str, ...]]) -> list[Factor]:
    """Factors that the study gave to every run itself, such as ``arch=nano,micro``."""
    shared = [key for key in (runs[0].overrides if runs else ()) if all(key in run.overrides for run in runs)]
    found = []
    for key in shared:
        if key in ("seed", "name", "resume") or key.startswith(("hydra", "paths")):
            continue
        # A setting is told by its value, 1e-3 and 0.001 alike; the choice of a group only by its word.
        known = all(key in run.settings for run in runs)
        column = tuple(_label(run.settings[key]) if known else run.overrides[key].strip("'\"") for run in runs)
        if len(set(column)) > 1:
            prefix = key.replace("/", ".")
            below = [other for other in varied if other.startswith(f"{prefix}.") and _follows(varied[other], [column])]
            keys = [*([key] if known else []), *below]
            found.append(_factor(key, keys or [key], column))
    return found


def _grouped(varied: Mapping[str, tuple[str, ...]], taken: set[str]) -> list[Factor]:
    """Factors from settings alone: equal partitions of the runs are one, and what follows from one of its section joins it."""
    groups: dict[Hashable, list[str]] = {}
    for key, column in varied.items():
        first = {label: place for place, label in reversed(list(enumerate(column)))}
        groups.setdefault(tuple(first[label] for label in column), []).append(key)
    ranked = sorted(groups.values(), key=lambda keys: -len(set(varied[keys[0]])))
    kept: list[list[str]] = []
    for keys in ranked:
        into = [other for other in kept if _belongs(keys[0], other[0], varied)]
        if into:
            into[0].extend(keys)
        else:
            kept.append(list(keys))
    kept.sort(key=lambda keys: list(varied).index(keys[0]))
    found: list[Factor] = []
    for keys in kept:
        shown = _shown(keys, varied)
        name = shown[0] if len(shown) == 1 and not shown[0].endswith("_target_") else _name(keys)
        name = keys[0] if name in taken else name
        taken.add(name)
        column = tuple(_words(shown, [varied[key][place] for key in shown]) for place in range(len(varied[keys[0]])))
        found.append(_factor(name, keys, column))
    return found


def _belongs(key: str, other: str, varied: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether a setting is what another one of its section made of it, as the depth of an architecture with its width.

    Where every run has a value of its own, as in a random search, anything follows from it and that says nothing.
    """
    n_levels, section = len(set(varied[other])), key.split(".", maxsplit=1)[0]
    tells = n_levels < len(varied[other]) or (section == "arch" and n_levels <= _MOST_ARCHITECTURES)
    return tells and section == other.split(".", maxsplit=1)[0] and _follows(varied[key], [varied[other]])


def _name(keys: Sequence[str]) -> str:
    """The key, or what all keys have in common; a class stands for its section."""
    parts = [key.split(".") for key in keys]
    common = [names[0] for names in zip(*parts, strict=False) if len(set(names)) == 1]
    return ".".join(common).removesuffix("._target_") or keys[0]


def _shown(keys: Sequence[str], varied: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The settings to call the levels of a factor by: a class, else the first ones that tell all levels apart."""
    shown = [key for key in keys if key.endswith("_target_")][:1] or list(keys[:1])
    n_levels = len(set(zip(*(varied[key] for key in keys), strict=True)))
    for key in keys:
        if len(set(zip(*(varied[one] for one in shown), strict=True))) == n_levels or len(shown) == _MOST_SHOWN:
            break
        if key not in shown:
            shown.append(key)
    return shown


def _words(keys: Sequence[str], values: Sequence[str]) -> str:
    """``AdamW``, ``0.003``, or ``n_layers=4 d_model=128``."""
    said = [
        value.rpartition(".")[2] if key.endswith("_target_") else value for key, value in zip(keys, values, strict=True)
    ]
    return (
        said[0]
        if len(keys) == 1
        else " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in zip(keys, said, strict=True))
    )


def _factor(name: str, keys: Iterable[str], column: tuple[str, ...]) -> Factor:
    labels = list(dict.fromkeys(column))
    numbers = {label: _number(label) for label in labels}
    if all(value is not None for value in numbers.values()):
        labels.sort(key=lambda label: numbers[label] or 0.0)
    return Factor(name=name, keys=tuple(keys), levels=tuple(labels), of_run=column)


def _follows(column: Sequence[str], others: Sequence[Sequence[str]]) -> bool:
    """Whether a column is the same wherever the others are."""
    seen: dict[tuple[str, ...], str] = {}
    return all(
        seen.setdefault(key, label) == label
        for label, *rest in zip(column, *others, strict=True)
        for key in [tuple(rest)]
    )


def _label(value: Any) -> str:
    """A setting as it is typed."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return str(value)


def _number(label: str) -> float | None:
    try:
        value = float(label)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _equal(one: str, other: str) -> bool:
    left, right = _number(one), _number(other)
    return left is not None and left == right
