"""The contestants that are not Lumi: other models in a plain loop.

``python -m benchmarks.training.peers transformers --compiled …`` is one of them, as a worker. Each has the settings that its
own documentation or training script has for this: no dropout, PyTorch's fused attention and fused AdamW, no cache, the whole
model compiled. Nothing of Lumi is imported here.
"""

import argparse
import importlib
import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.training.plain import PlainGPT
from benchmarks.training.work import Batches, Work, load_weights, load_work
from benchmarks.training.worker import Channel, imported, serve

Loss = Callable[[Tensor, Tensor], Tensor]
"""Tokens and targets, each (B, T), to the mean loss in nats."""

_READ_LOSS_STEPS = 10
"""The loss is read back so often, as nanoGPT's log_interval has it; each time stops the queue of a GPU."""


def build_plain(work: Work, weights: dict[str, Tensor], compiled: bool) -> tuple[nn.Module, Loss]:
    """Our own plain GPT."""
    model = PlainGPT(work)
    model.load_state_dict(weights)
    return model, torch.compile(model) if compiled else model


def build_transformers(work: Work, weights: dict[str, Tensor], compiled: bool) -> tuple[nn.Module, Loss]:
    """`LlamaForCausalLM`; it makes the loss itself, and shifts the labels itself."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=work.vocab_size,
        hidden_size=work.d_model,
        intermediate_size=work.d_ff,
        num_hidden_layers=work.n_layers,
        num_attention_heads=work.n_heads,
        num_key_value_heads=work.n_kv_heads,
        max_position_embeddings=work.seq_len,
        rms_norm_eps=work.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": work.rope_theta},
        tie_word_embeddings=work.tied,
        attention_dropout=0.0,
        attn_implementation="sdpa",
        use_cache=False,
    )
    model = LlamaForCausalLM(config)
    model.load_state_dict(weights)
    run = torch.compile(model) if compiled else model
    return model, lambda tokens, targets: run(input_ids=tokens, labels=tokens, use_cache=False).loss


def build_litgpt(work: Work, weights: dict[str, Tensor], compiled: bool) -> tuple[nn.Module, Loss]:
    """litgpt's `GPT` as a Llama, with the loss of its pretraining script."""
    from litgpt.model import GPT, Config
    from litgpt.utils import chunked_cross_entropy

    config = Config(
        block_size=work.seq_len,
        vocab_size=work.vocab_size,
        padded_vocab_size=work.vocab_size,
        n_layer=work.n_layers,
        n_embd=work.d_model,
        n_head=work.n_heads,
        n_query_groups=work.n_kv_heads,
        intermediate_size=work.d_ff,
        rope_base=int(work.rope_theta),
        rotary_percentage=1.0,
        norm_class_name="RMSNorm",
        norm_eps=work.norm_eps,
        mlp_class_name="LLaMAMLP",
        parallel_residual=False,
        bias=False,
    )
    model = GPT(config)
    if work.tied:
        model.transformer.wte.weight = model.lm_head.weight
    model.load_state_dict(litgpt_weights(work, weights))
    run = torch.compile(model) if compiled else model
    return model, lambda tokens, targets: chunked_cross_entropy(run(tokens), targets)


def litgpt_weights(work: Work, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights by litgpt's names; queries, keys and values are one matrix there."""
    renamed = {
        "lm_head.weight": weights["lm_head.weight"],
        "transformer.wte.weight": weights["model.embed_tokens.weight"],
        "transformer.ln_f.weight": weights["model.norm.weight"],
    }
    names = {
        "norm_1": "input_layernorm",
        "norm_2": "post_attention_layernorm",
        "attn.proj": "self_attn.o_proj",
        "mlp.fc_1": "mlp.gate_proj",
        "mlp.fc_2": "mlp.up_proj",
        "mlp.proj": "mlp.down_proj",
    }
    for layer in range(work.n_layers):
        theirs, ours = f"transformer.h.{layer}", f"model.layers.{layer}"
        renamed |= {f"{theirs}.{new}.weight": weights[f"{ours}.{old}.weight"] for new, old in names.items()}
        parts = [weights[f"{ours}.self_attn.{name}_proj.weight"] for name in "qkv"]
        renamed[f"{theirs}.attn.qkv.weight"] = torch.cat(parts)
    return renamed


PEERS = {"plain": build_plain, "transformers": build_transformers, "litgpt": build_litgpt}
_MODULES = {"transformers": "transformers.models.llama.modeling_llama", "litgpt": "litgpt.model"}


class PlainLoop:
    """Batch, loss, backward, clip, step: nothing else.

    Args:
        model: whose parameters are trained.
        loss: of tokens and targets.
        work: optimizer and batch.
        batches: by number.
        device: of the model.
        half: bf16 autocast.
    """

    def __init__(
        self, model: nn.Module, loss: Loss, work: Work, batches: Batches, device: torch.device, *, half: bool
    ) -> None:
        self.model, self.loss, self.work, self.batches, self.device = model, loss, work, batches, device
        self.half = half
        self.parameters = list(model.parameters())
        self.optimizer = adamw(model, work)
        self.step = 0

    def take(self, n: int) -> dict[str, Any]:
        """``n`` optimizer steps."""
        value = 0.0
        for number in range(n):
            tokens, targets = self.batches[self.step]
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
                loss = self.loss(tokens, targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, self.work.clip_norm)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.step += 1
            if self.step % _READ_LOSS_STEPS == 0 or number == n - 1:
                value = loss.item()
        return {"loss": value, "amount": n * self.work.n_tokens}


def adamw(model: nn.Module, work: Work) -> torch.optim.Optimizer:
    """Fused AdamW; as in Lumi, norms and embeddings have no decay."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    decayed = [p for p in model.parameters() if p.dim() >= 2 and id(p) not in embeddings]
    plain = [p for p in model.parameters() if p.dim() < 2 or id(p) in embeddings]
    groups = [{"params": decayed, "weight_decay": work.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=work.lr, betas=work.betas, eps=work.eps, fused=True)


def main() -> None:
    """A worker."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=list(PEERS))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--half", action="store_true")
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--compiled", action="store_true")
    options = parser.parse_args()
    channel = Channel()
    if options.peer in _MODULES:
        importlib.import_module(_MODULES[options.peer])
    facts = imported()
    if options.peer in _MODULES:
        facts["version"] = importlib.metadata.version(options.peer)
    device, work = torch.device(options.device), load_work(options.work)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    model, loss = PEERS[options.peer](work, load_weights(options.work), options.compiled)
    model.to(device).train()
    facts["n_params"] = sum(parameter.numel() for parameter in model.parameters())
    loop = PlainLoop(model, loss, work, Batches(options.work, device), device, half=options.half)
    serve(channel, loop.take, device=device, warmup=options.warmup, facts=facts)


if __name__ == "__main__":
    main()
