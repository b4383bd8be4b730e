"""Channels of parts that are concatenated: a narrow path has the first ones of every part."""

import copy
import random

import pytest
import torch
from everyday_networks import Concatenated, conv, make
from small_spaces import set_path
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nni_spos import SinglePathOneShot, build_costs, convert, extract_subnet
from nni_spos.conversion.chains import find_chains, sequence_of
from nni_spos.conversion.choices import choices_of, largest, smallest
from nni_spos.conversion.convert import prepare
from nni_spos.conversion.masking import masked
from nni_spos.data import open_data
from nni_spos.errors import ScoringWarning
from nni_spos.mutables.parts import ChannelParts
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.search_settings import EvaluationSettings
from nni_spos.scoring.evaluation import evaluate_path, evaluate_paths

TOGETHER = {"residual": True}
LABEL = "one.channels"


def random_paths(space, number):
    draws = random.Random(3)
    return [
        {label: draws.choice(choices) for label, choices in choices_of(space.plan)}
        for _ in range(number)
    ]


def count(network, inputs):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs)
    return counter.get_total_flops() // 2 // len(inputs[0]), sum(
        p.numel() for p in network.parameters()
    )


def close(one, other):
    return torch.allclose(one, other, rtol=0, atol=1e-10)


def test_parts_have_one_share():
    network, inputs = make("concatenated")
    space = convert(network, inputs, TOGETHER)
    width = space.plan.widths[LABEL]
    assert width.choices == (56, 48, 32, 24)
    assert width.kept == ((16, 24, 16), (16, 16, 16), (8, 16, 8), (8, 8, 8))
    assert width.sequences["gated", "outputs"] == (2, 2)
    assert width.sequences["head", "inputs"] == (0, 1, 2)
    least = extract_subnet(space, {**largest(space.plan), LABEL: 24}).network
    assert (least.one.out_channels, least.two.out_channels, least.gated.out_channels) == (8, 8, 16)
    assert (least.norm.num_features, least.dw.groups, least.head.in_features) == (16, 16, 96)
    kinds = {type(module) for module in least.children()}
    assert kinds == {nn.Conv2d, nn.Linear, nn.BatchNorm2d}


def test_parts_stay_where_they_are_not_asked_for():
    found = dict(convert(*make("concatenated")).plan.left)
    assert found[LABEL] == "they are concatenated with others (residual: true lets them be chosen)"


def test_a_path_computes_what_the_network_does_without_the_rest():
    network, inputs = make("concatenated")
    sorted_network, plan = prepare(network, inputs, TOGETHER)
    space = convert(network, inputs, TOGETHER)
    supernet = SinglePathOneShot().mutate_model(space).eval()
    for path in [largest(plan), smallest(plan), *random_paths(space, 3)]:
        expected = masked(sorted_network, plan, path)(*inputs)
        set_path(supernet, path)
        assert close(supernet(*inputs), expected)
        assert close(extract_subnet(supernet, path)(*inputs), expected)
        assert close(supernet.freeze(path)(*inputs), expected)


def test_costs_are_those_of_an_independent_count():
    network, inputs = make("concatenated", torch.float32)
    space = convert(network, inputs, {**TOGETHER, "bits": [8, 32]})
    costs = build_costs(space, inputs[0].shape[1:])
    whole = largest(space.plan)
    assert count(network, inputs) == (costs["flops"].price(whole), costs["params"].price(whole))
    for path in random_paths(space, 3):
        path = {x: "32w32a" if x.endswith(".bits") else choice for x, choice in path.items()}
        subnet = extract_subnet(space, path).eval()
        assert count(subnet, inputs) == (costs["flops"].price(path), costs["params"].price(path))


def test_a_step_trains_what_the_path_has_and_nothing_else():
    network, inputs = make("concatenated")
    space = convert(network, inputs, TOGETHER)
    supernet = SinglePathOneShot().mutate_model(space).train()
    path = smallest(space.plan)
    before = {name: x.clone() for name, x in supernet.state_dict().items()}
    subnet = extract_subnet(supernet, path).train()
    for one in (supernet, subnet):
        optimizer = torch.optim.SGD(one.parameters(), 0.1)
        set_path(one, path)
        one(*inputs).square().sum().backward()
        optimizer.step()
    trained = extract_subnet(supernet, path).state_dict()
    for name, tensor in subnet.state_dict().items():
        assert torch.allclose(tensor, trained[name], rtol=0, atol=1e-10), name
    norm, original = supernet.network.norm, before["network.norm.running_mean"]
    assert (norm.running_mean[:16] != original[:16]).all()
    assert torch.equal(norm.running_mean[16:], original[16:])


