"""Many runs from one command: ``python train.py -m …``.

``sweep=grid | optuna | wandb`` says which combinations are trained, ``hydra/launcher=slots | joblib |
submitit_slurm`` says where.
"""

from lumi.sweep.grid import Grid
from lumi.sweep.optuna import Optuna
from lumi.sweep.wandb import WandB

__all__ = ["Grid", "Optuna", "WandB"]
