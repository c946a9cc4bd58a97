"""What is learnt: whether a target is the next token, what the first loss says, and which tokens are targets at all."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lumi.doctor.finding import Finding, error, ok, warning
from lumi.doctor.subject import Subject
from lumi.errors import NumericError

_OFFSETS = (0, 1, 2, 3)
_SURE = 40.0
"""Logit of the token that a position is told."""

_COMPARED = 256
"""Targets whose loss is computed a second time, from whole logits."""


def next_token(subject: Subject) -> Finding:
    """Tell each position one token, and see with which one the loss is lowest.

    The decoder is set aside: in its place stand states that name the token 0, 1, 2 or 3 places on. Only with the next one may
    the stage's loss be the lowest. Shifted twice, by the data and by the loss, it is lowest with the next but one.
    """
    told = {offset: _loss_when_told(subject, offset) for offset in _OFFSETS}
    best = min(told, key=lambda offset: told[offset])
    seen = ", ".join(f"{told[offset]:.3g} for t + {offset}" for offset in _OFFSETS)
    if told[1] > told[best] + 1e-3:
        place = "the token itself" if best == 0 else f"token t + {best}"
        shifts = "not shifted at all" if best == 0 else f"shifted {best} times"
        return error(
            f"position t learns {place}, targets are {shifts} (loss when t is told: {seen})",
            "the loss falls as usual, and the model that results cannot write",
            "only lumi.arch.loss shifts: hand it tokens and mask as the batch has them",
        )
    if not subject.stage.predicts_text:
        return ok(f"position t learns token t + 1 (loss when t is told: {seen})")
    return _against_formula(subject, seen)


def _against_formula(subject: Subject, seen: str) -> Finding:
    """The stage's loss on the model's own states beside cross-entropy as PyTorch has it, for some hundred targets.

    Of all of them the logits alone would take more memory than training.
    """
    decoder = subject.decoder
    mask = subject.few["loss_mask"][:, 1:]
    mask = mask & (mask.flatten().cumsum(0).view_as(mask) <= _COMPARED)
    few = {**subject.few, "loss_mask": F.pad(mask, (1, 0))}
    with torch.no_grad(), subject.precision():
        total, targets = subject.stage.loss(few)
        logits = decoder.logits(decoder(few["tokens"], few["doc_ids"])[:, :-1][mask]).float()
    expected = F.cross_entropy(logits, few["tokens"][:, 1:][mask]).item()
    if int(targets) != int(mask.sum()):
        return error(
            f"the stage counts {int(targets):,} targets, the mask has {int(mask.sum()):,}",
            "the gradient is divided by this number",
            "return the number of targets of the mask, its first column left out, from loss()",
        )
    found = float(total) / max(1, int(targets))
    if not math.isclose(found, expected, rel_tol=0.02):
        return warning(
            f"the loss is {found:.4f} nats a token, cross-entropy of the next token is {expected:.4f}",
            "perplexity and bits per byte are computed from it",
            "have loss() return the summed cross-entropy, or set predicts_text = False in the stage",
        )
    return ok(f"position t learns token t + 1 (loss when t is told: {seen}); cross-entropy as PyTorch's, {found:.4f}")


def _loss_when_told(subject: Subject, offset: int) -> float:
    few, stage = subject.few, subject.stage
    with _states_that_name(subject, torch.roll(few["tokens"], -offset, dims=1)):
        loss = subject.mean_loss(few)
    if stage.predicts_text:
        return loss
    assert stage.extra is not None, "loss() leaves the sums of its figures"
    figures = dict(zip(stage.figures, stage.extra.tolist(), strict=True))
    return -sum(figures[name] for name in ("logprob_chosen", "logprob_rejected"))


@contextlib.contextmanager
def _states_that_name(subject: Subject, named: Tensor) -> Iterator[None]:
    """Let the decoder give states whose likeliest token is ``named`` (B, T)."""
    weight = subject.decoder.lm_weight.detach()
    rows = weight[named].float()  # (B, T, D)
    states = (_SURE * rows / rows.square().sum(dim=-1, keepdim=True).clamp(min=1e-12)).to(weight.dtype)
    decoder: Any = subject.decoder
    decoder.forward = lambda tokens, *_, **__: states[:, : tokens.shape[1]]
    try:
        yield
    finally:
        del decoder.forward  # the class's own is there again


def first_loss(subject: Subject) -> Finding:
    """A fresh model guesses evenly; a trained one does better; pairs begin at their objective's own value."""
    uniform = math.log(subject.decoder.config.vocab_size)
    if not subject.stage.predicts_text:
        return _finite_only(subject)
    loss = subject.mean_loss(subject.few if subject.initial is None else _without_markers(subject))
    if not math.isfinite(loss):
        return _not_finite(loss)
    if subject.initial is not None:
        return _first_of_trained(loss, uniform)
    seen = f"first loss {loss:.3f} nats a token, ln V = {uniform:.3f}"
    if 0.95 * uniform <= loss <= 1.1 * uniform:  # above it by half the variance of the logits, which is to be small
        return ok(f"{seen}: a fresh model guesses evenly")
    why = "below it the model sees what it is to predict; above it the weights begin too large, and warm-up is spent on that"
    if loss < uniform * 0.8:
        return error(seen, why, "see what causality and next token say")
    return warning(seen, why, "arch.init_std near 0.02, arch.init_qk_std=null")


