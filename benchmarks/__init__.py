"""What Lumi's work costs beside other ways to do it, measured in one run on one machine: ``make bench-corpus``."""
