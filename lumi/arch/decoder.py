"""The decoder: embedding, blocks, final norm, output head.

Parameters are named as in Hugging Face's Llama (``model.layers.0.self_attn.q_proj.weight`` …), so that exports and adapters
need no translation.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lumi.arch.attention import Layout, attend, layout_documents, resolve_backend
from lumi.arch.config import DecoderConfig
from lumi.arch.layers import RMSNorm, RotaryTable, SwiGLU, rotate
from lumi.errors import DataError


class Attention(nn.Module):
    """Grouped-query self-attention with rotary positions."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        kv_width = config.n_kv_heads * config.d_head
        self.layer, self.d_head = layer, config.d_head
        self.q_proj = nn.Linear(config.d_model, config.d_model, bias=False)
        self.k_proj = nn.Linear(config.d_model, kv_width, bias=False)
        self.v_proj = nn.Linear(config.d_model, kv_width, bias=False)
        self.o_proj = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], layout: Layout, backend: str) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        q = self.q_proj(x).unflatten(-1, (-1, self.d_head))  # (B, T, H, E)
        k = self.k_proj(x).unflatten(-1, (-1, self.d_head))  # (B, T, K, E)
        v = self.v_proj(x).unflatten(-1, (-1, self.d_head))  # (B, T, K, E)
        q, k = rotate(q, *rotation), rotate(k, *rotation)
        return self.o_proj(attend(q, k, v, layout, backend).flatten(2))  # (B, T, D)


class Block(nn.Module):
    """Pre-norm block: attention, then feed-forward, each added to the residual stream."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.d_model, config.norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.d_model, config.norm_eps)
        self.mlp = SwiGLU(config)
        self.dropout = config.dropout

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], layout: Layout, backend: str) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = x + self._drop(self.self_attn(self.input_layernorm(x), rotation, layout, backend))
        return x + self._drop(self.mlp(self.post_attention_layernorm(x)))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


def _run(block: Block, x: Tensor, rotation: tuple[Tensor, Tensor], layout: Layout, backend: str) -> Tensor:
    """One block in training: a function, so that what is compiled once serves every block."""
    return block(x, rotation, layout, backend)


class Trunk(nn.Module):
    """Everything but the output head; a class of its own only so that names begin with ``model.``, as Llama's do."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.rotary = RotaryTable(config)


class Decoder(nn.Module):
    """A LLaMA decoder. The forward pass ends before the output head: training never needs all logits at once.

    Args:
        config: its shape; the weights are initialised from torch's global generator.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Trunk(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tied:
            self.lm_head.weight = self.model.embed_tokens.weight
        self._initialise()
        self._train_block: Callable[..., Tensor] = _run

    def compile_blocks(self) -> None:
        """Compile the blocks for training, by `torch.compile`; one graph serves all of them.

        Validation, scoring and generation run them as they are: each would bring graphs and shapes of its own to compile.
        """
        self._train_block = torch.compile(_run)

    @property
    def lm_weight(self) -> Tensor:
        """The output head's matrix (V, D); the input embedding itself when tied."""
        return self.lm_head.weight

    def forward(self, tokens: Tensor, doc_ids: Tensor | None = None, boundaries: Tensor | None = None) -> Tensor:
        """Tokens to the last hidden states, after the final norm.

        Args:
            tokens: (B, T) int64.
            doc_ids: (B, T) equal within a document; None when each row is one document.
            boundaries: `document_boundaries` of them, where they are known: it spares some kernels a wait.

        Returns:
            (B, T, D); `logits` or `lumi.arch.loss` turn them into predictions of token T + 1.

        Raises:
            DataError: the sequence is longer than the configuration allows.
        """
        if tokens.shape[1] > self.config.max_seq_len:
            raise DataError(
                f"a sequence of {tokens.shape[1]} tokens", f"arch.max_seq_len={self.config.max_seq_len} is the longest"
            )
        trunk = self.model
        x = trunk.embed_tokens(tokens)  # (B, T, D)
        x = F.dropout(x, self.config.dropout, self.training) if self.config.dropout else x
        layout, backend = self._layout(tokens, doc_ids, boundaries)
        rotation = trunk.rotary(layout.positions)
        trains = torch.is_grad_enabled()
        for block in trunk.layers:
            if trains and self.config.checkpoint_activations:
                x = checkpoint(self._train_block, block, x, rotation, layout, backend, use_reentrant=False)
            elif trains:
                x = self._train_block(block, x, rotation, layout, backend)
            else:
                x = block(x, rotation, layout, backend)
        return trunk.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, D) -> (…, V)."""
        return self.lm_head(hidden)

    def _layout(self, tokens: Tensor, doc_ids: Tensor | None, boundaries: Tensor | None) -> tuple[Layout, str]:
        dtype = self.model.embed_tokens.weight.dtype
        if torch.is_autocast_enabled(tokens.device.type):
            dtype = torch.get_autocast_dtype(tokens.device.type)
        backend = resolve_backend(self.config.attention, tokens.device, dtype, self.config.d_head)
        shape = (tokens.shape[0], tokens.shape[1])
        return layout_documents(doc_ids, shape, tokens.device, backend, boundaries), backend

    @torch.no_grad()
    def _initialise(self) -> None:
        std = self.config.init_std
        residual_std = std / math.sqrt(2 * self.config.n_layers)
        qk_std = self.config.init_qk_std or self.config.d_model**-0.5
        special = {"o_proj": residual_std, "down_proj": residual_std, "q_proj": qk_std, "k_proj": qk_std}
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=special.get(name.split(".")[-2], std))
