"""What a model of a few paths says of all others."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import kendalltau

from nni_spos.cost_table import CostTable, Factor
from nni_spos.errors import SearchError
from nni_spos.path import PathSpace
from nni_spos.prediction import PathInputs, PathModel, d_optimal
from nni_spos.prediction.acquisition import choose_batch, log_expected_improvement
from nni_spos.prediction.kernel import (
    MEAN_VARIANCE,
    coordinates,
    covariance,
    covariance_parts,
    variances,
)
from nni_spos.prediction.model import CENTRE, Posterior, _Evidence
from nni_spos.testing.small_space import COSTS, SPACE

UNITS = PathSpace({f"unit_{i}": ["identity", "k3", "k5"] for i in range(6)})


def additive(metric, scales):
    """Each unit costs its choice's position, times a scale."""
    factors = [
        Factor((label,), np.array([0, 1, 3]) * scale)
        for label, scale in zip(UNITS, scales, strict=True)
    ]
    return CostTable(metric, UNITS, 7, factors)


# Maps of 64, 64, 16, 16, 4 and 4 pixels.
PARAMS = [10, 10, 20, 20, 40, 40]
PIXELS = [64, 64, 16, 16, 4, 4]
UNIT_COSTS = {
    "flops": additive("flops", [a * b for a, b in zip(PARAMS, PIXELS, strict=True)]),
    "params": additive("params", PARAMS),
}


def truth(indices):
    """Accuracies that rise with the size of each unit, the first ones most."""
    sizes = PathInputs(UNITS, UNIT_COSTS).sizes(indices)
    return 95 - 10 * np.exp(-0.5 * (np.sqrt(sizes) * [3, 2, 2, 1, 1, 0.5]).sum(axis=1))


def test_inputs_follow_from_the_costs():
    inputs = PathInputs(UNITS, UNIT_COSTS)
    assert inputs.stages.tolist() == [0, 0, 1, 1, 2, 2]
    assert inputs.sizes(np.array([[0, 1, 2, 0, 1, 2]])) == pytest.approx(
        np.array([[0, 1 / 3, 1, 0, 1 / 3, 1]])
    )
    # Costs that depend on each other count on average over the other label; a label that
    # multiply-adds do not depend on has the sizes of another metric.
    inputs = PathInputs(SPACE, COSTS)
    assert inputs.sizes(np.array([[1, 1, 1], [0, 2, 0]])) == pytest.approx(
        np.array([[1, 1 / 3, 1], [0, 1, 0]])
    )
    assert PathInputs(SPACE, {}).sizes(SPACE.enumerate()).any() == False  # noqa: E712
    moved = {"flops": CostTable("flops", UNITS, 0, UNIT_COSTS["flops"].factors)}
    assert (PathInputs(UNITS, moved).sizes(UNITS.enumerate()[:9]) >= 0).all()


def test_the_derivative_of_the_evidence():
    rows = UNITS.enumerate()[::37]
    targets = np.random.default_rng(0).standard_normal(len(rows))
    extra = np.random.default_rng(1).standard_normal(len(rows))
    for more in (None, extra):
        evidence = _Evidence(PathInputs(UNITS, UNIT_COSTS), rows, targets, more)
        at = CENTRE + 0.1
        _, gradient = evidence(at)
        for place in range(len(at)):
            step = np.zeros(len(at))
            step[place] = 1e-4
            expected = (evidence(at + step)[0] - evidence(at - step)[0]) / 2e-4
            assert gradient[place] == pytest.approx(expected, rel=2e-2, abs=2e-2)


def test_the_covariance_is_one():
    inputs = PathInputs(UNITS, UNIT_COSTS)
    rows = UNITS.enumerate()[::7]
    scales = PathModel(UNITS, UNIT_COSTS).scales
    here = coordinates(inputs, rows, scales.power)
    matrix = covariance(here, here, scales)
    assert matrix == pytest.approx(matrix.T)
    parts = covariance_parts(here, here, scales.length)
    weighted = sum(v * part for v, part in zip(scales.variances, parts, strict=False))
    assert matrix == pytest.approx(MEAN_VARIANCE + weighted)
    assert np.diag(matrix) == pytest.approx(variances(here, scales))
    assert np.linalg.eigvalsh(matrix).min() > -1e-9


def test_few_paths_rank_all_others():
    everything = UNITS.enumerate()
    at = list(itertools.islice(d_optimal(everything, UNITS.num_choices), 24))
    generator = np.random.default_rng(0)
    results = truth(everything[at]) + 0.03 * generator.standard_normal(24)
    model = PathModel(UNITS, UNIT_COSTS).fit(everything[at], results)
    mean, deviation = model.predict(everything)
    assert kendalltau(mean, truth(everything)).statistic > 0.85
    assert mean.max() < 100
    assert (deviation > 0).all()
    # The paths that it knows are those that it is most certain of.
    others = np.setdiff1d(np.arange(len(everything)), at)
    assert deviation[at].mean() < deviation[others].mean()
    as_paths = UNITS.decode(everything[at])
    again = PathModel(UNITS, UNIT_COSTS).fit(as_paths, results).predict(as_paths)
    assert again[0] == pytest.approx(mean[at])


def test_prediction_of_very_many_paths():
    generator = np.random.default_rng(0)
    rows = generator.integers(0, 3, size=(20_000, 6))
    model = PathModel(UNITS, UNIT_COSTS).fit(rows[:10], truth(rows[:10]))
    mean, deviation = model.predict(rows)
    one, _ = model.predict(rows[12_345:12_346])
    assert mean.shape == deviation.shape == (20_000,)
    assert one[0] == pytest.approx(mean[12_345])


