"""What every search space promises."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from nni.nas.oneshot.pytorch.strategy import RandomOneShot
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from torch import nn

from nni_spos.path import PathSpace
from nni_spos.priors import UniformPrior
from nni_spos.spaces import SPACES, ShuffleNetV2Space
from nni_spos.spaces.shufflenet import SMALL

FOLDER = Path(__file__).parents[2] / "search_spaces"


def small(**arguments):
    return {**SMALL, "num_classes": 10, **arguments}


# Name to the class and its arguments, the shape of a batch, labels and their choices.
BLOCKS = ("k3", "k5", "k7", "xcep")
SPACES_TO_CHECK = {
    "shufflenet": (ShuffleNetV2Space, {}, (1, 3, 224, 224), {20: BLOCKS}),
    "small-16": (
        ShuffleNetV2Space,
        small(input_size=16, in_channels=1),
        (4, 1, 16, 16),
        {8: BLOCKS},
    ),
    "small-28": (
        ShuffleNetV2Space,
        small(input_size=28, in_channels=1),
        (4, 1, 28, 28),
        {8: BLOCKS},
    ),
    "small-32": (ShuffleNetV2Space, small(), (4, 3, 32, 32), {8: BLOCKS}),
}


class Case:
    """A space whose weights and statistics look trained, so that outputs do not vanish."""

    def __init__(self, name):
        cls, self.arguments, shape, self.units = SPACES_TO_CHECK[name]
        self.cls = cls
        torch.manual_seed(0)
        self.space = cls(**self.arguments).eval()
        for module in self.space.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                fan_in = module.weight[0].numel()
                nn.init.normal_(module.weight, 0.0, (2 / fan_in) ** 0.5)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, 0.0, 0.1)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
        self.x = torch.randn(shape)
        self.path_space = PathSpace.from_model_space(self.space)
        draws = UniformPrior(self.path_space, seed=0).draw(3, np.random.default_rng(0))
        self.paths = self.path_space.decode(draws)
        with torch.no_grad():
            self.subnet_outputs = [self.space.freeze(path)(self.x) for path in self.paths]


@pytest.fixture(scope="module", params=SPACES_TO_CHECK)
def case(request):
    return Case(request.param)


@pytest.fixture(scope="module")
def supernet(case):
    supernet = case.cls(**case.arguments)
    RandomOneShot().mutate_model(supernet)
    supernet.load_state_dict(case.space.state_dict())
    return supernet.eval()


def choose(supernet, path):
    units = [m for m in supernet.modules() if isinstance(m, BaseSuperNetModule)]
    assert units
    for unit in units:
        unit.resample(memo=path)


def largest_difference(a, b):
    return (a - b).abs().max().item()


def test_labels_and_choices(case, supernet):
    (number, choices), *rest = case.units.items()
    assert not rest
    expected = {f"layer_{i}": choices for i in range(1, number + 1)}
    assert dict(case.path_space) == expected
    assert case.path_space.labels == tuple(expected)
    assert PathSpace.from_model_space(supernet) == case.path_space


def test_paths_differ_in_their_outputs(case):
    # Otherwise the comparisons below would show nothing.
    first, second, third = case.subnet_outputs
    assert first.std() > 0.01
    assert largest_difference(first, second) > 0.01
    assert largest_difference(first, third) > 0.01


def test_supernet_at_a_path_equals_the_frozen_subnet(case, supernet):
    for path, expected in zip(case.paths, case.subnet_outputs, strict=True):
        choose(supernet, path)
        with torch.no_grad():
            assert largest_difference(supernet(case.x), expected) < 1e-5
            assert largest_difference(supernet.freeze(path).eval()(case.x), expected) < 1e-5


def test_the_order_of_paths_does_not_matter(case, supernet):
    for path, expected in reversed(list(zip(case.paths, case.subnet_outputs, strict=True))):
        choose(supernet, path)
        with torch.no_grad():
            assert largest_difference(supernet(case.x), expected) < 1e-5


def test_a_new_subnet_takes_the_weights_of_the_supernet(case, supernet):
    path, expected = case.paths[0], case.subnet_outputs[0]
    subnet = case.cls.frozen_factory(path)(**case.arguments, affine=False)
    subnet.load_state_dict(supernet.freeze(path).state_dict(), strict=True)
    with torch.no_grad():
        assert largest_difference(subnet.eval()(case.x), expected) < 1e-5


def test_outputs_are_one_score_for_each_class(case):
    classes = case.arguments.get("num_classes", 1000)
    assert case.subnet_outputs[0].shape == (len(case.x), classes)


def test_only_the_path_gets_gradients(case, supernet):
    path = case.paths[0]
    choose(supernet, path)
    supernet.zero_grad(set_to_none=True)
    supernet(case.x).sum().backward()
    used = {name for name, p in supernet.named_parameters() if p.grad is not None}
    supernet.zero_grad(set_to_none=True)
    chosen = {f"features.{i}.{choice}." for i, choice in enumerate(path.values())}
    shared = ("first_conv.", "conv_last.", "classifier.")
    names = [name for name, _ in supernet.named_parameters()]
    assert used == {name for name in names if name.startswith((*shared, *chosen))}


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


def test_no_search_space_file_without_a_space(regenerated):
    assert {file.name for file in FOLDER.glob("*.json")} == set(regenerated)
