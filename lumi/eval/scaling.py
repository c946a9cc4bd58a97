"""Scaling laws: the loss as a function of parameters N and training tokens D, fitted to small runs (arXiv:2203.15556).

Approach 3 fits L(N, D) = E + A / N^alpha + B / D^beta to all runs at once; approach 2 puts a parabola through the runs of one
cost and asks how the bottom moves with it. Both are here, because each shows where the other should not be believed. Losses are
nats per token: a law holds for one tokenizer, one text and one recipe.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lumi.errors import ConfigError, DataError

HUBER = 1e-3
"""Residuals of the log-loss above this count in proportion, not squared: a run that went wrong does not bend the law."""

_TOGETHER = 0.1
"""Costs within this relative distance count as one budget: whole steps make them differ a little."""

_STARTS = 8
_ITERATIONS = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """One finished run.

    Attributes:
        n_params: all, a tied matrix once. n_tokens: read in training. flops: of training.
        loss: on held-out text, nats per token.
        name: of the run.
    """

    n_params: float
    n_tokens: float
    flops: float
    loss: float
    name: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """What a loss is predicted for.

    Attributes:
        name: of an architecture or a run. n_params, n_tokens: its size and length.
        measured: loss of a run that was held out; None if there is none.
    """

    name: str
    n_params: float
    n_tokens: float
    measured: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Law:
    """L(N, D) = E + A / N^alpha + B / D^beta, in nats per token."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, n_params: float, n_tokens: float) -> float:
        """What a model of this size is expected to reach on so many tokens."""
        return self.E + self.A * n_params**-self.alpha + self.B * n_tokens**-self.beta

    def optimum(self, flops: float) -> tuple[float, float]:
        """Parameters and tokens with the lowest loss for a cost of 6 N D operations (equation 4 of the paper).

        Raises:
            DataError: the law does not fall with both, so there is none.
        """
        if min(self.alpha, self.beta, self.A, self.B) <= 0:
            raise DataError(f"{self}", "does not fall with both sizes, so no cost has an optimum", "train more runs")
        total = self.alpha + self.beta
        scale = (self.alpha * self.A / (self.beta * self.B)) ** (1 / total)
        n_params = scale * (flops / 6) ** (self.beta / total)
        return n_params, flops / 6 / n_params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parabola:
    """Loss against log N at one cost (approach 2).

    Attributes:
        flops: the cost, the geometric mean of its runs.
        coefficients: of the loss in ln N - center, highest first. center: mean of ln N.
        n_params: where it is lowest; None if it opens downwards or its bottom lies outside the sizes that were trained.
        n_tokens: at that size. loss: there.
    """

    flops: float
    coefficients: tuple[float, float, float]
    center: float
    n_params: float | None
    n_tokens: float | None
    loss: float | None

    def at(self, n_params: float) -> float:
        """Loss at a size."""
        a, b, c = self.coefficients
        x = math.log(n_params) - self.center
        return a * x * x + b * x + c


def fit_law(points: Sequence[Point], *, floor: float = 0.0, delta: float = HUBER, start: Law | None = None) -> Law:
    """Approach 3: the least Huber loss of the logarithms, by L-BFGS from the best of a grid of starts.

    Args:
        points: at least six, of different sizes and lengths.
        floor: E is not below this: the text's entropy in nats per token, where it is known.
        delta: where Huber's loss goes from squared to absolute, in log-loss.
        start: a law near the one that is looked for, instead of the grid.

    Raises:
        DataError: there are too few points to know five constants.
    """
    sizes, lengths = {p.n_params for p in points}, {p.n_tokens for p in points}
    if len({(p.n_params, p.n_tokens) for p in points}) < 6 or len(sizes) < 3 or len(lengths) < 3:
        raise DataError(
            f"{len(points)} runs of {len(sizes)} sizes and {len(lengths)} lengths",
            "are too few for a law of five constants",
            "train at least six, of three sizes at three lengths: python train.py -m experiment=scaling_law",
        )
    fit = _Fit(points, floor, delta)
    starts = fit.grid() if start is None else fit.coded(start)[None]
    found = [fit.minimise(one) for one in starts]
    return fit.law(min(found, key=lambda pair: pair[1])[0])


def bootstrap(
    points: Sequence[Point], law: Law, *, n_resamples: int, floor: float = 0.0, seed: int = 0, delta: float = HUBER
) -> list[Law]:
    """Laws of runs drawn with replacement, from which intervals are read; a draw of too few different ones is drawn again."""
    generator = torch.Generator().manual_seed(seed)
    laws: list[Law] = []
    for _ in range(20 * n_resamples):
        if len(laws) == n_resamples:
            break
        drawn = [points[i] for i in torch.randint(len(points), (len(points),), generator=generator).tolist()]
        try:
            laws.append(fit_law(drawn, floor=floor, delta=delta, start=law))
        except DataError:
            continue
    return laws


def interval(values: Sequence[float], share: float = 0.9) -> tuple[float, float]:
    """The middle ``share`` of the values."""
    tail = (1 - share) / 2
    low, high = (
        torch.tensor(values, dtype=torch.float64).quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    )
    return low, high


def parabolas(points: Sequence[Point]) -> list[Parabola]:
    """Approach 2: one for each cost at which at least three sizes were trained, cheapest first."""
    return [_parabola(group) for group in _by_cost(points) if len({p.n_params for p in group}) >= 3]


def exponents(curves: Sequence[Parabola]) -> tuple[float, float] | None:
    """N_opt ~ C^a and D_opt ~ C^b through the bottoms (least squares of logarithms); None with fewer than two."""
    bottoms = [(c.flops, c.n_params, c.n_tokens) for c in curves if c.n_params is not None and c.n_tokens is not None]
    if len(bottoms) < 2:
        return None
    cost, n_params, n_tokens = torch.tensor(bottoms, dtype=torch.float64).log().unbind(1)
    centered = cost - cost.mean()
    a, b = (((centered * y).sum() / centered.square().sum()).item() for y in (n_params, n_tokens))
    return a, b