@pytest.mark.parametrize(
    ("results", "ceiling"),
    [
        ([90.0, 91.0, 95.0], 100.0),
        ([0.5, 0.75, 0.7], 1.0),
        ([-2.0, -1.0, -0.5], 0.0),
        ([90.0, 100.0, 120.0], None),
        ([99.0, 100.0, 98.0], 100.0),
    ],
)
def test_what_results_approach(results, ceiling):
    rows = UNITS.enumerate()[[0, 300, 700]]
    model = PathModel(UNITS, UNIT_COSTS).fit(rows, results)
    assert model.ceiling == ceiling
    mean, _ = model.predict(rows)
    assert np.argsort(mean).tolist() == np.argsort(results).tolist()


def test_a_further_input():
    rows = UNITS.enumerate()[::29]
    generator = np.random.default_rng(0)
    hidden = generator.standard_normal(len(rows))
    results = 90 + hidden
    model = PathModel(UNITS, UNIT_COSTS).fit(rows[::2], results[::2], hidden[::2])
    mean, _ = model.predict(rows[1::2], hidden[1::2])
    assert kendalltau(mean, results[1::2]).statistic > 0.9
    with pytest.raises(SearchError, match="a further input of all paths or of none"):
        model.predict(rows)


def test_what_is_no_set_of_results():
    rows = UNITS.enumerate()[:3]
    model = PathModel(UNITS, UNIT_COSTS)
    for wrong in ([1.0], [1.0, 2.0, np.nan], [1.0, 2.0]):
        with pytest.raises(SearchError, match="needs two results or more, one of each path"):
            model.fit(rows, wrong)
    model.fit(rows, [1.0, 1.0, 1.0])
    assert model.predict(rows)[0] == pytest.approx(1.0, abs=1e-3)


def test_leaving_one_out():
    rows = UNITS.enumerate()[::31]
    results = truth(rows)
    model = PathModel(UNITS, UNIT_COSTS).fit(rows, results)
    mean, _ = model.leave_one_out()
    scales = model.scales
    rest = np.arange(len(rows)) != 5
    # The same by leaving it out: with the same scales, and the same standardised results.
    here = coordinates(model.inputs, rows, scales.power)
    matrix = covariance(here, here, scales)
    noisy = matrix[np.ix_(rest, rest)] + scales.noise * np.eye(rest.sum())
    latent = matrix[5, rest] @ np.linalg.solve(noisy, model._targets[rest])
    assert mean[5] == pytest.approx(model._to_results(latent, np.array(1.0))[0])


def test_a_design_says_more_than_random_paths():
    everything = UNITS.enumerate()

    def information(rows):
        """The logarithm of the determinant of what a design says of each choice's effect."""
        effects = (rows[:, :, None] == np.arange(3)).reshape(len(rows), -1).astype(float)
        return np.linalg.slogdet(effects.T @ effects + 0.1 * np.eye(effects.shape[1]))[1]

    chosen = list(itertools.islice(d_optimal(everything, UNITS.num_choices), 12))
    generator = np.random.default_rng(0)
    others = [information(everything[generator.permutation(729)[:12]]) for _ in range(50)]
    assert information(everything[chosen]) > max(others)
    # What is known already is left to others.
    first = next(d_optimal(everything, UNITS.num_choices, everything[:1]))
    assert (everything[first] != everything[0]).all()
    assert len(list(d_optimal(everything[:5], UNITS.num_choices))) == 5


def test_expected_improvements():
    generator = np.random.default_rng(0)
    for mean, deviation, level in [(0.0, 1.0, 0.5), (1.0, 0.5, 0.0), (0.0, 1.0, 1.2)]:
        drawn = mean + deviation * generator.standard_normal(400_000)
        expected = np.maximum(drawn - level, 0).mean()
        (found,) = log_expected_improvement(np.array([mean]), np.array([deviation]), level)
        assert np.exp(found) == pytest.approx(expected, rel=0.02)
    far = log_expected_improvement(np.array([-50.0, -40.0, -1e5]), np.ones(3), np.zeros(3))
    assert np.isfinite(far).all()
    assert far[1] > far[0] > far[2]
    # Both sides of where the formula changes agree.
    left, right = log_expected_improvement(np.array([-1 - 1e-9, -1 + 1e-9]), np.ones(2), 0.0)
    assert left == pytest.approx(right, abs=1e-7)


def test_a_batch_is_no_set_of_twins():
    everything = UNITS.enumerate()
    known = everything[::100]
    model = PathModel(UNITS, UNIT_COSTS).fit(known, truth(known))
    pool = np.concatenate([everything[-30:], everything[-30:]])
    posterior = Posterior(model, pool)
    allowed = np.ones((1, len(pool)), dtype=bool)
    levels = np.array([posterior.mean.max() - 1])
    chosen = list(choose_batch(posterior, levels, allowed, 4, np.random.default_rng(0)))
    assert len({tuple(pool[i]) for i in chosen}) == 4
    again = list(choose_batch(posterior, levels, allowed, 4, np.random.default_rng(0)))
    assert again == chosen
    # Where only some count, only these are chosen.
    allowed[0, 5:] = False
    assert max(choose_batch(posterior, levels, allowed, 5, np.random.default_rng(0))) < 5
