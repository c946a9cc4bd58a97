"""What a corpus would be, from a sample of it: ``python prepare.py corpus=… analyze_only=true``."""

from lumi.corpus.planning.analyze import analyze
from lumi.corpus.planning.table import WIDTH, show_plan

__all__ = ["WIDTH", "analyze", "show_plan"]
