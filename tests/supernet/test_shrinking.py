"""Progressive shrinking: the largest path first, then smaller choices, the dearest first."""

from __future__ import annotations

import numpy as np
import pytest
from supernet_techniques import digits_spec, supernet_techniques

from nni_spos.cost_table import CostTable, Factor
from nni_spos.errors import RecipeError
from nni_spos.path import PathSpace
from nni_spos.priors import UniformPrior
from nni_spos.training.sampling import Sampling

# Bits in no order, blocks whose dearest is neither the first nor the last, and a free choice.
SPACE = PathSpace({"block": ["k3", "k7", "k5"], "bits": [4, 2, 8], "free": ["a", "b"]})
FACTORS = [
    Factor(("block", "bits"), np.outer([9, 49, 25], [4, 2, 8])),
    Factor(("free",), np.array([5, 5])),
]
BITOPS = CostTable("bitops", SPACE, 0, FACTORS)
# By these alone, the largest path would be another one.
FLOPS = CostTable("flops", SPACE, 0, [Factor(("block",), np.array([49, 9, 25]))])


@pytest.fixture(scope="module")
def spec():
    return digits_spec()


def techniques(spec, *others, **keys):
    settings = {x: keys.pop(x) for x in ("channel_warmup_steps",) if x in keys}
    return supernet_techniques(spec, {"name": "shrinking", **keys}, *others, **settings)


def seen(prior, label, steps):
    return {prior.paths(step, 2)[i][label] for step in steps for i in range(2)}


def test_choices_are_let_in_by_their_cost(spec):
    plain = UniformPrior(SPACE, seed=3)
    sampling = Sampling(plain, {"flops": FLOPS, "bitops": BITOPS}, num_steps=1000)
    prior = techniques(spec, shrinking=0.6, shrinking_hold=0.1).prior(sampling)
    # 100 steps of the largest path, and 200 for each choice that follows.
    for label, order in (("block", ["k7", "k5", "k3"]), ("bits", [8, 4, 2])):
        assert seen(prior, label, range(300)) == {order[0]}
        assert seen(prior, label, range(300, 500)) == set(order[:2])
        assert seen(prior, label, range(500, 700)) == set(order)
    assert seen(prior, "free", range(100)) == {"a", "b"}
    assert [prior.path(step) for step in range(700, 720)] == [
        plain.path(step) for step in range(700, 720)
    ]
    assert prior.paths(700, 3) == plain.paths(700, 3)
    assert prior.paths(400, 3) == prior.paths(400, 3)
    assert prior.path(699) != plain.path(699) or prior.path(698) != plain.path(698)


def test_without_a_share_of_its_own_all_choices_come_at_once(spec):
    plain = UniformPrior(SPACE, seed=3)
    prior = techniques(spec, shrinking_hold=0.5).prior(Sampling(plain, {"bitops": BITOPS}, 100))
    assert seen(prior, "bits", range(50)) == {8}
    assert seen(prior, "bits", range(50, 100)) == {2, 4, 8}


def test_costs_are_needed(spec):
    with pytest.raises(RecipeError, match="Give it cost tables: SinglePathOneShot"):
        techniques(spec, shrinking=0.5).prior(Sampling(UniformPrior(SPACE)))


def test_it_is_refused_with_a_filter_that_would_not_hold(spec):
    plain = UniformPrior(SPACE)
    sampling = Sampling(plain, {"bitops": BITOPS}, 100, accepts=lambda path: True)
    with pytest.raises(RecipeError, match=r"^shrinking: draws paths itself .* Leave one of them"):
        techniques(spec, shrinking=0.5).prior(sampling)
    assert techniques(spec).prior(sampling) is plain  # it is off


@pytest.mark.parametrize(
    ("others", "keys", "message"),
    [
        ([], {"shrinking": 0.6, "shrinking_hold": 0.5}, "must be at most 1, got 1.1"),
        ([], {"shrinking": 0.6, "channel_warmup_steps": 5}, "channel_warmup_steps does. Leave"),
        (
            [{"name": "paths", "paths": 3, "sandwich": True}],
            {"shrinking": 0.6},
            "sandwich trains the smallest path",
        ),
    ],
)
def test_what_contradicts_it_is_refused(spec, others, keys, message):
    with pytest.raises(RecipeError, match=f"^shrinking: .*{message}"):
        techniques(spec, *others, **keys)
    techniques(spec, {"name": "paths", "paths": 3}, shrinking=0.6, shrinking_hold=0.4)
