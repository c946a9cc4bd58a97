"""The plain loop that time to quality is measured against: a GPT in nanoGPT's manner, AdamW, cosine, on the same windows.

``python -m benchmarks.training.baseline OUT.json --tokens 1.5e6 --lr 2e-3 --seed 0 -- corpus=… arch=nano …``

It reads the windows of Lumi's packed data in Lumi's order, the simplest way: a window is one sequence, whatever documents lie
in it, and every token is a target. Its score is over the same targets of the same validation windows as Lumi's loss: tokens
that have a predecessor in their document. Training time leaves out scoring, as Lumi's ``perf/seconds`` does.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor, nn

from benchmarks.training.lumi_loop import work_of
from benchmarks.training.options import composed
from benchmarks.training.plain import PlainGPT
from benchmarks.training.work import IGNORED
from lumi.arch import DecoderConfig
from lumi.config import build, resolve
from lumi.data import PackedData, RunLength
from lumi.optim import Cosine
from lumi.settings import data_arguments

SCHEDULE = Cosine(warmup_ratio=0.02, min_ratio=0.1)
"""nanoGPT's."""


def open_data(overrides: list[str]) -> tuple[PackedData, DecoderConfig]:
    """The data and the shape that a run of Lumi with these overrides has."""
    settings = resolve(composed(overrides))
    data: PackedData = build(settings["data"], "data", **data_arguments(settings))
    data.prepare_data()
    data.setup()
    return data, build(settings["arch"], "arch", vocab_size=data.tokenizer.vocab_size)


def initialise(model: nn.Module, n_layers: int) -> None:
    """GPT-2's way: 0.02 everywhere, less where the residual stream is written."""
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            writes = name.endswith(("o_proj.weight", "down_proj.weight"))
            nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * n_layers) if writes else 0.02)


def targets_of(batch: Any, *, everywhere: bool) -> Tensor:
    """(B, T) next tokens; ``IGNORED`` where there is none, or none in the same document."""
    targets = torch.full_like(batch["tokens"], IGNORED)
    counted = torch.ones_like(batch["loss_mask"][:, 1:]) if everywhere else batch["loss_mask"][:, 1:]
    targets[:, :-1] = batch["tokens"][:, 1:].masked_fill(~counted, IGNORED)
    return targets


@torch.no_grad()
def score(model: nn.Module, batches: Any) -> float:
    """Mean negative log-likelihood in nats over the targets of all validation windows."""
    total, count = 0.0, 0
    for batch in batches:
        targets = targets_of(batch, everywhere=False)
        n = int((targets != IGNORED).sum())
        total += float(model(batch["tokens"], targets)) * n
        count += n
    return total / count


def train(out: Path, tokens: float, lr: float, seed: int, overrides: list[str]) -> None:
    """Train, and write the curve: steps, tokens, seconds of training, validation loss."""
    data, config = open_data([*overrides, f"seed={seed}"])
    total_steps = math.ceil(tokens / (data.batch_size * (data.seq_len - 1)))
    data.length = RunLength(total_steps=total_steps, accumulate=1)
    torch.manual_seed(seed)
    optimizer_settings = {"lr": lr, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1, "clip_norm": 1.0}
    work = work_of("", config, data, optimizer_settings)
    model = PlainGPT(work)
    initialise(model, config.n_layers)
    groups = [
        {
            "params": [p for p in model.parameters() if (p.dim() >= 2) == decays],
            "weight_decay": work.weight_decay * decays,
        }
        for decays in (True, False)
    ]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=work.betas, eps=work.eps, fused=True)
    curve, seconds, begin = [], 0.0, time.perf_counter()
    for step, batch in enumerate(data.train_dataloader()):
        for group in optimizer.param_groups:
            group["lr"] = lr * SCHEDULE.factor(step, total_steps)
        model(batch["tokens"], targets_of(batch, everywhere=True)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), work.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % max(1, total_steps // 10) == 0 or step + 1 == total_steps:
            seconds += time.perf_counter() - begin
            loss = score(model, data.val_dataloader())
            done = (step + 1) * data.batch_size * (data.seq_len - 1)
            curve.append({"step": step + 1, "tokens": done, "seconds": seconds, "val/loss": loss})
            out.write_text(json.dumps({"lr": lr, "seed": seed, "n_params": config.n_params(), "curve": curve}))
            begin = time.perf_counter()


def main() -> None:
    """One run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokens", type=float, required=True)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_intermixed_args()
    torch.set_num_threads(options.threads)
    train(options.out, options.tokens, options.lr, options.seed, options.overrides)


if __name__ == "__main__":
    main()
