"""Lumi: train small language models from raw text, with numbers you can trust.

The word you type is the folder you open: ``stage=pretrain`` is ``conf/stage/pretrain.yaml`` is ``lumi/stage/pretrain.py``.
"""

__version__ = "0.1.0"
