"""Phases of a run in steps, samples and tokens, by hand; and batches cut to them."""

import numpy as np
import pytest

from lumi.data.curriculum import Curriculum, PhaseSettings, read_phases
from lumi.data.loading import TrainBatches
from lumi.data.mixture import Mixture, Phase
from lumi.data.packed import PackedStream
from lumi.errors import ConfigError


def curriculum(*phases: tuple[float, int | None, float], total_steps: int = 0, micro_batches: int = 1) -> Curriculum:
    """Of (until, seq_len, batch_ratio); 4 windows of 11 tokens where a phase says nothing."""
    settings = [PhaseSettings(until=u, weights=(1.0,), seq_len=length, batch_ratio=r) for u, length, r in phases]
    return Curriculum(settings, batch_size=4, seq_len=11, micro_batches=micro_batches, total_steps=total_steps)


def test_without_phases_every_step_is_the_same():
    plain = curriculum((1.0, None, 1.0), total_steps=7, micro_batches=3)
    assert [plain.tokens(step) for step in (0, 1, 7)] == [0, 120, 840]
    assert [plain.samples(step) for step in (0, 1, 7)] == [0, 12, 84]
    assert plain.tokens_per_step == 120


def test_a_batch_warm_up_has_its_share_of_the_tokens_and_so_more_of_the_steps():
    # Steps of 10, 20 and 40 tokens; of 400 tokens 100, 100 and 200: 10, 5 and 5 steps.
    warm = curriculum((0.25, None, 0.25), (0.5, None, 0.5), (1.0, None, 1.0), total_steps=20)
    assert warm.tokens_per_step == pytest.approx(20.0)
    assert [stretch.first_step for stretch in warm.stretches] == [0, 10, 15]
    assert [stretch.batch_size for stretch in warm.stretches] == [1, 2, 4]
    assert [warm.tokens(step) for step in (0, 10, 15, 16, 20)] == [0, 100, 200, 240, 400]
    assert [warm.samples(step) for step in (10, 15, 16)] == [10, 20, 24]


def test_a_length_warm_up_with_a_larger_batch_reads_as_many_tokens_a_step():
    warm = curriculum((0.5, 6, 2.0), (1.0, None, 1.0), total_steps=10)  # 8 pieces of 6 tokens, then 4 windows of 11
    assert {stretch.tokens_per_step for stretch in warm.stretches} == {40}
    assert [stretch.first_step for stretch in warm.stretches] == [0, 5]
    assert [stretch.pieces for stretch in warm.stretches] == [2, 1]


@pytest.fixture
def stream(write_packed) -> PackedStream:
    """Ten windows of 11 tokens of one document; token p stands at place p."""
    return PackedStream(write_packed([range(101)], [range(30)], name="a"), "train", 11)


def read(stream: PackedStream, of: Curriculum, **ranks: int) -> list:
    mixture = Mixture(sizes=[stream.n_whole], phases=of.mixture_phases(), seed=3)
    batches = TrainBatches([stream], mixture, of, **ranks)
    return [batches[number] for number in range(len(batches))]


def test_pieces_read_each_token_once_and_the_next_phase_goes_on_after_them(stream):
    # Of ten windows 1 step takes 8 pieces of 4 windows, then one step 4 windows: 8 different windows in all.
    batches = read(stream, curriculum((0.5, 6, 2.0), (1.0, None, 1.0), total_steps=2))
    assert [tuple(batch["tokens"].shape) for batch in batches] == [(8, 6), (4, 11)]
    targets = np.concatenate([batch["tokens"][batch["loss_mask"]].numpy() for batch in batches])
    assert len(targets) == len(set(targets.tolist())) == 80


def test_a_piece_is_where_its_window_has_it(stream):
    (batch,) = read(stream, curriculum((1.0, 6, 2.0), total_steps=1))
    for row, (window, piece) in enumerate(zip(batch["sample"].tolist(), [0, 1] * 4, strict=True)):
        first = 10 * window + 5 * piece
        assert batch["tokens"][row].tolist() == list(range(first, first + 6))
        assert batch["loss_mask"][row].tolist() == [False, True, True, True, True, True]


def test_tokens_that_no_piece_reaches_are_left_out(stream):
    (batch,) = read(stream, curriculum((1.0, 4, 0.75), total_steps=1))  # three pieces of 3 targets in a window of 10
    assert sorted((batch["tokens"][:, -1] % 10).tolist()) == [3, 6, 9]


def test_ranks_share_every_phase(stream):
    phases = ((0.5, 6, 2.0), (1.0, None, 0.5))
    alone = read(stream, curriculum(*phases, total_steps=4, micro_batches=2))
    shares = [
        read(stream, curriculum(*phases, total_steps=4, micro_batches=2), rank=rank, world_size=2) for rank in (0, 1)
    ]
    both = [batch for step in zip(*shares, strict=True) for batch in step]
    assert [batch["tokens"].tolist() for batch in both] == [batch["tokens"].tolist() for batch in alone]


def test_a_source_goes_on_with_the_next_whole_window_after_pieces():
    # Three samples of phase one are one window and a half: the second phase begins with the third window.
    mixture = Mixture(
        sizes=[100],
        phases=[Phase(first_sample=0, weights=[1], pieces=2), Phase(first_sample=3, weights=[1])],
        seed=0,
    )
    plain = Mixture(sizes=[100], phases=[Phase(first_sample=0, weights=[1])], seed=0)
    _, window, piece = mixture.place(np.arange(5))
    order = plain.locate(np.arange(4))[1].tolist()
    assert window.tolist() == [order[0], order[0], order[1], order[2], order[3]]
    assert piece.tolist() == [0, 1, 0, 0, 0]
    assert mixture.taken(5).tolist() == [5]


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([{"until": 1.0, "lenght": 3}], r"data\.phases\[0\]\.lenght · is not a setting"),
        ([{"until": 1.0, "seq_len": 12}], r"data\.phases\[0\]\.seq_len=12 · must be a whole number from 2 to"),
        ([{"until": 1.0, "batch_ratio": 0}], r"data\.phases\[0\]\.batch_ratio=0 · must be a number above 0"),
        ([{"until": 1.0, "batch_ratio": 0.3}], r"batch_ratio=0\.3 · must give a whole number .* · try 0\.25"),
        ([{"until": 0.5}], r"the last phase must end at 1\.0"),
        ([{"until": 1.0, "weights": {"b": 1}}], r"data\.phases\[0\]\.weights\.b · is not a source"),
    ],
)
def test_a_phase_that_cannot_be_is_refused_by_name(phases, message):
    with pytest.raises(ConfigError, match=message):
        read_phases(phases, {"a": 1.0}, seq_len=11, batch_size=4, cuts=True)


def test_examples_are_never_cut():
    with pytest.raises(ConfigError, match=r"seq_len=4 · is for packed text"):
        read_phases([{"until": 1.0, "seq_len": 4}], {"a": 1.0}, seq_len=11, batch_size=4, cuts=False)


def test_a_phase_without_weights_keeps_those_of_the_sources():
    (phase,) = read_phases([{"until": 1.0}], {"a": 3.0, "b": 1.0}, seq_len=11, batch_size=4, cuts=True)
    assert phase.weights == (3.0, 1.0)
