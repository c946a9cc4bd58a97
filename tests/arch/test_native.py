"""What is done in C++, against the same made of PyTorch's operations: the decoding step, and the loss."""

import gc
import os
import shutil
import threading
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from lumi.arch import Decoder, DecoderConfig, loss, native
from lumi.arch.fused import Cache, FusedDecoder
from lumi.arch.native import build

needs_compiler = pytest.mark.skipif(not any(map(shutil.which, build.COMPILERS)), reason="needs a C++ compiler")

SHAPES = {
    "plain": {},
    "grouped": {"n_kv_heads": 2},
    "one key head": {"n_kv_heads": 1},
    "tied": {"tied": True},
    "wide heads": {"n_heads": 1, "n_kv_heads": 1},
    "odd vocabulary": {"vocab_size": 331},
    "stretched": {"rope_scaling": "llama3", "rope_factor": 4.0, "rope_original_len": 32},
}
LENGTHS = [3, 1, 90, 64, 17, 5, 33, 2, 65]


def make(**changes):
    torch.manual_seed(0)
    shape = {"vocab_size": 320, "n_layers": 2, "d_model": 64, "n_heads": 4, "n_kv_heads": 4, "d_ff": 112}
    model = Decoder(DecoderConfig(**{**shape, "max_seq_len": 200, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)  # far from uniform
    return model


def filled(decoder):
    """A cache of which every place holds something, also what no row may read."""
    cache = Cache(decoder, len(LENGTHS), 200)
    generator = torch.Generator().manual_seed(0)
    for layer in cache.layers:
        layer.copy_(torch.randn(layer.shape, generator=generator))
    return cache


def step(decoder, cache=None):
    return decoder.decode(torch.arange(len(LENGTHS)) * 7, torch.tensor(LENGTHS), cache or filled(decoder), max(LENGTHS))


def n_tasks():
    return len(list(Path("/proc/self/task").iterdir()))


@needs_compiler
@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES)
def test_a_step_is_that_of_pytorchs_operations(changes):
    model = make(**changes)
    compiled, plain = FusedDecoder(model), FusedDecoder(model, compiled=False)
    assert compiled._step is not None
    ours, theirs = filled(compiled), filled(plain)
    # Sums of up to a hundred products in another order, over two layers, of numbers as large as 20 that nearly cancel.
    assert_close(step(compiled, cache=ours), step(plain, cache=theirs), rtol=1e-4, atol=2e-4)
    for mine, other in zip(ours.layers, theirs.layers, strict=True):
        assert_close(mine, other, rtol=1e-4, atol=2e-4)


@needs_compiler
def test_the_number_of_threads_changes_no_bit():
    model, before = make(), torch.get_num_threads()
    each = []
    try:
        for n_threads in (1, 2, 3):
            torch.set_num_threads(n_threads)
            decoder = FusedDecoder(model)
            each.append(torch.stack([step(decoder) for _ in range(20)]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(each[0], each[1])
    assert torch.equal(each[0], each[2])


@needs_compiler
def test_two_threads_may_step_one_decoder():
    decoder = FusedDecoder(make())
    expected, seen = step(decoder), []
    workers = [
        threading.Thread(target=lambda: seen.extend(torch.equal(step(decoder), expected) for _ in range(20)))
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert seen == [True] * 80


@needs_compiler
def test_a_forked_child_steps_too():
    decoder = FusedDecoder(make())
    assert decoder._step is not None
    decoder._step._n_threads = 2
    expected = step(decoder)
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(step(decoder), expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@needs_compiler
def test_weights_that_are_not_numbers_give_logits_that_are_not():
    model = make()
    with torch.no_grad():
        model.get_parameter("model.layers.1.mlp.down_proj.weight")[3, 5] = torch.nan
    assert step(FusedDecoder(model)).isnan().all()


@needs_compiler
def test_threads_end_with_their_decoder():
    before = n_tasks()
    decoder = FusedDecoder(make())
    assert decoder._step is not None
    decoder._step._n_threads = 3
    step(decoder)
    assert n_tasks() == before + 2
    del decoder
    gc.collect()
    assert n_tasks() == before


def test_a_shape_that_it_does_not_take_is_computed_by_pytorch():
    decoder = FusedDecoder(make(d_model=40))
    assert decoder._step is None
    assert step(decoder).isfinite().all()


def test_without_a_compiler_the_log_says_what_is_taken(monkeypatch, caplog):
    monkeypatch.setenv("PATH", "")
    build.load_library.cache_clear()
    try:
        with caplog.at_level("INFO"):
            decoder = FusedDecoder(make())
    finally:
        build.load_library.cache_clear()
    assert decoder._step is None
    assert "no C++ compiler" in caplog.text


@needs_compiler
def test_a_compiler_that_fails_costs_speed_only(monkeypatch, caplog, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(build, "_FLAGS", ("-no-such-flag",))
    build.load_library.cache_clear()
    try:
        assert FusedDecoder(make())._step is None
    finally:
        build.load_library.cache_clear()
    assert "could not be compiled" in caplog.text
    assert list((tmp_path / ".cache" / "lumi").iterdir()) == []


LOGITS = {
    "float32": (torch.float32, 1e-6),
    "bfloat16": (torch.bfloat16, 4e-3),
}  # half a unit in the last place of a slope


def logits_of(n_vocab, dtype, n_rows=37):
    """Rows as the loss holds them: unused columns at the end."""
    logits = torch.full((n_rows, n_vocab + loss._PADDING), -torch.inf)
    logits[:, :n_vocab] = 6 * torch.randn(n_rows, n_vocab, generator=torch.Generator().manual_seed(1))
    targets = torch.randint(n_vocab, (n_rows,), generator=torch.Generator().manual_seed(2))
    return logits.to(dtype), targets


@needs_compiler
@pytest.mark.parametrize("n_vocab", [7, 16, 100, 4096])
@pytest.mark.parametrize(("dtype", "rounding"), LOGITS.values(), ids=LOGITS)
def test_the_loss_of_a_row_and_its_slope_are_those_of_cross_entropy(n_vocab, dtype, rounding):
    logits, targets = logits_of(n_vocab, dtype)
    exact = logits[:, :n_vocab].double().requires_grad_()
    expected = torch.nn.functional.cross_entropy(exact, targets, reduction="none")
    scales = torch.linspace(-2, 3, len(targets))
    (expected * scales).sum().backward()
    nll = native.slopes_(logits, targets, scales)
    assert nll is not None
    assert_close(nll.double(), expected.detach(), atol=1e-5, rtol=1e-6)
    assert exact.grad is not None
    # Of a likely target p - 1 is small: what remains is the rounding of p, times a scale of up to 3.
    assert_close(logits[:, :n_vocab].double(), exact.grad, atol=5e-7, rtol=rounding)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_have_the_same_slopes_on_any_number_of_threads(dtype):
    before, each = torch.get_num_threads(), []
    try:
        for n_threads in (1, 2, 3):
            torch.set_num_threads(n_threads)
            logits, targets = logits_of(100, dtype)
            each.append((native.slopes_(logits, targets), logits))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(nll, each[0][0]) and torch.equal(slopes, each[0][1]) for nll, slopes in each)


@needs_compiler
def test_logits_stay_where_their_slope_is_not_wanted():
    logits, targets = logits_of(100, torch.float32)
    before = logits.clone()
    assert native.slopes_(logits, targets, wanted=False) is not None
    assert torch.equal(logits, before)


@needs_compiler
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_logit_that_is_not_a_number_shows_in_the_loss_and_in_the_slope(value, dtype):
    logits, targets = logits_of(100, dtype)
    logits[3, 5] = value
    nll = native.slopes_(logits, targets)
    assert nll is not None
    assert nll.isfinite().sum() == len(nll) - 1
    assert logits[3, :100].isnan().any()


def test_without_a_compiler_the_loss_is_the_same(monkeypatch):
    torch.manual_seed(0)
    hidden, weight, tokens = torch.randn(2, 9, 8), torch.randn(50, 8), torch.randint(50, (2, 9))

    def values():
        rows, head = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        nll = loss.target_nll(rows, head, tokens, torch.ones(2, 9, dtype=torch.bool))
        total = (nll * torch.linspace(-1, 1, len(nll))).sum() + loss.next_token_loss(rows, head, tokens, tokens > 9)[0]
        total.backward()
        return total.detach(), rows.grad, head.grad

    ours = values()
    monkeypatch.setattr(native, "slopes_", lambda *_, **__: None)
    for mine, theirs in zip(ours, values(), strict=True):
        assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
