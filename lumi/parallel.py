"""Several ranks in Lightning's terms: whole models with summed gradients (``trainer=ddp``), or sharded ones (``trainer=fsdp``).

Checkpoints of both are those of one process: the first rank writes whole tensors. A sharded model is gathered for that. A file
a rank would save the gathering, and would need a format of its own, a tool to join it before anything else can read it, and
rules for another number of ranks; for models of up to a few billion parameters the gathering takes seconds and all of that is
spared.
"""

import contextlib
import warnings
from collections.abc import Generator, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import ClusterEnvironment  # pyright: ignore[reportPrivateImportUsage]
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from lumi.arch import Decoder
from lumi.ranks import Ranks


class Placed(ClusterEnvironment):
    """Tells Lightning what `lumi.ranks` found; the processes and their group are there already."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks

    @property
    def creates_processes_externally(self) -> bool:
        """Lightning starts none."""
        return True

    @property
    def main_address(self) -> str:
        """Of the first rank."""
        return self._ranks.main_address

    @property
    def main_port(self) -> int:
        """Of the first rank."""
        return self._ranks.main_port

    @staticmethod
    def detect() -> bool:
        """Never: it is passed in."""
        return False

    def world_size(self) -> int:
        """Ranks."""
        return self._ranks.world_size

    def set_world_size(self, size: int) -> None:
        """Known already."""

    def global_rank(self) -> int:
        """Of this process."""
        return self._ranks.rank

    def set_global_rank(self, rank: int) -> None:
        """Known already."""

    def local_rank(self) -> int:
        """On its machine."""
        return self._ranks.local_rank

    def node_rank(self) -> int:
        """Of its machine."""
        return self._ranks.node


def lightning_strategy(kind: str, ranks: Ranks) -> dict[str, Any]:
    """The arguments ``strategy`` and ``plugins`` of Lightning's trainer."""
    # Validation's sums are those of all ranks before they are logged.
    warnings.filterwarnings("ignore", message=r".*recommended to use .self\.log\(.*sync_dist=True.*")
    if kind == "fsdp":
        return {"strategy": Sharded(ranks.world_size), "plugins": [Placed(ranks)]}
    if ranks.world_size == 1:
        return {"strategy": "auto", "plugins": []}
    # Its successor is newer than the oldest PyTorch that we take.
    warnings.filterwarnings("ignore", message=".*broadcast_buffers. is deprecated.*")
    # No buffer of ours changes: sending them before every forward pass, validation's too, costs, and ranks that validate
    # different numbers of batches would wait for each other for ever.
    strategy = DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True)
    return {"strategy": strategy, "plugins": [Placed(ranks)]}


class Sharded(ModelParallelStrategy):
    """Weights, gradients and the optimizer's state in equal parts on all ranks (PyTorch's FSDP2), a block at a time.

    Args:
        n_ranks: all of them hold parts.
    """

    def __init__(self, n_ranks: int) -> None:
        super().__init__(data_parallel_size=n_ranks, tensor_parallel_size=1, save_distributed_checkpoint=False)

    def shard(self, decoder: Decoder) -> None:
        """Take the blocks apart, then what is left; once."""
        if isinstance(decoder, FSDPModule):
            return
        mesh = self.device_mesh["data_parallel"]
        decoder.to(self.root_device)
        for block in decoder.model.layers:
            fully_shard(block, mesh=mesh)
        # The loss reads the head after the forward pass, so what is not in a block stays whole until the backward one is done.
        fully_shard(decoder, mesh=mesh, reshard_after_forward=False)

    @contextlib.contextmanager
    def block_backward_sync(self) -> Generator[None, None, None]:
        """Gradients of all but the last micro-batch of a step stay where they are."""
        decoder = self._decoder()
        decoder.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            decoder.set_requires_gradient_sync(True)

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Parts are loaded into parts."""
        return True

    @property
    def lightning_restore_optimizer(self) -> bool:
        """By `load_optimizer_state_dict`."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole tensors, on the CPU of the first rank; every rank must ask."""
        self._decoder().reshard()
        assert self.lightning_module is not None
        return self._gathered(self.lightning_module.state_dict())

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """As the optimizer of one process has it."""
        return self._gathered(getattr(optimizer, "_optimizer", optimizer).state_dict())

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """By the first rank, in the format of one process."""
        if self.is_global_zero:
            self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options=storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Every rank reads all of it, and keeps its part."""
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Whole tensors into this rank's parts."""
        assert self.lightning_module is not None
        mine = self.lightning_module.state_dict()
        parts = {name: _part_of(value, mine[name]) for name, value in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(parts, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """The same for moments, which have the shape of their parameter; step counts are the same everywhere."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            parts = {
                number: {name: _part_of(value, parameters[number]) for name, value in values.items()}
                for number, values in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": parts})

    def _decoder(self) -> Any:
        assert self.lightning_module is not None
        return self.lightning_module.decoder

    def _gathered(self, tree: Any) -> Any:
        if isinstance(tree, dict):
            return {key: self._gathered(value) for key, value in tree.items()}
        if isinstance(tree, list):
            return [self._gathered(value) for value in tree]
        if isinstance(tree, DTensor):
            whole = DTensor.full_tensor(tree.detach())  # pyright: ignore[reportArgumentType]  # all ranks take part
            return whole.cpu() if self.is_global_zero else None
        return tree


def _part_of(value: Any, like: Tensor) -> Any:
    """This rank's part of a whole tensor, if ``like`` is in parts and it has that shape."""
    if isinstance(like, DTensor) and isinstance(value, Tensor) and value.shape == like.shape:
        # No communication: every rank has the whole and cuts its own part.
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
    return value


@contextlib.contextmanager
def whole_decoder(trainer: pl.Trainer, decoder: Decoder) -> Generator[Decoder | None, None, None]:
    """The model in one piece on the first rank, None on the others; every rank must ask."""
    if not isinstance(decoder, FSDPModule):
        yield decoder if trainer.is_global_zero else None
        return
    state = trainer.strategy.lightning_module_state_dict()
    if not trainer.is_global_zero:
        yield None
        return
    device = next(decoder.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        copy = Decoder(decoder.config).to(device)
    prefix = "decoder."
    copy.load_state_dict({n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)})
    yield copy.train(decoder.training)
