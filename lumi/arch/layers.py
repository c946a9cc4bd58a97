"""The small parts of a block: RMSNorm, rotary positions, SwiGLU."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lumi.arch.config import DecoderConfig


class RMSNorm(nn.Module):
    """Root mean square normalisation (arXiv:1910.07467), computed in float32 whatever the activations are."""

    def __init__(self, d_model: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D), same dtype."""
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).type_as(x)


class SwiGLU(nn.Module):
    """Feed-forward part: ``down(silu(gate(x)) * up(x))`` (arXiv:2002.05202)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.up_proj = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.down_proj = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class RotaryTable(nn.Module):
    """Cosines and sines for every position, made once (arXiv:2104.09864).

    Halves are rotated against each other, as in Hugging Face's Llama (the original interleaves even and odd features;
    the two differ by a permutation of q_proj and k_proj rows).
    """

    cos: Tensor  # (max_seq_len, E) float32
    sin: Tensor

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        angles = torch.outer(torch.arange(config.max_seq_len, dtype=torch.float32), rotary_frequencies(config))
        angles = torch.cat((angles, angles), dim=-1)  # (max_seq_len, E)
        # Derived from the configuration, hence not part of the weights.
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Positions (B, T) int64 -> cosines and sines, each (B, T, 1, E) float32."""
        return self.cos[positions].unsqueeze(2), self.sin[positions].unsqueeze(2)


def rotary_frequencies(config: DecoderConfig) -> Tensor:
    """Radians per position, fastest first: (E / 2,) float32."""
    exponents = torch.arange(0, config.d_head, 2, dtype=torch.float32) / config.d_head
    frequencies = config.rope_theta**-exponents
    if config.rope_scaling is None:
        return frequencies
    slow = frequencies / config.rope_factor
    if config.rope_scaling == "linear":
        return slow
    # Llama 3.1: keep what turns at least 4 times within the original length, stretch what turns less than once, and
    # blend in between.
    assert config.rope_original_len is not None, "checked by DecoderConfig"
    turns = config.rope_original_len * frequencies / (2 * math.pi)
    share_kept = ((turns - 1.0) / (4.0 - 1.0)).clamp(0.0, 1.0)
    return share_kept * frequencies + (1.0 - share_kept) * slow


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the features of each head by its position: (B, T, heads, E) -> same shape and dtype."""
    first, second = x.chunk(2, dim=-1)  # (B, T, heads, E / 2) each
    turned = torch.cat((-second, first), dim=-1)
    return (x * cos + turned * sin).type_as(x)
