"""What every search space promises."""

import copy
import itertools
import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nni_spos.path import PathSpace
from nni_spos.priors import UniformPrior
from nni_spos.spaces import SPACES, Form, build_space
from nni_spos.supernet import SinglePathOneShot, extract_subnet

FOLDER = Path(__file__).parents[2] / "search_spaces"

BLOCKS = ("k3", "k5", "k7", "xcep")
PAIRS = ("1w2a", "2w2a", "1w4a", "2w4a", "3w4a", "4w4a")
SHUFFLENET = {64: 4, 160: 4, 320: 8, 640: 4}
SHUFFLENET_SMALL = {32: 2, 64: 4, 128: 2}


def blocks(num_units):
    return {f"layer_{i}": BLOCKS for i in range(1, num_units + 1)}


def widths(stages, fractions, denominator):
    """Labels of channels: of each unit, its output channels times the fractions, rounded down."""
    outputs = [width for width, repeats in stages.items() for _ in range(repeats)]
    return {
        f"channels_{i}": tuple(dict.fromkeys(width * n // denominator for n in fractions))
        for i, width in enumerate(outputs, 1)
    }


def mid_channels(stages):
    return widths(stages, range(1, 9), 10)  # half the outputs, times 0.2 to 1.6


def residual(stages):
    inner = widths(stages, (2, 3, 4, 5, 6), 4)
    return inner | {f"bits_{i}": PAIRS for i in range(1, len(inner) + 1)}


def inverted(repeats, kinds, kept_shapes=()):
    """Labels of inverted residuals: the first unit of a stage, unless given, cannot be skipped."""
    firsts = set(itertools.accumulate((1, *repeats))) - set(kept_shapes)
    return {
        f"layer_{i}": kinds if i in firsts else (*kinds, "skip") for i in range(1, sum(repeats) + 1)
    }


PROXYLESS = ("k3e3", "k3e6", "k5e3", "k5e6", "k7e3", "k7e6")
PROXYLESSNAS = inverted((4, 4, 4, 4, 4, 1), PROXYLESS)
FBNET = ("k3e1", "k3e1g2", "k3e3", "k3e6", "k5e1", "k5e1g2", "k5e3", "k5e6")

LABELS = {
    "shufflenet": blocks(20),
    "shufflenet_small": blocks(8),
    "shufflenet_channels": mid_channels(SHUFFLENET),
    "shufflenet_channels_small": mid_channels(SHUFFLENET_SMALL),
    "shufflenet_joint": blocks(20) | mid_channels(SHUFFLENET),
    "shufflenet_joint_small": blocks(8) | mid_channels(SHUFFLENET_SMALL),
    "resnet18": residual({64: 2, 128: 2, 256: 2, 512: 2}),
    "resnet34": residual({64: 3, 128: 4, 256: 6, 512: 3}),
    "resnet_small": residual({8: 2, 16: 2, 32: 2}),
    "proxylessnas_cpu": PROXYLESSNAS,
    "proxylessnas_gpu": PROXYLESSNAS,
    "proxylessnas_mobile": PROXYLESSNAS,
    "proxylessnas_small": inverted((2, 3, 2), PROXYLESS),
    "fbnet": inverted((1, 4, 4, 4, 4, 4, 1), FBNET, [1]),
    "fbnet_small": inverted((1, 3, 4), FBNET, [1]),
    "nasbench_macro": {f"layer_{i}": ("identity", "k3e3", "k5e6") for i in range(1, 9)},
}

SMALLEST = {"input_size": 16, "in_channels": 1}
EVERYTHING = {"switchable_norm": True, "outer_bits": 8, "affine": True}
NUM_PATHS = 50
NUM_KEPT = 3
# Title to the arguments of the space, whose name is the title's first word, and the size of a
# batch.
CASES = {
    "shufflenet": ({"input_size": 32}, 2),
    "shufflenet_small": ({}, 4),
    "shufflenet_small of 16 pixels": (SMALLEST, 4),
    "shufflenet_small of 28 pixels": ({"input_size": 28, "in_channels": 1}, 4),
    "shufflenet_channels": ({"input_size": 32}, 2),
    "shufflenet_channels_small": ({**SMALLEST, "affine": True}, 4),
    "shufflenet_joint": ({"input_size": 32}, 2),
    "shufflenet_joint_small": (SMALLEST, 4),
    "resnet18": ({"input_size": 32}, 2),
    "resnet34": ({"input_size": 32}, 2),
    "resnet_small": (SMALLEST, 4),
    "resnet_small with everything": ({**SMALLEST, **EVERYTHING}, 4),
    "proxylessnas_cpu": ({"input_size": 32}, 2),
    "proxylessnas_gpu": ({"input_size": 32, "affine": True}, 2),
    "proxylessnas_mobile": ({"input_size": 32}, 2),
    "proxylessnas_small": (SMALLEST, 4),
    "proxylessnas_small of 28 pixels": ({"input_size": 28, "in_channels": 1}, 4),
    "fbnet": ({"input_size": 32}, 2),
    "fbnet_small": (SMALLEST, 4),
    "fbnet_small of 28 pixels": ({"input_size": 28, "in_channels": 1, "affine": True}, 4),
    "nasbench_macro": (SMALLEST, 4),
}


class Case:
    """A supernet whose weights and statistics look trained, so that outputs do not vanish."""

    def __init__(self, title):
        self.name = title.split()[0]
        self.arguments, batch = CASES[title]
        self.arguments = {"num_classes": 10, **self.arguments}
        torch.manual_seed(0)
        self.space = build_space(self.name, self.arguments, Form.SUPERNET)
        self.path_space = PathSpace.from_model_space(self.space)
        self.supernet = SinglePathOneShot().mutate_model(copy.deepcopy(self.space)).eval()
        self.randomize()
        size = self.space.input_size
        self.x = torch.randn(batch, self.space.in_channels, size, size)
        draws = UniformPrior(self.path_space).draw(NUM_PATHS, np.random.default_rng(0))
        self.paths = self.path_space.decode(draws)
        self.subnets, self.outputs, self.shared = [], [], []
        for path in self.paths:
            self.extract(path)

    def extract(self, path):
        """Run a path's own network, and keep only the first few: 50 take gigabytes."""
        subnet = extract_subnet(self.supernet, path).eval()
        with torch.no_grad():
            self.outputs.append(subnet(self.x))
        self.shared.append(storages(subnet) & storages(self.supernet))
        if len(self.subnets) < NUM_KEPT:
            self.subnets.append(subnet)

    def randomize(self):
        for module in self.supernet.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                fan_in = module.weight[0].numel()
                nn.init.normal_(module.weight, 0.0, (2 / fan_in) ** 0.5)
                if module.bias is not None:
                    nn.init.normal_(module.bias, 0.0, 0.1)
            elif isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
                nn.init.normal_(module.running_mean, 0.0, 0.1)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
                module.num_batches_tracked.fill_(7)
                if module.affine:
                    nn.init.uniform_(module.weight, 0.5, 1.2)
                    nn.init.normal_(module.bias, 0.0, 0.1)
            for parameter in module.parameters(recurse=False):
                if parameter.dim() == 0:  # a clipping value
                    nn.init.uniform_(parameter, 1.0, 4.0)

    def build(self, path):
        return build_space(self.name, self.arguments, Form.SUPERNET, path=path)


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return Case(request.param)


def choose(supernet, path):
    for module in supernet.modules():
        if hasattr(module, "resample"):
            module.resample(memo=path)
    return supernet


def largest_difference(a, b):
    return (a - b).abs().max().item()


def storages(network):
    tensors = [*network.parameters(), *network.buffers()]
    found = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    assert len(found) > 1
    assert 0 not in found
    return found


def test_labels_and_choices(case):
    assert dict(case.path_space) == LABELS[case.name]
    assert PathSpace.from_model_space(case.supernet) == case.path_space


def test_every_space_is_checked():
    assert {title.split()[0] for title in CASES} == set(SPACES) == set(LABELS)


def test_paths_differ_in_their_outputs(case):
    # Otherwise the comparisons below would show nothing.
    first, *rest = case.outputs
    assert first.shape == (len(case.x), 10)
    assert first.std() > 0.01
    assert all(largest_difference(first, other) > 0.01 for other in rest)


def test_supernet_at_a_path_equals_the_extracted_subnet(case):
    first = case.paths[0], case.outputs[0]
    # The first once more at the end: what ran in between leaves nothing behind.
    for path, expected in [*zip(case.paths, case.outputs, strict=True), first]:
        with torch.no_grad():
            assert largest_difference(choose(case.supernet, path)(case.x), expected) < 1e-5


def test_a_network_built_for_its_path_takes_the_weights(case):
    for path, subnet, expected in zip(case.paths, case.subnets, case.outputs, strict=False):
        network = case.build(path)
        assert not network.simplify()
        network.load_state_dict(subnet.state_dict(), strict=True)
        with torch.no_grad():
            assert largest_difference(network.eval()(case.x), expected) < 1e-5


def test_a_space_that_is_no_supernet_yet_freezes_to_the_same_network(case):
    names = list(case.subnets[0].state_dict())
    shapes = [tensor.shape for tensor in case.subnets[0].state_dict().values()]
    frozen = case.space.freeze(case.paths[0]).state_dict()
    assert (list(frozen), [tensor.shape for tensor in frozen.values()]) == (names, shapes)


def test_a_subnet_shares_no_storage_with_the_supernet(case):
    assert case.shared == [set()] * NUM_PATHS


def plain_name(name, path):
    """Return the name that a supernet's parameter has in the network of a path, if it has."""
    if match := re.match(r"features\.(\d+)\.(k\w+|xcep|identity)\.", name):
        if path[f"layer_{int(match[1]) + 1}"] != match[2]:
            return None
        name = name.replace(f".{match[2]}.", ".", 1)
    if match := re.search(r"\.(?:clips\.(\d+)|sets\.(\w+)\.(\w+))$", name):
        block = re.match(r"blocks\.(\d+)\.", name)
        pair = path[f"bits_{int(block[1]) + 1}"] if block else "8w8a"
        if match[1] not in (None, re.search(r"w(\d+)a", pair)[1]) or match[2] not in (None, pair):
            return None
        name = f"{name[: match.start()]}.{match[3] or 'clip'}"
    return name


def test_only_the_path_gets_gradients(case):
    # In double precision, where no rounding to levels falls the other way.
    supernet = copy.deepcopy(case.supernet).double()
    for path, subnet in list(zip(case.paths, case.subnets, strict=False))[:2]:
        supernet.zero_grad(set_to_none=True)
        subnet = copy.deepcopy(subnet).double()
        for network in (choose(supernet, path), subnet):
            network(case.x.double()).square().sum().backward()
        expected = dict(subnet.named_parameters())
        for name, parameter in supernet.named_parameters():
            plain = plain_name(name, path)
            if plain is None:
                assert parameter.grad is None, name
            else:
                # What is no part of the path adds nothing.
                total = expected.pop(plain).grad.abs().sum()
                torch.testing.assert_close(parameter.grad.abs().sum(), total, rtol=1e-6, atol=0)
                assert total > 0 or parameter.dim() == 0  # nothing reaches a clipping value
        assert not expected


@pytest.fixture(scope="module")
def regenerated():
    search_spaces = runpy.run_path(str(FOLDER / "generate.py"))["search_spaces"]
    return {file.name: (file, text) for file, text in search_spaces()}


@pytest.mark.parametrize("name", SPACES)
def test_the_search_space_file_equals_the_space(name, regenerated):
    file, text = regenerated[f"{name}.json"]
    assert file.read_text(encoding="utf-8") == text, "run python search_spaces/generate.py"
    space = PathSpace.from_model_space(SPACES[name]())
    assert PathSpace.from_search_space(json.loads(text)) == space
    assert dict(space) == LABELS[name]


def test_no_search_space_file_without_a_space(regenerated):
    assert {file.name for file in FOLDER.glob("*.json")} == set(regenerated)
