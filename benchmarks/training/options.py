"""What the command line decides, and what follows from it."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

_CONF = Path(__file__).parents[2] / "conf"
_VOCABULARY = {"debug": 4096, "nano": 4096}
_LARGE_VOCABULARY = 32768
_BATCH = {
    "cpu": {"debug": 16, "nano": 16, "micro": 4, "tiny": 4, "small": 2, "medium": 2, "base": 1},
    "cuda": {"debug": 64, "nano": 256, "micro": 64, "tiny": 64, "small": 32, "medium": 32, "base": 16},
}
_MOST_STEPS = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Of a run of the suite.

    Attributes:
        device: cpu or cuda.
        half: bf16 autocast for everyone instead of float32.
        rounds: turns of each contestant.
        turn_seconds: about so long is a turn of Lumi; the others do as many steps.
        warmup: steps before the contest.
        threads: of each contestant.
        documents: long, or short to measure what keeping documents apart costs.
        batch: windows of a step; None is what suits device and architecture.
        only: peers to measure; empty is all.
        compile_default: of Lumi's config.
        data: folder of prepared data. peers: virtual environment of the peers.
    """

    device: str
    half: bool
    rounds: int
    turn_seconds: float
    warmup: int
    threads: int
    documents: str
    batch: int | None
    only: tuple[str, ...]
    compile_default: object
    data: Path
    peers: Path

    def vocab_size(self, arch: str) -> int:
        """Pieces of the tokenizer."""
        return vocab_size_of(arch)

    def batch_size(self, arch: str) -> int:
        """Windows of a step."""
        return self.batch or _BATCH[self.device].get(arch, 4)

    def steps_of_a_turn(self, facts: dict[str, Any]) -> int:
        """From the seconds that a step took the first contestant."""
        return max(1, min(_MOST_STEPS, round(self.turn_seconds / facts["step_seconds"])))

    @property
    def precision(self) -> str:
        """As Lumi's config names it."""
        return f"trainer.precision={'bf16-mixed' if self.half else '32-true'}"

    def say(self, line: str) -> None:
        """Progress, beside the tables."""
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    def described(self) -> dict[str, Any]:
        """For the JSON: everything but folders."""
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if name not in ("data", "peers")}


def vocab_size_of(arch: str) -> int:
    """Pieces of the tokenizer that suits an architecture."""
    return _VOCABULARY.get(arch, _LARGE_VOCABULARY)


def composed(overrides: Sequence[str] = ()) -> DictConfig:
    """The config of a run of ``train.py`` with these words."""
    with initialize_config_dir(str(_CONF), version_base="1.3"):
        return compose("train", list(overrides))
