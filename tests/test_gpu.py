"""Runs on a CUDA device: the same promises as on a CPU, with other kernels. ``make gpu-test``."""

import copy
import json

import pytest
import torch
from torch.nn import functional as F

from lumi.arch import Decoder, DecoderConfig, loss, next_token_loss
from lumi.arch.fused import Cache, FusedDecoder
from lumi.callbacks.metrics import read_metrics
from lumi.errors import NumericError
from lumi.generate import SamplingParams, generate
from lumi.stage import Pretrain
from tests.faults.training.test_numeric import RECIPES, Poisoned  # its second step has a loss that is no number
from tests.stage.test_sentinels import FOUR_OF_2, fit, make_stage

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

GPU = ("trainer.accelerator=gpu", "trainer.threads=null")
STEPS = ("budget.steps=12", "callbacks.checkpoint.every_steps=6", "trainer.val_every_steps=6")


@pytest.fixture
def losses(run_config):
    """Train; returns the loss of each step."""
    from lumi.run import train

    def run(name, *overrides):
        cfg = run_config(*GPU, *STEPS, f"name={name}", *overrides)
        train(cfg)
        rows = read_metrics(folder(cfg, name) / "metrics.csv")
        return {step: row["train/loss"] for step, row in rows.items() if "train/loss" in row}

    return run


def folder(cfg, name):
    from pathlib import Path

    return Path(cfg.paths.runs) / name


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true", "16-mixed"])
def test_a_run_that_is_continued_is_the_run_bit_for_bit(losses, tmp_path, precision):
    whole = losses("whole", f"trainer.precision={precision}")
    checkpoint = tmp_path / "whole" / "checkpoints" / "step_00000006.ckpt"
    rest = losses("rest", f"trainer.precision={precision}", f"resume='{checkpoint}'")
    assert len(whole) == 12
    assert rest == {step: whole[step] for step in rest}
    assert max(rest) == 12


def test_compiled_blocks_learn_as_plain_ones_do(losses):
    # Products of bfloat16 in other kernels: 8 bits of mantissa, averaged over a batch of a few hundred tokens.
    plain, compiled = losses("plain", "trainer.compile=false"), losses("compiled", "trainer.compile=true")
    assert list(compiled) == list(plain)
    assert max(abs(compiled[step] - plain[step]) for step in plain) < 0.02


@pytest.mark.parametrize("attention", ["varlen", "sdpa"])
def test_attention_kernels_agree_with_the_formula_over_a_run(losses, attention):
    formula = losses("formula", "arch.attention=reference", "arch.dropout=0")
    kernel = losses("kernel", f"arch.attention={attention}", "arch.dropout=0")
    assert max(abs(kernel[step] - formula[step]) for step in formula) < 0.02  # as above


def test_a_run_says_how_right_its_plan_was(losses, run_config, tmp_path):
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    losses("memory", "arch=micro", "tokenizer.vocab_size=700", "data.batch_size=16", "trainer.compile=false")
    plan = json.loads((tmp_path / "memory" / "run.json").read_text())["prediction"]
    measured = torch.cuda.max_memory_allocated()
    assert plan, "a run says how right its plan was"
    assert measured > 0


def shape(n_kv_heads):
    return DecoderConfig(
        vocab_size=512, n_layers=3, d_model=128, n_heads=4, n_kv_heads=n_kv_heads, d_ff=256, max_seq_len=128
    )


@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 1e-3), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("n_kv_heads", [4, 2])
def test_the_fused_decoder_gives_the_decoders_logits(dtype, share, n_kv_heads):
    torch.manual_seed(0)
    model = Decoder(shape(n_kv_heads)).cuda().eval()
    tokens = torch.randint(512, (1, 70), device="cuda")
    with torch.no_grad():
        wanted = model.logits(model(tokens))[0].float()
    fused = FusedDecoder(model, dtype)
    cache = Cache(fused, 2, 128)
    read = fused.prefill(tokens[0, :40], cache, 0, 0).unsqueeze(0)
    written = [
        fused.decode(tokens[0, place : place + 1], torch.tensor([place], device="cuda"), cache, place)
        for place in range(40, 70)
    ]
    got = torch.cat([read, *written])
    error = (got - wanted[39:]).norm() / wanted[39:].norm()
    assert error < share


def test_answers_repeat_with_their_seed():
    torch.manual_seed(0)
    model = Decoder(shape(4)).cuda()
    params = [SamplingParams(seed=seed, max_new_tokens=20, top_p=0.9) for seed in range(5)]
    first, again = (generate(model, [[1, 5, 9]] * 5, params, eos_id=None) for _ in range(2))
    assert [one.tokens for one in first] == [one.tokens for one in again]


SLACK = {torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}
"""Half a unit in the last place of a slope of 1, which is written in the type of the logits; float32's is its exponentials'."""


