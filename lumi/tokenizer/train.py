"""Training a tokenizer: the same text and settings give the same bytes (``python prepare.py step=tokenizer``).

SentencePiece has six traps here, all closed:

- It skips sentences above a length silently: documents are cut into lines, long lines at spaces.
- It skips sentences with U+2585 and reads U+2581 as a space: both are left out of what is learned from.
- It loses the newlines at the end of a sentence: they are put at the start of the next one.
- The result depends on its number of threads, which therefore is a setting (see `TokenizerConfig`).
- Its unigram candidates are the strings with at least two different continuations. A word that is always followed by the
  same sign (``from`` by a space, ``Question`` by a colon) is none, and falls apart into ``fro`` and ``m``: frequent words are
  given once more with another sign after them. On the generated world that makes a token 28 % longer.
- It adds scores up in float32, so that rounding decides between equally likely segmentations (a row of 50 dashes) and the
  tokens of a line depend on what stands before it: scores are rounded to multiples of 1/256, whose sums are exact.
"""

import collections
import contextlib
import dataclasses
import io
import itertools
import logging
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import sentencepiece
from tqdm import tqdm

from lumi.errors import ConfigError, DataError
from lumi.lock import folder_lock
from lumi.manifest import Manifest, atomic_folder, write_manifest
from lumi.reuse import content_fingerprint, finished
from lumi.tokenizer.card import measure, tokenizer_card
from lumi.tokenizer.config import SPACE_MARK, TokenizerConfig
from lumi.tokenizer.frozen import MODEL_FILE, Tokenizer, utf8
from lumi.tokenizer.proto import with_rounded_scores

log = logging.getLogger(__name__)

Texts = Callable[[], Iterator[str]]

_HELD_OUT_RATIO = 0.02
_HELD_OUT_BYTES = 2_000_000
_SENTENCE_CHARS = 1000  # at most 4000 bytes, which SentencePiece takes
_SENTENCE = re.compile(rf"\n*[^\n\0\u2585{SPACE_MARK}]+")
_WORD = re.compile(r" ?[^\W\d_]+| ?[^\w\s]+")
_COMMON = 10
"""Occurrences from which on a word is given once more; rarer ones are no candidates in practice."""
_STEPS_PER_NAT = 256
"""Scores are rounded to this, so that float32 adds up any 1000 of them exactly, in any order and on any machine."""
_TOO_LARGE = re.compile(r"Vocabulary size too high \(\d+\)\. Please set it to a value <= (\d+)")
_TOO_SMALL = re.compile(r"Vocabulary size is smaller than required_chars\. \d+ vs (\d+)")


def train_tokenizer(
    texts: Texts,
    folder: Path,
    config: TokenizerConfig,
    *,
    parents: dict[str, str],
    force: bool = False,
    corpus: Path | None = None,
) -> Manifest:
    """Train a tokenizer into ``folder``, unless it is there already.

    Args:
        texts: begins the texts again at each call; they are read twice and never held together.
        folder: of the tokenizer.
        config: settings.
        parents: what the texts are, a content hash for each corpus.
        force: train again even if the folder holds a tokenizer. What was packed with that one no longer fits then.
        corpus: folder that the texts come from, for whoever looks for it later.

    Raises:
        ConfigError: the vocabulary is too large or too small for the text; the message names one that fits.
        DataError: there is no text, or the folder holds a tokenizer made otherwise.
    """
    settings = config.settings()
    fix = "force=true trains it again (then pack again too), tokenizer.name=… makes another beside it"
    with folder_lock(folder, wait=True):
        done = finished(
            folder, kind="tokenizer", key="tokenizer", settings=settings, parents=parents, force=force, fix=fix
        )
        if done is not None:
            log.info("tokenizer %s is up to date: %s", config.name, folder)
            return done
        start = time.monotonic()
        survey = _survey(texts, config.seed)
        sentences = list(_sentences(texts, survey, config))
        model = _fit(sentences, config)
        train_bytes = sum(len(utf8(sentence)) for sentence in sentences)
        places = dict.fromkeys(parents, corpus) if corpus else {}
        manifest = _write(folder, model, config, parents, survey, train_bytes, places)
    log.info(
        "tokenizer %s: %s pieces, %.3f bytes a token, in %.1f s: %s",
        config.name,
        f"{manifest.info['vocab_size']:,}",
        manifest.info["measured"]["bytes_per_token"],
        time.monotonic() - start,
        folder,
    )
    return manifest


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Survey:
    """What the first reading of the texts found.

    Attributes:
        n_bytes: UTF-8 bytes of all texts.
        held_out: index → text of those that are kept for the card and not learned from.
        probe: the texts to measure on: the held-out ones, or the first ones where there are too few to hold any out.
    """

    n_bytes: int
    held_out: dict[int, str]
    probe: list[str]


