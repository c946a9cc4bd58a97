"""Steps that look at one document at a time: cleaning, language, quality, decontamination."""

from lumi.corpus.steps.clean import Clean
from lumi.corpus.steps.decontaminate import Decontaminate
from lumi.corpus.steps.language import Language
from lumi.corpus.steps.quality import C4Quality, FineWebQuality, GopherQuality
from lumi.corpus.steps.repetition import GopherRepetition

__all__ = ["C4Quality", "Clean", "Decontaminate", "FineWebQuality", "GopherQuality", "GopherRepetition", "Language"]
