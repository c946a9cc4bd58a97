"""What happens beside the training steps: checkpoints, progress, samples, metrics."""

from lumi.callbacks.checkpoint import (
    Checkpoint,
    FolderCheckpointIO,
    RunFacts,
    best_checkpoint,
    list_checkpoints,
    newest_checkpoint,
)
from lumi.callbacks.early_stopping import EarlyStopping
from lumi.callbacks.metrics import MetricsCsv, TensorBoard, WandB, read_metrics
from lumi.callbacks.progress import Progress, clock_text
from lumi.callbacks.samples import Samples, continue_prompts, written_samples

__all__ = [
    "Checkpoint",
    "EarlyStopping",
    "FolderCheckpointIO",
    "MetricsCsv",
    "Progress",
    "RunFacts",
    "Samples",
    "TensorBoard",
    "WandB",
    "best_checkpoint",
    "clock_text",
    "continue_prompts",
    "list_checkpoints",
    "newest_checkpoint",
    "read_metrics",
    "written_samples",
]