def _survey(texts: Texts, seed: int) -> _Survey:
    rng = random.Random(f"tokenizer held out {seed}")
    n_bytes, room, first_room = 0, _HELD_OUT_BYTES, _HELD_OUT_BYTES
    held_out: dict[int, str] = {}
    first: list[str] = []
    with tqdm(desc="reading", unit="B", unit_scale=True, delay=2, disable=None) as bar:
        for index, text in enumerate(texts()):
            size = len(utf8(text))
            n_bytes += size
            if first_room > 0:
                first.append(text[:first_room])
                first_room -= size
            if rng.random() < _HELD_OUT_RATIO and size <= room:
                held_out[index] = text
                room -= size
            bar.update(size)
    return _Survey(n_bytes=n_bytes, held_out=held_out, probe=list(held_out.values()) or first)


def _sentences(texts: Texts, survey: _Survey, config: TokenizerConfig) -> Iterator[str]:
    """A fair sample of ``config.train_megabytes``: lines with the newlines before them, long lines in parts."""
    keep_ratio = config.train_megabytes * 1e6 / max(1, survey.n_bytes)
    rng = random.Random(f"tokenizer sample {config.seed}")
    for index, text in enumerate(tqdm(texts(), desc="sampling", unit=" docs", delay=2, disable=None)):
        if index in survey.held_out:
            continue
        for match in _SENTENCE.finditer(text):
            for sentence in _parts(match.group()):
                if keep_ratio >= 1 or rng.random() < keep_ratio:
                    yield sentence


def _parts(line: str) -> Iterator[str]:
    start = 0
    while len(line) - start > _SENTENCE_CHARS:
        space = line.rfind(" ", start + 1, start + _SENTENCE_CHARS)
        stop = space if space > 0 else start + _SENTENCE_CHARS
        yield line[start:stop]
        start = stop
    yield line[start:]


def _fit(sentences: list[str], config: TokenizerConfig) -> bytes:
    """The bytes of the model."""
    if not sentences:
        raise DataError("the corpus of the tokenizer", "has no text to learn from")
    extra = _common_words(sentences, config.max_piece_length) if config.model_type == "unigram" else []
    writer = io.BytesIO()
    try:
        with _elapsed(f"training {config.model_type} tokenizer"):
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=itertools.chain(sentences, extra),
                model_writer=writer,
                minloglevel=2,
                **config.trainer_arguments(),
            )
    except RuntimeError as error:
        raise _explained(error, config) from error
    return with_rounded_scores(writer.getvalue(), _STEPS_PER_NAT)


def _common_words(sentences: list[str], longest: int) -> list[str]:
    """Frequent words before a newline, which never follows a word in `_sentences`."""
    counts = collections.Counter(word for sentence in sentences for word in _WORD.findall(sentence))
    common = sorted(word for word, count in counts.items() if count >= _COMMON and len(word) <= longest)
    return [f"{word}\n{word}" for word in common]


def _explained(error: RuntimeError, config: TokenizerConfig) -> Exception:
    """SentencePiece's complaint about the vocabulary as a setting to change; any other as it is."""
    found = f"tokenizer.vocab_size={config.vocab_size}"
    if match := _TOO_LARGE.search(str(error)):
        most = int(match[1])
        return ConfigError(
            found,
            f"this text has only {most} pieces to offer",
            f"use {most} or fewer, more text, or tokenizer.exact_size=false",
        )
    if match := _TOO_SMALL.search(str(error)):
        rule = f"is too small for the characters of this text, which need {match[1]} with the special ones"
        return ConfigError(found, rule, "use more, or lower tokenizer.character_coverage (the rest becomes bytes)")
    return error


@contextlib.contextmanager
def _elapsed(what: str) -> Iterator[None]:
    """Show the seconds that pass: SentencePiece says nothing about its progress, but lets other threads run."""
    done = threading.Event()
    bar = tqdm(desc=what, bar_format="{desc}: {elapsed}", delay=2, disable=None)

    def tick() -> None:
        while not done.wait(1.0):
            bar.update()

    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        yield
    finally:
        done.set()
        ticker.join()
        bar.close()


def _write(
    folder: Path,
    model: bytes,
    config: TokenizerConfig,
    parents: dict[str, str],
    survey: _Survey,
    train_bytes: int,
    places: dict[str, Path],
) -> Manifest:
    tokenizer = Tokenizer.from_bytes(model)
    info = {
        "sha256": tokenizer.sha256,
        "vocab_size": tokenizer.vocab_size,
        "text_bytes": survey.n_bytes,
        "train_bytes": train_bytes,
        "sentencepiece": sentencepiece.__version__,
        "held_out": bool(survey.held_out),
        "measured": measure(tokenizer, survey.probe),
    }
    with atomic_folder(folder) as work:
        (work / MODEL_FILE).write_bytes(model)
        (work / "TOKENIZER_CARD.md").write_text(tokenizer_card(tokenizer, config, parents, info), encoding="utf-8")
        return write_manifest(
            work,
            kind="tokenizer",
            name=config.name,
            fingerprint=content_fingerprint(config.settings(), parents),
            parents=parents,
            settings=config.settings(),
            info=info,
            places=places,
        )