class _Fit:
    """The problem in logarithms around the points' middle: five numbers of the size of one, so that L-BFGS moves well.

    The five are ln(E - floor), ln of the two terms at the middle, alpha, beta.
    """

    def __init__(self, points: Sequence[Point], floor: float, delta: float) -> None:
        lowest = min(points, key=lambda p: p.loss)
        if not 0 <= floor < lowest.loss:
            raise ConfigError(
                f"entropy={floor}",
                f"must be from 0 to below every loss; {lowest.name} has {lowest.loss:.3f}",
                "check its unit",
            )
        self.floor = torch.tensor(floor, dtype=torch.float64)
        data = torch.tensor([(p.n_params, p.n_tokens, p.loss) for p in points], dtype=torch.float64).log()
        self.middle = data[:, :2].mean(dim=0)
        self.x, self.y, self.delta = data[:, :2] - self.middle, data[:, 2], delta

    def objective(self, code: Tensor) -> Tensor:
        """(…, 5) -> (…): mean Huber loss over delta, so that its size does not depend on either."""
        e, a, b, alpha, beta = (part.unsqueeze(-1) for part in code.unbind(-1))
        terms = torch.stack([e.expand_as(a - alpha * self.x[:, 0]), a - alpha * self.x[:, 0], b - beta * self.x[:, 1]])
        residuals = torch.logaddexp(terms.logsumexp(dim=0), self.floor.log()) - self.y
        return (
            torch.nn.functional.huber_loss(
                residuals, torch.zeros_like(residuals), reduction="none", delta=self.delta
            ).mean(-1)
            / self.delta
        )

    @property
    def level(self) -> float:
        """Logarithm of what there is above the floor, at the middle."""
        return math.log(float(self.y.mean().exp() - self.floor))

    def grid(self) -> Tensor:
        """(starts, 5): the best of all combinations of shares of the middle's loss and of slopes."""
        level = self.level
        shares, slopes = (0.05, 0.2, 0.4, 0.7), (0.1, 0.3, 0.6, 1.0)
        rows = [
            (level + math.log(e), level + math.log(a), level + math.log(b), alpha, beta)
            for e, a, b in itertools.product(shares, repeat=3)
            for alpha, beta in itertools.product(slopes, repeat=2)
        ]
        codes = torch.tensor(rows, dtype=torch.float64)
        return codes[self.objective(codes).argsort()[:_STARTS]]

    def minimise(self, start: Tensor) -> tuple[Tensor, float]:
        """Where L-BFGS ends, and the objective there."""
        code = start.clone().requires_grad_()
        optimizer = torch.optim.LBFGS(
            [code], max_iter=_ITERATIONS, tolerance_grad=1e-9, tolerance_change=1e-12, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            value = self.objective(code)
            value.backward()
            return value

        optimizer.step(closure)  # pyright: ignore[reportArgumentType]  # a closure may return a tensor
        value = float(self.objective(code.detach()))
        return code.detach(), value if math.isfinite(value) else math.inf

    def law(self, code: Tensor) -> Law:
        """As constants of N and D."""
        e, a, b, alpha, beta = code.tolist()
        mean_n, mean_d = self.middle.tolist()
        return Law(
            E=float(self.floor) + math.exp(e),
            A=math.exp(a + alpha * mean_n),
            B=math.exp(b + beta * mean_d),
            alpha=alpha,
            beta=beta,
        )

    def coded(self, law: Law) -> Tensor:
        """The inverse of `law`, a part of next to nothing raised to a twentieth: from zero no gradient leads away."""
        mean_n, mean_d = self.middle.tolist()
        least = self.level - 3
        above = law.E - float(self.floor)
        logs = (
            max(least, math.log(above)) if above > 0 else least,
            max(least, math.log(law.A) - law.alpha * mean_n),
            max(least, math.log(law.B) - law.beta * mean_d),
        )
        return torch.tensor([*logs, law.alpha, law.beta], dtype=torch.float64)


def _by_cost(points: Sequence[Point]) -> list[list[Point]]:
    """Runs of about one cost, cheapest first."""
    groups: list[list[Point]] = []
    for point in sorted(points, key=lambda p: p.flops):
        if groups and point.flops <= groups[-1][0].flops * (1 + _TOGETHER):
            groups[-1].append(point)
        else:
            groups.append([point])
    return groups


def _parabola(group: Sequence[Point]) -> Parabola:
    logs = torch.tensor([math.log(p.n_params) for p in group], dtype=torch.float64)
    center = logs.mean().item()
    x = logs - center
    losses = torch.tensor([p.loss for p in group], dtype=torch.float64)
    a, b, c = (
        torch.linalg.lstsq(torch.stack([x**2, x, torch.ones_like(x)], dim=1), losses[:, None]).solution[:, 0].tolist()
    )
    flops = math.exp(sum(math.log(p.flops) for p in group) / len(group))
    curve = Parabola(flops=flops, coefficients=(a, b, c), center=center, n_params=None, n_tokens=None, loss=None)
    bottom = -b / (2 * a) if a > 0 else math.inf
    if not x.min() <= bottom <= x.max():
        return curve
    n_params = math.exp(center + bottom)
    per_token = sum(p.flops / p.n_tokens / p.n_params for p in group) / len(group)  # about 6; attention adds to it
    return dataclasses.replace(
        curve, n_params=n_params, n_tokens=flops / (per_token * n_params), loss=curve.at(n_params)
    )
