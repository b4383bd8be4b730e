"""What every profiler promises, for every space."""

import numpy as np
import pytest
import torch
from torch import nn

from nni_spos.path import PathSpace
from nni_spos.priors import UniformPrior
from nni_spos.profilers import build_costs
from nni_spos.spaces import ShuffleNetV2Space

METRICS = ("flops", "params")
PUBLISHED = (2, 1, 0, 1, 2, 0, 2, 0, 2, 0, 2, 3, 0, 0, 0, 0, 3, 2, 3, 3)

# Name to the space in the form that is deployed, the shape of an image, number of paths to try.
SPACES = {
    "shufflenet": (lambda: ShuffleNetV2Space(affine=True), (3, 224, 224), 3),
    "small-16": (
        lambda: ShuffleNetV2Space.small(input_size=16, in_channels=1, affine=True),
        (1, 16, 16),
        8,
    ),
    "small-28": (
        lambda: ShuffleNetV2Space.small(input_size=28, in_channels=1, affine=True),
        (1, 28, 28),
        8,
    ),
    "small-32": (lambda: ShuffleNetV2Space.small(affine=True, num_classes=10), (3, 32, 32), 8),
}


class Case:
    def __init__(self, name):
        build, self.image, self.num_paths = SPACES[name]
        self.space = build().eval()
        self.costs = build_costs(self.space, self.image)
        self.path_space = PathSpace.from_model_space(self.space)

    def draw(self, num_paths):
        return UniformPrior(self.path_space).draw(num_paths, np.random.default_rng(0))


@pytest.fixture(scope="module", params=SPACES)
def case(request):
    return Case(request.param)


def brute_force(subnet, image):
    """Count on the real network, from the data that runs through its layers."""
    macs = 0

    def count(layer, _, output):
        nonlocal macs
        # Every output element is one inner product with a filter's or a row's weights.
        macs += output.numel() * layer.weight[0].numel()

    hooks = [
        layer.register_forward_hook(count)
        for layer in subnet.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        subnet(torch.zeros(1, *image))
    for hook in hooks:
        hook.remove()
    return {"flops": macs, "params": sum(p.numel() for p in subnet.parameters())}


def test_table_equals_a_count_on_the_frozen_network(case):
    for path in case.path_space.decode(case.draw(case.num_paths)):
        counted = brute_force(case.space.freeze(path), case.image)
        assert {metric: case.costs[metric].price(path) for metric in METRICS} == counted


@pytest.mark.parametrize("metric", METRICS)
def test_one_path_costs_what_it_costs_among_many(case, metric):
    table, indices = case.costs[metric], case.draw(200)
    one_by_one = [table.price(path) for path in case.path_space.decode(indices)]
    assert table.price_many(indices).tolist() == one_by_one
    assert all(type(cost) is int for cost in one_by_one)


@pytest.mark.parametrize("metric", METRICS)
def test_extremes_are_achieved_and_never_passed(case, metric):
    table = case.costs[metric]
    (low, cheapest), (high, dearest) = table.cheapest(), table.dearest()
    assert (table.price(cheapest), table.price(dearest)) == (low, high)
    if case.path_space.size < 100_000:
        costs = table.price_many(case.path_space.enumerate())
        assert (costs.min(), costs.max()) == (low, high)
    else:
        costs = table.price_many(case.draw(10_000))
        assert low <= costs.min()
        assert costs.max() <= high


def test_extremes_on_the_frozen_network(case):
    for cost, path in (case.costs["flops"].cheapest(), case.costs["flops"].dearest()):
        assert brute_force(case.space.freeze(path), case.image)["flops"] == cost


def test_the_space_is_not_changed(case):
    before = {name: value.clone() for name, value in case.space.state_dict().items()}
    modules = [type(module) for module in case.space.modules()]
    hooks = [len(module._forward_hooks) for module in case.space.modules()]
    build_costs(case.space, case.image)
    assert [type(module) for module in case.space.modules()] == modules
    assert [len(module._forward_hooks) for module in case.space.modules()] == hooks
    after = case.space.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any("forward" in vars(module) for module in case.space.modules())


@pytest.fixture(scope="module")
def published():
    return Case("shufflenet")


@pytest.mark.parametrize(
    ("codes", "flops", "params"),
    [
        (PUBLISHED, 322_918_720, 3_558_464),
        ((0,) * 20, 295_842_496, 3_154_880),
    ],
    ids=["published", "all 3x3"],
)
def test_figures_of_known_networks(published, codes, flops, params):
    path = published.path_space.decode([codes])[0]
    assert published.costs["flops"].price(path) == flops
    assert published.costs["params"].price(path) == params


def test_figures_of_a_network_built_for_its_path(published):
    path = published.path_space.decode([PUBLISHED])[0]
    subnet = ShuffleNetV2Space.frozen_factory(path)().eval()
    assert brute_force(subnet, published.image) == {"flops": 322_918_720, "params": 3_558_464}


def test_extremes_of_the_papers_space(published):
    table = published.costs["flops"]
    assert table.cheapest()[0] == 270_359_360
    assert table.dearest()[0] == 398_609_216


def test_statistics_of_the_uniform_prior(published):
    table = published.costs["flops"]
    # Factors that share no label are independent under the uniform prior.
    factors = [factor.table.astype(float) for factor in table.merged()]
    mean = table.constant + sum(factor.mean() for factor in factors)
    deviation = sum(factor.var() for factor in factors) ** 0.5
    assert mean == 327_174_272
    assert round(deviation / 1e6, 2) == 11.83
    costs = table.price_many(published.draw(100_000))
    # Four standard errors of a share of 100,000 draws, and the figure's rounding.
    assert abs((costs <= 330e6).mean() - 0.589) < 4 * (0.25 / 100_000) ** 0.5 + 0.0005
