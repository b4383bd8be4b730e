"""What every search space promises."""

import copy
import itertools
import json
import re
import runpy
from pathlib import Path

import pytest
import torch

from nni_spos.path import PathSpace
from nni_spos.recipe.spaces import space_parameters
from nni_spos.spaces import SPACES
from nni_spos.testing.spaces import CHECKS, SpaceCase, choose, storages

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

NARROW = (8, 12, 16, 8, 12, 4, 20)
"""Full widths that are computed with in moments."""


def quarters(widths):
    return {f"channels_{i}": tuple(n * x // 4 for x in (1, 2, 3, 4)) for i, n in enumerate(widths)}


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
    "channelbench_resnet": quarters(NARROW),
    "channelbench_mobilenet": quarters(NARROW),
}

SMALLEST = {"input_size": 16, "in_channels": 1}
EVERYTHING = {"switchable_norm": True, "outer_bits": 8, "affine": True}
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
    "resnet_small with a norm for activations": (
        {**SMALLEST, **EVERYTHING, "norm_per": "activation_bits"},
        4,
    ),
    "proxylessnas_cpu": ({"input_size": 32}, 2),
    "proxylessnas_gpu": ({"input_size": 32, "affine": True}, 2),
    "proxylessnas_mobile": ({"input_size": 32}, 2),
    "proxylessnas_small": (SMALLEST, 4),
    "proxylessnas_small of 28 pixels": ({"input_size": 28, "in_channels": 1}, 4),
    "fbnet": ({"input_size": 32}, 2),
    "fbnet_small": (SMALLEST, 4),
    "fbnet_small of 28 pixels": ({"input_size": 28, "in_channels": 1, "affine": True}, 4),
    "nasbench_macro": (SMALLEST, 4),
    "channelbench_resnet": ({**SMALLEST, "full_channels": NARROW}, 4),
    "channelbench_mobilenet": ({**SMALLEST, "full_channels": NARROW, "affine": True}, 4),
}
FULL_SIZE = [title for title, (_, batch) in CASES.items() if batch == 2]


def make(title):
    arguments, batch_size = CASES[title]
    num_paths = 50 if title in FULL_SIZE else 5
    return SpaceCase(title.split()[0], arguments, batch_size=batch_size, num_paths=num_paths)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(title, marks=pytest.mark.slow if title in FULL_SIZE else ()) for title in CASES
    ],
)
def case(request):
    return make(request.param)


def test_labels_and_choices(case):
    assert dict(case.path_space) == LABELS[case.name]
    assert len(storages(case.supernet)) > 1


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_contract(case, check):
    check(case)


def test_every_space_is_checked():
    assert {title.split()[0] for title in CASES} == set(SPACES.ours) == set(LABELS)


def plain_name(name, path):
    """Return the name that a supernet's parameter has in the network of a path, if it has."""
    if match := re.match(r"features\.(\d+)\.(k\w+|xcep|identity)\.", name):
        if path[f"layer_{int(match[1]) + 1}"] != match[2]:
            return None
        name = name.replace(f".{match[2]}.", ".", 1)
    if match := re.search(r"\.(?:clips\.(\d+)|sets\.(\w+)\.(\w+))$", name):
        block = re.match(r"blocks\.(\d+)\.", name)
        pair = path[f"bits_{int(block[1]) + 1}"] if block else "8w8a"
        bits = re.search(r"w(\d+)a", pair)[1]
        if match[1] not in (None, bits) or match[2] not in (None, pair, f"{bits}a"):
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


@pytest.mark.parametrize("name", SPACES.ours)
def test_the_search_space_file_equals_the_space(name, regenerated):
    file, text = regenerated[f"{name}.json"]
    assert file.read_text(encoding="utf-8") == text, "run python search_spaces/generate.py"
    space = PathSpace.from_model_space(SPACES.find(name)())
    assert PathSpace.from_search_space(json.loads(text)) == space
    assert set(space) == set(LABELS[name])
    if "full_channels" not in space_parameters(SPACES.find(name)):  # there the cases are narrower
        assert dict(space) == LABELS[name]


def test_no_search_space_file_without_a_space(regenerated):
    assert {file.name for file in FOLDER.glob("*.json")} == set(regenerated)