@pytest.mark.parametrize("dtype", SLACK)
@pytest.mark.parametrize("n_vocab", [50, 4096, 32771])
def test_the_kernel_of_the_loss_gives_the_formula_in_float64(dtype, n_vocab):
    slopes = loss._gpu_kernel()
    assert slopes is not None, "Triton comes with PyTorch for CUDA"
    torch.manual_seed(0)
    logits, scales = (3 * torch.randn(100, n_vocab, device="cuda")).to(dtype), torch.rand(100, device="cuda")
    targets = torch.randint(n_vocab, (100,), device="cuda")
    targets[::7] = slopes.NO_TARGET
    counts = targets >= 0
    exact = logits.double().requires_grad_()
    wanted = F.cross_entropy(exact, targets.where(counts, -100), reduction="none")
    (wanted * scales).sum().backward()
    untouched = logits.clone()
    assert torch.allclose(slopes.slopes_(untouched, targets, wanted=False).double(), wanted, rtol=1e-6, atol=1e-5)
    assert torch.equal(untouched, logits)
    nll = slopes.slopes_(logits, targets, scales)
    assert torch.allclose(nll.double(), wanted, rtol=1e-6, atol=1e-5)
    assert exact.grad is not None
    assert (logits.double() - exact.grad).abs().max() <= SLACK[dtype]
    broken = logits.clone()
    broken[3, -1] = torch.nan
    assert slopes.slopes_(broken, targets).isnan().nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows_a_chunk", [7, 1000])
def test_the_loss_of_all_rows_is_that_of_the_targets(dtype, rows_a_chunk, monkeypatch):
    torch.manual_seed(0)
    n_vocab, width = 5000, 64
    monkeypatch.setitem(loss.CHUNK_BYTES, "cuda", n_vocab * dtype.itemsize * rows_a_chunk)
    states = torch.randn(4, 33, width, device="cuda")
    head = 0.2 * torch.randn(n_vocab, width, device="cuda")
    tokens = torch.randint(n_vocab, (4, 33), device="cuda")
    mask = torch.rand(4, 33, device="cuda") > 0.2

    def measure(x, weight, function):
        x, weight = (leaf.clone().requires_grad_() for leaf in (x, weight))
        with torch.autocast("cuda", dtype, enabled=x.dtype != torch.float64 and dtype != torch.float32):
            value, count = function(x, weight)
        (value / count).backward()
        assert x.grad is not None
        assert weight.grad is not None
        return value, count, x.grad, weight.grad

    def formula(x, weight):
        targets = tokens[:, 1:].masked_fill(~mask[:, 1:], -100)
        logits = (x[:, :-1] @ weight.T).flatten(0, 1)
        return F.cross_entropy(logits, targets.flatten(), reduction="sum"), mask[:, 1:].sum()

    wanted = measure(states.double(), head.double(), formula)
    # TensorFloat-32 and bfloat16 round the factors of products to 11 and 8 bits.
    share = 2e-3 if dtype == torch.float32 else 1e-2
    for nearly_all in (False, True):
        got = measure(states, head, lambda x, w: next_token_loss(x, w, tokens, mask, nearly_all=nearly_all))  # noqa: B023
        assert int(got[1]) == int(wanted[1])
        for place in (0, 2, 3):
            assert (got[place].double() - wanted[place]).norm() <= share * wanted[place].norm()
        assert not got[2][:, -1].any(), "what predicts no target learns nothing"


def test_no_step_waits_for_the_device(losses, monkeypatch):
    begin, end = Pretrain.on_train_batch_start, Pretrain.on_train_batch_end

    def strict(self, batch, batch_idx):
        if 2 <= batch_idx < 5:
            torch.cuda.set_sync_debug_mode("error")
        begin(self, batch, batch_idx)

    def relaxed(self, *args):
        torch.cuda.set_sync_debug_mode("default")
        end(self, *args)

    monkeypatch.setattr(Pretrain, "on_train_batch_start", strict)
    monkeypatch.setattr(Pretrain, "on_train_batch_end", relaxed)
    try:
        assert len(losses("free", "trainer.precision=bf16-mixed", "callbacks.progress.every_steps=6")) == 12
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
def test_a_step_that_is_no_number_changes_nothing_though_nobody_waited_for_it(tiny_config, recipe):
    torch.manual_seed(0)
    decoder = Decoder(tiny_config)
    before = copy.deepcopy(decoder)
    fit(make_stage(before, RECIPES[recipe]), FOUR_OF_2[:1], accelerator="gpu")
    stage = make_stage(decoder, RECIPES[recipe], kind=Poisoned, total_steps=4)
    with pytest.raises(NumericError, match=r"step 1: loss=nan, gradient norm=nan.*windows of a: \[2, 3\]"):
        fit(stage, FOUR_OF_2, accelerator="gpu")
    pairs = zip(stage.decoder.parameters(), before.parameters(), strict=True)
    assert all(torch.equal(one.cpu(), other.cpu()) for one, other in pairs)
