"""Lumi as a contestant: its real training loop, as ``train.py`` runs it, held at a gate between two steps.

``python -m benchmarks.training.lumi_loop … -- arch=tiny …`` calls `lumi.run.train` with a config that Hydra composes, all
default callbacks, logging and clipping on. The gate is one more callback at the end of a step, so that a turn is whole steps:
fetching the batch, every hook, writing metrics. With ``--write FOLDER`` it trains nothing, but writes what the others need to
do the same work, see `benchmarks.training.work`.
"""

import argparse
import functools
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as lumi.cli does

import numpy as np
import pytorch_lightning as pl
import torch

import lumi.run
from benchmarks.training.options import composed
from benchmarks.training.work import Work
from benchmarks.training.worker import Channel, imported, peaks, wait
from lumi.arch import DecoderConfig
from lumi.cli import start_logging


class Stopped(Exception):
    """Ends a fit from inside."""


class Gate(pl.Callback):
    """Lets the loop go on for so many steps as the driver says, and reports.

    Args:
        channel: to the driver.
        warmup: optimizer steps before the first turn.
        supervised: count supervised tokens as the amount of work; else every position of a window.
    """

    def __init__(self, channel: Channel, warmup: int, supervised: bool) -> None:
        self.channel, self.warmup, self.supervised = channel, warmup, supervised
        self.facts: dict[str, Any] = {}
        self.clock: StageClock | None = None
        self._left, self._amount, self._idle = warmup, 0, 0.0
        self._begin = self._last_step = time.perf_counter()
        self._is_warm = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Time the stage's own work."""
        self.clock = StageClock(pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count the step; after the last one of a turn, wait for the next."""
        self._amount += int(batch["loss_mask"].sum()) if self.supervised else batch["tokens"].numel()
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        self._left -= 1
        if self._left == 1 and not self._is_warm:
            wait(pl_module.device)
            self._last_step = time.perf_counter()
        if self._left > 0:
            return
        wait(pl_module.device)
        now = time.perf_counter()
        if self._is_warm:
            loss = pl_module.step_metrics["train/loss"]
            assert self.clock is not None, "made when training began"
            done = {"seconds": now - self._begin, "loss": loss, "amount": self._amount, "idle_cpu_seconds": self._idle}
            self.channel.say("done", **done, stage_seconds=self.clock.seconds)
        else:
            self._is_warm = True
            facts = {"n_params": sum(p.numel() for p in pl_module.decoder.parameters()), **self.facts}
            facts["compiled"] = has_compiled()
            self.channel.say(
                "ready", warmup_seconds=self._last_step - self._begin, step_seconds=now - self._last_step, **facts
            )
        n, self._idle = self.channel.next_turn()
        if n is None:
            self.channel.say("stopped", **peaks(pl_module.device))
            raise Stopped
        if self.clock is not None:
            self.clock.seconds = 0.0
        self._left, self._amount, self._begin = n, 0, time.perf_counter()


class StageClock:
    """Seconds that a loop spends in what a bare loop does as well: loss, backward pass, clipping, the optimizer's own step.

    Args:
        stage: whose methods are timed; for a CPU, where a call ends when its work does.
    """

    def __init__(self, stage: Any) -> None:
        self.seconds, self._clipped = 0.0, 0.0
        for name in ("training_step", "backward", "configure_gradient_clipping"):
            setattr(stage, name, self._timed(getattr(stage, name)))
        optimizer_step = stage.optimizer_step

        @functools.wraps(optimizer_step)
        def timed(*args: Any, **kwargs: Any) -> None:
            optimizer_step(*args, **kwargs)
            self.seconds += time.perf_counter() - self._clipped  # the loss and the rest are inside of it

        stage.optimizer_step = timed

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def timed(*args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                self._clipped = time.perf_counter()
                self.seconds += self._clipped - begin

        return timed


class CallbackOnStart(pl.Callback):
    """Does something else where a run would begin to train: everything is built then.

    Args:
        instead: is given the trainer and the stage; it ends with `Stopped`.
    """

    def __init__(self, instead: Callable[[Any, Any], None]) -> None:
        self.instead = instead

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over."""
        self.instead(trainer, pl_module)


def has_compiled() -> bool:
    """Whether `torch.compile` has made a graph in this process."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return dynamo is not None and dynamo.counters["stats"]["unique_graphs"] > 0


def write_work(trainer: Any, stage: Any, folder: Path, arch: str, n_batches: int) -> None:
    """Write the work of a run instead of doing it."""
    data = trainer.datamodule
    dataset = data.train_dataloader().dataset
    tokens = [dataset[number]["tokens"].numpy() for number in range(n_batches)]
    np.save(folder / "tokens.npy", np.stack(tokens).astype(np.int32))
    state = {name: value.detach().clone().cpu() for name, value in stage.decoder.state_dict().items()}
    torch.save(state, folder / "weights.pt")
    optimizer = {name: getattr(stage.recipe, name) for name in ("lr", "betas", "eps", "weight_decay", "clip_norm")}
    work_of(arch, stage.decoder.config, data, optimizer).save(folder)
    raise Stopped


def work_of(arch: str, config: DecoderConfig, data: Any, optimizer: dict[str, Any]) -> Work:
    """The work of a run: its shape, its batches, and the settings of AdamW."""
    shape = ("vocab_size", "n_layers", "d_model", "n_heads", "n_kv_heads", "d_ff", "tied", "rope_theta", "norm_eps")
    return Work(
        arch=arch,
        seq_len=data.seq_len,
        batch_size=data.batch_size,
        n_params=config.n_params(),
        flops_per_token=config.flops_per_token(data.seq_len),
        **{name: getattr(config, name) for name in shape},
        **optimizer,
    )


def train_with(callback: pl.Callback, overrides: list[str]) -> None:
    """`lumi.run.train` with one more callback; only in this process does the trainer know of it."""
    initialise = pl.Trainer.__init__

    @functools.wraps(initialise)
    def with_callback(self: pl.Trainer, *args: Any, callbacks: Any = (), **kwargs: Any) -> None:
        initialise(self, *args, callbacks=[*callbacks, callback], **kwargs)

    pl.Trainer.__init__ = with_callback
    config = composed(overrides)
    try:
        lumi.run.train(config)
    except Stopped:
        return
    raise RuntimeError("the run ended by itself, before it was told to")


def begin(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, Channel, dict[str, Any]]:
    """What every worker that runs Lumi is told, its channel, and what it is before it has built anything.

    Args:
        parser: with what this one is told besides.
    """
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--supervised", action="store_true")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    channel = Channel()
    start_logging()
    return options, channel, imported()


def main() -> None:
    """A worker, or the writer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--arch", default="")
    parser.add_argument("--batches", type=int, default=0)
    options, channel, facts = begin(parser)
    if options.write:
        logging.getLogger("lumi").setLevel(logging.WARNING)
        write = functools.partial(write_work, folder=options.write, arch=options.arch, n_batches=options.batches)
        train_with(CallbackOnStart(write), options.overrides)
        return
    gate = Gate(channel, options.warmup, options.supervised)
    gate.facts = facts
    train_with(gate, options.overrides)


if __name__ == "__main__":
    main()
