"""Optimizers and learning-rate schedules: ``optim=adamw``, ``optim=muon``, ``optim=mup_adamw``, ``optim/schedule=wsd``."""

from lumi.optim.mup import MupAdamW
from lumi.optim.recipe import AdamW, Muon, Recipe
from lumi.optim.schedule import WSD, Constant, Cosine, Linear, Schedule

__all__ = ["WSD", "AdamW", "Constant", "Cosine", "Linear", "Muon", "MupAdamW", "Recipe", "Schedule"]
