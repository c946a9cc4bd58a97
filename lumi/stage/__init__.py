"""Training stages, one loss each (``stage=pretrain``, ``sft``, ``dpo``); `base` holds what they share."""

from lumi.stage.base import Stage
from lumi.stage.dpo import DPO
from lumi.stage.objective import Objective
from lumi.stage.pretrain import Pretrain
from lumi.stage.sft import SFT

__all__ = ["DPO", "SFT", "Objective", "Pretrain", "Stage"]
