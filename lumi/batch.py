"""The contract between data and stages: what a batch holds, with dtypes and shapes.

`lumi.data` makes batches, `lumi.stage` consumes them, and neither imports the other. A batch never holds shifted labels:
only `lumi.arch.loss` knows that position t predicts token t + 1.
"""

from typing import NotRequired, TypedDict

from torch import Tensor

REPEATED = -1
"""Source of a validation batch that another rank has read too: it is there so that all ranks take as many steps, and counts
nowhere."""


class PackedBatch(TypedDict):
    """``B`` windows of ``T`` tokens cut from a packed stream; several documents may share a window.

    A token counts in the loss when it is predicted from its own document, so a document's first token (its bos) and the
    window's first token are never targets. Successive windows overlap by one token, hence every token of a stream that
    has a predecessor in its document is a target exactly once per epoch.
    """

    tokens: Tensor  # (B, T) int64
    doc_ids: Tensor  # (B, T) int32: equal within a document, rising along the window; -1 where there is only padding
    loss_mask: Tensor  # (B, T) bool: True where the token *itself* is a target (position t is predicted from t - 1)
    source: Tensor  # (B,) int64: index into the names of the mixture's sources
    sample: Tensor  # (B,) int64: index of the window within its source, so that any batch can be read again
    boundaries: NotRequired[Tensor]  # (documents + 1,) int32: where they begin in the flattened windows; on a GPU only


class PreferenceBatch(PackedBatch):
    """``B`` windows that hold up to ``P`` preference pairs each, both answers as whole documents.

    Document 2k of a window is the better answer of its pair k after the prompt, document 2k + 1 the worse one. The loss mask
    marks the answers' tokens only.
    """

    pairs: Tensor  # (B, P) int64: index of the pair within its source, -1 where the window has fewer
    reference: (
        Tensor  # (B, P, 2) float32: summed log-probabilities of better and worse answer under the reference model
    )
