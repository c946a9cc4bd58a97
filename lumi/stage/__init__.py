"""Training stages, one loss each (``stage=pretrain``); `base` holds what they share."""

from lumi.stage.base import Stage
from lumi.stage.pretrain import Pretrain

__all__ = ["Pretrain", "Stage"]