def _without_markers(subject: Subject) -> Any:
    """Two windows whose targets are text: pretraining has taught the model that markers never come."""
    few = subject.few
    controls = torch.tensor(sorted(subject.tokenizer.controls.values()), device=subject.device)
    text = few["loss_mask"] & ~torch.isin(few["tokens"], controls)
    return {**few, "loss_mask": text} if bool(text[:, 1:].any()) else few


def _finite_only(subject: Subject) -> Finding:
    loss = subject.mean_loss(subject.few)
    return (
        ok(f"first loss {loss:.4f} a pair; what it has to be is asked by dpo step 0")
        if math.isfinite(loss)
        else _not_finite(loss)
    )


def _not_finite(loss: float) -> Finding:
    return error(
        f"first loss {loss}",
        "no step can be made from it",
        "another init_from, or arch.init_std near 0.02; trainer.precision=32-true if it is 16-mixed",
        NumericError,
    )


def _first_of_trained(loss: float, uniform: float) -> Finding:
    seen = f"first loss {loss:.3f} nats a token of text; a trained model is below or near ln V = {uniform:.3f}"
    if loss <= 1.3 * uniform:  # a young model is sure of the wrong thing where it meets another form
        return ok(seen)
    why = "the model knows these tokens less than no model: it was trained with another tokenizer or form, or hardly at all"
    return warning(seen, why, "look at the model of init_from: python evaluate.py model=…")


def mask_audit(subject: Subject) -> Finding:
    """Who is supervised in the first batches: a share, the ends of documents, and rows that teach nothing."""
    rows = _Rows(subject)
    if not rows.n_targets:
        return error(
            "no token of the first batches is supervised",
            "there is nothing to learn from",
            "look at the data: python prepare.py step=chat inspect=5, and at template=…",
            NumericError,
        )
    if rows.of_bos:
        return error(
            f"{rows.of_bos:,} beginnings of documents are targets",
            "each is predicted from the document before, which has nothing to do with it",
            "a mask is True where the token itself is predicted from its own document: leave out the first of each",
        )
    if subject.template is not None and (fault := rows.chat_fault(subject)):
        return error(
            fault,
            "the model learns to speak for the user, or not to stop",
            "take the mask from Template.render, unchanged; python prepare.py step=chat inspect=5 shows it",
        )
    if rows.n_ends and not rows.ends_supervised:
        return error(
            f"none of {rows.n_ends:,} ends of documents is supervised",
            "the model never learns to stop",
            "leave eos in the mask, as Lumi's data do",
        )
    if rows.n_empty:
        return warning(
            f"{rows.n_empty} of {rows.n_rows} windows have no supervised token",
            "they cost as much as others and teach nothing",
            "leave them out when the data are made",
        )
    ends = f"{rows.ends_supervised:,} of {rows.n_ends:,} ends" if rows.n_ends else "no end of a document among them"
    return ok(f"{rows.share:.1%} of the tokens are supervised in {rows.n_rows} windows, {ends}")


