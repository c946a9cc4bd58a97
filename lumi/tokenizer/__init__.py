"""The one tokenizer of a project: trained once, frozen, known by the SHA-256 of its bytes (``tokenizer=…``).

Reading order: `config` (what can be chosen), `train`, `frozen` (text to ids and back), `template` (conversations to ids),
`card`, `huggingface`.
"""

from lumi.tokenizer.config import ExistingTokenizer, TokenizerConfig
from lumi.tokenizer.frozen import Tokenizer, check_identity, utf8
from lumi.tokenizer.huggingface import to_huggingface
from lumi.tokenizer.template import Message, Rendered, Role, Template
from lumi.tokenizer.train import train_tokenizer

__all__ = [
    "ExistingTokenizer",
    "Message",
    "Rendered",
    "Role",
    "Template",
    "Tokenizer",
    "TokenizerConfig",
    "check_identity",
    "to_huggingface",
    "train_tokenizer",
    "utf8",
]
