import numpy as np
import pytest

from slipstream.report.statistics import (
    Estimate,
    bootstrap_interval,
    interquartile_mean,
    on_common_grid,
)


def test_interquartile_mean_by_hand():
    # rliable: trim_mean(0.25). Below four seeds nothing is cut, then a quarter at each end.
    assert interquartile_mean(np.array([1.0, 2.0, 9.0])) == pytest.approx(4.0)
    assert interquartile_mean(np.array([100.0, 2.0, 3.0, -50.0])) == pytest.approx(2.5)
    eight = np.array([-1e6, -1e6, 1.0, 2.0, 3.0, 4.0, 1e6, 1e6])
    assert interquartile_mean(eight) == pytest.approx(2.5)


def test_the_interval_holds_the_estimate_and_is_the_same_every_time():
    values = np.random.default_rng(1).normal(10.0, 2.0, size=(6, 5))
    low, high = bootstrap_interval(values)
    centre = interquartile_mean(values)
    assert low.shape == high.shape == (5,)
    assert (low < centre).all()
    assert (centre < high).all()
    assert (low >= values.min(axis=0)).all()
    assert (high <= values.max(axis=0)).all()
    again_low, again_high = bootstrap_interval(values)
    assert (again_low == low).all()
    assert (again_high == high).all()


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    low, high = bootstrap_interval(rng.normal(0.0, 1.0, size=(20, 150)))
    coverage = ((low < 0) & (high > 0)).mean()
    assert 0.85 < coverage < 1


def test_estimates_of_few_seeds():
    assert Estimate.of([]) is None
    assert Estimate.of([3.0]) == Estimate(3.0, None, None, 1)
    assert Estimate.of([2.0, 2.0, 2.0]) == Estimate(2.0, 2.0, 2.0, 3)


def test_seeds_measured_at_the_same_steps_are_not_interpolated():
    x = np.array([0, 10, 20])
    grid, values = on_common_grid([(x, x * 1.0), (x, x * 2.0)])
    assert grid.tolist() == [0, 10, 20]
    assert values.tolist() == [[0, 10, 20], [0, 20, 40]]


def test_seeds_measured_elsewhere_meet_in_the_range_all_cover():
    grid, values = on_common_grid(
        [(np.array([0, 10, 30]), np.array([0.0, 10, 30])), (np.array([5, 15]), np.array([5.0, 15]))]
    )
    assert grid.tolist() == [5, 10, 15]
    assert values.tolist() == [[5, 10, 15], [5, 10, 15]]
    grid, _ = on_common_grid([(np.array([0, 1]), np.zeros(2)), (np.array([5, 6]), np.zeros(2))])
    assert len(grid) == 0
