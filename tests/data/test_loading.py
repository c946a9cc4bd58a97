"""Batches by their number: the same whatever reads them, with nothing lost between ranks."""

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lumi.batch import REPEATED, PackedBatch
from lumi.data.curriculum import Curriculum, PhaseSettings
from lumi.data.loading import FromStep, TrainBatches, ValBatches
from lumi.data.mixture import Mixture, Phase
from lumi.data.packed import PackedStream


@pytest.fixture
def streams(write_packed) -> list[PackedStream]:
    """Two sources of 12 and 8 training windows of 6 tokens; token 100 * source + position tells where it came from."""
    folders = [
        write_packed([range(1, 62)], [range(3, 30)], name="a"),
        write_packed([range(101, 142)], [range(103, 140)], name="b", shard_tokens=9),
    ]
    return [PackedStream(folder, "train", 6) for folder in folders]


def train_batches(
    streams: list[PackedStream], *, batch_size: int = 4, n_batches: int = 9, **ranks: int
) -> TrainBatches:
    sizes = [stream.n_whole for stream in streams]
    mixture = Mixture(sizes=sizes, phases=[Phase(first_sample=0, weights=[0.7, 0.3])], seed=5)
    curriculum = Curriculum(
        [PhaseSettings(until=1.0, weights=(0.7, 0.3))],
        batch_size=batch_size,
        seq_len=6,
        micro_batches=ranks.get("world_size", 1),
        total_steps=n_batches,
    )
    return TrainBatches(streams, mixture, curriculum, **ranks)


def samples(batches: list[PackedBatch]) -> list[tuple[int, int]]:
    """(source, window) of every sample, in order."""
    return [pair for batch in batches for pair in zip(batch["source"].tolist(), batch["sample"].tolist(), strict=True)]


def equal(left: list[PackedBatch], right: list[PackedBatch]) -> bool:
    pairs = zip(left, right, strict=True)
    return all(a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a) for a, b in pairs)


def read(batches: TrainBatches | ValBatches) -> list[PackedBatch]:
    return [batches[number] for number in range(len(batches))]


def test_a_batch_keeps_the_contract_of_dtypes_and_shapes(streams):
    batch = train_batches(streams)[0]
    assert [batch[key].dtype for key in ("tokens", "doc_ids", "loss_mask")] == [torch.int64, torch.int32, torch.bool]
    assert [batch[key].shape for key in ("tokens", "doc_ids", "loss_mask")] == [(4, 6)] * 3
    assert [batch[key].dtype for key in ("source", "sample")] == [torch.int64] * 2
    assert [batch[key].shape for key in ("source", "sample")] == [(4,)] * 2


def test_a_row_holds_the_window_that_it_says(streams):
    for batch in read(train_batches(streams)):
        for row in range(4):
            first = 100 * int(batch["source"][row]) + 5 * int(batch["sample"][row]) + 1
            assert batch["tokens"][row].tolist() == list(range(first, first + 6))


def test_batches_follow_the_order_of_the_mixture(streams):
    batches = train_batches(streams)
    source, window = batches.mixture.locate(np.arange(36))
    assert samples(read(batches)) == list(zip(source.tolist(), window.tolist(), strict=True))


def test_a_batch_is_the_same_whenever_it_is_read(streams):
    numbers = range(0, 5000, 700)  # across the chunks in which the order is computed
    forward, backward = train_batches(streams), train_batches(streams)
    there = [forward[number] for number in numbers]
    back = [backward[number] for number in reversed(numbers)]
    assert equal(there, back[::-1])


@pytest.mark.matrix("T6")
@pytest.mark.parametrize("world_size", [2, 3, 4, 6])
def test_ranks_share_no_sample_and_together_read_what_one_would(streams, world_size, row):
    alone = samples(read(train_batches(streams, batch_size=12, n_batches=10)))
    ranks = [
        samples(read(train_batches(streams, batch_size=12 // world_size, n_batches=10, rank=r, world_size=world_size)))
        for r in range(world_size)
    ]
    share = 12 // world_size
    joined = [pair for step in range(10) for rank in ranks for pair in rank[step * share : (step + 1) * share]]
    row(trials=10, failures=int(joined != alone), note=f"steps, {world_size} ranks, order compared")


def test_accumulation_reads_what_one_large_batch_would(streams):
    assert samples(read(train_batches(streams, batch_size=2, n_batches=12))) == samples(
        read(train_batches(streams, batch_size=8, n_batches=3))
    )


@pytest.mark.matrix("T6")
@pytest.mark.parametrize("n_workers", [1, 2, 4])
def test_the_number_of_workers_changes_nothing(streams, n_workers, row):
    batches = train_batches(streams)
    loaders = [DataLoader(batches, batch_size=None, sampler=FromStep(2, 9), num_workers=n) for n in (0, n_workers)]
    row(trials=7, failures=int(not equal(*(list(loader) for loader in loaders))), note=f"batches, {n_workers} workers")


def test_a_worker_that_starts_afresh_reads_the_same(streams):
    batches = train_batches(streams)
    assert equal(read(pickle.loads(pickle.dumps(batches))), read(batches))  # what spawn does on macOS


def test_a_worker_is_sent_the_names_of_the_files_and_not_their_tokens(write_packed):
    stream = PackedStream(write_packed([range(1, 50_000)]), "train", 6)
    assert len(pickle.dumps(stream)) < 1000


def test_the_sampler_counts_on_and_has_the_length_of_the_whole_run():
    sampler = FromStep(3, 6)
    assert list(sampler) == [3, 4, 5]
    assert len(sampler) == 6


@pytest.fixture
def val_streams(streams) -> list[PackedStream]:
    """Validation: 27 and 37 tokens are 6 and 8 windows, each source's last one padded."""
    return [PackedStream(stream.folder, "val", 6) for stream in streams]


def test_validation_reads_every_window_once_and_batches_hold_one_source(val_streams):
    batches = read(ValBatches(val_streams, batch_size=4, max_windows=None))
    assert samples(batches) == [(0, n) for n in range(6)] + [(1, n) for n in range(8)]
    assert [len(batch["source"]) for batch in batches] == [4, 2, 4, 4]


def test_every_token_but_the_first_is_a_validation_target(val_streams):
    batches = read(ValBatches(val_streams, batch_size=4, max_windows=None))
    targets = sorted(token for batch in batches for token in batch["tokens"][batch["loss_mask"]].tolist())
    assert targets == [*range(4, 30), *range(104, 140)]


def test_a_limit_takes_evenly_spaced_windows(val_streams):
    batches = read(ValBatches(val_streams, batch_size=4, max_windows=3))
    assert samples(batches) == [(0, 0), (0, 2), (0, 5), (1, 0), (1, 4), (1, 7)]


def test_ranks_take_turns_at_validation(val_streams):
    alone = samples(read(ValBatches(val_streams, batch_size=2, max_windows=None)))
    shares = [
        samples(read(ValBatches(val_streams, batch_size=2, max_windows=None, rank=rank, world_size=3)))
        for rank in range(3)
    ]
    assert sorted(pair for share in shares for pair in share if pair[0] != REPEATED) == alone


@pytest.mark.parametrize("world_size", [2, 3, 5, 9])
def test_every_rank_validates_as_many_batches_and_repeats_say_so(val_streams, world_size):
    shares = [
        read(ValBatches(val_streams, batch_size=2, max_windows=None, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    assert {len(share) for share in shares} == {-(-7 // world_size)}  # 3 batches of the first source, 4 of the second
    repeated = sum(bool((batch["source"] == REPEATED).all()) for share in shares for batch in share)
    assert repeated == -7 % world_size
