"""Attention in C++ gives what the formula says, and so do its gradients; on processors without matrix units by plain loops."""

import shutil
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lumi.arch.attention import attend, layout_documents, resolve_backend
from lumi.arch.native import attention, build
from lumi.errors import ConfigError

pytestmark = pytest.mark.skipif(not any(map(shutil.which, build.COMPILERS)), reason="needs a C++ compiler")

CPU = torch.device("cpu")
SHAPES = {
    "one token": (1, 1, 1, 1, 32),
    "less than a block": (2, 7, 4, 4, 32),
    "whole blocks": (1, 128, 2, 2, 64),
    "grouped": (2, 100, 4, 2, 64),
    "one key head": (2, 130, 4, 1, 32),
    "wide heads": (1, 70, 1, 1, 128),
}
ROUNDING = 2.0**-8
"""Relative, of whole arrays: of bfloat16's eight bits a result loses at most 2^-9, and so do the weights that are summed."""


def drawn(n_rows: int, n_tokens: int, n_heads: int, n_kv_heads: int, d_head: int) -> list[Tensor]:
    """q, k, v and a gradient of the result."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(n_rows, n_tokens, heads, d_head, generator=generator).bfloat16()
        for heads in (n_heads, n_kv_heads, n_kv_heads, n_heads)
    ]


def documents(n_rows: int, n_tokens: int, share: float) -> Tensor:
    """Ids of documents that begin at a share of the places."""
    return (torch.rand(n_rows, n_tokens, generator=torch.Generator().manual_seed(1)) < share).cumsum(1)


def formula(q: Tensor, k: Tensor, v: Tensor, doc_ids: Tensor) -> Tensor:
    """In float64, with the whole table of scores."""
    n_tokens, share = q.shape[1], q.shape[2] // k.shape[2]
    keys, values = (x.repeat_interleave(share, dim=2).transpose(1, 2) for x in (k, v))
    scores = q.transpose(1, 2) @ keys.transpose(2, 3) / q.shape[3] ** 0.5
    seen = (doc_ids.unsqueeze(2) == doc_ids.unsqueeze(1)) & torch.ones(n_tokens, n_tokens).tril().bool()
    return (scores.masked_fill(~seen.unsqueeze(1), -torch.inf).softmax(dim=-1) @ values).transpose(1, 2)


def computed(q: Tensor, k: Tensor, v: Tensor, doc_ids: Tensor | None) -> Tensor:
    return attend(q, k, v, layout_documents(doc_ids, (q.shape[0], q.shape[1]), CPU, "native"), "native")


def with_gradients(function: Callable[..., Tensor], drawing: Iterable[Tensor], doc_ids: Tensor) -> list[Tensor]:
    """The result, and the gradients of q, k and v."""
    *inputs, grad = drawing
    inputs = [x.detach().requires_grad_() for x in inputs]
    out = function(*inputs, doc_ids)
    return [out.detach(), *torch.autograd.grad(out, inputs, grad)]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("share", [0.0, 0.03, 0.4], ids=["one document", "long documents", "short documents"])
def test_results_and_gradients_are_those_of_the_formula(shape, share):
    drawing, doc_ids = drawn(*shape), documents(shape[0], shape[1], share)
    mine = with_gradients(computed, drawing, doc_ids)
    theirs = with_gradients(formula, [x.double() for x in drawing], doc_ids)
    scale = max(float(one.norm()) for one in theirs[1:])  # a gradient may be nothing but rounding, as of a single key's
    for name, one, other in zip(("out", "q", "k", "v"), mine, theirs, strict=True):
        size = float(other.norm()) if name == "out" else max(float(other.norm()), 0.1 * scale)
        assert float((one.double() - other).norm()) < ROUNDING * size, name


def test_without_document_ids_each_row_is_one_document():
    q, k, v, _ = drawn(2, 70, 2, 2, 32)
    assert torch.equal(computed(q, k, v, None), computed(q, k, v, torch.zeros(2, 70, dtype=torch.long)))


def test_no_bit_of_another_document_or_a_later_token_is_seen():
    shape = (1, 150, 2, 1, 32)
    q, k, v, grad = drawn(*shape)
    doc_ids = (torch.arange(150) >= 67).long().unsqueeze(0)
    before = with_gradients(computed, (q, k, v, grad), doc_ids)
    k[:, 67:], v[:, 67:] = 1e4, -1e4  # the second document; of the first, what comes after token 40
    after = with_gradients(computed, (q, k, v, grad), doc_ids)
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one[:, :67], other[:, :67])
    k[:, 41:67], v[:, 41:67] = 1e4, -1e4
    assert torch.equal(computed(q, k, v, doc_ids)[:, :41], before[0][:, :41])
    grad[:, :67] = 0
    for gradient in with_gradients(computed, (q, k, v, grad), doc_ids)[1:]:
        assert torch.count_nonzero(gradient[:, :67]) == 0


def test_bits_depend_neither_on_the_other_rows_nor_on_the_threads():
    shape = (3, 100, 4, 2, 32)
    drawing, doc_ids = drawn(*shape), documents(3, 100, 0.05)
    together = with_gradients(computed, drawing, doc_ids)
    alone = with_gradients(computed, (x[1:2] for x in drawing), doc_ids[1:2])
    for one, other in zip(together, alone, strict=True):
        assert torch.equal(one[1:2], other)
    torch.set_num_threads(3)
    try:
        threaded = with_gradients(computed, drawing, doc_ids)
    finally:
        torch.set_num_threads(1)
    assert all(map(torch.equal, together, threaded))


def test_heads_may_lie_anywhere():
    q, k, v, grad = drawn(2, 70, 2, 2, 32)
    doc_ids = documents(2, 70, 0.05)
    packed = torch.cat((q, k, v), dim=2)  # as one projection would give them: rows and tokens lie further apart
    across = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    expected = with_gradients(computed, (q, k, v, grad), doc_ids)
    for views in (packed.split(2, dim=2), across):
        assert all(map(torch.equal, with_gradients(computed, (*views, grad), doc_ids), expected))


def test_what_is_not_a_number_is_not_hidden():
    q, k, v, _ = drawn(1, 70, 1, 1, 32)
    k[0, 20] = torch.nan
    out = computed(q, k, v, None)
    assert out[0, :20].isfinite().all()
    assert out[0, 20:].isnan().all()


def test_the_operator_keeps_pytorchs_rules():
    q, k, v, _ = drawn(2, 70, 4, 2, 32)
    inputs = [x.requires_grad_() for x in (q, k, v)]
    first = attention.first_visible(torch.arange(70).expand(2, 70))
    torch.library.opcheck(attention._attend, (*inputs, first))


def test_auto_takes_it_where_it_is_fast(monkeypatch):
    monkeypatch.setattr(attention, "ready", lambda: True)
    # Sizes that no other test asks for: what is chosen is remembered.
    assert resolve_backend("auto", CPU, torch.bfloat16, 224) == "native"
    assert resolve_backend("auto", CPU, torch.bfloat16, 225) == "sdpa"
    assert resolve_backend("auto", CPU, torch.float32, 224) == "sdpa"
    monkeypatch.setattr(attention, "ready", lambda: False)
    assert resolve_backend("auto", CPU, torch.bfloat16, 192) == "sdpa"


@pytest.mark.parametrize(
    ("dtype", "d_head", "ready", "reason"),
    [
        (torch.float32, 64, True, "needs bfloat16, this run has torch.float32"),
        (torch.bfloat16, 48, True, "needs heads of 32 to 256 features in steps of 32, these have 48"),
        (torch.bfloat16, 64, False, r"needs a CPU with matrix units \(AMX\) and a C\+\+ compiler"),
    ],
)
def test_asked_for_by_name_where_it_cannot_be_had_is_an_error(monkeypatch, dtype, d_head, ready, reason):
    monkeypatch.setattr(attention, "ready", lambda: ready)
    with pytest.raises(ConfigError, match=f"arch.attention=native .*{reason}.*attention=auto"):
        resolve_backend("native", CPU, dtype, d_head)


@pytest.mark.skipif(not attention.ready(), reason="needs a processor with matrix units")
def test_compiled_and_plain_agree():
    drawing, doc_ids = drawn(2, 70, 4, 2, 32), documents(2, 70, 0.05)
    layout = layout_documents(doc_ids, (2, 70), CPU, "native")

    def plain(q: Tensor, k: Tensor, v: Tensor, _: Tensor) -> Tensor:
        return attend(q * 2, k, v, layout, "native") + 1

    compiled = torch.compile(plain, fullgraph=True)
    for one, other in zip(*(with_gradients(f, drawing, doc_ids) for f in (plain, compiled)), strict=True):
        assert_close(one, other, atol=0, rtol=0)
