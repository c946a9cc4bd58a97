"""From a composed config to objects, with every mistake found before any work begins.

Hydra composes; this module checks and builds. It builds only Lumi's own classes: a config that came with somebody's checkpoint
cannot name ``os.system``. Keys and types are checked against the constructor's signature, all
violations are reported at once, and an unknown key comes with the nearest known one.
"""

import importlib
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lumi.errors import ConfigError, did_you_mean, join_violations

TARGET = "_target_"
MISSING = "???"


def resolve(cfg: DictConfig) -> dict[str, Any]:
    """The composed config as plain dicts and lists, interpolations resolved.

    Raises:
        ConfigError: an interpolation leads nowhere.
    """
    try:
        plain = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}", f"cannot be resolved ({str(error).splitlines()[0]})") from None
    return typing.cast(dict[str, Any], plain)


def build(node: Any, key: str, **offered: Any) -> Any:
    """The object that a config node describes.

    Args:
        node: a mapping with ``_target_`` (children first), or a plain value, which is returned as it is.
        key: path of the node, for messages.
        offered: what only the running program knows. The node's constructor takes those of its parameters that the node
            leaves out; nodes below it are complete by themselves.

    Raises:
        ConfigError: all violations at once.
    """
    found = violations(node, key, set(offered))
    if found:
        raise join_violations(found)
    return _build(node, key, offered)


def violations(node: Any, key: str, offered: set[str]) -> list[ConfigError]:
    """What is wrong with a node and everything below it, without building anything."""
    if isinstance(node, Mapping):
        found = []
        for name, value in node.items():
            if name != TARGET:
                found += violations(value, f"{key}.{name}", set())
        return found + (_check_call(node, key, offered) if TARGET in node else [])
    if isinstance(node, list):
        return [error for number, item in enumerate(node) for error in violations(item, f"{key}[{number}]", set())]
    if node == MISSING:
        return [ConfigError(f"{key}=???", "needs a value", f"add {key}=… to the command")]
    return []


