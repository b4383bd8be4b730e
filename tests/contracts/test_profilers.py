"""What every profiler promises, for every space."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from nni_spos.path import PathSpace
from nni_spos.priors import UniformPrior
from nni_spos.profilers import build_costs
from nni_spos.spaces import SPACES, Form, build_space
from nni_spos.supernet import SinglePathOneShot

PUBLISHED = (2, 1, 0, 1, 2, 0, 2, 0, 2, 0, 2, 3, 0, 0, 0, 0, 3, 2, 3, 3)
ANALYTIC = ["flops", "params"]
OF_BITS = [*ANALYTIC, "bitops", "size_bytes"]

# Title to the arguments of the space, whose name is the title's first word, and a number of paths.
CASES = {
    "shufflenet": ({}, 2),
    "shufflenet_small": ({}, 8),
    "shufflenet_small of 16 pixels": ({"input_size": 16, "in_channels": 1, "num_classes": 10}, 8),
    "shufflenet_small of 28 pixels": ({"input_size": 28, "in_channels": 1}, 8),
    "shufflenet_channels": ({"channels_multiple_of": 8}, 2),
    "shufflenet_channels_small": ({}, 8),
    "shufflenet_joint": ({}, 2),
    "shufflenet_joint_small": ({"input_size": 28}, 8),
    "resnet18": ({}, 2),
    "resnet34": ({"input_size": 64}, 2),
    "resnet_small": ({}, 8),
    "resnet_small with everything": ({"switchable_norm": True, "outer_bits": 8}, 8),
    "resnet_small of full precision": ({"bit_pairs": None}, 8),
    "resnet_small of bits alone": ({"channel_scales": None}, 8),
    "proxylessnas_cpu": ({}, 2),
    "proxylessnas_gpu": ({"input_size": 64}, 2),
    "proxylessnas_mobile": ({"input_size": 64}, 2),
    "proxylessnas_small": ({}, 8),
    "proxylessnas_small of 28 pixels": ({"input_size": 28, "in_channels": 1}, 8),
    "fbnet": ({}, 2),
    "fbnet_small": ({}, 8),
    "fbnet_small of 28 pixels": ({"input_size": 28, "in_channels": 1}, 8),
    "nasbench_macro": ({}, 8),
    "channelbench_resnet": ({"full_channels": [8, 12, 16, 8, 12, 4, 20], "input_size": 8}, 8),
    "channelbench_mobilenet": ({"full_channels": [8, 12, 16, 8, 12, 4, 20], "input_size": 8}, 8),
}


def state_of(space):
    """What building costs must leave as it is: layers, hooks, methods and values."""
    layers = [(type(x), len(x._forward_hooks), "forward" in vars(x)) for x in space.modules()]
    return layers, {name: value.clone() for name, value in space.state_dict().items()}


class Case:
    """A space in the form that is deployed."""

    def __init__(self, title):
        self.name = title.split()[0]
        self.arguments, self.num_paths = CASES[title]
        self.space = self.build().eval()
        self.image = (self.space.in_channels, self.space.input_size, self.space.input_size)
        self.before = state_of(self.space)
        self.costs = build_costs(self.space, self.image)
        self.path_space = PathSpace.from_model_space(self.space)

    def build(self, path=None):
        return build_space(self.name, self.arguments, Form.SUBNET, path=path)

    def draw(self, num_paths):
        return UniformPrior(self.path_space).draw(num_paths, np.random.default_rng(0))

    def price(self, path):
        return {metric: table.price(path) for metric, table in self.costs.items()}

    def count(self, path):
        counted = brute_force(self.build(path), self.image)
        return {metric: counted[metric] for metric in self.costs}


FULL_SIZE = [title for title, (_, num_paths) in CASES.items() if num_paths == 2]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(title, marks=pytest.mark.slow if title in FULL_SIZE else ()) for title in CASES
    ],
)
def case(request):
    return Case(request.param)


def brute_force(network, image):
    """Count on a real network what runs through its layers, and what they hold."""
    counted = dict.fromkeys(OF_BITS, 0)

    def count(layer, _, output):
        # Every output element is one inner product with a filter's or a row's weights.
        macs = output.numel() * layer.weight[0].numel()
        counted["flops"] += macs
        if hasattr(layer, "weight_bits"):
            counted["bitops"] += macs * layer.weight_bits * layer.activation_bits

    for layer in network.modules():
        has_weights = isinstance(layer, nn.Conv2d | nn.Linear)
        if has_weights:
            layer.register_forward_hook(count)
        for name, parameter in layer.named_parameters(recurse=False):
            bits = getattr(layer, "weight_bits", 32) if has_weights and name == "weight" else 32
            counted["params"] += parameter.numel()
            counted["size_bytes"] += math.ceil(parameter.numel() * bits / 8)
    with torch.no_grad():
        network.eval()(torch.zeros(1, *image))
    return counted


def test_every_space_is_checked():
    assert {title.split()[0] for title in CASES} == set(SPACES.ours)


def test_metrics(case):
    has_bits = any(label.startswith("bits") for label in case.path_space)
    assert list(case.costs) == (OF_BITS if has_bits else ANALYTIC)
    assert all(table.metric == metric for metric, table in case.costs.items())


def test_table_equals_a_count_on_the_network_built_for_a_path(case):
    for path in case.path_space.decode(case.draw(case.num_paths)):
        assert case.price(path) == case.count(path)


@pytest.mark.slow
def test_a_supernet_costs_what_the_space_does(case):
    supernet = SinglePathOneShot().mutate_model(case.build())
    costs = build_costs(supernet, case.image)
    assert list(costs) == list(case.costs)
    indices = case.draw(100)
    for metric, table in costs.items():
        assert np.array_equal(table.price_many(indices), case.costs[metric].price_many(indices))


def test_one_path_costs_what_it_costs_among_many(case):
    indices = case.draw(200)
    prices = [case.price(path) for path in case.path_space.decode(indices)]
    for metric, table in case.costs.items():
        one_by_one = [price[metric] for price in prices]
        assert table.price_many(indices).tolist() == one_by_one
        assert all(type(cost) is int for cost in one_by_one)


def test_extremes_are_achieved_and_never_passed(case):
    for table in case.costs.values():
        (low, cheapest), (high, dearest) = table.cheapest(), table.dearest()
        assert (table.price(cheapest), table.price(dearest)) == (low, high)
        if case.path_space.size < 100_000:
            costs = table.price_many(case.path_space.enumerate())
            assert (costs.min(), costs.max()) == (low, high)
        else:
            costs = table.price_many(case.draw(10_000))
            assert low <= costs.min()
            assert costs.max() <= high


def test_extremes_on_the_network_built_for_them(case):
    metric = "bitops" if "bitops" in case.costs else "flops"
    for cost, path in (case.costs[metric].cheapest(), case.costs[metric].dearest()):
        assert case.count(path)[metric] == cost


def test_the_space_is_not_changed(case):
    (layers, values), (layers_before, values_before) = state_of(case.space), case.before
    assert layers == layers_before
    assert list(values) == list(values_before)
    assert all(torch.equal(values[name], value) for name, value in values_before.items())


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
    assert published.count(path) == {"flops": 322_918_720, "params": 3_558_464}


def test_extremes_of_the_papers_space(published):
    table = published.costs["flops"]
    assert table.cheapest()[0] == 270_359_360
    assert table.dearest()[0] == 398_609_216


def covariance(one, other):
    """Return that of two factors, where every path is as likely."""
    shared = [label for label in one.labels if label in other.labels]

    def given(factor):
        rest = tuple(i for i, label in enumerate(factor.labels) if label not in shared)
        kept = [label for label in factor.labels if label in shared]
        means = factor.table.astype(float).mean(axis=rest)
        return means.transpose([kept.index(label) for label in shared])

    means = given(one), given(other)
    return (means[0] * means[1]).mean() - means[0].mean() * means[1].mean()


def test_statistics_of_the_uniform_prior(published):
    table = published.costs["flops"]
    mean = table.constant + sum(factor.table.mean() for factor in table.factors)
    pairs = itertools.product(table.factors, repeat=2)
    deviation = sum(itertools.starmap(covariance, pairs)) ** 0.5
    assert mean == 327_174_272
    assert round(deviation / 1e6, 2) == 11.83
    costs = table.price_many(published.draw(100_000))
    # Four standard errors of a share of 100,000 draws, and the figure's rounding.
    assert abs((costs <= 330e6).mean() - 0.589) < 4 * (0.25 / 100_000) ** 0.5 + 0.0005


HALF = [32] * 4 + [80] * 4 + [160] * 8 + [320] * 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "blocks", "flops", "params"),
    [
        ("shufflenet_joint", PUBLISHED, 322_918_720, 3_558_464),
        ("shufflenet_joint", (0,) * 20, 295_842_496, 3_154_880),
        ("shufflenet_channels", None, 295_842_496, 3_154_880),
    ],
)
def test_figures_at_scale_1(name, blocks, flops, params):
    case = Case(name)
    path = {f"channels_{i}": width for i, width in enumerate(HALF, 1)}
    for i, code in enumerate(blocks or (), 1):
        path[f"layer_{i}"] = ("k3", "k5", "k7", "xcep")[code]
    assert case.price(path) == {"flops": flops, "params": params}
    assert case.count(path) == {"flops": flops, "params": params}


PLAIN = 231_211_008
STRIDED = 179_830_784  # with stride 2 and a 1x1 convolution beside it
QUANTIZED = 1_695_547_392  # 5 of those, 3 of these


@pytest.fixture(scope="module")
def resnet18_costs():
    space = build_space("resnet18", {"bit_pairs": [(2, 2), (3, 3), (4, 4)]}, Form.SUBNET)
    return build_costs(space, (3, 224, 224))


def resnet_path(bits):
    widths = [64] * 2 + [128] * 2 + [256] * 2 + [512] * 2
    path = {f"channels_{i}": width for i, width in enumerate(widths, 1)}
    return path | {f"bits_{i}": f"{bits}w{bits}a" for i in range(1, 9)}


@pytest.mark.parametrize(("bits", "giga"), [(2, "6.32"), (3, "14.21"), (4, "25.27")])
@pytest.mark.slow
def test_bitops_of_resnet18(resnet18_costs, bits, giga):
    bitops = resnet18_costs["bitops"].price(resnet_path(bits))
    assert bitops == bits * bits * QUANTIZED
    assert f"{bitops / 2**30:.2f}" == giga


def test_macs_of_resnet18(resnet18_costs):
    path = resnet_path(2)
    # The first convolution has 112x112 outputs of 64 channels from 7x7 of 3; the classifier 512.
    outside = 112 * 112 * 64 * 7 * 7 * 3 + 512 * 1000
    assert resnet18_costs["flops"].price(path) == QUANTIZED + outside == 1_814_073_344
    assert resnet18_costs["params"].price(path) == 11_689_512 + 19  # as is known, and a clip each


@pytest.mark.parametrize("block", range(1, 9))
def test_bitops_of_each_block_of_resnet18(resnet18_costs, block):
    table = resnet18_costs["bitops"]
    less, more = resnet_path(2), resnet_path(2) | {f"bits_{block}": "4w4a"}
    macs = STRIDED if block in (3, 5, 7) else PLAIN
    assert table.price(more) - table.price(less) == (16 - 4) * macs
