"""What must not be written anywhere: keys and tokens, found by the names that hold them and by how they look.

Settings go into every run's folder, into checkpoints and to logging services, so a secret among them is refused before anything
is written. What leaves this machine is cleaned once more, and there the home folder, which names a person, becomes ``~``.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lumi.errors import ConfigError

HIDDEN = "(hidden)"

_NAME = re.compile(
    r"(^|_)(api_?key|access_?key|private_?key|secret|password|passwd|credentials?|(access_|auth_|api_|hub_|hf_)?token)$",
    re.IGNORECASE,
)
"""A setting or an environment variable with such a name; ``tokens`` and ``tokenizer`` are not."""

_LOOK = re.compile(
    r"hf_[A-Za-z0-9]{30,}|sk-[A-Za-z0-9_-]{20,}|gh[opsu]_[A-Za-z0-9]{30,}|wandb_v\d_[A-Za-z0-9_]{20,}|AKIA[0-9A-Z]{16}"
    r"|(?<=://)[^/@\s:]+:[^/@\s]+(?=@)"
)
"""Tokens of Hugging Face, OpenAI, GitHub, W&B and AWS; name and password in an address."""

_SHORTEST = 8
"""A shorter value of a variable is in too many words to be looked for."""


def check_no_secrets(settings: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    """Refuse settings that hold a secret.

    Raises:
        ConfigError: with the setting's name, and without the secret.
    """
    for key, value in _leaves(settings, ""):
        if reason := _reason(key, value, environment):
            raise ConfigError(
                f"{key}={HIDDEN}",
                f"holds a secret ({reason}), and settings are written to the run's folder",
                "leave it out: keys are read from the environment where they are needed; if you shared it, replace it",
            )


def public(value: Any, environment: Mapping[str, str], home: Path) -> Any:
    """The same JSON-able value as it may be shown to others: without secrets, the home folder as ``~``."""
    secrets = [text for text, _ in _secret_values(environment)]
    return _clean(value, secrets, str(home) if len(home.parts) > 1 else None)


def _clean(value: Any, secrets: list[str], home: str | None) -> Any:
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if _is_named(str(key), item) else _clean(item, secrets, home) for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_clean(item, secrets, home) for item in value]
    if not isinstance(value, str):
        return value
    for secret in secrets:
        value = value.replace(secret, HIDDEN)
    value = _LOOK.sub(HIDDEN, value)
    return value if home is None else re.sub(re.escape(home) + r"(?![\w.-])", "~", value)


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _leaves(item, f"{key}[{number}]")
    else:
        yield key, value


def _reason(key: str, value: Any, environment: Mapping[str, str]) -> str | None:
    if not isinstance(value, str):
        return None
    if _is_named(key.rpartition(".")[2], value):
        return "by its name"
    if _LOOK.search(value):
        return "by its look"
    return next((f"the value of {name}" for secret, name in _secret_values(environment) if secret in value), None)


def _is_named(name: str, value: Any) -> bool:
    return isinstance(value, str) and bool(value) and bool(_NAME.search(name))


def _secret_values(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """Value and name of every variable that holds a secret; a path to one is none."""
    return [
        (value, name)
        for name, value in environment.items()
        if _NAME.search(name) and len(value) >= _SHORTEST and not value.startswith(("/", "~", "."))
    ]
