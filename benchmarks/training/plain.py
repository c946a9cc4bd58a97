"""A Llama as one writes it in an afternoon, in the manner of nanoGPT: what a framework must not be slower than.

One file, PyTorch's own parts, full logits, `scaled_dot_product_attention`. Parameters are named as in Hugging Face's Llama. It
has no options: no dropout, no documents within a window, no cache.

``B`` batch · ``T`` tokens · ``D`` model width · ``H`` query heads · ``K`` key heads · ``E`` head size · ``V`` vocabulary
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.training.work import IGNORED, Work


class Attention(nn.Module):
    """Causal self-attention with rotary positions."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.d_head, self.grouped = work.d_head, work.n_heads != work.n_kv_heads
        kv_width = work.n_kv_heads * work.d_head
        self.q_proj = nn.Linear(work.d_model, work.d_model, bias=False)
        self.k_proj = nn.Linear(work.d_model, kv_width, bias=False)
        self.v_proj = nn.Linear(work.d_model, kv_width, bias=False)
        self.o_proj = nn.Linear(work.d_model, work.d_model, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        q, k, v = (
            projection(x).unflatten(-1, (-1, self.d_head)).transpose(1, 2)  # (B, heads, T, E)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.grouped)
        return self.o_proj(out.transpose(1, 2).flatten(2))  # (B, T, D)


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(work.d_model, work.d_ff, bias=False)
        self.up_proj = nn.Linear(work.d_model, work.d_ff, bias=False)
        self.down_proj = nn.Linear(work.d_ff, work.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """Attention, then feed-forward, each after a norm and added to the residual stream."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(work.d_model, work.norm_eps)
        self.self_attn = Attention(work)
        self.post_attention_layernorm = nn.RMSNorm(work.d_model, work.norm_eps)
        self.mlp = FeedForward(work)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Trunk(nn.Module):
    """All but the head, so that names begin with ``model.``."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(work.vocab_size, work.d_model)
        self.layers = nn.ModuleList(Block(work) for _ in range(work.n_layers))
        self.norm = nn.RMSNorm(work.d_model, work.norm_eps)


class PlainGPT(nn.Module):
    """Tokens and targets to the mean loss."""

    cos: Tensor  # (T, E) float32
    sin: Tensor

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.model = Trunk(work)
        self.lm_head = nn.Linear(work.d_model, work.vocab_size, bias=False)
        if work.tied:
            self.lm_head.weight = self.model.embed_tokens.weight
        exponents = torch.arange(0, work.d_head, 2, dtype=torch.float32) / work.d_head
        angles = torch.outer(torch.arange(work.seq_len, dtype=torch.float32), work.rope_theta**-exponents)
        angles = torch.cat((angles, angles), dim=-1)  # (T, E)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """(B, T) and (B, T) -> scalar, in nats."""
        x = self.model.embed_tokens(tokens)  # (B, T, D)
        cos, sin = self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]]
        for block in self.model.layers:
            x = block(x, cos, sin)
        logits = self.lm_head(self.model.norm(x))  # (B, T, V)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Halves of each head against each other: (B, heads, T, E) -> the same."""
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-second, first), dim=-1) * sin).type_as(x)
