"""The one generator of text: used by training samples, evaluation, the terminal and the server.

`sampling` says how a token is drawn from logits, `engine` runs the model with a cache over a ragged batch.
"""

from lumi.generate.engine import Completion, evaluation_mode, generate, stream
from lumi.generate.sampling import SamplingParams

__all__ = ["Completion", "SamplingParams", "evaluation_mode", "generate", "stream"]
