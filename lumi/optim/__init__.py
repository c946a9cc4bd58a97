"""Optimizers and schedules: ``optim=adamw``, ``muon``, ``mup_adamw``, ``mup_muon``; ``optim/schedule=wsd``."""

from lumi.optim.mup import MupAdamW, MupMuon
from lumi.optim.recipe import AdamW, Muon, Recipe, Together
from lumi.optim.schedule import WSD, Constant, Cosine, Linear, Schedule

__all__ = [
    "WSD",
    "AdamW",
    "Constant",
    "Cosine",
    "Linear",
    "Muon",
    "MupAdamW",
    "MupMuon",
    "Recipe",
    "Schedule",
    "Together",
]
