"""Trained models for other programs: Hugging Face folders, GGUF files, peft adapters; each is compared before it appears.

Reading order: `model` (the entry), `source`, `huggingface`, `chat_template`, `reading`, `adapter`, `gguf`, `vocabulary`,
`parity`, `texts`, `llamacpp`, `card`, `charsmap`.
"""

from lumi.export.adapter import load_adapter_folder
from lumi.export.model import export_model
from lumi.export.reading import load_huggingface

__all__ = ["export_model", "load_adapter_folder", "load_huggingface"]
