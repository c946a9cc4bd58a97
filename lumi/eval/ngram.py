"""An n-gram model over tokens, fitted and evaluated with sorts instead of dictionaries: millions of tokens in seconds.

Interpolated modified Kneser-Ney smoothing (Chen and Goodman 1998, section 3), the strongest classical n-gram model and
the usual yardstick before neural ones. What an order-5 model cannot reach and a network does is what the network knows
beyond the last four tokens.
"""

import dataclasses
import logging

import numpy as np

from lumi.errors import DataError

log = logging.getLogger(__name__)

UNSEEN = -1


@dataclasses.dataclass(frozen=True)
class _Level:
    """Everything of one order k. A gram's number is its place in ``keys``, a context's its place one order below.

    Attributes:
        keys: (G,) int64 sorted: context number * vocabulary + last token, of every k-gram seen.
        discounted: (G,) float64 count of the gram, less its discount.
        total: (C,) float64 sum of the counts of the grams that begin with a context; 0 where none does.
        spare: (C,) float64 what was discounted from those grams: the weight of the order below.
    """

    keys: np.ndarray
    discounted: np.ndarray
    total: np.ndarray
    spare: np.ndarray


class NGram:
    """Interpolated modified Kneser-Ney over documents, each of which begins with bos.

    An n-gram never crosses a document's border, and the start of a document is a context of its own. The last resort is
    the uniform distribution over all tokens but bos, so that every text has a finite cost, and probabilities sum to one
    over these tokens.

    Args:
        tokens: (N,) training stream, any integer type; each document begins with bos.
        offsets: (documents + 1,) where documents begin, and the end.
        vocab_size: V.
        order: tokens in the longest n-gram, the predicted one included.

    Raises:
        DataError: there is nothing to learn from.
    """

    def __init__(self, tokens: np.ndarray, offsets: np.ndarray, *, vocab_size: int, order: int) -> None:
        self.vocab_size, self.order = vocab_size, order
        place = _places(offsets)
        if not np.any(place > 0):
            raise DataError(f"{len(tokens)} tokens in {len(offsets) - 1} documents", "hold nothing that is predicted")
        grams = self._number(tokens.astype(np.int64), place)
        self._levels = [self._level(k, grams, place) for k in range(1, order + 1)]

    def log_probs(self, tokens: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Natural log-probability of each token that is not the first of its document: (targets,) float64, in order."""
        tokens, place = tokens.astype(np.int64), _places(offsets)
        probs = np.full(len(tokens), 1.0 / (self.vocab_size - 1))
        context = np.zeros(len(tokens), dtype=np.int64)  # order 1 has one context, the empty one
        for k, level in enumerate(self._levels, 1):
            # A token has an order-k context where k - 1 tokens of its document lie before it, in an order once seen.
            at = np.flatnonzero((place >= max(1, k - 1)) & (context != UNSEEN))
            gram = tokens if k == 1 else self._find_all(level, context, tokens, at)
            at = at[level.total[context[at]] > 0]
            direct = np.where(gram[at] == UNSEEN, 0.0, level.discounted[gram[at]])
            probs[at] = (direct + level.spare[context[at]] * probs[at]) / level.total[context[at]]
            context = _next_context(gram)
        return np.log(probs[place > 0])

    def distribution(self, context: list[int]) -> np.ndarray:
        """Probabilities (V,) of what follows a document's beginning (bos first); bos itself has none."""
        n_tokens = len(context) + 1
        documents = np.tile(np.array([*context, 0]), (self.vocab_size, 1))
        documents[:, -1] = np.arange(self.vocab_size)
        offsets = np.arange(self.vocab_size + 1) * n_tokens
        probs = np.exp(self.log_probs(documents.ravel(), offsets).reshape(self.vocab_size, -1)[:, -1])
        probs[context[0]] = 0.0
        return probs

    def _find_all(self, level: _Level, context: np.ndarray, tokens: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Number of the gram that ends at each token, UNSEEN if it never occurred and everywhere but ``at``: (N,)."""
        grams = np.full(len(tokens), UNSEEN, dtype=np.int64)
        grams[at] = _find(level.keys, context[at] * self.vocab_size + tokens[at])
        return grams

    def _number(self, tokens: np.ndarray, place: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each order: the sorted keys of its grams, and the gram that ends at each token (UNSEEN if none does).

        Order 1 numbers a gram by its token, bos included, since a bos is a context even if never predicted.
        """
        grams = [(np.arange(self.vocab_size, dtype=np.int64), tokens)]
        for k in range(2, self.order + 1):
            at = np.flatnonzero(place >= k - 1)
            keys, inverse = np.unique(grams[-1][1][at - 1] * self.vocab_size + tokens[at], return_inverse=True)
            number = np.full(len(tokens), UNSEEN, dtype=np.int64)
            number[at] = inverse
            grams.append((keys, number))
        return grams

    def _level(self, k: int, grams: list[tuple[np.ndarray, np.ndarray]], place: np.ndarray) -> _Level:
        """Counts, discounts and sums of order k."""
        keys = grams[k - 1][0]
        counts = self._counts(k, grams, place)
        discount = np.concatenate(([0.0], _discounts(counts, k)))[np.minimum(counts, 3)]
        # Order 1 is one context; above, the context is what the key was made from.
        n_contexts = 1 if k == 1 else len(grams[k - 2][0])
        context = np.zeros(len(keys), dtype=np.int64) if k == 1 else keys // self.vocab_size
        return _Level(
            keys=keys,
            discounted=counts - discount,
            total=np.bincount(context, weights=counts, minlength=n_contexts),
            spare=np.bincount(context, weights=discount, minlength=n_contexts),
        )

    def _counts(self, k: int, grams: list[tuple[np.ndarray, np.ndarray]], place: np.ndarray) -> np.ndarray:
        """Count of each gram: how often it occurs in the highest order, after how many different tokens below.

        A gram at the start of a document has nothing before it, so there its occurrences count.
        """
        keys, number = grams[k - 1]
        raw = number[place >= max(1, k - 1)] if k == self.order else number[place == max(1, k - 1)]
        if k == 1 and self.order > 1:
            raw = raw[:0]  # every predicted token has at least bos before it
        counts = np.bincount(raw, minlength=len(keys))
        if k < self.order:
            longer = grams[k][1]
            at = np.flatnonzero(longer != UNSEEN)
            one_each = np.empty(len(grams[k][0]), dtype=np.int64)
            one_each[longer[at]] = at  # any place of each longer gram; all end with the same shorter one
            counts = counts + np.bincount(number[one_each], minlength=len(keys))
        return counts


def _places(offsets: np.ndarray) -> np.ndarray:
    """Index of each token within its document: (N,) int64."""
    lengths = np.diff(offsets)
    return np.arange(int(offsets[-1] - offsets[0])) - np.repeat(offsets[:-1] - offsets[0], lengths)


def _next_context(grams: np.ndarray) -> np.ndarray:
    """The gram that ends one token earlier: (N,); what is wrong across documents is never read."""
    return np.concatenate((grams[:1], grams[:-1]))


def _find(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Place of each wanted value in the sorted keys, UNSEEN where it is not there."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, place, UNSEEN)


def _discounts(counts: np.ndarray, k: int) -> np.ndarray:
    """What is taken from counts of 1, 2, and 3 or more: (3,) (Chen and Goodman 1998, equation 26)."""
    n = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].astype(np.float64)  # how many have count 1, 2, 3, 4
    if np.any(n == 0):
        # Too little text for the estimate. Any discount between 0 and the count gives a proper distribution.
        log.info("n-grams of order %d: no estimate of the discounts, 0.5, 1 and 1.5 are used", k)
        return np.array([0.5, 1.0, 1.5])
    y = n[0] / (n[0] + 2 * n[1])
    estimate = np.array([1 - 2 * y * n[1] / n[0], 2 - 3 * y * n[2] / n[1], 3 - 4 * y * n[3] / n[2]])
    return np.clip(estimate, 0.0, [1.0, 2.0, 3.0])
