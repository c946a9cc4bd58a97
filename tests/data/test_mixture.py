"""The order of samples: a pure function, exact in its mix, that no version may change silently."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumi.data.mixture import Mixture, Phase, permute
from lumi.errors import ConfigError

WEIGHTS = pytest.mark.parametrize(
    "weights",
    [[1.0], [0.7, 0.3], [1, 2, 3], [1, 1, 1], [0.001, 0.999], [0.0, 5.0, 2.5], [7, 1, 1, 1, 1, 1, 1]],
    ids=str,
)


def mixture(sizes: list[int], *phases: tuple[int, list[float]], seed: int = 0) -> Mixture:
    return Mixture(sizes=sizes, phases=[Phase(first_sample=n, weights=w) for n, w in phases], seed=seed)


def locate(of: Mixture, start: int, stop: int) -> list[tuple[int, int]]:
    """(source, window) of samples ``start … stop - 1``."""
    source, window = of.locate(np.arange(start, stop))
    return list(zip(source.tolist(), window.tolist(), strict=True))


def windows_of(source: int, places: list[tuple[int, int]]) -> list[int]:
    return [window for number, window in places if number == source]


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_a_permutation_reaches_every_place_once(size, key):
    assert np.array_equal(np.sort(permute(np.arange(size), size, np.uint64(key))), np.arange(size))


@settings(max_examples=30, deadline=None)
@given(size=st.integers(2**31, 2**50), start=st.integers(0, 2**31 - 500))
def test_a_permutation_of_a_huge_range_repeats_nothing(size, start):
    places = permute(np.arange(start, start + 500), size, np.uint64(1))
    assert len(set(places.tolist())) == 500
    assert 0 <= places.min() <= places.max() < size


@pytest.mark.parametrize("size", [3, 8, 10])
def test_over_many_keys_every_index_goes_everywhere_equally_often(size):
    keys = np.arange(8000, dtype=np.uint64)
    for index in range(size):
        counts = np.bincount(permute(np.full(8000, index), size, keys), minlength=size)
        assert np.abs(counts - 8000 / size).max() < 5 * (8000 / size) ** 0.5  # five standard deviations


def test_another_key_is_another_permutation():
    orders = {tuple(permute(np.arange(100), 100, np.uint64(key))) for key in range(50)}
    assert len(orders) == 50


@WEIGHTS
@pytest.mark.parametrize("start", [0, 3_333, 987_654])
def test_ten_thousand_samples_have_the_mix_within_a_thousandth(weights, start):
    source, _ = mixture([1000] * len(weights), (0, weights)).locate(np.arange(start, start + 10_000))
    shares = np.bincount(source, minlength=len(weights)) / 10_000
    assert np.abs(shares - np.array(weights) / sum(weights)).max() < 0.001


@WEIGHTS
def test_every_stretch_is_within_a_few_samples_of_the_mix(weights):
    places = locate(mixture([1000] * len(weights), (0, weights)), 0, 20_000)
    for start, length in itertools.product(range(0, 15_000, 997), (10, 100, 1000)):
        counts = np.bincount([source for source, _ in places[start : start + length]], minlength=len(weights))
        assert np.abs(counts - length * np.array(weights) / sum(weights)).max() <= len(weights)


def test_every_window_of_a_source_comes_once_an_epoch():
    places = locate(mixture([7, 13], (0, [0.6, 0.4])), 0, 1000)
    for source, size in enumerate((7, 13)):
        windows = windows_of(source, places)
        epochs = [windows[start : start + size] for start in range(0, len(windows) - size, size)]
        assert len(epochs) > 20
        assert all(sorted(epoch) == list(range(size)) for epoch in epochs)
        assert len(set(map(tuple, epochs))) > len(epochs) / 2  # another order every time


def test_a_place_does_not_depend_on_what_else_is_asked():
    of = mixture([50, 70], (0, [1, 2]), (40, [2, 1]))
    together = locate(of, 0, 200)
    assert [locate(of, sample, sample + 1)[0] for sample in range(199, -1, -1)] == together[::-1]


def test_another_seed_is_another_order_of_the_same_windows():
    first, second = (locate(mixture([100], (0, [1.0]), seed=seed), 0, 100) for seed in (0, 1))
    assert first != second
    assert sorted(first) == sorted(second)


def test_two_sources_of_one_size_have_different_orders():
    places = locate(mixture([50, 50], (0, [1, 1])), 0, 100)
    assert windows_of(0, places) != windows_of(1, places)


def test_in_a_new_phase_each_source_continues_where_it_stopped():
    phased = locate(mixture([50, 40], (0, [1, 0]), (35, [1, 1]), (80, [0, 1])), 0, 150)
    plain = locate(mixture([50, 40], (0, [1, 1])), 0, 300)
    for source in (0, 1):
        windows = windows_of(source, phased)
        assert windows == windows_of(source, plain)[: len(windows)]
    assert [len(windows_of(source, phased)) for source in (0, 1)] == [35 + 23, 22 + 70]


def test_a_phase_has_its_own_mix():
    places = locate(mixture([50, 40], (0, [1, 0]), (30, [3, 1]), (130, [0, 1])), 0, 200)
    counts = [sum(source == 0 for source, _ in places[a:b]) for a, b in ((0, 30), (30, 130), (130, 200))]
    assert counts == [30, 75, 0]


def test_taken_counts_the_samples_of_each_source():
    of = mixture([50, 40], (0, [1, 2]), (35, [1, 1]), (20_080, [0, 1]))
    source, _ = of.locate(np.arange(30_000))
    for n_samples in (0, 1, 34, 35, 36, 10_035, 20_079, 20_080, 20_081, 30_000):
        assert of.taken(n_samples).tolist() == np.bincount(source[:n_samples], minlength=2).tolist()


def test_the_order_is_the_one_that_runs_were_begun_with():
    # Literal on purpose: a change here breaks the resuming of every run, and must be announced.
    of = mixture([1000, 300], (0, [0.7, 0.3]), seed=42)
    beginning = [(0, 466), (1, 15), (0, 460), (0, 718), (0, 102), (1, 112), (0, 621), (0, 940)]
    assert locate(of, 0, 8) == beginning
    assert locate(of, 1_000_000, 1_000_003) == [(0, 897), (1, 197), (0, 18)]


@pytest.mark.parametrize("weights", [[0.0, 0.0], [1.0, -0.5], [1.0, float("nan")], [1.0, float("inf")], [1.0, 1e-5]])
def test_weights_that_make_no_mix_are_refused(weights):
    with pytest.raises(ConfigError, match="data weights"):
        mixture([10, 10], (0, weights))
