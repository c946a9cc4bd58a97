"""What the data of every stage have in common: windows of one or many weighted sources, in an order that is a pure function.

A stage's data say where their windows come from; the mixture, the curriculum, the loaders and their exact resumption are here.
"""

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from lumi.arch.attention import document_boundaries
from lumi.batch import PackedBatch
from lumi.data.curriculum import Curriculum, read_phases
from lumi.data.loading import WORKER_SECONDS, FromStep, TrainBatches, ValBatches, leave_stopping_to_the_run
from lumi.data.mixture import Mixture
from lumi.errors import ConfigError
from lumi.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunLength:
    """How long the run is and where it stands; known only when the model's size is.

    Attributes:
        total_steps: optimizer steps.
        accumulate: micro-batches of an optimizer step.
        start_step: optimizer steps that are already done.
    """

    total_steps: int
    accumulate: int
    start_step: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beginning:
    """What the data of a stage take over from the model that it starts from.

    Attributes:
        tokenizer: the one that the model was trained with.
        packed: source → folder of the text that it was pretrained on.
        weights: source → its share of that text, summing to one.
    """

    tokenizer: Tokenizer
    packed: Mapping[str, Path]
    weights: Mapping[str, float]


class MixedWindows(pl.LightningDataModule):
    """Base of the data modules; a subclass fills ``train_streams`` and ``val_streams`` in `setup`.

    Args:
        name: of this choice of data.
        weights: source → its weight, relative.
        seq_len: tokens in a window.
        batch_size: windows of a micro-batch on one device.
        seed: decides the order.
        num_workers: processes that read.
        train_windows: use only the first so many windows of each source; null takes all.
        val_windows: at most so many windows of each source at every validation, evenly spaced; null takes all.
        phases: a curriculum, as ``[{until: 0.8, weights: {a: 1, b: 1}}, {until: 1.0, weights: …}]``, ``until`` being a share
            of the run's tokens; null keeps the sources' own weights throughout. See `lumi.data.curriculum`.

    Attributes:
        tokenizer: after `setup`.
        length: of the run; set before the loaders are asked for.
        beginning: what belongs to the model that the stage starts from, where there is one; set before `setup`.
        tokenizer_folder: where this choice of data expects its tokenizer.
        cuts_windows: whether a phase may have shorter windows.
    """

    tokenizer: Tokenizer
    cuts_windows = False

    def __init__(
        self,
        *,
        name: str,
        weights: Mapping[str, float],
        seq_len: int,
        batch_size: int,
        seed: int,
        num_workers: int,
        train_windows: int | None,
        val_windows: int | None,
        phases: Sequence[Mapping[str, Any]] | None,
    ) -> None:
        super().__init__()
        for key, value in (("seq_len", seq_len - 1), ("batch_size", batch_size), ("num_workers", num_workers + 1)):
            if value < 1:
                raise ConfigError(f"data.{key}", "is too small")
        self.name, self.seq_len, self.batch_size, self.seed = name, seq_len, batch_size, seed
        self.num_workers, self.train_windows, self.val_windows = num_workers, train_windows, val_windows
        self._own_weights = dict(weights)
        self._phases = read_phases(
            phases, self._own_weights, seq_len=seq_len, batch_size=batch_size, cuts=self.cuts_windows
        )
        self.length = RunLength(total_steps=0, accumulate=1)
        self.beginning: Beginning | None = None
        self.train_streams: list[Any] = []  # of WindowSource
        self.val_streams: list[Any] = []

    @abstractmethod
    def setup(self, stage: str = "fit") -> None:
        """Open the tokenizer and fill the streams."""

    @abstractmethod
    def fingerprints(self) -> dict[str, str]:
        """Of each source: what must not change when a run is resumed."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What a checkpoint says about the data it was trained on, for evaluation."""

    @property
    @abstractmethod
    def tokenizer_folder(self) -> Path | None:
        """Where this choice of data expects its tokenizer."""

    @property
    def source_names(self) -> list[str]:
        """In the order of the batches' ``source`` numbers."""
        return list(self._own_weights)

    @property
    def weights(self) -> list[float]:
        """Shares of the sources, averaged over the phases, summing to one."""
        shares = [0.0] * len(self._own_weights)
        begin = 0.0
        for phase in self._phases:
            for number, weight in enumerate(phase.weights):
                shares[number] += (phase.until - begin) * weight / sum(phase.weights)
            begin = phase.until
        return shares

    @property
    def n_tokens(self) -> int:
        """Training tokens of all sources; one epoch."""
        return sum(stream.n_tokens for stream in self.train_streams)

    def example(self) -> PackedBatch:
        """A batch like the largest of the run, to measure with."""
        of_one = self.curriculum(1, 1)
        largest = max(range(len(self._phases)), key=lambda number: of_one.stretches[number].tokens_per_step)
        alone = dataclasses.replace(self._phases[largest], until=1.0)
        curriculum = Curriculum(
            [alone], batch_size=self.batch_size, seq_len=self.seq_len, micro_batches=1, total_steps=1
        )
        return TrainBatches(self.train_streams, self.mixture(curriculum), curriculum)[0]

    def curriculum(self, micro_batches: int, total_steps: int = 0) -> Curriculum:
        """The phases in steps.

        Args:
            micro_batches: of an optimizer step, over all devices.
            total_steps: of the run; 0 where only its averages are asked for.
        """
        return Curriculum(
            self._phases,
            batch_size=self.batch_size,
            seq_len=self.seq_len,
            micro_batches=micro_batches,
            total_steps=total_steps,
        )

    def mixture(self, curriculum: Curriculum) -> Mixture:
        """The order of the whole run; phases begin at optimizer steps."""
        sizes = [min(stream.n_whole, self.train_windows or stream.n_whole) for stream in self.train_streams]
        return Mixture(sizes=sizes, phases=curriculum.mixture_phases(), seed=self.seed)

    def train_dataloader(self) -> DataLoader[PackedBatch]:
        """From where the run stands to its end, as one Lightning epoch."""
        rank, world_size = self._rank()
        length = self.length
        curriculum = self.curriculum(length.accumulate * world_size, length.total_steps)
        batches = TrainBatches(
            self.train_streams, self.mixture(curriculum), curriculum, rank=rank, world_size=world_size
        )
        return self._loader(batches, FromStep(length.start_step * length.accumulate, len(batches)))

    def val_dataloader(self) -> DataLoader[PackedBatch]:
        """The validation windows of all sources."""
        rank, world_size = self._rank()
        batches = ValBatches(
            self.val_streams,
            batch_size=self.batch_size,
            max_windows=self.val_windows,
            rank=rank,
            world_size=world_size,
        )
        return self._loader(batches, FromStep(0, len(batches)))

    def add_sources(self, shares: Mapping[str, float]) -> None:
        """Give further sources these shares of every phase; those that are there divide the rest as before."""
        rest = 1.0 - sum(shares.values())
        self._phases = [
            dataclasses.replace(
                phase,
                weights=(*(rest * weight / sum(phase.weights) for weight in phase.weights), *shares.values()),
            )
            for phase in self._phases
        ]
        self._own_weights |= shares

    def _loader(self, batches: TrainBatches | ValBatches, sampler: FromStep) -> DataLoader[PackedBatch]:
        return DataLoader(
            batches,
            batch_size=None,  # an item is a whole batch
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=_with_boundaries if torch.cuda.is_available() else None,
            worker_init_fn=leave_stopping_to_the_run,
            timeout=WORKER_SECONDS if self.num_workers else 0,
            pin_memory=torch.cuda.is_available(),
            # A loader draws a seed for its workers: from a generator of its own, or it would disturb the run's.
            generator=torch.Generator().manual_seed(self.seed),
        )

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


def _with_boundaries(batch: Any) -> Any:
    """Tell a GPU where documents begin: to find it out there would wait for all that it was given before."""
    return {**batch, "boundaries": document_boundaries(batch["doc_ids"])}


def present_sources(sources: Mapping[str, Any], key: str = "data.sources") -> dict[str, Any]:
    """The sources that are not null, by their own names.

    Raises:
        ConfigError: there is none, or two have one name.
    """
    present = [source for source in sources.values() if source is not None]
    named = {source.name: source for source in present}
    if not present or len(named) != len(present):
        raise ConfigError(f"{key}={[s.name for s in present]}", "at least one, each with a name of its own")
    return named
