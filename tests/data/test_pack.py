"""Packing: every document once, exactly, on one side, in the same bytes whatever the number of threads."""

import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lumi.corpus import Document, Rejected, Source, build_corpus, corpus_of
from lumi.data.pack import PackConfig, pack, split_fraction
from lumi.data.shards import SplitWriter, check_packed
from lumi.errors import ConfigError, DataError
from lumi.manifest import read_manifest
from lumi.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer

RNG = random.Random(0)
TEXTS = [" ".join(RNG.choices(["ba", "nana", "söd", "a\nb", "42.", "<s>"], k=RNG.randint(1, 30))) for _ in range(300)]


class Texts(Source):
    """A source of given texts, each with as many bits as it has characters."""

    name, weight, licence, notes = "texts", 1.0, "CC0-1.0", ""

    def __init__(self, texts: list[str], bits: bool) -> None:
        self.texts, self.bits = texts, bits

    def settings(self) -> dict[str, Any]:
        return {"texts": self.texts, "bits": self.bits}

    def documents(self) -> Iterator[Document | Rejected]:
        for number, text in enumerate(self.texts):
            yield Document(text=text, id=f"{number}", bits=float(len(text)) if self.bits else None)


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pack") / "tokenizer"
    config = TokenizerConfig(name="t", vocab_size=400, exact_size=False, model_type="bpe")
    train_tokenizer(lambda: iter(TEXTS), folder, config, parents={})
    return folder


@pytest.fixture
def packing(tmp_path: Path, tokenizer_folder: Path) -> Callable[..., Path]:
    """``packing(texts=…, val_ratio=…)``: the folder of the packed texts."""

    def run(
        *, texts: list[str] = TEXTS, name: str = "p", bits: bool = False, force: bool = False, **settings: Any
    ) -> Path:
        corpus = tmp_path / f"corpus-{len(texts)}-{bits}"
        build_corpus(corpus_of(Texts(texts, bits)), corpus)
        config = PackConfig(**{"val_ratio": 0.2, "num_threads": 1, **settings})
        pack(corpus, tokenizer_folder, tmp_path / name, config, force=force)
        return tmp_path / name

    return run


def documents(folder: Path, split: str) -> list[list[int]]:
    """The documents of a split, read with nothing but numpy and the manifest."""
    info = read_manifest(folder).info
    shards = [np.fromfile(path, dtype=info["dtype"]) for path in sorted(folder.glob(f"{split}-*.bin"))]
    assert [len(shard) for shard in shards] == info["splits"][split]["shards"]
    stream = np.concatenate(shards) if shards else np.empty(0)
    offsets = np.load(folder / f"{split}.offsets.npy")
    assert (offsets.dtype, offsets[0], offsets[-1]) == (np.int64, 0, len(stream))
    return [stream[start:stop].tolist() for start, stop in itertools.pairwise(offsets)]


def texts_of(folder: Path, tokenizer_folder: Path, split: str) -> list[str]:
    tokenizer = Tokenizer.load(tokenizer_folder)
    return [tokenizer.decode(tokens) for tokens in documents(folder, split)]


def test_a_document_is_bos_its_tokens_and_eos(packing, tokenizer_folder):
    tokenizer = Tokenizer.load(tokenizer_folder)
    packed = documents(packing(val_ratio=0), "train")
    assert packed == [[tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id] for text in dict.fromkeys(TEXTS)]


def test_every_document_is_on_one_side_and_keeps_its_order(packing, tokenizer_folder):
    folder = packing()
    train, val = (texts_of(folder, tokenizer_folder, split) for split in ("train", "val"))
    assert not {*train} & {*val}
    assert sorted([*train, *val], key=TEXTS.index) == list(dict.fromkeys(TEXTS))
    assert train == sorted(train, key=TEXTS.index)


def test_the_ratio_is_that_of_the_documents():
    fractions = np.array([split_fraction(f"{number}".encode(), seed=0) for number in range(10_000)])
    # Binomial: 500 expected, standard deviation 22.
    assert abs((fractions < 0.05).sum() - 500) < 100
    assert abs(fractions.mean() - 0.5) < 0.02


def test_more_documents_move_none_of_the_others(packing, tokenizer_folder):
    few = texts_of(packing(texts=TEXTS[:100], name="few"), tokenizer_folder, "val")
    many = texts_of(packing(name="many"), tokenizer_folder, "val")
    assert few == many[: len(few)]


def test_another_seed_holds_out_other_documents(packing, tokenizer_folder):
    one, two = (texts_of(packing(name=f"{seed}", seed=seed), tokenizer_folder, "val") for seed in (0, 1))
    assert {*one} != {*two}


def test_threads_and_repetition_change_no_byte(packing):
    one, two = packing(name="one", num_threads=1), packing(name="two", num_threads=2)
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}
    assert all(path.read_bytes() == (two / path.name).read_bytes() for path in one.iterdir())


def test_a_document_may_straddle_shards(packing):
    whole, cut = packing(name="whole"), packing(name="cut", shard_tokens=37)
    assert len(list(cut.glob("train-*.bin"))) > 10
    assert read_manifest(cut).info["splits"]["train"]["shards"][:2] == [37, 37]
    assert documents(cut, "train") == documents(whole, "train")


