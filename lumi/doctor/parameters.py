"""The weights and their optimizer: each in one group, the right ones with decay, and no row that is dead."""

import itertools

import torch
from torch import nn

from lumi.arch import Decoder
from lumi.doctor.finding import Finding, error, ok, warning
from lumi.doctor.subject import Subject
from lumi.errors import CheckpointError, NumericError

_COUNTED_TOKENS = 2_000_000
"""Of each source, for the pieces that the data never use."""


def groups(subject: Subject) -> Finding:
    """Tied weights are one tensor; every trained weight is in one group, with decay where it belongs."""
    stage, decoder = subject.stage, subject.decoder
    shared = decoder.lm_head.weight is decoder.model.embed_tokens.weight
    if shared != decoder.config.tied:
        return error(
            f"arch.tied={str(decoder.config.tied).lower()}, but head and embedding are {'one' if shared else 'two'}",
            "a copy is trained apart, and a checkpoint keeps one of them only",
            "decoder.lm_head.weight = decoder.model.embed_tokens.weight, after everything that replaces either",
        )
    optimizer = stage.configure_optimizers()
    members = [(p, group) for group in optimizer.param_groups for p in group["params"]]
    fault = _membership_fault(subject, [p for p, _ in members])
    if fault:
        return fault
    decayed = {id(p) for p, group in members if group["weight_decay"] > 0}
    named = dict(stage.decoder.named_parameters())
    wrong = [name for name, p in named.items() if id(p) in decayed and _is_spared(decoder, p)]
    if wrong:
        return error(
            f"{len(wrong)} weights without decay are in a group with it: {_some(wrong)}",
            "decay pulls the gains of norms to zero, and shrinks the rows of rare tokens, which no gradient pushes back",
            "give them weight_decay 0, as lumi.optim.recipe.split_decay does",
        )
    matrices = [name for name, p in named.items() if p.requires_grad and not _is_spared(decoder, p)]
    lacking = [name for name in matrices if id(named[name]) not in decayed] if decayed else []
    if lacking:
        return warning(
            f"{len(lacking)} of {len(matrices)} matrices have no decay, others have: {_some(lacking)}",
            "they grow without bound, and their effective rate falls",
            "put all matrices of the blocks and an untied head into the group with decay",
        )
    trained = sum(p.numel() for p, _ in members)
    head = "head and embedding are one tensor" if shared else "the head is a tensor of its own"
    return ok(f"{head}; {trained:,} trained numbers, each in one group, {len(decayed)} of {len(members)} with decay")


def _membership_fault(subject: Subject, members: list[nn.Parameter]) -> Finding | None:
    named = dict(subject.stage.decoder.named_parameters())
    counts: dict[int, int] = {}
    for parameter in members:
        counts[id(parameter)] = counts.get(id(parameter), 0) + 1
    missing = [name for name, p in named.items() if p.requires_grad and id(p) not in counts]
    twice = [name for name, p in named.items() if counts.get(id(p), 0) > 1]
    frozen = [name for name, p in named.items() if not p.requires_grad and id(p) in counts]
    strangers = len(counts.keys() - {id(p) for p in named.values()})
    for names, what in (
        (missing, "trained weights in no group"),
        (twice, "weights in two groups"),
        (frozen, "frozen weights in a group"),
    ):
        if names:
            return error(
                f"{len(names)} {what}: {_some(names)}",
                "what is in no group stays as it is, what is in two is updated twice",
                "build the groups from stage.trained_parameters(), each once",
            )
    if strangers:
        return error(
            f"{strangers} tensors in the optimizer are not the model's",
            "they are updated, and the model is not",
            "make the optimizer after everything that replaces weights (adapters, tying)",
        )
    return None


