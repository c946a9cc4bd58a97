"""What is wrong with a run, before it costs anything (``doctor=true``, and a quick form before every first step).

Each check is a function from a `Subject`, the objects of the run, to a `Finding`. Reading order: `finding`, `subject`, then the
checks by what they look at (`targets`, `attention`, `tokens`, `parameters`, `preference`, `training`, `cost`), and `examine`.
"""

from lumi.doctor.examine import CHECKS, Check, ask_quickly, examine, refuse, report, say_all
from lumi.doctor.finding import Finding, Status
from lumi.doctor.subject import Subject

__all__ = ["CHECKS", "Check", "Finding", "Status", "Subject", "ask_quickly", "examine", "refuse", "report", "say_all"]