class _Rows:
    """Counts over the first micro-batches."""

    def __init__(self, subject: Subject) -> None:
        tokenizer = subject.tokenizer
        self.batches = subject.batches
        tokens, documents, masks = ([b[key] for b in self.batches] for key in ("tokens", "doc_ids", "loss_mask"))
        present = [(d >= 0) for d in documents]
        targets = [m[:, 1:] & p[:, 1:] for m, p in zip(masks, present, strict=True)]
        self.n_targets = sum(int(t.sum()) for t in targets)
        self.share = self.n_targets / max(1, sum(int(p.sum()) for p in present))
        self.n_rows = sum(len(t) for t in tokens)
        self.n_empty = sum(int((~t.any(dim=1)).sum()) for t in targets)
        self.of_bos = sum(int((t[:, 1:] == tokenizer.bos_id)[g].sum()) for t, g in zip(tokens, targets, strict=True))
        ends = [(t[:, 1:] == tokenizer.eos_id) & p[:, 1:] for t, p in zip(tokens, present, strict=True)]
        self.n_ends = sum(int(e.sum()) for e in ends)
        self.ends_supervised = sum(int((e & t).sum()) for e, t in zip(ends, targets, strict=True))

    def chat_fault(self, subject: Subject) -> str:
        """Where what is supervised is not an assistant's answer with its end; empty when nowhere."""
        template, tokenizer = subject.template, subject.tokenizer
        assert template is not None, "asked before"
        marks = _Marks(
            opening=template.opening(tokenizer),
            stops=frozenset(template.stop_ids(tokenizer)),
            controls=frozenset(tokenizer.controls.values()),
            eos=tokenizer.eos_id,
        )
        n_chat = len(getattr(subject.data, "sources", {}))
        for batch in self.batches:
            for row in range(len(batch["tokens"])):
                if int(batch["source"][row]) >= n_chat:
                    continue  # replayed text
                fault = _row_fault(batch, row, marks)
                if fault:
                    return f"window {int(batch['sample'][row])}: {fault}"
        return ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Marks:
    """Ids by which an answer is known: what stands before it, what ends it, and what nobody can say."""

    opening: list[int]
    stops: frozenset[int]
    controls: frozenset[int]
    eos: int


def _row_fault(batch: Any, row: int, marks: _Marks) -> str:
    tokens, mask = batch["tokens"][row].tolist(), batch["loss_mask"][row].tolist()
    documents = batch["doc_ids"][row].tolist()
    for start, stop in _runs(mask, documents):
        run, opening = tokens[start:stop], marks.opening
        if run == [marks.eos]:
            continue  # after the closing symbol and what the template puts behind it
        ends = [place for place, token in enumerate(run) if token in marks.stops]
        may_be_open = "pairs" in batch and documents[start] % 2 == 1  # a worse answer that does not stop
        if opening and tokens[max(0, start - len(opening)) : start] != opening:
            return f"supervision begins at token {start}, which does not follow an assistant's opening"
        if any(token in marks.controls - marks.stops for token in run):
            return f"a control symbol after token {start} is supervised that no answer has"
        if ends and any(token not in marks.stops for token in run[ends[0] :]):
            return f"supervision goes on after the end of the answer at token {start + ends[0]}"
        if not ends and not may_be_open:
            return f"the answer at token {start} is supervised without its end"
    return ""


def _runs(mask: list[bool], documents: list[int]) -> list[tuple[int, int]]:
    """(start, stop) of what is supervised without a gap, and within one document."""
    runs: list[tuple[int, int]] = []
    for place, chosen in enumerate(mask):
        if not chosen:
            continue
        if runs and runs[-1][1] == place and documents[place] == documents[place - 1]:
            runs[-1] = (runs[-1][0], place + 1)
        else:
            runs.append((place, place + 1))
    return runs