def _is_spared(decoder: Decoder, parameter: nn.Parameter) -> bool:
    """Whether decay must not touch it: norms, the embedding (also as a tied head), what is trained in some rows only."""
    embedding = decoder.model.embed_tokens.weight
    return parameter.dim() < 2 or parameter is embedding or getattr(parameter, "partly_trained", False)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def embeddings(subject: Subject) -> Finding:
    """No weight is NaN, no row of embedding or head is dead, and there are as many as pieces."""
    decoder, tokenizer = subject.decoder, subject.tokenizer
    bad = [name for name, value in decoder.named_parameters() if not bool(torch.isfinite(value.detach()).all())]
    if bad:
        return error(
            f"numbers that are not finite in {len(bad)} weights: {_some(bad)}",
            "the loss is NaN from the first step",
            "take another checkpoint (init_from=…); python evaluate.py model=… shows whether it is whole",
            NumericError,
        )
    rows = len(decoder.model.embed_tokens.weight)
    if rows < tokenizer.vocab_size:
        return error(
            f"the embedding has {rows:,} rows, the tokenizer {tokenizer.vocab_size:,} pieces",
            "the first piece above it ends the run",
            "leave arch.vocab_size to the tokenizer, or take the model's own tokenizer",
            CheckpointError,
        )
    dead = sorted(token for token in _zero_rows(decoder) if token < tokenizer.vocab_size)
    if dead:
        spelled = ", ".join(repr(tokenizer.piece(token)) for token in dead[:3])
        return warning(
            f"{len(dead)} rows of embedding or head are zero: {spelled}{', …' if len(dead) > 3 else ''}",
            "a zero row of the embedding says nothing, and one of a tied head never learns by itself",
            "take a checkpoint whose rows were initialised, or begin anew (init_from=null)",
        )
    if subject.initial is not None and (unread := _unread_markers(subject)):
        return unread
    if rows > tokenizer.vocab_size:
        return warning(
            f"the embedding has {rows:,} rows, the tokenizer {tokenizer.vocab_size:,} pieces",
            "the rest is never trained, and can be drawn when text is generated",
            "leave arch.vocab_size to the tokenizer",
        )
    return ok(f"{rows:,} rows, one a piece, none zero, all weights finite")


def _zero_rows(decoder: Decoder) -> set[int]:
    weights = (decoder.model.embed_tokens.weight, decoder.lm_head.weight)
    found = [(~weight.detach().any(dim=1)).nonzero().flatten().tolist() for weight in weights]
    return set(itertools.chain(*found))


def _unread_markers(subject: Subject) -> Finding | None:
    """Chat markers that the model before has never seen, and that an adapter leaves as they are."""
    lora, template = subject.stage.lora, subject.template
    assert subject.initial is not None, "asked before"
    if lora is None or lora.control_rows or template is None or subject.initial.template is not None:
        return None
    text = "".join([*template.user, *template.assistant])
    own = {subject.tokenizer.bos_id, subject.tokenizer.eos_id, subject.tokenizer.pad_id}
    unread = sorted(name for name, token in subject.tokenizer.controls.items() if name in text and token not in own)
    if not unread:
        return None
    return warning(
        f"pretraining has not seen {', '.join(unread)}, and stage.lora.control_rows=false leaves their rows as noise",
        "no adapter on frozen weights can read them or make the model write them: answers do not end",
        "stage.lora.control_rows=true, or template=plain, or stage.lora=null",
    )


def unused_pieces(subject: Subject) -> Finding:
    """Pieces that a sample of the training data never uses: their rows learn nothing but to be unlikely."""
    vocab_size = subject.tokenizer.vocab_size
    counts = torch.zeros(vocab_size, dtype=torch.int64)
    for stream in subject.data.train_streams:
        if hasattr(stream, "offsets"):  # packed text
            sample = torch.from_numpy(stream.tokens(0, min(stream.n_tokens, _COUNTED_TOKENS)).astype("int64"))
            counts += torch.bincount(sample, minlength=vocab_size)[:vocab_size]
        else:
            for tokens, _ in itertools.islice(itertools.chain(*stream.examples), 5_000):
                counts += torch.bincount(torch.from_numpy(tokens).long(), minlength=vocab_size)[:vocab_size]
    normal = torch.tensor([piece.kind == "normal" for piece in subject.tokenizer.pieces])
    unused, total = int((normal & (counts == 0)).sum()), int(normal.sum())
    seen = f"{unused:,} of {total:,} pieces are not in {int(counts.sum()):,} training tokens"
    if subject.initial is None and unused > total // 4 and counts.sum() > 20 * vocab_size:
        return warning(
            seen,
            "their rows are never trained, and are there all the same: memory, and noise when text is generated",
            "train the tokenizer on this text (prepare.py step=tokenizer), or a smaller one (tokenizer.vocab_size)",
        )
    return ok(seen)
