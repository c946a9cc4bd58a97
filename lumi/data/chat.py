"""`ChatData`: conversations, rendered with a template and packed whole into windows (``data=chat``)."""

import bisect
import dataclasses
import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.text import Text

from lumi.corpus.chat import Conversation, ConversationSource, build_chat, read_chat
from lumi.data.mixed import Beginning, MixedWindows, present_sources
from lumi.data.packed import PackedStream
from lumi.data.prepare import Locations
from lumi.data.rows import RowStream
from lumi.errors import ConfigError, DataError
from lumi.manifest import Manifest, read_manifest
from lumi.tokenizer import ExistingTokenizer, Message, Rendered, Template, Tokenizer, TokenizerConfig

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rendering:
    """Conversations as tokens, and what had to be left out.

    Attributes:
        examples: the documents of each, as (tokens, loss mask): one of a conversation, two of a pair.
        cut: examples that were shortened by whole turns to fit a window.
        too_long: examples that are left out because no part of them fits.
        unsupervised: conversations without a supervised token.
        ids: of the examples.
    """

    examples: list[list[tuple[np.ndarray, np.ndarray]]]
    ids: list[str] = dataclasses.field(default_factory=list)
    cut: int = 0
    too_long: int = 0
    unsupervised: int = 0

    def report(self, name: str, what: str, stream: RowStream) -> str:
        """One line on what became of a split."""
        left = {"cut to fit": self.cut, "too long and left out": self.too_long, "unsupervised": self.unsupervised}
        notes = "".join(f", {count:,} {note}" for note, count in left.items() if count)
        return (
            f"{name}: {len(self.examples):,} {what} in {len(stream):,} windows, {stream.efficiency:.1%} filled{notes}"
        )


