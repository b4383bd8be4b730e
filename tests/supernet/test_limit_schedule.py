"""Limits on training paths that change as a training goes on."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from supernet_techniques import digits_spec, supernet_techniques
from tiny_space import TINY_DATA, TINY_SPACE

from nni_spos.constraint import Constraint
from nni_spos.cost_table import CostTable, Factor, PeakTable
from nni_spos.errors import ConstraintError, InfeasibleError, PathError, RecipeError
from nni_spos.path import PathSpace
from nni_spos.priors import FilteredPrior, ScheduledPrior, UniformPrior
from nni_spos.recipe.recipe import load_recipe
from nni_spos.supernet.training import train_supernet
from nni_spos.training.sampling import Sampling

SPACE = PathSpace({"block": ["k3", "k7", "k5"], "bits": [4, 2, 8]})
FLOPS = CostTable("flops", SPACE, 0, [Factor(("block",), np.array([9, 49, 25]))])
BITOPS = CostTable(
    "bitops", SPACE, 0, [Factor(("block", "bits"), np.outer([9, 49, 25], [4, 2, 8]))]
)
COSTS = {"flops": FLOPS, "bitops": BITOPS}
FALLING = {"bitops >= 80%": 0.2, "bitops >= 50%": 0.3}


@pytest.fixture(scope="module")
def spec():
    return digits_spec()


def techniques(spec, *others, schedule=FALLING, **settings):
    asked = {"name": "limit_schedule", "limit_schedule": schedule}
    return supernet_techniques(spec, asked, *others, **settings)


def keys(prior, steps):
    return {SPACE.key(path) for step in steps for path in prior.paths(step, 2)}


def those_that_keep(limit):
    limit = Constraint.parse(limit).of(49 * 8)
    paths = SPACE.decode(SPACE.enumerate())
    return {SPACE.key(path) for path in paths if limit.allows(BITOPS.price(path))}


def test_the_limit_falls_by_schedule(spec):
    plain = UniformPrior(SPACE, seed=3)
    prior = techniques(spec).prior(Sampling(plain, COSTS, num_steps=1000))
    assert keys(prior, range(200)) == those_that_keep("bitops >= 80%")
    assert keys(prior, range(200, 500)) == those_that_keep("bitops >= 50%")
    assert len(those_that_keep("bitops >= 80%")) < len(those_that_keep("bitops >= 50%")) < 9
    assert [prior.path(step) for step in range(500, 600)] == [
        plain.path(step) for step in range(500, 600)
    ]
    assert prior.paths(500, 3) == plain.paths(500, 3)
    assert prior.paths(100, 3) == prior.paths(100, 3)
    assert keys(prior, range(500, 700)) == those_that_keep("bitops >= 0")


def test_all_paths_within_a_limit_are_alike(spec):
    prior = techniques(spec, schedule={"bitops >= 40": 1}).prior(
        Sampling(UniformPrior(SPACE, seed=1), COSTS, num_steps=4000)
    )
    drawn = [SPACE.key(prior.path(step)) for step in range(4000)]
    kept = those_that_keep("bitops >= 40")
    counts = np.array([drawn.count(key) for key in kept])
    assert counts.sum() == 4000
    expected = 4000 / len(kept)
    # The 99.9 % quantile of chi-square with 6 degrees of freedom.
    assert len(kept) == 7
    assert ((counts - expected) ** 2 / expected).sum() < 22.5


def test_costs_that_cannot_be_counted_and_filters(spec):
    peak = PeakTable("peak_activation_bytes", SPACE, 0, FLOPS.factors)
    schedule = {"peak_activation_bytes >= 25": 1}
    plain = FilteredPrior(UniformPrior(SPACE, seed=3), lambda path: path["bits"] != 2)
    sampling = Sampling(plain, {peak.metric: peak}, num_steps=100)
    prior = techniques(spec, schedule=schedule).prior(sampling)
    found = {(path["block"], path["bits"]) for path in map(prior.path, range(100))}
    assert found == {("k7", 4), ("k7", 8), ("k5", 4), ("k5", 8)}


@pytest.mark.parametrize(
    ("costs", "schedule", "error", "message"),
    [
        ({}, FALLING, RecipeError, "needs cost tables: SinglePathOneShot"),
        ({"flops": FLOPS}, FALLING, ConstraintError, "'bitops >= 80%': unknown metric 'bitops'"),
        (COSTS, {"bitops >= 101%": 0.1}, InfeasibleError, "no path|nothing|nearest"),
    ],
)
def test_limits_that_cannot_be_kept(spec, costs, schedule, error, message):
    made = techniques(spec, schedule=schedule)
    with pytest.raises(error, match=message):
        made.prior(Sampling(UniformPrior(SPACE), costs, 10))


@pytest.mark.parametrize(
    ("others", "changes", "message"),
    [
        ([], {"schedule": {"flops >= 1": 0.6, "flops >= 0": 0.5}}, "at most 1, got 1.1"),
        ([], {"schedule": {"latency_ms(cpu) <= 5": 0.6}}, "only costs that follow from the space"),
        ([], {"channel_warmup_steps": 5}, "channel_warmup_steps lets channel numbers in"),
        ([{"name": "shrinking", "shrinking": 0.5}], {}, "shrinking lets choices in"),
        ([{"name": "paths", "paths": 3, "sandwich": True}], {}, "sandwich trains the largest"),
    ],
)
def test_what_contradicts_it_is_refused(spec, others, changes, message):
    with pytest.raises(RecipeError, match=f"limit_schedule: .*{message}"):
        techniques(spec, *others, **changes)
    techniques(spec, {"name": "paths", "paths": 3})
    techniques(spec, schedule={"flops >= 1": 0.6, "flops >= 0": 0.4})


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"flops": 0.5}, "'flops' is not a constraint. Write METRIC <= NUMBER"),
        ({"flops >= 1": 2}, "must be a mapping of limits to shares of the steps"),
        (["flops >= 1"], "must be a mapping of limits to shares of the steps"),
    ],
)
def test_schedules_that_are_none(spec, schedule, message):
    with pytest.raises((RecipeError, ConstraintError), match=message):
        techniques(spec, schedule=schedule)


def test_priors_of_one_space():
    other = UniformPrior(PathSpace({"a": [1]}))
    with pytest.raises(PathError, match="of a phase was made for another space"):
        ScheduledPrior(UniformPrior(SPACE), [(5, other)])
    prior = ScheduledPrior(UniformPrior(SPACE, seed=4), [])
    assert prior.path(7) == UniformPrior(SPACE, seed=4).path(7)
    assert (
        prior.draw(5, np.random.default_rng(0))
        == UniformPrior(SPACE).draw(5, np.random.default_rng(0))
    ).all()


def test_a_limit_that_no_path_keeps_is_refused_before_anything_is_written(tmp_path):
    content = {
        "output": "output",
        "space": TINY_SPACE,
        "data": TINY_DATA,
        "supernet": {"steps": 2, "batch_size": 20, "limit_schedule": {"flops >= 101%": 0.5}},
    }
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(content))
    recipe = load_recipe(tmp_path / "recipe.yml")
    with pytest.raises(InfeasibleError, match="flops"):
        train_supernet(recipe)
    assert not recipe.checkpoint.with_suffix("").exists()
