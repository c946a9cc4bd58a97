"""What a position may see: nothing that comes later, and nothing of another document."""

import torch
from torch import Tensor

from lumi.doctor.finding import Finding, error, not_applicable, ok
from lumi.doctor.subject import Subject


def causality(subject: Subject) -> Finding:
    """Change one token; the states before it must stay as they are.

    Three places of the longest document of a window, once with the window's documents and once with all of it as one document,
    because the two take different ways through attention.
    """
    row, inside = _longest_document(subject)
    for doc_ids in (row["doc_ids"], row["doc_ids"].clamp(max=0)):
        places = _quarters(inside if doc_ids is row["doc_ids"] else (doc_ids >= 0).nonzero().flatten())
        tokens = row["tokens"].repeat(len(places) + 1, 1)
        for number, place in enumerate(places, start=1):
            tokens[number, place] = _another(tokens[0, place], subject)
        hidden = subject.hidden(tokens, doc_ids.repeat(len(places) + 1, 1))
        for number, place in enumerate(places, start=1):
            if not bool((hidden[number, place] - hidden[0, place]).abs().max() > 0):
                return error(
                    f"changing token {place} changes nothing at its own position",
                    "the model does not read its input",
                    "look at the decoder's forward pass and at its weights",
                )
            leak = float((hidden[number, :place] - hidden[0, :place]).abs().max())
            if not leak <= subject.tolerance:
                return error(
                    f"changing token {place} of a window changes states before it, by up to {leak:.2g}",
                    "the model sees what it is to predict: the loss is a lie, and nothing can be generated with it",
                    "make attention causal (is_causal, or a lower triangular mask); arch.attention=reference to compare",
                )
    return ok(f"changing a token changes no state before it (a document of {len(inside)} tokens, and a whole window)")


def document_leak(subject: Subject) -> Finding:
    """Change all of one document; the states of the others in its window must stay as they are."""
    merged = _merged_documents(subject)
    if merged:
        return error(
            merged,
            "attention and targets go from one document to the next",
            "give every document a number of its own in doc_ids",
        )
    row = _row_of_several(subject)
    if row is None:
        return not_applicable("no window has room for two documents")
    documents = row["doc_ids"].unique()
    documents = documents[documents >= 0]
    changed = [int(documents[0]), int(documents[len(documents) // 2])]
    tokens = row["tokens"].repeat(3, 1)
    for number, document in enumerate(changed, start=1):
        inside = row["doc_ids"] == document
        tokens[number, inside] = _another(tokens[0, inside], subject)
    hidden = subject.hidden(tokens, row["doc_ids"].repeat(3, 1))
    for number, document in enumerate(changed, start=1):
        others = (row["doc_ids"] != document) & (row["doc_ids"] >= 0)
        leak = float((hidden[number, others] - hidden[0, others]).abs().max())
        if not leak <= subject.tolerance:
            return error(
                f"changing one document of a window changes states of another, by up to {leak:.2g}",
                "the model learns to look at texts that have nothing to do with each other",
                "hand doc_ids to the decoder (self.decoder(tokens, doc_ids)); arch.attention=reference to compare",
            )
    return ok(f"changing a document changes no state of the {len(documents) - 1} others in its window")


def _another(tokens: Tensor, subject: Subject) -> Tensor:
    """Other tokens of the vocabulary."""
    return (tokens + 1 + subject.tokenizer.vocab_size // 3) % subject.tokenizer.vocab_size


def _longest_document(subject: Subject) -> tuple[dict[str, Tensor], Tensor]:
    """A window, and the places of the longest document in it."""
    few = subject.few
    row = {key: few[key][0] for key in ("tokens", "doc_ids")}
    counts = torch.bincount(row["doc_ids"][row["doc_ids"] >= 0])
    return row, (row["doc_ids"] == counts.argmax()).nonzero().flatten()


def _quarters(places: Tensor) -> list[int]:
    """Three of them, none the first of the window."""
    chosen = {int(places[len(places) * quarter // 4]) for quarter in (1, 2, 3)}
    return sorted(place for place in chosen if place > 0)


def _row_of_several(subject: Subject) -> dict[str, Tensor] | None:
    """A window of at least two documents; a window of one is taken for two, because the mask must hold for any."""
    batch = subject.batch
    several = (batch["doc_ids"].amax(dim=1) > 0).nonzero().flatten()
    row = int(several[0]) if len(several) else 0
    tokens, doc_ids = batch["tokens"][row], batch["doc_ids"][row].clone()
    length = int((doc_ids >= 0).sum())
    if length < 4:
        return None
    if not len(several):
        doc_ids[length // 2 : length] += 1
    return {"tokens": tokens, "doc_ids": doc_ids}


def _merged_documents(subject: Subject) -> str:
    """Where the data put two documents under one number: a bos that is not at the beginning of one."""
    bos = subject.tokenizer.bos_id
    for batch in subject.batches:
        documents = batch["doc_ids"]
        inside = (documents[:, 1:] == documents[:, :-1]) & (documents[:, 1:] >= 0)
        found = (inside & (batch["tokens"][:, 1:] == bos)).nonzero()
        if len(found):
            row, place = found[0].tolist()
            return f"window {int(batch['sample'][row])}: a document begins inside another one, at token {place + 1}"
    return ""
