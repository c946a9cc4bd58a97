"""Windows of a packed stream: nothing is missed, nothing comes twice, and damage is found before it is read."""

import numpy as np
import pytest

from lumi.data.packed import PackedStream, check_enough
from lumi.errors import ConfigError, DataError, TokenizerMismatch
from lumi.manifest import sealed

BOS, EOS = 1, 2
DOCUMENTS = [[BOS, 10, 11, 12, EOS], [BOS, EOS], [BOS, *range(20, 37), EOS], [BOS, 40, EOS]]
STREAM = [token for document in DOCUMENTS for token in document]  # 29 tokens
OF_DOCUMENT = [number for number, document in enumerate(DOCUMENTS) for _ in document]

SEQ_LENS = pytest.mark.parametrize("seq_len", [2, 3, 5, 8, 15, 29, 30, 64])
SHARDS = pytest.mark.parametrize("shard_tokens", [1, 4, 7, 29, 1000])


def read_all(stream: PackedStream):
    """All windows at once."""
    return stream.windows(np.arange(len(stream)))


@SEQ_LENS
@SHARDS
def test_each_token_with_a_predecessor_in_its_document_is_a_target_once_an_epoch(write_packed, seq_len, shard_tokens):
    stream = PackedStream(write_packed(DOCUMENTS, shard_tokens=shard_tokens), "train", seq_len)
    windows = read_all(stream)
    times = [0] * len(STREAM)
    for row, column in np.argwhere(windows["loss_mask"]).tolist():
        times[row * (seq_len - 1) + column] += 1
    assert times == [0 if token == BOS else 1 for token in STREAM]


@SEQ_LENS
@SHARDS
def test_windows_hold_the_stream_and_share_one_token(write_packed, seq_len, shard_tokens):
    tokens = read_all(PackedStream(write_packed(DOCUMENTS, shard_tokens=shard_tokens), "train", seq_len))["tokens"]
    assert np.array_equal(tokens[1:, 0], tokens[:-1, -1])
    joined = [tokens[0, 0], *tokens[:, 1:].flatten()]
    assert joined[:29] == STREAM
    assert not any(joined[29:])  # padding


@SEQ_LENS
def test_document_ids_say_which_tokens_belong_together(write_packed, seq_len):
    stream = PackedStream(write_packed(DOCUMENTS, shard_tokens=6), "train", seq_len)
    for number, doc_ids in enumerate(read_all(stream)["doc_ids"]):
        start = number * (seq_len - 1)
        expected = OF_DOCUMENT[start : start + seq_len]
        relative = [document - expected[0] for document in expected]  # counted from the window's first
        assert doc_ids.tolist() == relative + [-1] * (seq_len - len(relative))


def test_a_window_worked_out_by_hand(write_packed):
    windows = PackedStream(write_packed(DOCUMENTS), "train", 10).windows(np.array([0, 3]))
    assert windows["tokens"].tolist() == [[1, 10, 11, 12, 2, 1, 2, 1, 20, 21], [40, 2, 0, 0, 0, 0, 0, 0, 0, 0]]
    assert windows["doc_ids"].tolist() == [[0, 0, 0, 0, 0, 1, 1, 2, 2, 2], [0, 0, *[-1] * 8]]
    assert windows["loss_mask"].astype(int).tolist() == [[0, 1, 1, 1, 1, 0, 1, 0, 1, 1], [0, 1, *[0] * 8]]
    assert [windows[key].dtype for key in ("tokens", "doc_ids", "loss_mask")] == [np.int64, np.int32, np.bool_]


def test_bos_is_never_a_target_and_eos_always_is(write_packed):
    windows = read_all(PackedStream(write_packed(DOCUMENTS), "train", 4))
    targets = windows["tokens"][windows["loss_mask"]]
    assert BOS not in targets
    assert (targets == EOS).sum() == len(DOCUMENTS)


def test_only_the_last_window_is_padded_and_training_leaves_it_out(write_packed):
    stream = PackedStream(write_packed(DOCUMENTS), "train", 9)  # 28 targets: three windows of 8, and one of 4
    assert (len(stream), stream.n_whole) == (4, 3)
    assert (read_all(stream)["doc_ids"] == -1).sum(axis=1).tolist() == [0, 0, 0, 4]


def test_a_stream_that_fits_exactly_has_no_padding(write_packed):
    stream = PackedStream(write_packed(DOCUMENTS), "train", 8)  # 28 targets: four windows of 7
    assert (len(stream), stream.n_whole) == (4, 4)
    assert -1 not in read_all(stream)["doc_ids"]


def test_any_stretch_can_be_read_across_shards(write_packed):
    stream = PackedStream(write_packed(DOCUMENTS, shard_tokens=4), "train", 8)
    for start in range(29):
        for stop in range(start + 1, 30):
            assert stream.tokens(start, stop).tolist() == STREAM[start:stop]


