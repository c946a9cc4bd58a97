"""Runs on a CUDA device: the same promises as on a CPU, with other kernels. ``make gpu-test``."""

import json

import pytest
import torch

from lumi.arch import Decoder, DecoderConfig
from lumi.arch.fused import Cache, FusedDecoder
from lumi.callbacks.metrics import read_metrics
from lumi.generate import SamplingParams, generate

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
