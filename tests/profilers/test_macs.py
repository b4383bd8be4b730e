import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn

from nni_spos.errors import CostError
from nni_spos.profilers import build_costs, count_macs, macs, register_macs


class Spectrum(nn.Module):
    """A layer of the user's own, which calls what cannot be counted."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return torch.fft.fft2(x).real * self.weight


class Twice(nn.Module):
    def forward(self, x):
        return x, x


class Bilinear(nn.Module):
    """Computes without layers."""

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


def test_an_operator_without_formula_is_refused_by_name_and_accepted_in_a_layer_with_one():
    with pytest.raises(CostError) as error:
        build_costs(Wrapped(Spectrum()), (3, 4, 4))
    line = Spectrum.forward.__code__.co_firstlineno + 1
    assert str(error.value) == (
        f"layer 'unit.own' (Spectrum) calls aten._fft_c2c (test_macs.py, line {line}), whose "
        "multiply-adds cannot be counted. Give the layer a formula with "
        "nni_spos.profilers.register_macs."
    )
    register_macs(Spectrum, lambda layer, x, y: x[1] * y[2] * y[3])
    costs = build_costs(Wrapped(Spectrum()), (3, 4, 4))
    assert costs["flops"].price({"unit": "own"}) == 3 * 4 * 4
    assert costs["flops"].price({"unit": "conv"}) == 9 * 16
    assert costs["params"].price({"unit": "own"}) == 1
    assert costs["params"].price({"unit": "conv"}) == 12


def test_a_formula_counts_for_sub_classes_and_not_for_bases():
    class Special(nn.Conv2d):
        pass

    class MoreSpecial(Special):
        pass

    assert count_macs(Special(4, 8, 1), (4, 2, 2)) == 4 * 8 * 4
    register_macs(Special, lambda layer, x, y: 1)
    assert count_macs(Special(4, 8, 1), (4, 2, 2)) == 1
    assert count_macs(MoreSpecial(4, 8, 1), (4, 2, 2)) == 1
    assert count_macs(nn.Conv2d(4, 8, 1), (4, 2, 2)) == 4 * 8 * 4


class Fork(ModelSpace):
    def __init__(self):
        super().__init__()
        self.twice = Twice()
        self.unit = LayerChoice([nn.ReLU(), nn.Conv2d(3, 3, 1)], label="unit")

    def forward(self, x):
        one, other = self.twice(x)
        return self.unit(one) + other


def test_a_formula_of_a_layer_with_several_outputs():
    assert build_costs(Fork(), (3, 4, 4))["flops"].price({"unit": 1}) == 9 * 16
    register_macs(Twice, lambda layer, x, y: y[1])
    assert build_costs(Fork(), (3, 4, 4))["flops"].price({"unit": 1}) == 9 * 16 + 3


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


@pytest.mark.parametrize("functional", [True, False])
def test_products_in_a_layer_and_outside(functional):
    table = build_costs(Head(functional), (3, 4, 4))["flops"]
    assert [table.price({"unit": choice}) for choice in (0, 1)] == [48 * 48, 48 * 48 + 9 * 16]


def test_a_formula_of_nothing_does_not_hide_products():
    register_macs(Bilinear, lambda layer, x, y: 0)
    line = Bilinear.forward.__code__.co_firstlineno + 1
    with pytest.raises(CostError) as error:
        build_costs(Head(functional=False), (3, 4, 4))
    assert str(error.value) == (
        "layer 'head' (Bilinear): its formula gives 0 multiply-adds, and it does 2304 (aten.mm "
        f"(test_macs.py, line {line})). Give it another one with nni_spos.profilers.register_macs."
    )
    register_macs(Bilinear, lambda layer, x, y: 7)  # as it may be deployed
    assert build_costs(Head(functional=False), (3, 4, 4))["flops"].price({"unit": 0}) == 7
