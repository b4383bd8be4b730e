"""Learning rates and momentum by the size of a path."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from supernet_techniques import digits_spec, supernet_techniques
from torch import nn

from nni_spos.cost_table import CostTable, Factor
from nni_spos.errors import RecipeError
from nni_spos.path import PathSpace
from nni_spos.priors import UniformPrior
from nni_spos.training.sampling import Sampling

SPACE = PathSpace({"one": ["k3", "k5", "k7"], "two": [1, 2]})
FLOPS = CostTable(
    "flops", SPACE, 10, [Factor(("one",), np.array([0, 4, 8])), Factor(("two",), np.array([0, 8]))]
)
SMALLEST, LARGEST = {"one": "k3", "two": 1}, {"one": "k7", "two": 2}
MIDDLE = {"one": "k7", "two": 1}
SAMPLING = Sampling(UniformPrior(SPACE), {"flops": FLOPS}, num_steps=100)


@pytest.fixture(scope="module")
def spec():
    return digits_spec()


def techniques(spec, *others, **keys):
    settings = {x: keys.pop(x) for x in ("momentum",) if x in keys}
    return supernet_techniques(spec, *others, {"name": "complexity", **keys}, **settings)


@pytest.fixture
def begun(spec):
    def begin(**keys):
        found = techniques(spec, **keys)
        assert found.prior(SAMPLING) is SAMPLING.prior
        (technique,) = found
        return technique

    return begin


def test_the_rate_falls_later_for_large_paths(begun):
    technique = begun(complexity_decay=2.0)
    for step in (0, 36, 75, 99):
        left = 1 - step / 100
        # Beside linear decay, which the schedule has.
        assert left * technique.factor(LARGEST, step) == pytest.approx(left**0.5)
        assert left * technique.factor(SMALLEST, step) == pytest.approx(left**2)
        assert technique.factor(MIDDLE, step) == pytest.approx(1)
        quarter = {"one": "k5", "two": 1}
        assert left * technique.factor(quarter, step) == pytest.approx(left**2**0.5)


def test_paths_that_all_cost_the_same_have_one_rate(spec):
    found = techniques(spec, complexity_decay=3.0)
    costs = {"flops": CostTable("flops", SPACE, 10, [])}
    found.prior(Sampling(UniformPrior(SPACE), costs, num_steps=100))
    (technique,) = found
    assert technique.factor(LARGEST, 90) == 1


def test_the_gradient_is_multiplied_and_the_loss_of_the_targets_is_logged(begun):
    technique = begun(complexity_decay=2.0)
    weight = torch.tensor([1.0, 2.0], requires_grad=True)

    def gradient():
        loss = technique.loss(lambda x, _: (x**2).sum(), weight, torch.zeros(1))
        return torch.autograd.grad(loss, weight)[0]

    assert technique.paths([LARGEST], SAMPLING, 75) == [LARGEST]
    torch.testing.assert_close(gradient(), 2 * weight.detach() * 0.25**-0.5)
    technique.begin_path(SMALLEST, 1)  # of several
    torch.testing.assert_close(gradient(), 2 * weight.detach() * 0.25)
    assert technique.step_figures() == {"loss": 5}


def exchanged(technique, optimizer, path, step):
    technique.paths([path], SAMPLING, step)
    (callback,) = technique.callbacks()
    callback.on_before_optimizer_step(None, None, optimizer)
    optimizer.step()


def test_each_group_has_a_momentum_of_its_own(begun):
    drawn = np.random.default_rng(0)
    gradients = torch.from_numpy(drawn.normal(size=(12, 3)))
    paths = [(SMALLEST, LARGEST)[i] for i in drawn.integers(2, size=12)]
    technique, weight = begun(momentum_groups=2), nn.Parameter(torch.zeros(3).double())
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    expected, momenta = torch.zeros(3).double(), {}
    for step, (path, gradient) in enumerate(zip(paths, gradients, strict=True)):
        weight.grad = gradient.clone()
        exchanged(technique, optimizer, path, step)
        size = FLOPS.price(path)
        momenta[size] = 0.9 * momenta.get(size, 0) + gradient
        expected -= 0.1 * momenta[size]
        if step == 6:  # it goes on in another object
            state = technique.state_dict()
            technique = begun(momentum_groups=2)
            technique.load_state_dict(state)
    assert len(momenta) == 2
    torch.testing.assert_close(weight.detach(), expected)


def test_random_paths_are_equally_often_in_each_group(spec):
    space = PathSpace({f"unit_{i}": ["a", "b", "c"] for i in range(6)})
    factors = [Factor((x,), np.array([0, 1, 4]) * 1.3**i) for i, x in enumerate(space)]
    found = techniques(spec, momentum_groups=3)
    found.prior(Sampling(UniformPrior(space), {"flops": CostTable("flops", space, 0, factors)}))
    (technique,) = found
    sizes = CostTable("flops", space, 0, factors).price_many(space.enumerate())
    groups = np.searchsorted(technique._ends, sizes)
    assert np.bincount(groups) / len(groups) == pytest.approx([1 / 3] * 3, abs=0.04)
    assert list(groups[sizes.argsort()]) == sorted(groups)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"momentum_groups": 2, "momentum": 0.0}, "momentum is 0. Give momentum: 0.9"),
        ({"complexity_decay": 0.5}, "complexity_decay"),
        ({"momentum_groups": 0}, "momentum_groups"),
    ],
)
def test_what_is_refused(spec, keys, message):
    with pytest.raises(RecipeError, match=message):
        techniques(spec, **keys)


@pytest.mark.parametrize(
    ("other", "keys", "message"),
    [
        ({"name": "opt", "opt": "adamw"}, {"complexity_decay": 2.0}, "is for SGD"),
        ({"name": "paths", "paths": 2}, {"momentum_groups": 2}, "share one momentum"),
    ],
)
def test_what_it_is_refused_with(spec, other, keys, message):
    with pytest.raises(RecipeError, match=message):
        techniques(spec, other, **keys)
    assert len(list(techniques(spec, {"name": "paths", "paths": 2}, complexity_decay=2.0))) == 2


def test_several_paths_of_a_users_technique_are_refused(begun):
    with pytest.raises(RecipeError, match="the technique that gives several"):
        begun(momentum_groups=2).paths([SMALLEST, LARGEST], SAMPLING, 0)


def test_ones_are_off(spec):
    with pytest.raises(ValueError, match="not enough values"):
        (_,) = techniques(spec, complexity_decay=1.0, momentum_groups=1)
