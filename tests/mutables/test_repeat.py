"""Depth as a choice: supernet, network of a path, costs and scores."""

from __future__ import annotations

import itertools

import pytest
import torch
from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace, MutableConv1d, Repeat
from nni.nas.space import model_context
from small_spaces import assert_close, choose, images, paths_of, set_path
from torch import nn

from nni_spos.errors import CostError, PathError
from nni_spos.latency.profiler import LatencyProfiler
from nni_spos.modules.subnet import extract_subnet
from nni_spos.mutables import MutableBatchNorm2d, MutableConv2d
from nni_spos.path import PathSpace
from nni_spos.profilers import build_costs, count_macs
from nni_spos.scoring.parts import find_parts
from nni_spos.scoring.population import sharing
from nni_spos.supernet import SinglePathOneShot

SHAPE = (1, 6, 6)


def block(width):
    return lambda index: nn.Sequential(
        MutableConv2d(width, width, 3, padding=1, bias=False), MutableBatchNorm2d(width), nn.ReLU()
    )


def unit(index):
    choices = {"k1": nn.Conv2d(4, 4, 1), "k3": nn.Conv2d(4, 4, 3, padding=1)}
    return LayerChoice(choices, label=f"unit_{index}")


class Deep(ModelSpace):
    """Blocks whose number is a choice: with a width, and with choices inside."""

    def __init__(self, low: int = 0):
        super().__init__()
        width = choose("width", 3, 5)
        self.stem = MutableConv2d(1, width, 3, padding=1)
        self.stage = Repeat(block(width), (low, 2), label="depth")
        self.middle = MutableConv2d(width, 4, 1)
        self.units = Repeat(unit, choose("half", 0, 1) * 2 + 1)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.units(self.middle(self.stage(self.stem(x))))
        return self.head(x.mean((2, 3)))


@pytest.fixture
def supernet():
    torch.manual_seed(0)
    return SinglePathOneShot().mutate_model(Deep()).eval()


def test_its_labels_are_choices_between_numbers(supernet):
    expected = {
        "width": (3, 5),
        "depth": (0, 1, 2),
        "half": (0, 1),
        **{f"unit_{i}": ("k1", "k3") for i in range(3)},
    }
    assert dict(PathSpace.from_model_space(Deep())) == expected
    assert dict(PathSpace.from_model_space(supernet)) == expected


def some_paths(supernet):
    return itertools.islice(paths_of(supernet), 0, None, 5)


def test_a_path_of_the_supernet_is_its_own_network(supernet):
    x = images(2, *SHAPE)
    seen = set()
    for path in some_paths(supernet):
        with torch.no_grad():
            output = supernet(x)
            subnet = extract_subnet(supernet, path)
            assert_close(output, subnet(x))
            with model_context(path):
                network = Deep()
            network.load_state_dict(subnet.state_dict())
            assert_close(output, network.eval()(x))
        assert len(subnet.stage) == path["depth"]
        assert len(subnet.units) == 2 * path["half"] + 1
        seen.add(tuple(output.flatten().tolist()))
    assert len(seen) > 10


def test_its_costs_are_those_of_the_networks(supernet):
    costs = build_costs(Deep(), SHAPE)
    prices = set()
    for path in some_paths(supernet):
        network = extract_subnet(supernet, path)
        width, depth, pixels = path["width"], path["depth"], 36
        kernels = [9 if path[f"unit_{i}"] == "k3" else 1 for i in range(2 * path["half"] + 1)]
        macs = pixels * (9 * width + depth * 9 * width**2 + 4 * width + 16 * sum(kernels)) + 12
        assert costs["flops"].price(path) == macs == count_macs(network, SHAPE)
        params = sum(parameter.numel() for parameter in network.parameters())
        assert costs["params"].price(path) == params
        prices.add(macs)
    assert len(prices) > 10


def test_paths_that_share_parts_have_the_scores_of_their_own(supernet):
    parts = {part.name: part.labels for part in find_parts(supernet)}
    assert parts["stage"] == {"depth", "width"}
    assert parts["units"] == {"half", "unit_0", "unit_1", "unit_2"}
    x = images(2, *SHAPE)
    with sharing(supernet) as run:
        for path in list(PathSpace.from_model_space(supernet).covering()):
            names = [part.name for part in run.trace(path, x)]
            assert names == ["stem", "stage", "middle", "units", "head"]


def test_who_holds_the_blocks_holds_those_of_the_supernet():
    space = Deep()
    held = space.stage, space.units.blocks[0]
    supernet = SinglePathOneShot().mutate_model(space)
    assert (supernet.stage, supernet.units.blocks[0]) == held
    with pytest.raises(RuntimeError, match=r"a path must be set"):
        supernet.stage(images(1, 3, 6, 6))


def test_a_depth_that_the_path_lacks_is_drawn(supernet):
    drawn = supernet.stage.resample({})
    assert drawn["depth"] in (0, 1, 2)
    assert supernet.stage.resample({"depth": 1}) == {}


class Shrinking(ModelSpace):
    def __init__(self):
        super().__init__()
        self.stage = Repeat(lambda i: nn.Conv2d(1, 1, 3), (1, 2), label="depth")

    def forward(self, x):
        return self.stage(x)


def test_depths_with_other_outputs_are_refused():
    with pytest.raises(
        CostError, match=r"depth 'depth': the outputs have other shapes: \{1: \(1, "
    ):
        build_costs(Shrinking(), SHAPE)


class Switch(ModelSpace):
    def __init__(self):
        super().__init__()
        self.switch = InputChoice(2, label="from")

    def forward(self, x):
        return self.switch([x, -x])


def test_an_input_choice_is_refused_by_name():
    for use in (PathSpace.from_model_space, lambda space: build_costs(space, SHAPE)):
        with pytest.raises(PathError) as caught:
            use(Switch())
        assert str(caught.value) == (
            "label 'from' is a CategoricalMultiple of 'switch' (InputChoice, which chooses a set "
            "of its inputs: use a LayerChoice of modules that each take all inputs and return what "
            "is wanted of them); only single choices among values (LayerChoice, Repeat, "
            "nni.choice) can be searched."
        )


class OneDimension(ModelSpace):
    def __init__(self, channels):
        super().__init__()
        self.conv = MutableConv1d(1, channels, 1)
        self.unit = LayerChoice({"a": nn.Identity(), "b": nn.ReLU()}, label="unit")

    def forward(self, x):
        return self.unit(self.conv(x.flatten(2)))


def test_a_layer_that_shares_no_weights_is_refused_by_name():
    with pytest.raises(
        CostError, match=r"'conv' \(MutableConv1d\): nni_spos shares no weights of it"
    ):
        build_costs(OneDimension(choose("c", 1, 2)), SHAPE)
    assert build_costs(OneDimension(2), SHAPE)["flops"].price({"unit": "a"}) == 72


def test_a_path_can_be_set_again(supernet):
    x = images(1, *SHAPE)
    path = PathSpace.from_model_space(supernet).covering()[0]
    outputs = []
    for depth in (2, 0, 2):
        set_path(supernet, {**path, "depth": depth})
        with torch.no_grad():
            outputs.append(supernet(x))
    assert torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[0], outputs[1])


def test_its_latencies_are_refused_by_name():
    profiler = LatencyProfiler(rounds=1, repeats=1)
    with pytest.raises(CostError, match=r"'stage' \(Repeat\): only the latencies of LayerChoice"):
        profiler.profile(Shrinking(), SHAPE, num_paths=2)
