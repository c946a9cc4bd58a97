"""Whole examples in windows: nothing lost, nothing cut, nothing mixed."""

import numpy as np
import pytest

from lumi.data.rows import RowStream, pack_rows


@pytest.mark.parametrize("capacity", [8, 13, 50])
def test_every_example_is_in_one_row_that_it_fits(capacity):
    lengths = np.random.default_rng(0).integers(1, 9, 300)
    rows = pack_rows(lengths, capacity, seed=1)
    assert sorted(index for row in rows for index in row) == list(range(300))
    assert max(lengths[row].sum() for row in rows) <= capacity


def test_short_examples_fill_the_rows():
    lengths = np.random.default_rng(0).integers(10, 100, 2000)
    assert lengths.sum() / (256 * len(pack_rows(lengths, 256, seed=0))) > 0.97


def test_a_row_holds_no_more_examples_than_allowed():
    assert max(map(len, pack_rows(np.ones(20, dtype=np.int64), 16, seed=0, most=3))) == 3


def test_a_window_gives_back_its_examples_as_documents():
    documents = [[(np.arange(n) + 10, np.arange(n) % 2 == 1)] for n in (3, 5, 4)]
    stream = RowStream(documents, seq_len=8, seed=0)
    batch = stream.windows(np.arange(len(stream)))
    found = []
    for tokens, doc_ids, mask in zip(batch["tokens"], batch["doc_ids"], batch["loss_mask"], strict=True):
        for number in range(doc_ids.max() + 1):
            inside = doc_ids == number
            found.append((tokens[inside].tolist(), mask[inside].tolist()))
        assert not mask[doc_ids == -1].any()
    assert sorted(found) == sorted((d[0][0].tolist(), d[0][1].tolist()) for d in documents)