class ChatData(MixedWindows):
    """Conversations of one or several weighted sources.

    Only what an assistant says is supervised, the end of its turn included. Attention never crosses from one conversation to
    another, and none is cut within a turn.

    Args:
        name: of the tokenizer that the model was pretrained with; only used when there is no pretrained model.
        sources: where conversations come from; null is left out. What is not prepared yet is.
        template: how a conversation is written (``template=…``).
        tokenizer: settings, for a model that starts from nothing; else the pretrained model's own is used.
        root: folder of prepared data.
        seq_len: tokens in a window.
        batch_size: windows of a micro-batch on one device.
        replay: share of the windows that is text which the model was pretrained on; keeps what it knew. An epoch is a pass over
            the conversations all the same.
        too_long: what becomes of a conversation that is longer than a window: ``cut`` keeps as many whole exchanges from its
            beginning as fit, ``drop`` leaves it out; both are counted.
        seed: decides packing and order.
        num_workers: processes that read.
        train_windows: use only the first so many windows of each source; null takes all.
        val_windows: at most so many windows of each source at every validation; null takes all.
        phases: a curriculum, as in packed data.
    """

    kind = "chat"

    def __init__(
        self,
        *,
        name: str,
        sources: Mapping[str, ConversationSource | None],
        template: Template,
        tokenizer: TokenizerConfig | ExistingTokenizer,
        root: Path,
        seq_len: int,
        batch_size: int,
        seed: int,
        too_long: str = "cut",
        replay: float = 0.0,
        num_workers: int = 0,
        train_windows: int | None = None,
        val_windows: int | None = 256,
        phases: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        if too_long not in ("cut", "drop"):
            raise ConfigError(f"data.too_long={too_long}", "must be cut or drop")
        if not 0.0 <= replay < 1.0 or (replay and self.kind != "chat"):
            raise ConfigError(f"data.replay={replay}", "must be in [0, 1), and is for conversations only")
        self.sources: dict[str, Any] = present_sources(sources)
        super().__init__(
            name=name,
            weights={source.name: source.weight for source in self.sources.values()},
            seq_len=seq_len,
            batch_size=batch_size,
            seed=seed,
            num_workers=num_workers,
            train_windows=train_windows,
            val_windows=val_windows,
            phases=phases,
        )
        self.template, self.cut, self.replay = template, too_long == "cut", replay
        self.places = Locations(root=root, tokenizer=tokenizer)

    def folder(self, source: str) -> Path:
        """Where a source's conversations lie."""
        return self.places.root / self.kind / source

    @property
    def tokenizer_folder(self) -> Path | None:
        """Of the tokenizer that the settings name."""
        return self.places.tokenizer_folder

    def prepare_data(self) -> None:
        """Prepare what is not there yet; Lightning calls this on one process only."""
        if self.train_streams:
            return
        for name, source in self.sources.items():
            self._prepare(source, self.folder(name), force=False)

    def prepare(self, *, force: bool) -> None:
        """Prepare all sources, again with ``force``."""
        for name, source in self.sources.items():
            self._prepare(source, self.folder(name), force=force)

    def setup(self, stage: str = "fit") -> None:
        """Render, pack and report."""
        if self.train_streams:
            return
        beginning = self.beginning
        self.tokenizer = beginning.tokenizer if beginning else Tokenizer.load(self.places.tokenizer_folder)
        for name in self.sources:
            train, val = (self._stream(name, split) for split in ("train", "val"))
            if train.n_whole == 0:
                raise DataError(
                    f"{self.folder(name)}",
                    f"no example of it fits a window of {self.seq_len} tokens",
                    "raise data.seq_len, or add shorter examples",
                )
            if train.n_whole < self.batch_size:
                log.warning("%s fills %d windows, fewer than data.batch_size=%d", name, train.n_whole, self.batch_size)
            self.train_streams.append(train)
            self.val_streams.append(val)
        if self.replay and beginning is not None:
            self._add_replay(beginning)

    @property
    def n_tokens(self) -> int:
        """Training tokens until every conversation was read once, the text between them included."""
        n_chat = sum(stream.n_tokens for stream in self.train_streams[: len(self.sources)])
        return round(n_chat / (1.0 - self.replay))

    def _add_replay(self, beginning: Beginning) -> None:
        """Put windows of the pretraining text among the conversations.

        Raises:
            DataError: that text is not here, or was changed.
        """
        if not beginning.packed:
            raise DataError(
                f"data.replay={self.replay}",
                "the model does not say what text it was pretrained on",
                "use data.replay=0",
            )
        for folder in beginning.packed.values():
            self.train_streams.append(PackedStream(folder, "train", self.seq_len, self.tokenizer.sha256))
            self.val_streams.append(PackedStream(folder, "val", self.seq_len, self.tokenizer.sha256, full_check=False))
        self.add_sources({f"replay-{name}": self.replay * beginning.weights[name] for name in beginning.packed})

    def preview(self, n: int) -> Iterator[Text]:
        """The first examples of every source as they are trained on; after `setup`."""
        for name, stream in zip(self.sources, self.train_streams[: len(self.sources)], strict=True):
            for number, documents in enumerate(stream.examples[:n]):
                for tokens, mask in documents:
                    heading = Text(f"── {name} {number} · {len(tokens)} tokens, {int(mask.sum())} supervised\n", "dim")
                    yield heading + coloured(self.tokenizer, tokens, mask)

    def fingerprints(self) -> dict[str, str]:
        """Of each source's conversations, and of the template they are written with."""
        found = {name: read_manifest(self.folder(name)).fingerprint for name in self.sources}
        replayed = self.train_streams[len(self.sources) :]
        names = self.source_names[len(self.sources) :]
        texts = {name: stream.manifest.fingerprint for name, stream in zip(names, replayed, strict=True)}
        return {**found, **texts, "template": self.template.sha256}

    def facts(self) -> dict[str, Any]:
        """The template, which decides how the model is to be asked, and where the conversations lie."""
        return {
            "template": self.template.as_dict(),
            self.kind: {name: str(self.folder(name)) for name in self.sources},
        }

    def _prepare(self, source: Any, folder: Path, *, force: bool) -> Manifest:
        return build_chat(source, folder, force=force)

    def _stream(self, name: str, split: str) -> RowStream:
        conversations = read_chat(self.folder(name), split)
        rendering = render(conversations, self.template, self.tokenizer, self.seq_len, cut=self.cut)
        stream = RowStream(rendering.examples, self.seq_len, self.seed, ids=rendering.ids)
        log.info("%s", rendering.report(f"{name} {split}", "conversations", stream))
        return stream


def render(
    conversations: Iterable[Conversation], template: Template, tokenizer: Tokenizer, seq_len: int, *, cut: bool = False
) -> Rendering:
    """Conversations as tokens with the mask of what is supervised.

    Args:
        seq_len: longest conversation in tokens.
        cut: keep the exchanges from the beginning of a longer one that fit, instead of leaving it out.

    Raises:
        ConfigError: the template uses a symbol that the tokenizer lacks.
    """
    if seq_len < 2:
        raise ConfigError(f"data.seq_len={seq_len}", "must be at least 2")
    examples, ids = [], list[str]()
    shortened = too_long = unsupervised = 0
    for conversation in conversations:
        rendered = template.render(tokenizer, conversation.messages)
        if len(rendered.tokens) > seq_len:
            rendered = _beginning(conversation.messages, template, tokenizer, seq_len) if cut else None
            too_long += rendered is None
            shortened += rendered is not None
        if rendered is None:
            continue
        if not any(rendered.loss_mask):
            unsupervised += 1
            continue
        examples.append([(np.array(rendered.tokens, dtype=np.int32), np.array(rendered.loss_mask, dtype=bool))])
        ids.append(conversation.id)
    return Rendering(examples=examples, ids=ids, cut=shortened, too_long=too_long, unsupervised=unsupervised)


def _beginning(messages: Sequence[Message], template: Template, tokenizer: Tokenizer, seq_len: int) -> Rendered | None:
    """As many whole exchanges as fit, or None when the first one does not."""
    ends = [number for number, message in enumerate(messages, start=1) if message.role == "assistant"]
    fitting = bisect.bisect_right(ends, seq_len, key=lambda end: len(template.render(tokenizer, messages[:end]).tokens))
    return template.render(tokenizer, messages[: ends[fitting - 1]]) if fitting else None


def answer_document(
    template: Template, tokenizer: Tokenizer, prompt: Sequence[Message], answer: str, *, ends: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """One answer after its prompt as tokens (T,) int32 and the mask (T,) bool of the answer's own tokens.

    Args:
        ends: False leaves the answer open: one that does not stop.
    """
    rendered = template.render(tokenizer, [*prompt, Message(role="assistant", content=answer)], ends=ends)
    tokens, mask = np.array(rendered.tokens, dtype=np.int32), np.array(rendered.loss_mask, dtype=bool)
    mask[: len(template.prompt(tokenizer, prompt))] = False  # an earlier assistant turn is prompt here
    return tokens, mask


def coloured(tokenizer: Tokenizer, tokens: np.ndarray, mask: np.ndarray) -> Text:
    """An example as a terminal shows it: supervised text green between ‹ ›, the rest grey, control symbols by their names.

    Args:
        tokens: (T,). mask: (T,) bool, True where supervised.
    """
    edges = [0, *(np.flatnonzero(np.diff(mask.astype(np.int8))) + 1).tolist(), len(tokens)]
    text = Text()
    for start, stop in itertools.pairwise(edges):
        span = spelled(tokenizer, tokens[start:stop])
        text += Text(f"‹{span}›", "bold green") if mask[start] else Text(span, "grey50")
    return text + Text("\n")


def spelled(tokenizer: Tokenizer, tokens: np.ndarray) -> str:
    """Text of a span, control tokens by their names."""
    parts, plain = [], list[int]()
    for token in tokens.tolist():
        piece = tokenizer.pieces[token]
        if piece.kind == "control":
            parts += [tokenizer.decode(plain), piece.text]
            plain = []
        else:
            plain.append(token)
    return "".join([*parts, tokenizer.decode(plain)])
