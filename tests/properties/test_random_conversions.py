"""Converted networks of many kinds: they compute what they did, and cost what they are said to."""

import copy
import random

import pytest
import torch
from random_plain_networks import SIDE, RandomPlainNetwork
from torch.utils.flop_counter import FlopCounterMode

from nni_spos import SinglePathOneShot, build_costs, convert, extract_subnet
from nni_spos.conversion.choices import choices_of, largest, smallest
from nni_spos.errors import SpaceError
from nni_spos.modules.active_path import choice_units, set_path

CHOICES = (
    {"residual": True, "round_to": 2},
    {"channels": [0.5, 1.0], "round_to": 1},
    {"channels": [0.3, 0.6, 1.0], "residual": True, "round_to": 1, "skip": False},
)
IMAGES = torch.randn(
    2, 3, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
)


def count(network):
    """Return multiply-adds and parameters, by PyTorch's counter and by looking at them."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(IMAGES[:1])
    return counter.get_total_flops() // 2, sum(x.numel() for x in network.parameters())


def differs(one, other):
    return float((one - other).abs().max()) > 1e-10 * max(1.0, float(other.abs().max()))


def check(number):
    """Check the network of a number; False if nothing of it can be chosen."""
    network = RandomPlainNetwork(number).double()
    choices = CHOICES[number % len(CHOICES)]
    try:
        space = convert(network, IMAGES[:1], choices)
    except SpaceError as problem:
        if "nothing in the network can be chosen" not in str(problem):
            raise
        return False
    single = copy.deepcopy(network).float()  # costs are counted on images of single precision
    costs = build_costs(convert(single, IMAGES[:1].float(), choices), IMAGES.shape[1:])
    draws = random.Random(number)
    drawn = {label: draws.choice(offered) for label, offered in choices_of(space.plan)}
    supernet = SinglePathOneShot().mutate_model(space).eval()
    for path in (largest(space.plan), smallest(space.plan), drawn):
        subnet = extract_subnet(supernet, path).eval()
        with torch.no_grad():
            computed = subnet(IMAGES)
            set_path(choice_units(supernet), path)
            assert not differs(supernet(IMAGES), computed), (network.parts, path)
            if path == largest(space.plan):
                assert not differs(computed, network(IMAGES)), (network.parts, path)
        priced = costs["flops"].price(path), costs["params"].price(path)
        assert count(subnet) == priced, (network.parts, path)
    return True


@pytest.mark.parametrize("first", range(0, 60, 4))
def test_converted_networks(first):
    found = [check(number) for number in range(first, first + 4)]
    assert any(found)
