import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn

from nni_spos.errors import CostError
from nni_spos.profilers import build_costs, count_macs, macs, register_macs


class Scale(nn.Module):
    """A layer of the user's own: one multiplication for each element."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x * self.weight


class Twice(nn.Module):
    def forward(self, x):
        return x, x


class Bilinear(nn.Module):
    """Computes in a way that PyTorch's own counter sees."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, channels))

    def forward(self, x):
        return torch.matmul(x.flatten(1), self.weight)


class Wrapped(ModelSpace):
    def __init__(self, layer):
        super().__init__()
        self.unit = LayerChoice({"own": layer, "conv": nn.Conv2d(3, 3, 1)}, label="unit")

    def forward(self, x):
        return self.unit(x)


@pytest.fixture(autouse=True)
def _restore_formulas():
    before = dict(macs._FORMULAS)
    yield
    macs._FORMULAS.clear()
    macs._FORMULAS.update(before)


@pytest.mark.parametrize(
    ("layer", "input_shape", "expected"),
    [
        # 6x6 outputs of 8 channels, each from 3x3 of 4 channels.
        (nn.Conv2d(4, 8, 3), (1, 4, 8, 8), 6 * 6 * 8 * 3 * 3 * 4),
        (nn.Conv2d(4, 8, 3, bias=False), (1, 4, 8, 8), 6 * 6 * 8 * 3 * 3 * 4),
        (nn.Conv2d(4, 8, 3, stride=2, padding=1), (1, 4, 8, 8), 4 * 4 * 8 * 3 * 3 * 4),
        (nn.Conv2d(4, 8, (1, 3), groups=2), (1, 4, 8, 8), 8 * 6 * 8 * 3 * 2),
        (nn.Conv2d(4, 4, 3, padding=1, groups=4), (1, 4, 7, 7), 7 * 7 * 4 * 9),
        (nn.Conv2d(4, 8, 3, padding=2, dilation=2), (1, 4, 8, 8), 8 * 8 * 8 * 9 * 4),
        (nn.Conv1d(2, 3, 5), (1, 2, 9), 5 * 3 * 5 * 2),
        (nn.Conv3d(2, 3, 2), (1, 2, 3, 3, 3), 8 * 3 * 8 * 2),
        (nn.Linear(5, 7), (1, 5), 35),
        (nn.Linear(5, 7, bias=False), (1, 11, 5), 11 * 35),
        (nn.BatchNorm2d(4), (1, 4, 8, 8), 0),
        (nn.ReLU(), (1, 4, 8, 8), 0),
        (nn.MaxPool2d(2), (1, 4, 8, 8), 0),
        (nn.Sequential(), (1, 4), 0),
    ],
    ids=str,
)
def test_formulas(layer, input_shape, expected):
    output = layer.eval()(torch.zeros(input_shape))
    assert count_macs(layer, input_shape, tuple(output.shape)) == expected


def test_a_subclass_counts_as_its_base():
    class Special(nn.Conv2d):
        pass

    assert count_macs(Special(4, 8, 1), (1, 4, 2, 2), (1, 8, 2, 2)) == 4 * 8 * 4


def test_unknown_layer_is_refused_by_name_and_accepted_with_a_formula():
    with pytest.raises(CostError) as error:
        build_costs(Wrapped(Scale()), (3, 4, 4))
    assert str(error.value) == (
        "layer 'unit.own': no formula for the multiply-adds of a Scale. "
        "Give one with nni_spos.profilers.register_macs."
    )
    register_macs(Scale, lambda layer, x, y: x[1] * y[2] * y[3])
    costs = build_costs(Wrapped(Scale()), (3, 4, 4))
    assert costs["flops"].price({"unit": "own"}) == 3 * 4 * 4
    assert costs["flops"].price({"unit": "conv"}) == 9 * 16
    assert costs["params"].price({"unit": "own"}) == 1
    assert costs["params"].price({"unit": "conv"}) == 12


def test_a_formula_of_the_users_wins_over_that_of_the_base():
    class Special(nn.Conv2d):
        pass

    register_macs(Special, lambda layer, x, y: 1)
    layer = Special(4, 8, 1)
    assert count_macs(layer, (1, 4, 2, 2), (1, 8, 2, 2)) == 1
    assert count_macs(nn.Conv2d(4, 8, 1), (1, 4, 2, 2), (1, 8, 2, 2)) == 4 * 8 * 4


class Fork(ModelSpace):
    def __init__(self):
        super().__init__()
        self.twice = Twice()
        self.unit = LayerChoice([nn.ReLU(), nn.Conv2d(3, 3, 1)], label="unit")

    def forward(self, x):
        one, other = self.twice(x)
        return self.unit(one) + other


def test_a_layer_with_several_outputs_needs_a_formula_too():
    with pytest.raises(CostError, match=r"layer 'twice': no formula .* of a Twice"):
        build_costs(Fork(), (3, 4, 4))
    register_macs(Twice, lambda layer, x, y: 0)
    assert build_costs(Fork(), (3, 4, 4))["flops"].price({"unit": 1}) == 9 * 16


class Head(ModelSpace):
    """A unit, and then a product of matrices in a layer, or outside of layers."""

    def __init__(self, functional):
        super().__init__()
        self.unit = LayerChoice([nn.ReLU(), nn.Conv2d(3, 3, 1)], label="unit")
        self.head = None if functional else Bilinear(48)
        self.weight = nn.Parameter(torch.zeros(48, 48))

    def forward(self, x):
        x = self.unit(x)
        return torch.matmul(x.flatten(1), self.weight) if self.head is None else self.head(x)


def test_functional_products_are_refused_and_accepted_in_a_layer_with_a_formula():
    with pytest.raises(CostError, match=r"2304 multiply-adds outside of layers .*register_macs"):
        build_costs(Head(functional=True), (3, 4, 4))
    register_macs(Bilinear, lambda layer, x, y: y[-1] * len(layer.weight))
    table = build_costs(Head(functional=False), (3, 4, 4))["flops"]
    assert [table.price({"unit": choice}) for choice in (0, 1)] == [48 * 48, 48 * 48 + 9 * 16]


def test_a_formula_of_nothing_does_not_hide_products():
    register_macs(Bilinear, lambda layer, x, y: 0)
    with pytest.raises(CostError, match="2304 multiply-adds outside of layers"):
        build_costs(Head(functional=False), (3, 4, 4))
