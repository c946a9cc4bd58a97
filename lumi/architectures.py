"""The named architectures of ``conf/arch`` as objects, without composing a whole config."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

import lumi
from lumi.arch import DecoderConfig
from lumi.config import build
from lumi.errors import ConfigError, did_you_mean

CONF = Path(lumi.__file__).parent.parent / "conf" / "arch"

_NOT_NAMED = ("decoder", "debug")
"""What all share, and the one for tests."""


def architecture_names() -> list[str]:
    """As typed after ``arch=``; those in folders (``ladder/40k``) serve experiments and are left out."""
    return sorted(path.stem for path in CONF.glob("*.yaml") if path.stem not in _NOT_NAMED)


def architecture(name: str, vocab_size: int, key: str = "arch") -> DecoderConfig:
    """The architecture of this name for a vocabulary of so many pieces.

    Args:
        key: the setting that named it, for messages.

    Raises:
        ConfigError: there is none.
    """
    path = CONF / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(f"{key}={name}", "is not a named architecture", did_you_mean(name, architecture_names()))
    nodes: Any = OmegaConf.to_container(OmegaConf.merge(OmegaConf.load(CONF / "decoder.yaml"), OmegaConf.load(path)))
    nodes.pop("defaults")
    return build(nodes, "arch", vocab_size=vocab_size)
