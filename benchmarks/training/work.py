"""The training step that all contestants do, as plain numbers and files.

Lumi's own run writes it (`benchmarks.training.lumi_loop`), everybody else reads it: the shape of the weights, the optimizer's
settings, the first weights, and the batches in their order. An environment that knows nothing of Lumi can do the same work.

    <folder>/work.json    `Work`        <folder>/tokens.npy    (batches, B, T) int32
    <folder>/weights.pt   name → tensor, named as in Hugging Face's Llama
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

IGNORED = -100
"""Target of the last position of a window, whose next token lies outside of it; what cross-entropy leaves out by default."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """One optimizer step.

    Attributes:
        arch: name of the shape, as in conf/arch/.
        vocab_size, n_layers, d_model, n_heads, n_kv_heads, d_ff, tied, rope_theta, norm_eps: as in `lumi.arch.DecoderConfig`.
        seq_len: tokens of a window, T. batch_size: windows, B.
        lr, betas, eps, weight_decay, clip_norm: of AdamW, the rate constant.
        n_params: that Lumi counts. flops_per_token: that Lumi counts, forward and backward.
    """

    arch: str
    vocab_size: int
    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    d_ff: int
    tied: bool
    rope_theta: float
    norm_eps: float
    seq_len: int
    batch_size: int
    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    clip_norm: float
    n_params: int
    flops_per_token: int

    @property
    def d_head(self) -> int:
        """Head size E."""
        return self.d_model // self.n_heads

    @property
    def n_tokens(self) -> int:
        """Positions that a step computes, B * T; one a window has no target."""
        return self.batch_size * self.seq_len

    def save(self, folder: Path) -> None:
        """Write ``work.json``."""
        (folder / "work.json").write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")


def load_work(folder: Path) -> Work:
    """What `Work.save` wrote."""
    fields: dict[str, Any] = json.loads((folder / "work.json").read_text(encoding="utf-8"))
    return Work(**{**fields, "betas": tuple(fields["betas"])})


def load_weights(folder: Path) -> dict[str, Tensor]:
    """The weights that all begin with, on the CPU."""
    return torch.load(folder / "weights.pt", weights_only=True)


class Batches:
    """The batches of the run by their number, again from the first one when they are through.

    Args:
        folder: with ``tokens.npy``.
        device: where they go.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.device = device
        self._tokens = np.load(folder / "tokens.npy", mmap_mode="r")

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Tokens and targets, each (B, T) int64."""
        tokens = torch.from_numpy(self._tokens[number % len(self._tokens)].astype(np.int64))
        targets = tokens.new_full(tokens.shape, IGNORED)
        targets[:, :-1] = tokens[:, 1:]
        if self.device.type != "cuda":
            return tokens, targets
        moved = (part.pin_memory().to(self.device, non_blocking=True) for part in (tokens, targets))
        return next(moved), next(moved)
