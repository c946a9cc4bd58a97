"""Tokens from text to answer: one tokenizer everywhere, and conversations that training and serving write alike."""

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

from lumi.corpus.chat import read_chat
from lumi.corpus.preference import read_preference
from lumi.doctor.finding import Finding, error, not_applicable, ok
from lumi.doctor.subject import Subject
from lumi.errors import DataError, TokenizerMismatch
from lumi.manifest import sha256_bytes
from lumi.tokenizer import Message, Template, Tokenizer

_CONVERSATIONS = 8
"""Of each source, that are rendered once more as serving would."""


def tokenizer_chain(subject: Subject) -> Finding:
    """Data, model and run have one tokenizer, by the hash of its bytes; text goes through it and comes back."""
    tokenizer = subject.tokenizer
    known = {"its own bytes": sha256_bytes(tokenizer.model_bytes)}
    for name, stream in zip(subject.data.source_names, subject.data.train_streams, strict=True):
        if (manifest := getattr(stream, "manifest", None)) is not None:
            known[f"packed source {name}"] = manifest.parents.get("tokenizer", "none")
    if subject.initial is not None:
        known[f"{subject.initial.checkpoint}"] = subject.initial.tokenizer.sha256
    for what, sha256 in known.items():
        if sha256 != tokenizer.sha256:
            return error(
                f"the run has tokenizer {tokenizer.sha256[:12]}…, {what} has {sha256[:12]}…",
                "equal numbers then mean other pieces: the model learns noise",
                "rebuild: python prepare.py step=pack force=true, or tokenizer=existing tokenizer.path=…",
                TokenizerMismatch,
            )
    highest = max(int(batch["tokens"].max()) for batch in subject.batches)
    if highest >= tokenizer.vocab_size:
        return error(
            f"the data hold token {highest}, the tokenizer has {tokenizer.vocab_size:,}",
            "it was packed with another one",
            "rebuild: python prepare.py step=pack force=true",
            TokenizerMismatch,
        )
    return _text_comes_back(tokenizer, len(known))


def _text_comes_back(tokenizer: Tokenizer, links: int) -> Finding:
    text = "".join([*tokenizer.controls, "\n\t a  b é 🦊 <|nothing|> \u2581"])
    ids = tokenizer.encode(text)
    forged = [tokenizer.piece(token) for token in ids if token in set(tokenizer.controls.values())]
    if forged or tokenizer.decode(ids) != text:
        return error(
            f"text becomes {'the control symbol ' + forged[0] if forged else 'another text'} in this tokenizer",
            "anybody who types a marker speaks for the model",
            "train it with python prepare.py step=tokenizer",
            DataError,
        )
    return ok(f"tokenizer {tokenizer.sha256[:12]}… in {links} places; text comes back, and forges no control symbol")


def template_round_trip(subject: Subject) -> Finding:
    """The tokens of training begin with the very prompt that serving continues, and are supervised from there on."""
    template = subject.template
    if template is None:
        return not_applicable("text without conversations")
    served = Template.from_dict(json.loads(json.dumps(subject.data.facts()["template"])))  # what a checkpoint keeps
    checked = 0
    for stream, messages, number, document in _conversations(subject):
        found, fault = _compare(subject, served, messages, stream.examples[: number + 1], document)
        if fault:
            return error(
                fault,
                "the model answers another form than the one that it has learnt",
                "one Template for both: template=… of the data, and the one that the checkpoint keeps",
                DataError,
            )
        checked += found
    if forged := _forged(served, subject.tokenizer):
        return error(
            forged,
            "anybody who types a marker speaks for the model",
            "encode what people say by Tokenizer.encode, apart from the template",
            DataError,
        )
    if not checked:
        return not_applicable(f"none of the first {_CONVERSATIONS} examples of a source fits a window as it is")
    return ok(f"{checked} answers in training follow the prompt that serving writes; typed markers stay text")


def _conversations(subject: Subject) -> Iterator[tuple[Any, Sequence[Message], int, int]]:
    """Stream, messages, number and document of the first examples of every source, read from disk again."""
    data: Any = subject.data
    for name, stream in zip(data.sources, data.train_streams, strict=False):
        if data.kind == "chat":
            for number, one in enumerate(itertools.islice(read_chat(data.folder(name), "train"), _CONVERSATIONS)):
                yield stream, one.messages, number, 0
        else:
            for number, pair in enumerate(
                itertools.islice(read_preference(data.folder(name), "train"), _CONVERSATIONS)
            ):
                answer = Message(role="assistant", content=pair.chosen)
                yield stream, [*pair.prompt, answer], number, 0


def _compare(
    subject: Subject, served: Template, messages: Sequence[Message], examples: list[Any], document: int
) -> tuple[int, str]:
    """Whether the conversation is among the packed ones as serving writes it: answers compared, and what is wrong."""
    tokenizer = subject.tokenizer
    prompt = served.prompt(tokenizer, messages[:-1])
    answer = tokenizer.encode(served.lead + messages[-1].content)
    expected = [*prompt, *answer]
    if len(expected) + 8 > subject.data.seq_len:  # it may have been cut, or left out
        return 0, ""
    for documents in reversed(examples):
        tokens, mask = documents[document]
        if tokens[: len(expected)].tolist() != expected:
            continue
        start, stop = len(prompt), len(expected)
        if mask[: len(served.opening(tokenizer)) + 1].any() or mask[start - 1] or not mask[start:stop].all():
            return 0, f"the mask of {messages[-1].content[:30]!r} does not begin where serving begins to write"
        if stop >= len(mask) or not mask[stop] or int(tokens[stop]) not in served.stop_ids(tokenizer):
            return 0, f"the answer {messages[-1].content[:30]!r} has no supervised end that serving stops at"
        return 1, ""
    return 0, f"the tokens of {messages[-2].content[:30]!r} in training are not those that serving writes"


def _forged(template: Template, tokenizer: Tokenizer) -> str:
    """A marker that somebody typed and that became a control symbol; empty when none does."""
    controls = set(tokenizer.controls.values())
    nasty = "".join([*tokenizer.controls, *template.user, *template.assistant])

    def marks(text: str) -> list[int]:
        talk = [Message(role="user", content=text), Message(role="assistant", content=text)]
        return [token for token in template.render(tokenizer, talk).tokens if token in controls]

    extra = len(marks(nasty)) - len(marks("x"))
    return f"{extra} typed markers became control symbols of template={template.name}" if extra else ""
