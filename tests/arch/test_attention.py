"""Attention: every kernel gives what the formula says for each document alone."""

import logging

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lumi.arch.attention import attend, layout_documents, resolve_backend
from lumi.errors import ConfigError

CPU = torch.device("cpu")
ONE_DOCUMENT = [[0] * 7, [0] * 7]
SEVERAL = [[0, 0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 2]]
PADDED = [[0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, -1, -1]]

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def random_heads(n_heads: int, n_kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """q (2, 7, H, 16) and k, v (2, 7, K, 16)."""
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, 7, heads, 16, generator=generator) for heads in (n_heads, n_kv_heads, n_kv_heads))  # pyright: ignore[reportReturnType]


def one_query_at_a_time(q: Tensor, k: Tensor, v: Tensor, doc_ids: Tensor) -> Tensor:
    """The slowest attention there is, in float64: for each row, head and query, over the keys it may see."""
    out = torch.empty_like(q, dtype=torch.float64)
    share = q.shape[2] // k.shape[2]
    for row, at, head in torch.cartesian_prod(*(torch.arange(n) for n in q.shape[:3])).tolist():
        seen = [past for past in range(at + 1) if doc_ids[row, past] == doc_ids[row, at]]
        keys, values = k[row, seen, head // share].double(), v[row, seen, head // share].double()
        out[row, at, head] = (keys @ q[row, at, head].double() / 4.0).softmax(dim=0) @ values  # 4 is the root of 16
    return out.type_as(q)


@pytest.mark.parametrize("backend", ["sdpa", "reference"])
@pytest.mark.parametrize("n_kv_heads", [4, 2, 1])
@pytest.mark.parametrize("documents", [ONE_DOCUMENT, SEVERAL, PADDED])
def test_a_kernel_gives_what_the_formula_says(backend, n_kv_heads, documents):
    q, k, v = random_heads(4, n_kv_heads)
    doc_ids = torch.tensor(documents)
    out = attend(q, k, v, layout_documents(doc_ids, (2, 7), CPU, backend), backend)
    assert_close(out, one_query_at_a_time(q, k, v, doc_ids), atol=1e-6, rtol=1e-5)


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize("backend", ["sdpa", "varlen", "flash"])
@pytest.mark.parametrize("n_kv_heads", [4, 2, 1])
@pytest.mark.parametrize("documents", [ONE_DOCUMENT, SEVERAL, PADDED])
def test_a_gpu_kernel_gives_what_the_formula_says(backend, n_kv_heads, documents):
    if backend == "flash":
        pytest.importorskip("flash_attn")
    q, k, v = (x.to("cuda", torch.bfloat16) for x in random_heads(4, n_kv_heads))
    doc_ids = torch.tensor(documents, device="cuda")
    out = attend(q, k, v, layout_documents(doc_ids, (2, 7), q.device, backend), backend)
    assert_close(out.cpu(), one_query_at_a_time(q.cpu(), k.cpu(), v.cpu(), doc_ids), atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("backend", ["sdpa", "reference"])
def test_without_document_ids_each_row_is_one_document(backend):
    q, k, v = random_heads(4, 2)
    out = attend(q, k, v, layout_documents(None, (2, 7), CPU, backend), backend)
    assert_close(out, one_query_at_a_time(q, k, v, torch.tensor(ONE_DOCUMENT)), atol=1e-6, rtol=1e-5)


def test_positions_start_again_at_each_document():
    layout = layout_documents(torch.tensor([[5, 5, 5, 6, 6, 9], [0, 1, 2, 2, 2, 2]]), (2, 6), CPU, "sdpa")
    assert layout.positions.tolist() == [[0, 1, 2, 0, 1, 0], [0, 0, 0, 1, 2, 3]]


def test_a_query_sees_its_own_document_up_to_itself():
    layout = layout_documents(torch.tensor([[0, 0, 1, 1]]), (1, 4), CPU, "sdpa")
    assert layout.mask is not None
    assert layout.mask[0, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]


def test_windows_of_one_document_need_no_mask():
    assert layout_documents(torch.tensor([[3, 3, 3], [4, 4, 4]]), (2, 3), CPU, "sdpa").mask is None


def test_variable_length_kernels_get_the_boundaries_of_all_rows():
    layout = layout_documents(torch.tensor([[0, 0, 1], [1, 1, 1]]), (2, 3), CPU, "varlen")
    assert layout.boundaries is not None
    assert layout.boundaries.tolist() == [0, 2, 3, 6]  # equal ids in two rows are two documents
    assert layout.boundaries.dtype == torch.int32
    assert layout.longest == 3


def test_auto_is_sdpa_on_a_cpu():
    assert resolve_backend("auto", CPU, torch.float32, 16) == "sdpa"


@pytest.mark.parametrize("backend", ["flash", "varlen"])
def test_a_kernel_asked_for_by_name_that_is_not_here_is_an_error(backend):
    with pytest.raises(ConfigError, match=rf"arch\.attention={backend} .*CUDA.*attention=auto"):
        resolve_backend(backend, CPU, torch.bfloat16, 16)


def test_the_choice_is_logged_once(caplog):
    with caplog.at_level(logging.INFO, logger="lumi.arch.attention"):
        for _ in range(3):
            resolve_backend("auto", CPU, torch.complex64, 16)  # a type that no other test asks for
    assert caplog.messages == ["attention: sdpa (cpu, complex64)"]
