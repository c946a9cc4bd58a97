"""The model: plain PyTorch, no framework.

One legend for every shape in this package:

``B`` batch · ``T`` tokens · ``D`` model width · ``H`` query heads · ``K`` key/value heads · ``E`` head size (D / H) ·
``F`` feed-forward width · ``V`` vocabulary · ``S`` keys that a query may look at

Reading order: `config`, `decoder`, `layers`, `attention`, `loss`; `fused` is the same model laid out for generation.
"""

from lumi.arch.config import DecoderConfig
from lumi.arch.decoder import Decoder
from lumi.arch.loss import next_token_loss, target_nll, target_scores, token_nll

__all__ = ["Decoder", "DecoderConfig", "next_token_loss", "target_nll", "target_scores", "token_nll"]
