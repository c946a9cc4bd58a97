"""`PackedData`: the packed sources of a corpus as a LightningDataModule (``data=packed``)."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lumi.corpus import Corpus, Executor, Source
from lumi.data.mixed import MixedWindows, RunLength
from lumi.data.pack import PackConfig
from lumi.data.packed import PackedStream, check_enough
from lumi.data.prepare import Locations, lacking, prepare
from lumi.tokenizer import ExistingTokenizer, Tokenizer, TokenizerConfig

log = logging.getLogger(__name__)


class PackedData(MixedWindows):
    """Windows of packed text from a weighted mixture of sources.

    Args:
        corpus: where text comes from, and what is done to it; each source brings its name and weight. What is not prepared
            yet is.
        executor: where that is done.
        tokenizer: settings of the tokenizer, or of one that exists.
        pack: settings of the packing.
        root: folder of prepared data.
        seq_len: tokens in a window; may change from run to run without packing again.
        batch_size: windows of a micro-batch on one device.
        seed: decides the order.
        num_workers: processes that read. 0 is the fastest here: a batch is a slice of a memory map, cheaper than sending it.
        train_windows: use only the first so many windows of each source, to see whether a model can learn them by heart;
            null takes all.
        val_windows: at most so many windows of each source at every validation, evenly spaced; null takes all.
        phases: a curriculum, as ``[{until: 0.8, weights: {a: 1, b: 1}}, {until: 1.0, weights: …}]``, ``until`` being a share
            of the run's tokens; null keeps the sources' own weights throughout. A phase may also have a ``seq_len`` and a
            ``batch_ratio`` (docs/pretraining.md).
        full_check: hash all token shards at the start, a second per gigabyte; false compares sizes only.
    """

    cuts_windows = True

    def __init__(
        self,
        *,
        corpus: Corpus,
        executor: Executor,
        tokenizer: TokenizerConfig | ExistingTokenizer,
        pack: PackConfig,
        root: Path,
        seq_len: int,
        batch_size: int,
        seed: int,
        num_workers: int = 0,
        train_windows: int | None = None,
        val_windows: int | None = 256,
        phases: Sequence[Mapping[str, Any]] | None = None,
        full_check: bool = True,
    ) -> None:
        self.corpus, self.executor = corpus, executor
        self.sources: dict[str, Source] = {source.name: source for source in corpus.present}
        super().__init__(
            name=corpus.name,
            weights={source.name: source.weight for source in corpus.present},
            seq_len=seq_len,
            batch_size=batch_size,
            seed=seed,
            num_workers=num_workers,
            train_windows=train_windows,
            val_windows=val_windows,
            phases=phases,
        )
        self.full_check, self.pack_config = full_check, pack
        self.places = Locations(root=root, tokenizer=tokenizer, corpus_name=corpus.name)

    @property
    def tokenizer_folder(self) -> Path | None:
        """Of the tokenizer that the settings name."""
        return self.places.tokenizer_folder

    def prepare_data(self) -> None:
        """Prepare what is not there yet; Lightning calls this on one process only."""
        if self.train_streams:
            return  # the run asked before Lightning does
        missing = lacking(self.corpus, self.places)
        if missing:
            log.info("not prepared yet: %s; preparing it now", ", ".join(map(str, missing)))
        prepare(self.corpus, self.places, self.pack_config, executor=self.executor)

    def setup(self, stage: str = "fit") -> None:
        """Open and verify the packed data."""
        if self.train_streams:
            return
        self.tokenizer = Tokenizer.load(self.places.tokenizer_folder)
        for name in self.sources:
            folder = self.places.packed(name)
            train = PackedStream(folder, "train", self.seq_len, self.tokenizer.sha256, full_check=self.full_check)
            val = PackedStream(
                folder, "val", self.seq_len, self.tokenizer.sha256, full_check=False
            )  # verified just now
            check_enough(train, self.batch_size)
            self.train_streams.append(train)
            self.val_streams.append(val)

    def fingerprints(self) -> dict[str, str]:
        """Of each packed source: what must not change when a run is resumed."""
        return {
            name: stream.manifest.fingerprint for name, stream in zip(self.sources, self.train_streams, strict=True)
        }

    def facts(self) -> dict[str, Any]:
        """Where the packed data lie."""
        return {"packed": {name: str(self.places.packed(name)) for name in self.sources}}


__all__ = ["PackedData", "RunLength"]
