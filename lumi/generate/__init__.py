"""The one generator of text: used by training samples, evaluation, the terminal and the server.

`sampling` says how a token is drawn from logits, `request` is one prompt on its way, `engine` runs many of them in one model,
`batch` is for callers that want answers and nothing else.
"""

from lumi.generate.batch import evaluation_mode, generate, stream
from lumi.generate.engine import Engine
from lumi.generate.request import Completion, Request
from lumi.generate.sampling import SamplingParams

__all__ = ["Completion", "Engine", "Request", "SamplingParams", "evaluation_mode", "generate", "stream"]
