"""What every prior promises."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from nni_spos.cost_table import CostTable
from nni_spos.path import Indices, PathSpace
from nni_spos.priors import Prior
from nni_spos.priors.building import build_prior
from nni_spos.recipe.training_settings import SupernetSettings
from nni_spos.testing.small_space import COSTS, SPACE

UNLIKELY = 1e-4
"""Probability that what is right is taken for wrong; the seeds are fixed."""


class PriorCase:
    """A prior as a recipe names it, over a space of twelve paths.

    Parameters
    ----------
    name
        As ``prior`` in the section ``supernet`` of a recipe.
    folder
        Where a user's module is looked for: the recipe's folder.
    probabilities
        Of the paths in the order of ``space.enumerate()``, where they are known.
    keys
        Those that the prior declares itself.
    """

    space: PathSpace = SPACE
    costs: Mapping[str, CostTable] = COSTS

    def __init__(
        self,
        name: str,
        folder: str | os.PathLike[str] | None = None,
        probabilities: npt.NDArray[np.float64] | None = None,
        **keys: Any,
    ):
        self.name = name
        self.folder = None if folder is None else FilePath(folder).absolute()
        self.probabilities = probabilities
        self.keys = keys

    def make(self, seed: int) -> Prior:
        """Return a new prior over `space`."""
        section = SupernetSettings(
            epochs=1, prior=self.name, seed=seed, arguments=self.keys, folder=self.folder
        )
        return build_prior(section, self.space, self.costs)


def draws_paths_as_positions(case: PriorCase) -> None:
    """`draw` returns an array of positions, also of none and of one path."""
    prior = case.make(0)
    for num_paths in (0, 1, 100):
        indices = prior.draw(num_paths, np.random.default_rng(0))
        shape = (num_paths, len(case.space))
        assert indices.shape == shape, f"shape {indices.shape} instead of {shape}"
        assert indices.dtype == np.int64, f"dtype {indices.dtype} instead of int64"
        is_choice = (indices >= 0) & (indices < case.space.num_choices)
        assert is_choice.all(), "a position is one of no choice"


def draw_uses_the_given_generator_only(case: PriorCase) -> None:
    """`draw` depends on the generator that it is given, and on nothing else."""
    draws = [case.make(x).draw(50, np.random.default_rng(7)).tolist() for x in (0, 1)]
    assert draws[0] == draws[1], "draws depend on the prior's seed"
    other = case.make(0).draw(50, np.random.default_rng(8)).tolist()
    assert draws[0] != other, "draws do not depend on the generator"


def draw_has_the_distribution(case: PriorCase) -> None:
    """`draw` has the probabilities, or else the same ones however many are drawn at a time."""
    drawn = case.make(0).draw(12_000, np.random.default_rng(0))
    if case.probabilities is None:
        parts, generator = case.make(0), np.random.default_rng(1)
        other = np.concatenate([parts.draw(100, generator) for _ in range(120)])
        _check_alike(case, drawn, other)
    else:
        _check_distribution(case, drawn, case.probabilities)


def training_paths_have_the_distribution(case: PriorCase) -> None:
    """The paths of the steps of a training are drawn as `draw` does."""
    prior = case.make(0)
    paths = case.space.encode(prior.path(step) for step in range(6000))
    if case.probabilities is None:
        _check_alike(case, paths, prior.draw(6000, np.random.default_rng(0)))
    else:
        _check_distribution(case, paths, case.probabilities)


def successive_training_paths_are_independent(case: PriorCase) -> None:
    """The path of a step says nothing about that of the next."""
    prior = case.make(0)
    keys = case.space.encode(prior.path(step) for step in range(6000))
    after_the_first = keys[1:][(keys[:-1] == keys[0]).all(axis=1)]
    if case.probabilities is None:
        _check_alike(case, after_the_first, keys)
    else:
        _check_distribution(case, after_the_first, case.probabilities)


def training_paths_belong_to_the_space(case: PriorCase) -> None:
    """A path has the labels of the space in their order, and their choices."""
    path = case.make(0).path(0)
    assert list(case.space.validate(path).items()) == list(path.items()), "in another order"


def the_path_of_a_step_depends_on_seed_and_step_only(case: PriorCase) -> None:
    """Whatever was asked before: so resumed trainings and all processes have the same paths."""
    block = Prior.BLOCK_SIZE
    steps = [*range(5), *range(block - 3, block + 3), 5 * block, 150_000, 10**9]
    expected = {step: case.make(3).path(step) for step in steps}
    forwards, shuffled = case.make(3), case.make(3)
    found = {step: forwards.path(step) for step in steps}
    assert found == expected, "a path depends on those before it"
    for step in [*np.random.default_rng(0).permutation(steps).tolist(), *steps]:
        assert shuffled.path(step) == expected[step], f"step {step} has another path now"


def other_randomness_does_not_matter(case: PriorCase) -> None:
    """NumPy's global generator is neither read nor changed."""
    np.random.seed(0)
    before = case.make(3).path(5)
    state = _global_state()
    np.random.seed(1)
    assert case.make(3).path(5) == before, "the path depends on NumPy's global generator"
    np.random.seed(0)
    assert _global_state() == state, "NumPy's global generator is used"


