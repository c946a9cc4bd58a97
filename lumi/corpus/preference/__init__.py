"""Preference pairs: where they come from (``preference=…``), and the checked folders that they become."""

from lumi.corpus.preference.files import PairFiles
from lumi.corpus.preference.pair import Pair, PairSource, audit_lines, build_preference, read_preference
from lumi.corpus.preference.world import WorldPairs

__all__ = ["Pair", "PairFiles", "PairSource", "WorldPairs", "audit_lines", "build_preference", "read_preference"]
