"""How far a share that was counted on n cases may be from the true one."""

import math

_Z = 1.959963984540054  # of the normal distribution at 95 %


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927): honest near 0 and 1, where a bootstrap has no width.

    Args:
        successes: of n independent cases.
        n: at least 1.
    """
    share = successes / n
    centre = share + _Z**2 / (2 * n)
    width = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    low, high = (centre - width) / (1 + _Z**2 / n), (centre + width) / (1 + _Z**2 / n)
    return (0.0 if successes == 0 else low), (1.0 if successes == n else high)
