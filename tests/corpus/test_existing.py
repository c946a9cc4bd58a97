"""A part of a corpus that is there: which sources, which share, and the same documents every time."""

from pathlib import Path

import pytest
import yaml

from lumi.corpus.corpus import Corpus
from lumi.corpus.document import Document, SourceSettings
from lumi.corpus.engine.build import build_corpus
from lumi.corpus.engine.pack import split_fraction
from lumi.corpus.existing import Existing
from lumi.errors import ConfigError, DataError

N = 400


class Numbers(SourceSettings):
    """Documents with numbers in them."""

    def settings(self):
        return {"kind": "numbers"}

    def documents(self):
        for number in range(N):
            yield Document(text=f"{self.name} {number}", id=f"{number}", bits=9.0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> str:
    """Folder of a corpus of two sources with the same ids."""
    folder = tmp_path_factory.mktemp("data") / "two"
    sources = {name: Numbers(name=name) for name in ("odd", "even")}
    build_corpus(Corpus(name="two", sources=sources), folder)
    return str(folder)


def ids(path, **settings):
    return [item.id for item in Existing(path=path, **settings).documents() if isinstance(item, Document)]


def test_all_documents_come_in_their_order_with_the_name_of_their_source(corpus):
    assert ids(corpus) == [f"{name}/{number}" for name in ("odd", "even") for number in range(N)]
    first = next(Existing(path=corpus).documents())
    assert first == Document(text="odd 0", id="odd/0", bits=9.0)


def test_some_sources_are_taken_in_the_order_of_the_corpus(corpus):
    assert ids(corpus, sources=["even"]) == [f"even/{number}" for number in range(N)]
    assert ids(corpus, sources=["even", "odd"]) == ids(corpus)


def test_a_share_is_random_and_the_same_every_time(corpus):
    half = ids(corpus, share=0.5)
    assert half == ids(corpus, share=0.5)
    assert half != ids(corpus, share=0.5, seed=1)
    # 800 draws of one half: 400 with a standard deviation of 14.
    assert 330 < len(half) < 470


def test_a_share_says_nothing_about_the_split():
    texts = [f"text {number}" for number in range(4000)]
    part = [text for text in texts if Existing(path="x", share=0.25)._is_in_share(text)]
    held_out = sum(split_fraction(text.encode(), 0) < 0.05 for text in part)
    # Of about 1,000 documents 50, with a standard deviation of 7; all 200 that the split holds out, were they drawn alike.
    assert 20 <= held_out <= 80


def test_a_smaller_share_is_a_part_of_a_larger_one(corpus):
    assert set(ids(corpus, share=0.1)) < set(ids(corpus, share=0.5)) < set(ids(corpus))


def test_settings_follow_the_content_of_the_sources_and_not_the_place(corpus, tmp_path):
    settings = Existing(path=corpus).settings()
    moved = Path(corpus).rename(tmp_path / "moved")
    try:
        assert Existing(path=str(moved)).settings() == settings
    finally:
        moved.rename(corpus)
    assert settings["kind"] == "existing"
    assert [name for name, _ in settings["sources"]] == ["odd", "even"]
    assert Existing(path=corpus, sources=["odd", "even"], weight=2.0).settings() == settings


@pytest.mark.parametrize("change", [{"sources": ["odd"]}, {"share": 0.5}, {"seed": 1}])
def test_settings_tell_other_documents_apart(corpus, change):
    assert Existing(path=corpus, **change).settings() != Existing(path=corpus).settings()


def test_a_part_becomes_a_corpus_of_its_own(corpus, tmp_path):
    part = Existing(path=corpus, sources=["even"], share=0.25, name="part")
    info = build_corpus(Corpus(name="part", sources={"part": part}), tmp_path / "part").info
    assert info["documents"] == len(ids(corpus, sources=["even"], share=0.25))
    assert info["bits"] == 9.0 * info["documents"]


def test_an_unknown_source_is_named_with_those_that_are_there(corpus):
    with pytest.raises(DataError, match=r"source.sources=evn · is no source of .* · did you mean 'even'\?"):
        Existing(path=corpus, sources=["evn"]).settings()


def test_a_folder_that_is_no_corpus_is_an_error(tmp_path):
    with pytest.raises(DataError, match="not a finished artefact"):
        list(Existing(path=str(tmp_path)).documents())


@pytest.mark.parametrize(
    ("setting", "value"),
    [("path", ""), ("sources", []), ("sources", "odd"), ("share", 0), ("share", 1.1), ("seed", 0.5), ("max_chars", 0)],
)
def test_a_wrong_setting_is_refused_at_once(setting, value):
    with pytest.raises(ConfigError, match=rf"source\.{setting}="):
        Existing(**{"path": "x", setting: value})


def test_all_wrong_settings_are_in_one_error():
    with pytest.raises(ConfigError, match="2 settings"):
        Existing(path="", share=2.0)


def test_the_configuration_shows_the_defaults_of_the_class():
    path = Path(__file__).parents[2] / "conf" / "source" / "existing.yaml"
    shown = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert shown.pop("_target_") == "lumi.corpus.Existing"
    assert shown == {**vars(Existing(path="x")), "path": "???"}
