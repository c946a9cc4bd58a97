"""The lineage of every number: from a figure back to the documents, from a step to what it read, from a run to the same run.

    python evaluate.py why=runs/demo/eval/results.json    what it was made from, checked             `why`, `trace`
    python prepare.py verify=runs/demo                    every byte of that chain hashed again      `verify`
    python evaluate.py model=runs/demo replay=120         the documents that step 120 read           `replay`
    python evaluate.py reproduce=runs/demo                the run again, compared bit for bit        `reproduce`

Every artefact names its parents by hash (`lumi.manifest`); here those names are followed. No path is taken on trust: it says
where to look, and the hash whether what lies there is meant.
"""

from lumi.lineage.origin import evaluated, hashes_of
from lumi.lineage.replay import Replay, show_replay
from lumi.lineage.reproduce import reproduce
from lumi.lineage.trace import trace
from lumi.lineage.verify import verify_chain
from lumi.lineage.why import why

LINEAGE_KEYS = ("why", "verify", "json", "replay", "reproduce", "reproduce_steps")
"""Of ``conf/evaluate.yaml``."""

__all__ = [
    "LINEAGE_KEYS",
    "Replay",
    "evaluated",
    "hashes_of",
    "reproduce",
    "show_replay",
    "trace",
    "verify_chain",
    "why",
]
