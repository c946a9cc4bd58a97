"""Whether the run fits this device, and how fast it is."""

import torch

from lumi.doctor.finding import Finding, error, ok, warning
from lumi.doctor.subject import Subject
from lumi.errors import ResourceError
from lumi.plan import measure_peak_flops, size_text
from lumi.profile import free_bytes, measure

_SECONDS = 2.0
_LEAST_SHARE = 0.02
"""Of the device's operations; below it something else than products takes the time."""


def cost(subject: Subject) -> Finding:
    """Measure some steps at a rate of zero: memory against what is free, tokens a second against what the device can."""
    work, free = subject.work, free_bytes(subject.device)
    windows, size = work.n_windows, subject.data.batch_size
    found = measure(work, min(size, windows), seconds=_SECONDS, free=free)
    memory = f"about {size_text(found.memory_bytes)} of {size_text(free) if free else '?'} free"
    if found.seconds is None:
        return error(
            f"a micro-batch of {size} windows needs {memory}",
            "the run ends when the memory does",
            "data.batch_size lower and trainer.accumulate higher by as much; arch.checkpoint_activations=true; plan=true",
            ResourceError,
        )
    tokens = windows * subject.data.seq_len / found.seconds
    half = subject.setup.resolved_precision() != "32-true"
    peak = measure_peak_flops(subject.device, torch.bfloat16 if half else torch.float32)
    share = tokens * subject.decoder.config.flops_per_token(subject.data.seq_len) / peak
    seen = f"{tokens:,.0f} tokens/s, {share:.0%} of what this device's products reach; memory {memory}"
    if free is not None and found.memory_bytes > 0.75 * free:
        return warning(
            seen, "the estimate is right within a tenth: it may not fit", "data.batch_size lower, or plan=true"
        )
    if share < _LEAST_SHARE:
        return warning(
            seen,
            "the time goes into something else than products: tiny batches, or a busy machine",
            "a larger data.batch_size, trainer.threads, or plan=true for the best of several",
        )
    return ok(seen)
