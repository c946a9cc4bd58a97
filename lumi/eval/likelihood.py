"""How likely a model finds given answers: the one scorer of choice tasks, preference pairs and reference answers."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from lumi.arch import Decoder, target_scores
from lumi.data import RowStream
from lumi.errors import DataError, NumericError
from lumi.generate import evaluation_mode

Document = tuple[np.ndarray, np.ndarray]
"""Tokens (T,) int32, bos first, and the mask (T,) bool of those that are scored."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """What a model says of n documents.

    Attributes:
        log_probs: (n,) float64, summed over the scored tokens, in nats.
        n_tokens: (n,) int64, how many were scored.
        greedy: (n,) bool, whether each scored token was the model's likeliest.
    """

    log_probs: np.ndarray
    n_tokens: np.ndarray
    greedy: np.ndarray


@torch.inference_mode()
def score_documents(
    model: Decoder, documents: Sequence[Document], *, batch_size: int = 16, name: str = "answers"
) -> Scores:
    """Score documents independently of each other; they share windows, attention does not cross between them.

    Args:
        documents: each at most ``max_seq_len`` tokens long.
        batch_size: windows in the model at a time.
        name: shown beside the progress bar.

    Raises:
        DataError: a document is too long or has nothing to score.
        NumericError: the model gives a likelihood that is not a number.
    """
    longest = model.config.max_seq_len
    for number, (tokens, mask) in enumerate(documents):
        if len(tokens) > longest:
            raise DataError(f"{name}, document {number}: {len(tokens)} tokens", f"the model takes {longest}", "cut it")
        if not mask[1:].any():
            raise DataError(f"{name}, document {number}", "has no token to score")
    stream = RowStream([[document] for document in documents], longest, 0)
    log_probs = np.zeros(len(documents))
    n_tokens = np.zeros(len(documents), dtype=np.int64)
    missed = np.zeros(len(documents), dtype=np.int64)
    weight = model.lm_weight.detach()
    firsts = range(0, len(stream), batch_size)
    with evaluation_mode(model):
        for first in tqdm(firsts, desc=f"score {name}", unit="batch", delay=2, disable=None, leave=False):
            chosen = np.arange(first, min(first + batch_size, len(stream)))
            batch = {key: torch.from_numpy(value).to(weight.device) for key, value in stream.windows(chosen).items()}
            hidden = model(batch["tokens"], batch["doc_ids"])
            found, likeliest = target_scores(hidden, weight, batch["tokens"], batch["loss_mask"])
            owner = _owners(stream, chosen, batch["doc_ids"].cpu().numpy(), batch["loss_mask"].cpu().numpy())
            np.add.at(log_probs, owner, found.double().cpu().numpy())
            np.add.at(n_tokens, owner, 1)
            np.add.at(missed, owner, (~likeliest).long().cpu().numpy())
    if not np.isfinite(log_probs).all():
        raise NumericError(f"the likelihood of {name}", "is not a finite number", "check the checkpoint")
    return Scores(log_probs=log_probs, n_tokens=n_tokens, greedy=missed == 0)


def _owners(stream: RowStream, chosen: np.ndarray, doc_ids: np.ndarray, loss_mask: np.ndarray) -> np.ndarray:
    """(N,) index of the document that each scored token belongs to, in the order of the scores."""
    rows, places = np.nonzero(loss_mask[:, 1:])
    numbers = doc_ids[:, 1:][rows, places]
    return np.array(
        [stream.rows[chosen[row]][number] for row, number in zip(rows, numbers, strict=True)], dtype=np.int64
    )
