"""Every name that a run logs, with its unit: what dashboards refer to, and what a test compares with the runs themselves.

``{source}`` stands for the name of a source; such a metric is there where a mixture has more than one.
"""

UNITS = {
    "train/loss": "nats a supervised token",
    "val/loss": "nats a supervised token",
    "val/loss/{source}": "nats a supervised token",
    "val/perplexity": "",
    "val/bits_per_byte": "bits",
    "val/bits_per_byte/{source}": "bits",
    "mix/{source}": "share of the windows so far",
    "optim/lr": "",
    "optim/grad_norm": "before clipping",
    "progress/tokens": "tokens",
    "progress/flops": "floating-point operations",
    "progress/percent": "% of the run",
    "progress/epochs": "passes over all sources",
    "perf/tokens_per_second": "tokens/s",
    "perf/seconds": "s of training",
    "perf/mfu": "share of the peak",
    "perf/memory_gb": "GB, the highest so far",
}
"""Of every stage; ``train/loss``, ``val/loss`` of ``stage=dpo`` are of a pair, and it has no perplexity and no bits."""

PREFERENCE_UNITS = {
    "margin": "difference of the rewards",
    "accuracy": "share of the pairs",
    "logprob_chosen": "nats a token",
    "logprob_rejected": "nats a token",
    "drift_chosen": "nats a token against the reference",
}
"""Of ``stage=dpo``, each as ``train/…``, ``val/…`` and ``val/…/{source}``."""

SUMMARY = {
    "best/val/loss": "the lowest so far",
    "best/step": "where that was",
    "plan/parameters": "",
    "plan/flops": "of the whole run",
    "plan/tokens": "of the whole run",
    "state": "running, finished, stopped (it can be continued) or failed",
}
"""One value a run, beside the last value of every metric."""
