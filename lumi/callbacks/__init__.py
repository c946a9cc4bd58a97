"""What happens beside the training steps: checkpoints, progress, samples, metrics."""

from lumi.callbacks.checkpoint import (
    Checkpoint,
    FolderCheckpointIO,
    RunFacts,
    best_checkpoint,
    list_checkpoints,
    newest_checkpoint,
    set_aside,
)
from lumi.callbacks.dashboard import Workspace
from lumi.callbacks.early_stopping import EarlyStopping
from lumi.callbacks.metrics import MetricsCsv, read_metrics
from lumi.callbacks.progress import Progress, clock_text
from lumi.callbacks.samples import Samples, continue_prompts, written_samples
from lumi.callbacks.stop_after import StopAfter
from lumi.callbacks.tensorboard import TensorBoard
from lumi.callbacks.tracking import RunCard, State, Tracker, made_from
from lumi.callbacks.wandb import WandB

__all__ = [
    "Checkpoint",
    "EarlyStopping",
    "FolderCheckpointIO",
    "MetricsCsv",
    "Progress",
    "RunCard",
    "RunFacts",
    "Samples",
    "State",
    "StopAfter",
    "TensorBoard",
    "Tracker",
    "WandB",
    "Workspace",
    "best_checkpoint",
    "clock_text",
    "continue_prompts",
    "list_checkpoints",
    "made_from",
    "newest_checkpoint",
    "read_metrics",
    "set_aside",
    "written_samples",
]
