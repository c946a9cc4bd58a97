"""How Lightning is to run: device, precision, accumulation, intervals (``trainer=auto|cpu|ddp|fsdp``)."""

import ctypes
import dataclasses
import functools
import gc
import importlib.util
import logging
import shutil
import sys
from typing import Any, Literal

import torch

from lumi.arch.native.attention import has_matrix_units
from lumi.arch.native.build import COMPILERS
from lumi.errors import ConfigError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h

_WORTH_COMPILING = {"cpu": 3e13, "cuda": 1e16}
"""Operations of a run from which on compiling pays: some minutes of training."""

Precision = Literal["auto", "32-true", "bf16-mixed", "bf16-true", "16-mixed"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """The part of a run that depends on the machine.

    Attributes:
        accelerator: auto, cpu, cuda…, as Lightning names them.
        devices: on each node.
        num_nodes: machines.
        strategy: what several ranks do: ``ddp`` (and ``auto``) keeps the whole model on each, ``fsdp`` a part of it.
        precision: ``auto`` is bf16-mixed where there are matrix units for it, on GPUs (from Ampere) and on CPUs (AMX: products
            ten times as fast as float32's), 16-mixed on other GPUs, and float32 on other CPUs, where bf16 is slower.
        accumulate: micro-batches of an optimizer step.
        val_every_steps: optimizer steps between validations; null makes ten in a run.
        compile: torch.compile for the blocks. ``auto`` does it where a compiler is found and the run is long enough to win back
            the minute that it may take: a step has 0.8 to 0.95 of the time in float32 on a CPU, 0.65 to 0.8 in bfloat16, and
            0.65 to 0.75 on a GPU.
        threads: of the CPU; null leaves it to PyTorch. Results are equal bit for bit only with an equal number.
        deterministic: refuse kernels whose result depends on timing (a GPU has some).
        max_skipped_steps: so many steps whose loss or gradient is not finite are left out, counted and said; null ends the run
            at the first one.
    """

    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    precision: Precision = "auto"
    accumulate: int = 1
    val_every_steps: int | None = None
    compile: bool | Literal["auto"] = "auto"
    threads: int | None = None
    deterministic: bool = False
    max_skipped_steps: int | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError when a count is below 1."""
        for key in ("devices", "num_nodes", "accumulate", "val_every_steps", "threads", "max_skipped_steps"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ConfigError(f"trainer.{key}={value}", "must be at least 1")

    @property
    def world_size(self) -> int:
        """Ranks."""
        return self.devices * self.num_nodes

    def device(self) -> torch.device:
        """Where this process computes, before Lightning has set anything up."""
        use_cuda = self.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
        return torch.device("cuda" if use_cuda else "cpu")

    def resolved_precision(self) -> str:
        """``precision`` with ``auto`` decided."""
        if self.precision != "auto":
            return self.precision
        if self.device().type != "cuda":
            return "bf16-mixed" if has_matrix_units() and torch.backends.mkldnn.is_available() else "32-true"
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"

    def compiles(self, flops: float) -> bool:
        """``compile`` with ``auto`` decided, for a run of so many operations.

        Not by measured time: a run that is resumed must decide as it did at first, or its last bits would differ.
        """
        if self.compile != "auto":
            return self.compile
        if self.strategy == "fsdp":
            return False
        if self.device().type == "cuda":
            return flops > _WORTH_COMPILING["cuda"] and importlib.util.find_spec("triton") is not None
        return flops > _WORTH_COMPILING["cpu"] and any(map(shutil.which, COMPILERS))

    def prepare_process(self) -> None:
        """Settings of PyTorch, Lightning and the allocator that hold for the whole process."""
        for package in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric"):
            logging.getLogger(package).setLevel(logging.WARNING)  # importing it has set INFO: banners and tips
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        if self.device().type == "cpu":
            retain_memory()
        if self.device().type == "cuda":
            torch.set_float32_matmul_precision("high")

    def lightning_arguments(self) -> dict[str, Any]:
        """What `pytorch_lightning.Trainer` is given in every run.

        One Lightning epoch is the whole run and the sampler is ours: its own epochs and samplers resume wrongly.
        """
        return {
            "accelerator": self.accelerator,
            "devices": self.devices,
            "num_nodes": self.num_nodes,
            "precision": self.resolved_precision(),
            "accumulate_grad_batches": self.accumulate,
            "deterministic": self.deterministic or None,
            "max_epochs": -1,
            "check_val_every_n_epoch": None,
            "num_sanity_val_steps": 0,
            "use_distributed_sampler": False,
            "gradient_clip_val": 1.0,  # only so that the stage is asked; it clips by the recipe
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }


@functools.cache
def retain_memory() -> None:
    """Let glibc keep freed memory for the next step.

    By default it gives arrays above 32 MiB back to the system at once, and the next step pays for every page of them again:
    tens of thousands of page faults a step, 2 to 4 % of its time (docs/experiments.md). Nothing happens where the C library is
    another one.
    """
    _call_libc("mallopt", _M_MMAP_THRESHOLD, 2**30)
    _call_libc("mallopt", _M_TRIM_THRESHOLD, 2**31 - 1)


def release_memory() -> None:
    """Give back what is kept but free: what a measurement needed would lie between the arrays of training for ever."""
    gc.collect()
    _call_libc("malloc_trim", 0)


def _call_libc(name: str, *arguments: int) -> None:
    """Call a function of glibc's allocator, where it is there."""
    if sys.platform.startswith("linux") and (function := getattr(ctypes.CDLL(None), name, None)):
        function(*arguments)