def test_the_manifest_counts_bytes_tokens_and_bits(packing, tokenizer_folder):
    folder = packing(bits=True)
    facts = read_manifest(folder).info["splits"]
    for split in ("train", "val"):
        texts = texts_of(folder, tokenizer_folder, split)
        assert facts[split]["documents"] == len(texts)
        assert facts[split]["bytes"] == sum(len(text.encode()) for text in texts)
        assert facts[split]["bits"] == sum(len(text) for text in texts)
        assert facts[split]["tokens"] == sum(map(len, documents(folder, split)))


def test_the_manifest_names_corpus_and_tokenizer(packing, tokenizer_folder, tmp_path):
    manifest = read_manifest(packing())
    assert manifest.parents == {
        "corpus": read_manifest(tmp_path / "corpus-300-False").info["content_sha256"],
        "tokenizer": Tokenizer.load(tokenizer_folder).sha256,
    }
    assert manifest.info["splits"]["train"]["bits"] is None


def test_no_validation_is_possible(packing):
    folder = packing(val_ratio=0)
    assert read_manifest(folder).info["splits"]["val"] == {
        "documents": 0, "tokens": 0, "bytes": 0, "bits": None, "shards": []
    }  # fmt: skip
    assert documents(folder, "val") == []


def test_an_empty_validation_split_is_refused_with_a_ratio_that_works(packing):
    with pytest.raises(DataError, match=r"none of the 3 documents .* into val") as caught:
        packing(texts=TEXTS[:3], val_ratio=0.0001)
    ratio = float(caught.value.fix.split("=")[1].split()[0])
    assert len(documents(packing(texts=TEXTS[:3], val_ratio=ratio), "val")) == 1


def test_an_empty_training_split_is_refused_with_a_ratio_that_works(packing):
    with pytest.raises(DataError, match=r"none of the 3 documents .* into train") as caught:
        packing(texts=TEXTS[:3], val_ratio=0.9999)
    ratio = float(caught.value.fix.split("=")[1].split()[0])
    assert len(documents(packing(texts=TEXTS[:3], val_ratio=ratio), "train")) == 1


def test_one_document_cannot_be_split_and_nothing_is_left_behind(packing, tmp_path):
    with pytest.raises(DataError, match=r"source\.document=paragraph .* pack\.val_ratio=0 for no validation"):
        packing(texts=["one text"], val_ratio=0.05)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["corpus-1-False"]


def test_the_second_call_does_nothing_and_other_settings_are_refused(packing):
    folder = packing()
    before = (folder / "train-00000.bin").stat().st_ino
    assert (packing(num_threads=2) / "train-00000.bin").stat().st_ino == before
    with pytest.raises(DataError, match=r"pack\.val_ratio was 0\.2, is 0\.3 · force=true"):
        packing(val_ratio=0.3)
    assert (packing(val_ratio=0.3, force=True) / "train-00000.bin").stat().st_ino != before


def test_another_corpus_is_refused(packing):
    packing()
    with pytest.raises(DataError, match=r"made from\.corpus was .*, is "):
        packing(texts=TEXTS[:200])


@pytest.mark.parametrize("part", ["corpus-300-False/texts-00000.jsonl.zst", "tokenizer/tokenizer.model"])
def test_one_flipped_bit_in_what_it_is_made_from_stops_it(packing, tokenizer_folder, tmp_path, part):
    packing(name="before")
    path = tmp_path / part if part.startswith("corpus") else tokenizer_folder.parent / part
    good = path.read_bytes()
    path.write_bytes(good[:99] + bytes([good[99] ^ 1]) + good[100:])
    try:
        with pytest.raises(DataError, match="changed or damaged"):
            pack(tmp_path / "corpus-300-False", tokenizer_folder, tmp_path / "p", PackConfig(num_threads=1))
    finally:
        path.write_bytes(good)
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("stream", "fault"),
    [
        ([[1, 5000, 2]], "holds the id 5000"),
        ([[1, 30, 31]], "needs one bos and one eos"),
        ([[1, 2, 2]], "needs one bos and one eos"),
        ([[1, 30, 31, 2]], "do not stand for the 12 bytes"),
    ],
)
def test_the_load_test_finds_what_training_would_stumble_on(write_packed, tokenizer_folder, stream, fault):
    tokenizer = Tokenizer.load(tokenizer_folder)
    folder = write_packed(stream, tokenizer=tokenizer.sha256)
    with pytest.raises(DataError, match=fault):
        check_packed(folder, "train", tokenizer, [])


def test_the_load_test_compares_the_text(packing, tokenizer_folder):
    folder, tokenizer = packing(val_ratio=0), Tokenizer.load(tokenizer_folder)
    check_packed(folder, "train", tokenizer, [(7, TEXTS[7])])
    with pytest.raises(DataError, match="document 7 does not decode to its text"):
        check_packed(folder, "train", tokenizer, [(7, TEXTS[8])])


def test_large_vocabularies_have_four_bytes_a_token(tmp_path):
    writer = SplitWriter(tmp_path, "train", np.dtype(np.uint32), 10)
    tokens = np.array([1, 70_000, 2], dtype=np.uint32)
    writer.extend(tokens, np.array([3]), {"bytes": 1, "bits": None, "samples": []})
    writer.close()
    assert np.fromfile(tmp_path / "train-00000.bin", dtype=np.uint32).tolist() == [1, 70_000, 2]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("val_ratio", value) for value in (1, -0.1, "0.1")],
        *[("seed", -1), ("seed", 0.5), ("num_threads", 0), ("shard_tokens", True)],
    ],
)
def test_a_wrong_setting_is_named(key, value):
    with pytest.raises(ConfigError, match=rf"pack\.{key}={value} · must be"):
        PackConfig(**{key: value})