def seeds_and_blocks_differ(case: PriorCase) -> None:
    """Other seeds, and later blocks of steps, have other paths."""
    block = Prior.BLOCK_SIZE
    sequences = [
        [case.make(seed).path(start + step) for step in range(20)]
        for seed, start in [(0, 0), (1, 0), (2, 0), (0, block), (1, block)]
    ]
    others = [b for i, a in enumerate(sequences) for b in sequences[:i] if a == b]
    assert not others, "two seeds, or two blocks, have the same paths"


def changing_a_path_does_not_change_the_prior(case: PriorCase) -> None:
    """A path belongs to whoever asked for it."""
    prior = case.make(0)
    path = prior.path(0)
    path["layer"] = "other"
    assert prior.path(0) == case.make(0).path(0), "the prior gives the changed path again"


def marginals_are_the_shares_of_the_choices(case: PriorCase) -> None:
    """`marginals` says how often each choice is drawn."""
    prior = case.make(0)
    drawn = prior.draw(12_000, np.random.default_rng(0))
    found = prior.marginals()
    assert list(found) == list(case.space), "marginals are not those of the labels"
    for column, (label, choices) in enumerate(case.space.items()):
        assert list(found[label]) == list(choices), f"{label}: marginals of other choices"
        shares = np.bincount(drawn[:, column], minlength=len(choices)) / len(drawn)
        wrong = np.abs(shares - list(found[label].values())).max()
        assert wrong < 0.03, f"{label}: a choice is drawn more or less often, by {wrong:.3f}"


def it_is_described(case: PriorCase) -> None:
    """`describe` says in lines what ``nni-spos prior`` shows."""
    lines = case.make(0).describe()
    assert lines, "there is no line"
    assert all(line and "\n" not in line for line in lines), "a line is empty, or more than one"


def _counts(case: PriorCase, indices: Indices) -> npt.NDArray[np.int64]:
    numbers = np.ravel_multi_index(tuple(np.asarray(indices).T), case.space.num_choices)
    return np.bincount(numbers, minlength=case.space.size)


def _check_distribution(case: PriorCase, indices: Indices, probs: npt.NDArray[np.float64]) -> None:
    counts = _counts(case, indices)
    assert not counts[probs == 0].any(), "a path of probability 0 is drawn"
    expected = len(indices) * probs[probs > 0]
    assert expected.min() > 5, "some paths are too rare to be counted"
    pvalue = stats.chisquare(counts[probs > 0], expected).pvalue
    assert pvalue > UNLIKELY, f"the shares of the paths are others (chi-square test: p = {pvalue})"


def _check_alike(case: PriorCase, indices: Indices, others: Indices) -> None:
    """Check that two samples may have one distribution; rare paths are taken together."""
    found = np.stack([_counts(case, indices), _counts(case, others)])
    rare = found.min(axis=0) < 10
    table = np.concatenate([found[:, ~rare], found[:, rare].sum(axis=1, keepdims=True)], axis=1)
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] > 1:
        pvalue = stats.chi2_contingency(table).pvalue
        assert pvalue > UNLIKELY, f"the paths are drawn differently (chi-square test: p = {pvalue})"
    else:
        assert (found > 0).all(axis=0).any(), "the paths are others"


def _global_state() -> list[int]:
    state = np.random.get_state()
    assert isinstance(state, tuple)
    return [int(x) for x in state[1]]


CHECKS: tuple[Callable[[PriorCase], None], ...] = (
    draws_paths_as_positions,
    draw_uses_the_given_generator_only,
    draw_has_the_distribution,
    training_paths_have_the_distribution,
    successive_training_paths_are_independent,
    training_paths_belong_to_the_space,
    the_path_of_a_step_depends_on_seed_and_step_only,
    other_randomness_does_not_matter,
    seeds_and_blocks_differ,
    changing_a_path_does_not_change_the_prior,
    marginals_are_the_shares_of_the_choices,
    it_is_described,
)
"""Everything that is promised, as functions of a case."""
