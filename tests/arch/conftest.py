"""The named architectures, read from the files that users choose them by."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lumi.arch import DecoderConfig

FOLDER = Path(__file__).parents[2] / "conf" / "arch"


@pytest.fixture(scope="session")
def arch_files() -> dict[str, dict[str, Any]]:
    """Name -> its YAML over that of `decoder`, as Hydra merges ``defaults: [decoder, _self_]``."""
    files = {path.stem: yaml.safe_load(path.read_text()) for path in FOLDER.glob("*.yaml")}
    shared = files.pop("decoder")
    for name, fields in files.items():
        assert fields.pop("defaults") == ["decoder", "_self_"], f"{name}.yaml is merged in another way"
        fields |= {key: value for key, value in shared.items() if key not in fields and key != "_target_"}
        fields["norm_eps"] = float(fields["norm_eps"])  # 1e-5 is text in PyYAML and a number in Hydra
    return files


@pytest.fixture(scope="session")
def named_config(arch_files: dict[str, dict[str, Any]]) -> Callable[..., DecoderConfig]:
    """``named_config("tiny", vocab_size=…)``: a named architecture, with changes."""

    def make(name: str, **changes: Any) -> DecoderConfig:
        return DecoderConfig(**{**arch_files[name], **changes})

    return make
