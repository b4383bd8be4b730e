"""A layer with a formula of the user's own counts as one, with all that it calls."""

import nni
import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice
from small_networks import IMAGE, MACS, Small, assert_right, features, small
from torch import nn
from torch.nn.utils import parametrizations, prune

from nni_spos.errors import CostError
from nni_spos.mutables import MutableConv2d
from nni_spos.profilers import build_costs, macs, register_macs


@pytest.fixture(autouse=True)
def _restore_formulas():
    before = dict(macs._FORMULAS)
    yield
    macs._FORMULAS.clear()
    macs._FORMULAS.update(before)


class Block(nn.Module):
    """Layers, and a product outside of them."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.last = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.last(self.conv(x)) @ x


class OwnBlock(Block):
    """Has the formula of its base."""


def last(space, x):
    return space.last(features(space, x))


def flops_of(space):
    table = build_costs(space(), IMAGE)["flops"]
    return {choice: table.price({"unit": choice}) for choice in MACS}


def refusal(space):
    with pytest.raises(CostError) as error:
        build_costs(space(), IMAGE)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("block", [Block, OwnBlock])
def test_a_block_counts_by_its_formula(block):
    space = small(last, last=block)
    # Two layers of 16 pixels, 4 outputs and 4 inputs, and 4 products of 4 x 4 matrices.
    assert flops_of(space) == {choice: number + 3 * 256 for choice, number in MACS.items()}
    seen = []
    register_macs(Block, lambda layer, x, y: seen.append((type(layer), x, y)) or 1000)
    assert flops_of(space) == {choice: number + 1000 for choice, number in MACS.items()}
    assert set(seen) == {(block, (1, 4, 4, 4), (1, 4, 4, 4))}
    params = build_costs(space(), IMAGE)["params"].price({"unit": "k1"})
    assert params == 40 + 8 + 20 + 50 + 2 * 20


class Shared(Small):
    """One layer of a block is also called beside it."""

    def build(self):
        self.block = Block()
        self.conv = self.block.conv

    def body(self, x):
        return self.block(self.conv(super().body(x)))


def test_a_layer_of_a_block_that_is_called_beside_it():
    register_macs(Block, lambda *_: 1000)
    # 16 pixels of 4 outputs from 4 inputs, once.
    assert flops_of(Shared) == {choice: number + 1256 for choice, number in MACS.items()}


def test_a_block_inside_of_a_block_and_in_a_unit():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Block()

        def forward(self, x):
            return self.block(x) @ x

    def inside():
        return LayerChoice({"outer": Outer(), "block": Block()}, label="last")

    register_macs(Block, lambda *_: 1000)
    register_macs(Outer, lambda *_: 7)
    table = build_costs(small(last, last=inside)(), IMAGE)["flops"]
    prices = {x: table.price({"unit": "k1", "last": x}) - MACS["k1"] for x in ("outer", "block")}
    assert prices == {"outer": 7, "block": 1000}


def attention(space, x):
    x = features(space, x).flatten(2).transpose(1, 2)
    return space.attention(x, x, x)[0].transpose(1, 2).unsqueeze(3)


def attention_at_value(space, x):
    return attention(space, x) * float(x.std())


@pytest.mark.parametrize("body", [attention, attention_at_value])
def test_attention(body):
    # 16 positions of 4 features: four projections, and all pairs twice.
    macs_of_it = 4 * 16 * 4**2 + 2 * 16**2 * 4
    space = small(body, attention=lambda: nn.MultiheadAttention(4, 2, batch_first=True))
    assert flops_of(space) == {choice: number + macs_of_it for choice, number in MACS.items()}
    register_macs(nn.MultiheadAttention, lambda *_: 7)
    assert flops_of(space) == {choice: number + 7 for choice, number in MACS.items()}
    assert torch.backends.mha.get_fastpath_enabled()


class Quantizer(nn.Module):
    def __init__(self):
        super().__init__()
        self.step = nn.Parameter(torch.tensor(0.1))

    def forward(self, x):
        return (x / self.step).round() * self.step


class QuantizedConv(nn.Conv2d):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.quantizers = nn.ModuleList([Quantizer(), Quantizer()])

    def forward(self, x):
        one, other = self.quantizers
        return self._conv_forward(one(x), other(self.weight), self.bias)


def test_a_convolution_with_layers_for_its_weights():
    space = small(last, last=lambda: QuantizedConv(4, 4, 3, 1, 1))
    expected = {choice: number + 16 * 16 * 9 for choice, number in MACS.items()}
    assert flops_of(space) == expected
    register_macs(Quantizer, lambda *_: 0)
    assert flops_of(space) == expected
    register_macs(QuantizedConv, lambda layer, x, y: y[1] * y[2] * y[3] * layer.weight[0].numel())
    assert flops_of(space) == expected


REPARAMETRIZED = {
    "weight_norm": lambda: parametrizations.weight_norm(nn.Conv2d(4, 4, 3, 1, 1)),
    "spectral_norm": lambda: parametrizations.spectral_norm(nn.Conv2d(4, 4, 3, 1, 1)),
    "orthogonal": lambda: parametrizations.orthogonal(nn.Conv2d(4, 4, 1)),
    "older weight_norm": lambda: nn.utils.weight_norm(nn.Conv2d(4, 4, 3, 1, 1)),
    "older spectral_norm": lambda: nn.utils.spectral_norm(nn.Conv2d(4, 4, 3, 1, 1)),
    "pruned": lambda: prune.l1_unstructured(nn.Conv2d(4, 4, 3, 1, 1), "weight", 0.5),
}


def last_at_value(space, x):
    return last(space, x) * float(x.std())


@pytest.mark.parametrize("body", [last, last_at_value])
@pytest.mark.parametrize("make", REPARAMETRIZED.values(), ids=REPARAMETRIZED)
def test_a_layer_whose_weight_is_computed_counts_as_the_layer(make, body):
    space = small(body, last=make)
    assert_right(build_costs(space(), IMAGE), space)


def test_choices_in_a_block_with_a_formula_are_refused():
    class WithUnit(Block):
        def __init__(self):
            super().__init__()
            self.last = LayerChoice([nn.Conv2d(4, 4, 1), nn.Identity()], label="inner")

    class WithWidth(Block):
        def __init__(self):
            super().__init__()
            width = nni.choice("width", [2, 4])
            self.last = nn.Sequential(MutableConv2d(4, width, 1), MutableConv2d(width, 4, 1))

    register_macs(Block, lambda *_: 1000)
    for block, label in ((WithUnit, "inner"), (WithWidth, "width")):
        assert refusal(small(last, last=block)) == (
            f"layer 'last' ({block.__name__}): has a formula for its multiply-adds, and choices "
            f"inside ({label}), so that it cannot count as one layer. Give formulas to the layers "
            "inside of it instead."
        )
    flops_of(small(last, last=Block))


@pytest.mark.parametrize(
    ("formula", "reason"),
    [
        (lambda *_: "7", "must give a whole number of at least 0, got '7'."),
        (lambda *_: 1.5, "must give a whole number of at least 0, got 1.5."),
        (lambda *_: -1, "must give a whole number of at least 0, got -1."),
        (lambda *_: float("nan"), "must give a whole number of at least 0, got nan."),
        (lambda *_: None, "must give a whole number of at least 0, got None."),
        (lambda _, x, y: y[9], "fails for input (1, 4, 4, 4) and output (1, 4, 4, 4) (IndexError:"),
    ],
)
def test_a_formula_that_gives_no_number(formula, reason):
    register_macs(Block, formula)
    message = refusal(small(last, last=Block))
    assert f"layer 'last': the formula for the multiply-adds of a Block {reason}" in message
    register_macs(Block, lambda *_: 1000.0)
    assert flops_of(small(last, last=Block))["k1"] == MACS["k1"] + 1000