def test_windows_come_in_the_order_they_are_asked_for(write_packed):
    stream = PackedStream(write_packed(DOCUMENTS, shard_tokens=7), "train", 5)
    some, every = stream.windows(np.array([5, 0, 5, 3])), read_all(stream)
    for key in ("tokens", "doc_ids", "loss_mask"):
        assert np.array_equal(some[key], every[key][[5, 0, 5, 3]])


@pytest.mark.parametrize("index", [-1, 4, 1000])
def test_a_window_that_is_not_there_is_an_index_error(write_packed, index):
    with pytest.raises(IndexError, match="of 4"):
        PackedStream(write_packed(DOCUMENTS), "train", 8).windows(np.array([index]))


def test_a_large_vocabulary_is_stored_in_four_bytes(write_packed):
    folder = write_packed([[BOS, 70_000, 100_000, EOS]], dtype="uint32")
    assert PackedStream(folder, "train", 4).windows(np.array([0]))["tokens"].tolist() == [[1, 70_000, 100_000, 2]]


def test_the_splits_are_read_apart(write_packed):
    stream = PackedStream(write_packed(DOCUMENTS, [[BOS, 50, 51, EOS], [BOS, 52, EOS]]), "val", 7)
    assert (len(stream), stream.n_tokens, stream.n_bytes) == (1, 7, 21)
    assert stream.windows(np.array([0]))["tokens"].tolist() == [[1, 50, 51, 2, 1, 52, 2]]


@pytest.mark.parametrize("name", ["train-00000.bin", "train-00004.bin", "train.offsets.npy", "val-00000.bin"])
@pytest.mark.parametrize("damage", ["one bit flipped", "one byte missing", "file missing"])
def test_damage_is_refused_with_the_name_of_the_file(write_packed, name, damage):
    path = write_packed(DOCUMENTS, shard_tokens=7) / name
    content = bytearray(path.read_bytes())
    if damage == "one bit flipped":
        content[-1] ^= 1
    path.write_bytes(content[:-1] if damage == "one byte missing" else content)
    if damage == "file missing":
        path.unlink()
    with pytest.raises(DataError, match=name):
        PackedStream(path.parent, "train", 8)


def test_without_the_full_check_a_wrong_size_is_still_found(write_packed):
    folder = write_packed(DOCUMENTS)
    (folder / "train-00000.bin").write_bytes(b"\0" * 56)
    with pytest.raises(DataError, match=r"train-00000\.bin has 56 bytes .* 58"):
        PackedStream(folder, "train", 8, full_check=False)


def test_another_tokenizer_is_refused_with_both_hashes(write_packed):
    folder = write_packed(DOCUMENTS, tokenizer="3f2a" * 16)
    with pytest.raises(TokenizerMismatch, match=r"3f2a3f2a.*9c419c41.*prepare\.py step=pack"):
        PackedStream(folder, "train", 8, "9c41" * 16)


def test_the_same_tokenizer_is_accepted(write_packed):
    assert len(PackedStream(write_packed(DOCUMENTS, tokenizer="3f2a" * 16), "train", 8, "3f2a" * 16)) == 4


@pytest.mark.parametrize("dtype", ["object", "float32", "int64"])
def test_a_manifest_that_names_another_type_is_refused(write_packed, dtype):
    folder = write_packed(DOCUMENTS)
    manifest = folder / "MANIFEST.json"
    body = manifest.read_bytes().partition(b',\n  "seal"')[0].replace(b"uint16", dtype.encode())
    manifest.write_bytes(sealed(body + b"\n}"))
    with pytest.raises(DataError, match=f"holds {dtype}"):
        PackedStream(folder, "train", 8)


def test_an_id_outside_the_vocabulary_is_refused_when_it_is_read(write_packed):
    stream = PackedStream(write_packed([[BOS, 10, 63, EOS], [BOS, 64, EOS]], vocab_size=64), "train", 4)
    stream.windows(np.array([0]))
    with pytest.raises(DataError, match=r"train split holds the id 64 · the vocabulary has 64 · data\.full_check=true"):
        stream.windows(np.array([1]))


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        PackedStream(tmp_path / "nowhere", "train", 8)


def test_a_window_without_a_target_is_refused(write_packed):
    with pytest.raises(ConfigError, match=r"data\.seq_len=1"):
        PackedStream(write_packed(DOCUMENTS), "train", 1)


def test_too_little_for_one_batch_is_refused_with_the_tokens_it_takes(write_packed):
    stream = PackedStream(write_packed(DOCUMENTS), "train", 8)
    check_enough(stream, 4)
    with pytest.raises(DataError, match=r"has 29 train tokens .* 5 windows of 8 tokens needs 36"):
        check_enough(stream, 5)


@pytest.mark.parametrize("documents", [[], [[BOS]]], ids=["no document", "one token"])
def test_a_stream_too_short_for_any_target_has_no_window(write_packed, documents):
    stream = PackedStream(write_packed(DOCUMENTS, documents), "val", 8)
    assert (len(stream), stream.n_whole) == (0, 0)
