"""What can end a run from outside its mathematics, said so that it can be mended: no memory left, a data worker that died.

PyTorch raises both as errors of its own, with a traceback and exit code 1. Here they become messages with an exit code, and
with a setting that trains the very same steps in less memory where there is one.
"""

import contextlib
import dataclasses
import re
import traceback
from collections.abc import Iterator
from typing import Any

import torch

from lumi.arch import DecoderConfig
from lumi.callbacks.progress import peak_memory_bytes
from lumi.errors import DataError, LumiError, ResourceError
from lumi.plan import Plan, size_text
from lumi.trainer import TrainerConfig

_OF_ALLOCATOR = re.compile(r"DefaultCPUAllocator: (can't allocate|not enough) memory")
_WORKER_DIED = re.compile(r"DataLoader worker \(pid\(?s?\)? .+?\) (is killed by signal: \w+|exited unexpectedly)")
_WORKER_HANGS = "DataLoader timed out after"
_FROM_WORKER = re.compile(r"Caught (\w+) in DataLoader worker process")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """What one forward and backward pass holds.

    Attributes:
        windows: of it. length: tokens in a window, the longest of the run.
        accumulate: micro-batches of an optimizer step.
        expected_bytes: of memory at the highest point, as the run said before its first step; 0 where it did not.
        checkpoints: whether activations are computed again instead of kept.
    """

    windows: int
    length: int
    accumulate: int
    expected_bytes: int = 0
    checkpoints: bool = False

    def smaller(self) -> str:
        """Settings with the same windows in an optimizer step, and at most half of them in memory at once."""
        size = next((n for n in range(self.windows // 2, 0, -1) if self.windows % n == 0), None)
        if size is not None:
            more = self.windows // size * self.accumulate
            return f"data.batch_size={size} trainer.accumulate={more} trains the same steps, and goes on with this run"
        if not self.checkpoints:
            return "arch.checkpoint_activations=true needs less memory and goes on with this run"
        return f"data.seq_len={self.length // 2} needs less; it makes another run, so give it another name"


def micro_batch(data: Any, setup: TrainerConfig, config: DecoderConfig, plan: Plan | None = None) -> MicroBatch:
    """Of a run with these data (`lumi.data.MixedWindows`)."""
    return MicroBatch(
        windows=data.batch_size,
        length=data.seq_len,
        accumulate=setup.accumulate,
        expected_bytes=plan.memory_bytes if plan else 0,
        checkpoints=config.checkpoint_activations,
    )


@contextlib.contextmanager
def explained(batch: MicroBatch) -> Iterator[None]:
    """Turn what ends training from outside into Lumi's own errors.

    Raises:
        ResourceError: there was no memory left.
        DataError: a worker that reads data was killed, hangs, or could not read.
    """
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _no_memory(batch, error) from error
    except LumiError as error:
        if not _FROM_WORKER.match(error.found):
            raise
        raise _of_worker(error) from error
    except (EOFError, OSError) as error:
        if _between_processes(error):  # a worker died while it handed over a batch
            raise _dead_worker(f"a DataLoader worker went away ({error})") from error
        if not _FROM_WORKER.match(str(error)):
            raise
        raise DataError(_last_line(str(error)), "a worker could not read; the last checkpoint is whole") from error
    except RuntimeError as error:
        if _OF_ALLOCATOR.search(str(error)):
            raise _no_memory(batch, error) from error
        if (died := _WORKER_DIED.search(str(error))) or _WORKER_HANGS in str(error):
            raise _dead_worker(died[0] if died else "a DataLoader worker gave nothing for a minute") from error
        raise


def _dead_worker(found: str) -> DataError:
    return DataError(
        found,
        "a run needs every batch; the last checkpoint is whole",
        "run the same command again, or data.num_workers=0, which reads in the run's own process",
    )


def _between_processes(error: BaseException) -> bool:
    """Whether it was raised where Python's processes speak to each other."""
    frames = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(str(name).startswith(("multiprocessing.", "torch.multiprocessing.")) for name in frames)


def _no_memory(batch: MicroBatch, error: Exception) -> ResourceError:
    figures = [
        f"{batch.windows} windows of {batch.length} tokens at once",
        f"{size_text(peak_memory_bytes())} at the highest",
    ]
    if batch.expected_bytes:
        figures.append(f"{size_text(batch.expected_bytes)} expected")
    said = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
    return ResourceError(
        f"no memory left ({', '.join(figures)}): {said}", "the last checkpoint is whole", batch.smaller()
    )


def _of_worker(error: LumiError) -> LumiError:
    return type(error)(_last_line(error.found), error.rule, error.fix)


def _last_line(text: str) -> str:
    """PyTorch puts the worker's traceback before the message."""
    line = [line for line in text.splitlines() if line.strip()][-1]
    return line.partition(": ")[2] or line
