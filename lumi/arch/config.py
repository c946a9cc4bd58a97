"""The shape of a decoder, checked when it is made, with its exact cost."""

import dataclasses
import math
from typing import Literal, get_args

from lumi.errors import ConfigError, join_violations

AttentionBackend = Literal["auto", "flash", "varlen", "native", "sdpa", "reference"]
RopeScaling = Literal["linear", "llama3"]
_MOST_LISTED = 128
"""Numbers of heads that a message tries: a stranger's file may name a billion."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """A LLaMA decoder: RMSNorm, SwiGLU, rotary positions, grouped-query attention, no biases.

    Attributes:
        vocab_size: pieces of the tokenizer; taken from it, so it is rarely typed.
        n_layers: blocks.
        d_model: width of the residual stream.
        n_heads: query heads; ``d_model`` must be a multiple of it, with an even head size for the rotation.
        n_kv_heads: key/value heads, each shared by ``n_heads / n_kv_heads`` query heads (arXiv:2305.13245).
        d_ff: width of the SwiGLU feed-forward part (arXiv:2002.05202).
        max_seq_len: longest sequence in tokens, in training and in generation.
        tied: input embedding and output head share one matrix; saves ``vocab_size * d_model`` parameters.
        rope_theta: base of the rotary frequencies (arXiv:2104.09864); larger for longer sequences.
        rope_scaling: stretch the rotation to sequences longer than it was trained on: ``linear`` (arXiv:2306.15595),
            ``llama3`` (only the slow frequencies), or null.
        rope_factor: how many times longer, when ``rope_scaling`` is on.
        rope_original_len: sequence length before the stretch, for ``llama3``.
        norm_eps: added to the mean square in RMSNorm.
        dropout: probability on the embedding and on both branches of each block. The attention weights have none: that
            would cost PyTorch's fast kernels (2.6 times slower attention) for little gain at these sizes.
        init_std: standard deviation of the initial weights; those that write to the residual stream are divided by
            ``sqrt(2 * n_layers)`` so that its variance does not grow with depth (GPT-2).
        init_qk_std: the same of query and key projections; null is ``1 / sqrt(d_model)``, with which scores begin with unit
            variance. With 0.02 the attention of a narrow model begins flat and learns later (docs/experiments.md).
        attention: which kernels; ``auto`` takes flash-attn if installed, else PyTorch's own best for device and dtype.
        checkpoint_activations: recompute each block in the backward pass: a third more time, a fraction of the memory.
    """

    vocab_size: int
    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    d_ff: int
    max_seq_len: int
    tied: bool = False
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    rope_factor: float = 1.0
    rope_original_len: int | None = None
    norm_eps: float = 1e-5
    dropout: float = 0.0
    init_std: float = 0.02
    init_qk_std: float | None = None
    attention: AttentionBackend = "auto"
    checkpoint_activations: bool = False

    def __post_init__(self) -> None:
        """Check every rule at once.

        Raises:
            ConfigError: naming each value that breaks a rule, with one that would not.
        """
        violations = [
            ConfigError(f"arch.{name}={value}", "must be a whole number of at least 1")
            for name in ("vocab_size", "n_layers", "d_model", "n_heads", "n_kv_heads", "d_ff", "max_seq_len")
            if not isinstance(value := getattr(self, name), int) or value < 1
        ]
        violations += self._head_violations() if not violations else []
        if not 0.0 <= self.dropout < 1.0:
            violations.append(ConfigError(f"arch.dropout={self.dropout}", "must be in [0, 1)"))
        violations += [
            ConfigError(f"arch.{name}={getattr(self, name)}", "must be above 0")
            for name in ("rope_theta", "rope_factor", "norm_eps", "init_std")
            if not 0 < getattr(self, name) < math.inf
        ]
        if self.init_qk_std is not None and self.init_qk_std <= 0:
            violations.append(ConfigError(f"arch.init_qk_std={self.init_qk_std}", "must be above 0, or null"))
        for name, options in (
            ("rope_scaling", (None, *get_args(RopeScaling))),
            ("attention", get_args(AttentionBackend)),
        ):
            if getattr(self, name) not in options:
                violations.append(ConfigError(f"arch.{name}={getattr(self, name)}", f"must be one of {options}"))
        if self.rope_scaling == "llama3" and self.rope_original_len is None:
            violations.append(
                ConfigError(
                    "arch.rope_scaling=llama3", "needs arch.rope_original_len", "give the length before the stretch"
                )
            )
        if violations:
            raise join_violations(violations)

    def _head_violations(self) -> list[ConfigError]:
        violations = []
        step = 2 * self.n_heads  # an even head size
        if self.d_model % step:
            below, above = self.d_model // step * step, (self.d_model // step + 1) * step
            violations.append(
                ConfigError(
                    f"arch.d_model={self.d_model}",
                    f"must be a multiple of 2 x arch.n_heads={self.n_heads}, so that each head has an even size",
                    f"try {f'{below} or ' if below else ''}{above}",
                )
            )
        if self.n_heads % self.n_kv_heads:
            fits = [k for k in range(1, min(self.n_heads, _MOST_LISTED) + 1) if self.n_heads % k == 0]
            violations.append(
                ConfigError(
                    f"arch.n_kv_heads={self.n_kv_heads}",
                    f"must divide arch.n_heads={self.n_heads}",
                    f"try one of {fits}",
                )
            )
        return violations

    @property
    def d_head(self) -> int:
        """Head size E."""
        return self.d_model // self.n_heads

    def n_params(self, *, embedding: bool = True) -> int:
        """Parameters, a tied matrix counted once.

        Args:
            embedding: also the input embedding and the output head; without them the "non-embedding parameters" of
                scaling laws (arXiv:2001.08361).
        """
        attention = 2 * self.d_model**2 + 2 * self.d_model * self.n_kv_heads * self.d_head
        block = attention + 3 * self.d_model * self.d_ff + 2 * self.d_model
        vocabulary = self.vocab_size * self.d_model * (1 if self.tied else 2)
        return self.n_layers * block + self.d_model + (vocabulary if embedding else 0)

    def flops_per_token(self, seq_len: int | None = None) -> int:
        """Floating point operations per token of one training step (forward and backward, a multiply-add is two).

        Six per weight that multiplies (the head does, the embedding look-up does not), plus the attention scores and
        their weighted sum: 12 * layers * width * context, halved because a causal query sees half of it on average
        (PaLM, arXiv:2204.02311, appendix B, counts the full square).
        """
        seq_len = self.max_seq_len if seq_len is None else seq_len
        norms = (2 * self.n_layers + 1) * self.d_model
        matrices = self.n_params(embedding=False) - norms + self.vocab_size * self.d_model
        return 6 * matrices + 6 * self.n_layers * self.d_model * seq_len
