"""What every prior promises."""

import numpy as np
import pytest

from nni_spos.cost_table import CostTable, Factor
from nni_spos.path import PathSpace
from nni_spos.priors import (
    ConstrainedPrior,
    FilteredPrior,
    Prior,
    UniformPrior,
    WarmUpPrior,
    quantile_bins,
)

SPACE = PathSpace({"layer": ["k3", "k5"], "width": [16, 32, 64], "bits": [2, 4]})

# Width and bits multiply, so that the 12 paths cost 32, 64, 64, 128, 128, 256 and 9 more with k5.
COST = CostTable(
    "flops",
    SPACE,
    0,
    [
        Factor(("layer",), np.array([0, 9])),
        Factor(("bits", "width"), np.outer([2, 4], [16, 32, 64])),
    ],
)
BINS = [(32, 64), (73, 265)]
CHEAP, DEAR = 1 / 8, 1 / 16  # of the 4 paths of the first bin and the 8 of the second, each halved
CONSTRAINED = np.array([CHEAP, CHEAP, CHEAP, DEAR, DEAR, DEAR, CHEAP, DEAR, DEAR, DEAR, DEAR, DEAR])

# Name to a prior over SPACE, and the probabilities of SPACE's paths in the order of enumerate().
PRIORS = {
    "uniform": (lambda seed: UniformPrior(SPACE, seed=seed), np.full(12, 1 / 12)),
    "constrained": (lambda seed: ConstrainedPrior(SPACE, COST, BINS, seed=seed), CONSTRAINED),
    "rejection": (
        lambda seed: ConstrainedPrior(SPACE, COST, BINS, seed=seed, method="rejection"),
        CONSTRAINED,
    ),
    "one bin": (
        lambda seed: ConstrainedPrior(SPACE, COST, (32, 64), seed=seed),
        np.where(CONSTRAINED == CHEAP, 1 / 4, 0),
    ),
    # Thirds of the costs part the 12 paths into three times four.
    "equal shares": (
        lambda seed: ConstrainedPrior(SPACE, COST, quantile_bins(COST, (0, 1 / 3, 2 / 3, 1)), seed),
        np.full(12, 1 / 12),
    ),
    "filtered": (
        lambda seed: FilteredPrior(UniformPrior(SPACE, seed), lambda path: path["layer"] == "k3"),
        np.where(np.arange(12) < 6, 1 / 6, 0),
    ),
    # Short enough that the distribution is the one after it.
    "warm-up": (
        lambda seed: WarmUpPrior(ConstrainedPrior(SPACE, COST, BINS, seed), ["width"], steps=2),
        CONSTRAINED,
    ),
}

# Exceeded once in 10,000 seeds; degrees of freedom to the value of the chi-square table.
CRITICAL = {3: 21.11, 5: 25.74, 11: 37.37}


@pytest.fixture(params=PRIORS)
def make(request):
    return PRIORS[request.param][0]


@pytest.fixture(params=PRIORS)
def prior_and_probs(request):
    make, probs = PRIORS[request.param]
    return make(seed=0), probs


def assert_distributed(indices, probs):
    numbers = np.ravel_multi_index(tuple(np.asarray(indices).T), SPACE.num_choices)
    counts = np.bincount(numbers, minlength=len(probs))
    assert not counts[probs == 0].any()
    expected = len(numbers) * probs[probs > 0]
    assert expected.min() > 5
    statistic = ((counts[probs > 0] - expected) ** 2 / expected).sum()
    assert statistic < CRITICAL[len(expected) - 1]


def test_draws_paths_as_positions(make):
    prior = make(0)
    for num_paths in (0, 1, 100):
        indices = prior.draw(num_paths, np.random.default_rng(0))
        assert indices.shape == (num_paths, 3)
        assert indices.dtype == np.int64
        for path in SPACE.decode(indices):
            assert SPACE.validate(path) == path


def test_draw_uses_the_given_generator_only(make):
    draws = [make(seed).draw(50, np.random.default_rng(7)).tolist() for seed in (0, 1)]
    assert draws[0] == draws[1]
    assert draws[0] != make(0).draw(50, np.random.default_rng(8)).tolist()


def test_draw_has_the_distribution(prior_and_probs):
    prior, probs = prior_and_probs
    assert_distributed(prior.draw(12_000, np.random.default_rng(0)), probs)


def test_training_paths_have_the_distribution(prior_and_probs):
    prior, probs = prior_and_probs
    assert_distributed(SPACE.encode(prior.path(step) for step in range(6000)), probs)


def test_successive_training_paths_are_independent(prior_and_probs):
    prior, probs = prior_and_probs
    keys = SPACE.encode(prior.path(step) for step in range(6000))
    after_the_first = keys[1:][(keys[:-1] == keys[0]).all(axis=1)]
    assert_distributed(after_the_first, probs)


def test_training_paths_belong_to_the_space(make):
    path = make(0).path(0)
    assert list(SPACE.validate(path).items()) == list(path.items())


def test_the_path_of_a_step_depends_on_seed_and_step_only(make):
    block = Prior.BLOCK_SIZE
    steps = [*range(5), *range(block - 3, block + 3), 5 * block, 150_000, 10**9]
    expected = {step: make(3).path(step) for step in steps}
    forwards, shuffled = make(3), make(3)
    assert {step: forwards.path(step) for step in steps} == expected
    for step in [*np.random.default_rng(0).permutation(steps).tolist(), *steps]:
        assert shuffled.path(step) == expected[step]


def test_other_randomness_does_not_matter(make):
    np.random.seed(0)
    before = make(3).path(5)
    state = np.random.get_state()[1].tolist()
    np.random.seed(1)
    assert make(3).path(5) == before
    np.random.seed(0)
    assert np.random.get_state()[1].tolist() == state


def test_seeds_and_blocks_differ(make):
    block = Prior.BLOCK_SIZE
    sequences = [
        [make(seed).path(start + step) for step in range(20)]
        for seed, start in [(0, 0), (1, 0), (2, 0), (0, block), (1, block)]
    ]
    assert all(a != b for i, a in enumerate(sequences) for b in sequences[:i])


def test_changing_a_path_does_not_change_the_prior(make):
    prior = make(0)
    path = prior.path(0)
    path["layer"] = "other"
    assert prior.path(0) == make(0).path(0)
