"""The processes of one run: which of them this is, and what they must agree on.

A run of several ranks is several processes with the same code and the same settings. Files are written by the first one only,
and whatever is decided from files (where to continue, what has to be prepared) is decided by it and told to the others. Where
the processes come from (this machine's own launcher, torchrun, srun) is read from the environment here and nowhere else.
"""

import contextlib
import dataclasses
import datetime as dt
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed import HashStore  # pyright: ignore[reportPrivateImportUsage]

from lumi.errors import ConfigError, LumiError, RankError

log = logging.getLogger(__name__)

T = TypeVar("T")

_PREPARATION = dt.timedelta(days=7)
"""How long ranks wait for the first one to prepare data: the end of a process is noticed at once all the same."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among those of the run.

    Attributes:
        rank: of this process, over all machines.
        local_rank: on its machine; its device's number.
        world_size: processes of the run.
        node: of its machine.
        main_address, main_port: where the first rank listens.
    """

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    node: int = 0
    main_address: str = "127.0.0.1"
    main_port: int = 0
    _waiting: Any = None  # a process group whose members may wait for long

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def first_does(self, action: Callable[[], T]) -> T:
        """Do something on the first rank; every rank gets its result, or its error."""
        if self.world_size == 1:
            return action()
        told: list[Any] = [None, None]
        if self.is_first:
            try:
                told[0] = action()
            except LumiError as error:
                told[1] = error
        # Pickle, but between processes of this run only: nothing of it comes from a file.
        dist.broadcast_object_list(told, src=0, group=self._waiting)
        if told[1] is not None:
            raise told[1]
        return told[0]


def placed(environment: Mapping[str, str]) -> Ranks | None:
    """What torchrun or srun say of this process; None when it was started alone."""
    env = environment
    if "RANK" in env and "WORLD_SIZE" in env:
        return Ranks(
            rank=int(env["RANK"]),
            local_rank=int(env.get("LOCAL_RANK", 0)),
            world_size=int(env["WORLD_SIZE"]),
            node=int(env.get("GROUP_RANK", 0)),
            main_address=env.get("MASTER_ADDR", "127.0.0.1"),
            main_port=int(env.get("MASTER_PORT", 0)),
        )
    if int(env.get("SLURM_STEP_NUM_TASKS", 0)) > 1:  # set by srun, not in the batch script that calls it
        job = int(env["SLURM_JOB_ID"])
        return Ranks(
            rank=int(env["SLURM_PROCID"]),
            local_rank=int(env["SLURM_LOCALID"]),
            world_size=int(env["SLURM_STEP_NUM_TASKS"]),
            node=int(env["SLURM_NODEID"]),
            main_address=env.get("MASTER_ADDR") or first_host(env["SLURM_STEP_NODELIST"]),
            main_port=int(env.get("MASTER_PORT", 15_000 + job % 10_000)),  # the same for all, another for other jobs
        )
    return None


def first_host(nodes: str) -> str:
    """The first of SLURM's list of machines: ``gpu[03-05,9],cpu1`` gives ``gpu03``."""
    match = re.match(r"([^,\[]+)(?:\[(\w+))?", nodes)
    assert match is not None, f"a list of machines: {nodes!r}"
    return match[1] + (match[2] or "")


def starts_alone(world_size: int, num_nodes: int) -> bool:
    """Whether this process has to start the ranks itself.

    Raises:
        ConfigError: other processes were started than the settings say.
    """
    here = placed(os.environ)
    if here is not None and here.world_size != world_size:
        raise ConfigError(
            f"trainer.devices x trainer.num_nodes={world_size}",
            f"must be the {here.world_size} processes that were started",
            "set trainer.devices to the processes on each machine, trainer.num_nodes to the machines",
        )
    if here is None and num_nodes > 1:
        raise ConfigError(
            f"trainer.num_nodes={num_nodes}", "needs a process on every machine", "start it by torchrun or srun"
        )
    return here is None and world_size > 1


@contextlib.contextmanager
def joined(device: torch.device, *, group_of_one: bool = False) -> Iterator[Ranks]:
    """Be one of the ranks while the block runs.

    Args:
        device: where this run computes.
        group_of_one: make a process group for a single process too (sharding needs one).

    Raises:
        RankError: another rank has ended.
    """
    here = placed(os.environ) or Ranks()
    if here.world_size == 1 and not group_of_one:
        yield here
        return
    if device.type == "cuda":
        torch.cuda.set_device(here.local_rank)
    if not here.is_first:
        logging.getLogger("lumi").setLevel(logging.ERROR)  # the first rank says it
    _start_group(here, device)
    try:
        yield dataclasses.replace(here, _waiting=dist.new_group(backend="gloo", timeout=_PREPARATION))
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise RankError(
            f"rank {here.rank} lost another rank ({str(error).splitlines()[0].rpartition('] ')[2][:80]})",
            "a run goes on with all of its ranks or not at all",
            "the last checkpoint is whole: run the same command again to continue",
        ) from error
    finally:
        dist.destroy_process_group()


def _start_group(here: Ranks, device: torch.device) -> None:
    """Everything by gloo but what lies on a GPU; a group of one needs no port."""
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if here.world_size == 1:
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
        return
    dist.init_process_group(
        backend,
        init_method=f"tcp://{here.main_address}:{here.main_port}",
        rank=here.rank,
        world_size=here.world_size,
    )


def largest(value: int) -> int:
    """Of all ranks' values; every rank must ask."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return value
    found = torch.tensor(value)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return int(found)


def gathered(text: str) -> list[str]:
    """Every rank's text, in their order; every rank must ask."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return [text]
    texts: list[Any] = [""] * dist.get_world_size()
    dist.all_gather_object(texts, text)  # pickle, but between processes of this run only
    return texts
