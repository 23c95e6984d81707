"""Several seeds in one number: the interquartile mean and its bootstrap interval."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
NUM_RESAMPLES = 2000


def interquartile_mean(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Mean without the lowest and the highest quarter of the seeds.

    As in Agarwal et al. 2021 ("Deep RL at the edge of the statistical precipice", the rliable
    library): `floor(n / 4)` seeds go at each end. With fewer than four seeds that is none, and
    this is the plain mean.

    Args:
        values: (num_seeds, ...) along `axis`.
        axis: the axis of the seeds.
    """
    return np.asarray(stats.trim_mean(values, 0.25, axis=axis))


def bootstrap_interval(
    values: np.ndarray, statistic: Callable[..., np.ndarray] = interquartile_mean
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile-bootstrap 95 % interval of the interquartile mean over seeds.

    The same seeds are drawn for all points of a curve, and the generator is fixed: the same runs
    give the same interval.

    Args:
        values: (num_seeds, ...) with at least two seeds.
        statistic: another one than the interquartile mean; takes `axis`.

    Returns:
        The lower and the upper bound, each (...).
    """
    result = stats.bootstrap(
        (values,),
        statistic,
        axis=0,
        vectorized=True,
        n_resamples=NUM_RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    interval = result.confidence_interval
    return np.asarray(interval.low), np.asarray(interval.high)


@dataclass(frozen=True)
class Estimate:
    """An interquartile mean over seeds; `low` and `high` are None for a single seed."""

    value: float
    low: float | None
    high: float | None
    num_seeds: int

    @classmethod
    def of(cls, values: list[float]) -> "Estimate | None":
        """The estimate from one value a seed; None without any value."""
        if not values:
            return None
        array = np.array(values, dtype=float)
        centre = float(interquartile_mean(array))
        if len(values) < 2:
            return cls(centre, None, None, 1)
        low, high = bootstrap_interval(array)
        return cls(centre, float(low), float(high), len(values))


def on_common_grid(
    curves: list[tuple[np.ndarray, np.ndarray]], max_points: int = 400
) -> tuple[np.ndarray, np.ndarray]:
    """Curves of several seeds read off at the same places.

    The grid is the union of the seeds' own points within the range that every seed covers, so a
    curve measured at the same steps by all seeds is not interpolated at all.

    Args:
        curves: (x, y) of each seed, x ascending, at least one point each.
        max_points: beyond this many an even grid takes the union's place.

    Returns:
        grid (num_points,) and values (num_seeds, num_points); num_points is 0 where the seeds
        have no common range.
    """
    start = max(x[0] for x, _ in curves)
    stop = min(x[-1] for x, _ in curves)
    union = np.unique(np.concatenate([x for x, _ in curves]))
    grid = union[(union >= start) & (union <= stop)]
    if len(grid) > max_points:
        grid = np.linspace(start, stop, max_points)
    return grid, np.array([np.interp(grid, x, y) for x, y in curves])