def check_keys(config: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse unknown keys at the root (``+typo=1`` passes Hydra), and values that are still ``???``.

    Raises:
        ConfigError: with the nearest known key.
    """
    found = [
        ConfigError(f"{name}={config[name]!r}", "is not a setting", did_you_mean(name, known))
        for name in config
        if name not in known
    ]
    missing = [path for name, value in config.items() for path in _missing(value, name)]
    # ${source} stands in data.sources too: name the place where a person types it.
    typed = [path for path in missing if not path.startswith("data.sources.")] or missing
    found += [ConfigError(path, "needs a value", f"add {path}=… to the command") for path in typed]
    if found:
        raise join_violations(found)


def _missing(value: Any, key: str) -> list[str]:
    """Paths of everything that is still ``???`` at and below a value."""
    if isinstance(value, Mapping):
        return [path for name, item in value.items() for path in _missing(item, f"{key}.{name}")]
    return [key] if value == MISSING else []


def differences(before: Any, after: Any, key: str = "") -> list[str]:
    """``key: old -> new`` for every leaf in which two plain configs differ."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        names = [*before, *(name for name in after if name not in before)]
        return [
            line
            for name in names
            for line in differences(
                before.get(name, "(absent)"), after.get(name, "(absent)"), f"{key}.{name}" if key else name
            )
        ]
    return [] if before == after else [f"{key}: {before} -> {after}"]


def _build(node: Any, key: str, offered: Mapping[str, Any]) -> Any:
    if isinstance(node, list):
        return [_build(item, f"{key}[{number}]", {}) for number, item in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    children = {name: _build(value, f"{key}.{name}", {}) for name, value in node.items() if name != TARGET}
    if TARGET not in node:
        return children
    target = _find(node[TARGET], key)
    hints = _hints(target)
    arguments = {name: _coerce(value, hints.get(name, Any)) for name, value in children.items()}
    wanted = inspect.signature(target).parameters
    arguments |= {
        name: _coerce(value, hints.get(name, Any))
        for name, value in offered.items()
        if name in wanted and name not in arguments
    }
    return target(**arguments)


def _check_call(node: Mapping[str, Any], key: str, offered: set[str]) -> list[ConfigError]:
    try:
        target = _find(node[TARGET], key)
    except ConfigError as error:
        return [error]
    parameters = inspect.signature(target).parameters
    hints = _hints(target)
    found = []
    for name, value in node.items():
        path = f"{key}.{name}"
        if name == TARGET:
            continue
        if name not in parameters:
            found.append(ConfigError(f"{path}={_show(value)}", "is not a setting", did_you_mean(name, parameters)))
        elif not _is_node(value) and value != MISSING and not _fits(value, hints.get(name, Any)):
            found.append(ConfigError(f"{path}={_show(value)}", f"must be {_say(hints[name])}"))
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in node and name not in offered:
            found.append(ConfigError(f"{key}.{name}", f"is needed by {node[TARGET]}", f"add +{key}.{name}=…"))
    return found


def find_class(node: Mapping[str, Any]) -> Any:
    """The class that a node names, without building it."""
    return _find(node[TARGET], "")


def _find(path: Any, key: str) -> type:
    """The class of Lumi's own with this dotted path; nothing else is ever imported by name."""
    module, _, name = str(path).rpartition(".")
    parts = module.split(".")
    if parts[0] != "lumi" or not all(part.isidentifier() for part in [*parts, name]):
        raise ConfigError(f"{key}.{TARGET}={path}", "must be one of Lumi's own classes, such as lumi.optim.AdamW")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise ConfigError(f"{key}.{TARGET}={path}", f"there is no module {module}") from None
    classes = {
        label: item
        for label, item in vars(found).items()
        if inspect.isclass(item) and item.__module__.split(".")[0] == "lumi" and not label.startswith("_")
    }
    if name not in classes:
        raise ConfigError(f"{key}.{TARGET}={path}", f"{module} has no such class", did_you_mean(name, classes))
    return classes[name]


def _hints(target: type) -> dict[str, Any]:
    return typing.get_type_hints(target.__init__)  # pyright: ignore[reportAttributeAccessIssue]


def _is_node(value: Any) -> bool:
    return isinstance(value, Mapping) and TARGET in value


def _fits(value: Any, hint: Any) -> bool:  # noqa: C901  # one branch a kind of type
    """Whether a plain config value can be given where ``hint`` is annotated."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or isinstance(hint, typing.TypeVar):
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in arguments)
    if origin is typing.Literal:
        return value in arguments and not (isinstance(value, bool) and True not in arguments and False not in arguments)
    if hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        whole = isinstance(value, float) and math.isfinite(value) and value.is_integer()
        return (isinstance(value, int) and not isinstance(value, bool)) or whole
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if hint in (str, Path):
        return isinstance(value, str)
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            _is_node(item) or _fits(item, arguments[1]) for item in value.values()
        )
    if origin is tuple and Ellipsis not in arguments:
        return isinstance(value, list) and len(value) == len(arguments) and all(map(_fits, value, arguments))
    if origin is not None and issubclass(origin, Sequence):
        return isinstance(value, list) and all(_is_node(item) or _fits(item, arguments[0]) for item in value)
    return False  # an object is needed, and a plain value is none


def _coerce(value: Any, hint: Any) -> Any:
    """A checked value in the annotated type, lists and mappings with what they hold: 4e6 as int, strings as paths."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        fitting = [option for option in arguments if _fits(value, option)]
        return _coerce(value, fitting[0]) if fitting else value
    if isinstance(value, list | dict):
        return _coerce_items(value, origin, arguments)
    if hint is int and isinstance(value, float):
        return int(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return Path(value) if hint is Path and isinstance(value, str) else value


def _coerce_items(value: list[Any] | dict[str, Any], origin: Any, arguments: tuple[Any, ...]) -> Any:
    if isinstance(value, dict):
        return {name: _coerce(item, arguments[-1]) for name, item in value.items()} if arguments else value
    one_each = origin is tuple and Ellipsis not in arguments
    hints = arguments if one_each else (arguments or (Any,))[:1] * len(value)
    items = map(_coerce, value, hints)
    return tuple(items) if origin is tuple else list(items)


def _say(hint: Any) -> str:
    """A type as people say it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_say(option) for option in arguments)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, arguments))
    words = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text",
        Path: "a path",
        type(None): "null",
    }
    if hint in words:
        return words[hint]
    if origin is not None and issubclass(origin, Mapping):
        return "a mapping of names to values"
    if origin is not None and issubclass(origin, Sequence | tuple):
        return f"a list of {len(arguments)} values" if origin is tuple and Ellipsis not in arguments else "a list"
    return f"a node with its own {TARGET} (a {getattr(hint, '__name__', hint)})"


def _show(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def collect(*checks: Callable[[], Any]) -> None:
    """Run all checks and raise what they raise as one error.

    Raises:
        ConfigError: with every violation.
    """
    found: list[ConfigError] = []
    for check in checks:
        try:
            check()
        except ConfigError as error:
            found.append(error)
    if found:
        raise join_violations(found)


__all__ = ["build", "check_keys", "collect", "differences", "find_class", "resolve", "violations"]