def test_channels_are_sorted_within_their_part():
    network, inputs = make("concatenated")
    with torch.no_grad():
        network.two.weight[[5, 9, 20, 1, 2, 3, 13, 23]] *= 100
        network.two.bias[[5, 9, 20, 1, 2, 3, 13, 23]] = 7
    space = convert(network, inputs, {**TOGETHER, "skip": False})
    least = extract_subnet(space, {**largest(space.plan), LABEL: 24}).network
    assert least.two.bias.tolist() == [7] * 8
    by_norm = convert(network, inputs, {**TOGETHER, "importance": "batchnorm"})
    assert close(extract_subnet(by_norm, largest(by_norm.plan))(*inputs), network(*inputs))


class Rolled(nn.Module):
    """A number that is written down: a narrow network would run, and look at the wrong places."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three, self.fc = (
            conv(3, 16),
            conv(3, 16),
            conv(32, 16),
            nn.Linear(16, 4),
        )

    def forward(self, x):
        x = torch.roll(torch.cat([self.one(x), self.two(x)], 1), 16, 1)
        return self.fc(self.three(x).relu().mean((2, 3)))


def test_places_that_are_written_down_are_found_out():
    network = Rolled().double().eval()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    space = convert(network, x, {**TOGETHER, "channels": [0.5, 1.0]})
    assert dict(choices_of(space.plan)) == {"three.channels": [16, 8]}
    reasons = dict(space.plan.left)
    assert reasons["one.channels"] == "they are concatenated or rearranged with others"


def test_scores_of_paths_together_are_those_of_each_alone(recwarn):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Concatenated(channels=1).eval()
    data = open_data(DataSettings("digits", augmentation="none", num_validation=200))
    space = convert(network, torch.randn(1, 1, 16, 16), TOGETHER)
    supernet = SinglePathOneShot().mutate_model(space)
    settings = EvaluationSettings(recalibration_images=64, batch_size=64)
    paths = random_paths(space, 4)
    before = copy.deepcopy(supernet.state_dict())
    together = evaluate_paths(supernet, paths, data, settings)
    assert together == [evaluate_path(supernet, path, data, settings) for path in paths]
    assert not [x for x in recwarn if issubclass(x.category, ScoringWarning)]
    assert all(torch.equal(x, before[name]) for name, x in supernet.state_dict().items())


def test_chains():
    one, two = torch.arange(1, 5).numpy(), torch.arange(5, 7).numpy()
    both = torch.tensor([5, 6, 1, 2, 3, 4]).numpy()
    assert find_chains([one, two, both]) == [(1, 2, 3, 4), (5, 6)]
    assert sequence_of(both.repeat(3), [(1, 2, 3, 4), (5, 6)]) == (1, 0)
    assert sequence_of(both[:4], [(1, 2, 3, 4), (5, 6)]) is None
    halves = find_chains([one, one[:2], one[2:]])
    assert halves == [(1, 2), (3, 4)]
    shuffled = torch.tensor([1, 3, 2, 4]).numpy()
    assert find_chains([one, shuffled]) == [(1,), (2,), (3,), (4,)]
    uneven = torch.tensor([1, 1, 2, 3, 4]).numpy()
    assert sequence_of(uneven, [(1, 2, 3, 4)]) is None


def test_every_choice_has_the_first_places_of_the_nesting():
    parts = ChannelParts(((5, 3, 2), (4, 3, 1), (2, 1, 1)))
    nesting = parts.nesting().tolist()
    for kept in parts.kept:
        places = parts.places(sum(kept))
        assert sorted(nesting[: sum(kept)]) == places
        order = parts.order(sum(kept), "cpu").tolist()
        assert [nesting[i] for i in order] == places


@pytest.mark.slow
@pytest.mark.parametrize("name", ["squeezenet1_1", "densenet121", "googlenet", "inception_v3"])
def test_networks_of_torchvision(name):
    from torchvision import models

    more = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = models.get_model(name, **more).eval()
        size = 96 if "inception" in name else 64
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.uniform_(0.5, 1.5)
                module.running_mean.normal_(0, 0.1)
        network, x = network.double(), torch.randn(1, 3, size, size, dtype=torch.float64)
    sorted_network, plan = prepare(network, x, TOGETHER)
    assert sum(width.is_parted for width in plan.widths.values()) >= 4
    space = convert(network, x, TOGETHER)
    costs = build_costs(copy.deepcopy(space).float(), x.shape[1:])
    supernet = SinglePathOneShot().mutate_model(space).eval()
    with torch.no_grad():
        assert close(extract_subnet(supernet, largest(plan))(x), network(x))
        for path in random_paths(space, 2):
            subnet = extract_subnet(supernet, path)
            set_path(supernet, path)
            outputs, scale = subnet(x), float(network(x).abs().max())
            assert torch.allclose(supernet(x), outputs, rtol=0, atol=1e-10 * scale)
            expected = masked(sorted_network, plan, {k: path[k] for k in plan.widths})(x)
            assert torch.allclose(outputs, expected, rtol=0, atol=1e-10 * scale)
            priced = costs["flops"].price(path), costs["params"].price(path)
            assert count(subnet, (x,)) == priced
