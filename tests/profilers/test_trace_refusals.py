"""What cannot be counted by choice is refused by name, beside what can."""

import itertools

import nni
import pytest
import torch
from layer_chain import IMAGE, Chain, conv, head, width
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableAvgPool2d, MutableDropout
from torch import nn

from nni_spos.errors import CostError
from nni_spos.mutables import MutableBatchNorm2d, MutableConv2d, QuantConv2d
from nni_spos.profilers import build_costs, macs, register_macs


@pytest.fixture(autouse=True)
def _restore_formulas():
    before = dict(macs._FORMULAS)
    yield
    macs._FORMULAS.clear()
    macs._FORMULAS.update(before)


def costs_of(build_layers):
    return build_costs(Chain(build_layers), IMAGE)


def refusal(build_layers):
    with pytest.raises(CostError) as error:
        costs_of(build_layers)
    message = str(error.value)
    assert "\n" not in message
    return message


def strided(inputs, stride):
    return MutableConv2d(inputs, 4, 3, padding=1, stride=stride)


def stride():
    return nni.choice("stride", [1, 2])


def test_a_stride_before_a_layer_with_choices_of_its_own():
    message = refusal(lambda: [strided(3, stride()), conv(4, width())])
    assert message == (
        "layer 'layers.1': the size of its input, (1, 4, 3, 3) or (1, 4, 6, 6), depends on "
        "choices other than its own (width), so that it cannot be counted by choice."
    )
    costs_of(lambda: [strided(3, 2), conv(4, width())])


def test_a_stride_before_a_mutable_layer_without_choices():
    message = refusal(lambda: [strided(3, stride()), conv(4, 5)])
    assert message.startswith("layer 'layers.1' (Conv2d): its multiply-adds depend on choices else")
    costs_of(lambda: [conv(3, 3), strided(3, stride())])


def test_a_stride_before_a_quantized_layer():
    def quantized():
        return QuantConv2d(4, 4, 1, signed=True, activation_bits=nni.choice("bits", [2, 4]))

    message = refusal(lambda: [strided(3, stride()), quantized()])
    assert message.startswith("layer 'layers.1': the size of its input, ")
    assert "(bits)" in message
    costs_of(lambda: [strided(3, 2), quantized(), MutableBatchNorm2d(4)])


PLAIN = (
    "layer 'layers.1' (Conv2d): its multiply-adds depend on choices elsewhere. Make the numbers "
    "that it depends on choices of its own, with the classes of nni_spos.mutables."
)


def test_a_stride_before_a_plain_layer():
    assert refusal(lambda: [strided(3, stride()), nn.Conv2d(4, 5, 1)]) == PLAIN
    # What has no cost may see other sizes.
    table = costs_of(lambda: [strided(3, stride()), nn.ReLU(), *head(4)])["flops"]
    assert [table.price({"stride": x}) for x in (1, 2)] == [36 * 108 + 20, 9 * 108 + 20]


def test_a_stride_that_only_a_choice_in_the_middle_changes():
    def uneven():
        return nni.choice("stride", [2, 4, 1, 6]) % 2 + 1  # 1, 1, 2, 1

    assert refusal(lambda: [strided(3, uneven()), nn.Conv2d(4, 5, 1)]) == PLAIN
    table = costs_of(lambda: [strided(3, uneven()), *head(4)])["flops"]
    assert [table.price({"stride": x}) for x in (2, 4, 1, 6)] == [3908, 3908, 992, 3908]


def test_a_stride_inside_of_a_unit():
    def layers(build):
        yield LayerChoice({"a": nn.Sequential(*build()), "b": nn.Identity()}, label="unit")
        yield nn.AdaptiveAvgPool2d(1)

    def bad():
        return [strided(3, stride()), nn.Conv2d(4, 3, 1), nn.Upsample((6, 6))]

    message = refusal(lambda: layers(bad))
    assert message.startswith("layer 'layers.0.a.1' (Conv2d): its multiply-adds depend on choices")
    costs_of(lambda: layers(lambda: [strided(3, 1), conv(4, width()), conv(width(), 3)]))


@pytest.mark.parametrize("num_between", range(1, 10))
@pytest.mark.parametrize("choices", [(4, 8), (4, 6, 8)], ids=["two", "three"])
def test_channels_that_follow_the_wrong_label(num_between, choices):
    # Both labels have the same choices, so that the layers fit where they go together.
    labels = [f"width_{i}" for i in range(num_between + 1)]

    def layers(last):
        widths = [3, *(width(label, choices) for label in labels)]
        yield from [conv(before, after) for before, after in itertools.pairwise(widths)]
        yield conv(width(last, choices), 2)

    message = refusal(lambda: layers(labels[0]))
    assert message.startswith("images of shape (3, 6, 6) do not fit the space (")
    costs_of(lambda: layers(labels[-1]))


def test_batch_norm_of_other_channels():
    message = refusal(lambda: [conv(3, width()), MutableBatchNorm2d(width("other"))])
    assert "a BatchNorm of 6 channels got 4" in message
    message = refusal(lambda: [conv(3, 4), MutableBatchNorm2d(width())])
    assert "a BatchNorm of 6 channels got 4" in message
    costs_of(lambda: [conv(3, width()), MutableBatchNorm2d(width())])


def test_choices_of_a_unit_with_other_channels():
    def layers(outputs):
        yield LayerChoice({"a": conv(3, width()), "b": conv(3, outputs)}, label="unit")
        yield conv(width(), 2)

    assert refusal(lambda: layers(4)).startswith("unit 'unit': its choices have different outputs")
    costs_of(lambda: layers(width()))


@pytest.mark.parametrize(
    ("bad", "good", "name"),
    [
        (
            lambda: MutableDropout(nni.choice("p", [0.1, 0.2])),
            lambda: MutableDropout(0.1),
            "MutableDropout",
        ),
        (
            lambda: MutableAvgPool2d(nni.choice("size", [1, 3]), 1),
            lambda: MutableAvgPool2d(3, 1),
            "MutableAvgPool2d",
        ),
    ],
    ids=["MutableDropout", "MutableAvgPool2d"],
)
def test_mutables_without_a_weight_sharing_form_are_named(bad, good, name):
    assert refusal(lambda: [conv(3, width()), conv(width(), 3), bad()]) == (
        f"'layers.2' ({name}): nni_spos shares no weights of it among its choices, and so cannot "
        "count it. Layers that can have choices are in nni_spos.mutables; or choose among whole "
        "modules with a LayerChoice."
    )
    costs_of(lambda: [conv(3, width()), conv(width(), 3), good()])


class PixelWeights(nn.Module):
    """A layer of the user's own with a weight for every pixel of every channel."""

    def forward(self, x):
        return x * torch.ones_like(x)


def test_a_users_layer_with_a_formula():
    def layers():
        yield from [conv(3, width()), conv(width(), 4), PixelWeights()]

    assert costs_of(layers)["flops"].price({"width": 6}) == 36 * (3 * 6 + 6 * 4)
    register_macs(PixelWeights, lambda layer, x, y: y[1] * y[2] * y[3])
    table = costs_of(layers)["flops"]
    assert table.price({"width": 6}) == 36 * (3 * 6 + 6 * 4 + 4)


def test_a_users_layer_whose_cost_follows_choices_elsewhere():
    def layers():
        yield from [conv(3, width()), PixelWeights(), conv(width(), 4)]

    register_macs(PixelWeights, lambda layer, x, y: y[1] * y[2] * y[3])
    assert refusal(layers) == PLAIN.replace("Conv2d", "PixelWeights")
    register_macs(PixelWeights, lambda layer, x, y: 0)
    assert costs_of(layers)["flops"].price({"width": 6}) == 36 * (3 * 6 + 6 * 4)


class Functional(Chain):
    """Does a product of matrices outside of layers."""

    def forward(self, x):
        x = super().forward(x)
        return torch.matmul(x.flatten(1), torch.ones(4 * 36, 5, device=x.device))


def test_products_outside_of_layers_beside_layers_with_choices():
    def layers():
        # The inner channels follow the unit's own choice: one run cannot be a path everywhere.
        inner = nni.choice("unit", [0, 1]) * 3 + 1
        blocks = [nn.Sequential(conv(3, inner, k), conv(inner, 4)) for k in (1, 3)]
        yield from [LayerChoice(blocks, label="unit"), conv(4, width()), conv(width(), 4)]

    one, other = build_costs(Functional(layers), IMAGE)["flops"], costs_of(layers)["flops"]
    assert one.constant - other.constant == 4 * 36 * 5
    assert one.dearest()[0] - other.dearest()[0] == 4 * 36 * 5


class Fickle(Chain):
    """Leaves its last layer out where there are few channels."""

    def forward(self, x):
        *layers, last = self.layers
        for layer in layers:
            x = layer(x)
        return last(x) if x.shape[1] > 4 else x


def test_layers_that_are_left_out_for_some_channels():
    def layers(w):
        return [conv(3, w), conv(w, 4)]

    with pytest.raises(CostError, match="calls other layers for other choices"):
        build_costs(Fickle(lambda: layers(width())), IMAGE)
    build_costs(Fickle(lambda: layers(width(choices=(5, 6)))), IMAGE)


class Shortcut(ModelSpace):
    """Projects only where the shapes differ, which two choices decide together."""

    def __init__(self, *choices):
        super().__init__()
        one, other = (nni.choice(label, list(values)) for label, values in choices)
        self.stem = MutableConv2d(3, one, 3, padding=1)
        self.body = MutableConv2d(one, other, 3, padding=1)
        self.project = MutableConv2d(one, other, 1)

    def forward(self, x):
        x = self.stem(x)
        y = self.body(x)
        return y + (x if x.shape == y.shape else self.project(x))


@pytest.mark.parametrize(
    "values", [((4, 8), (4, 8)), ((4, 8, 12), (4, 8, 12)), ((4, 8), (8, 16)), ((8, 16), (4, 8))]
)
def test_layers_that_two_choices_decide_together_are_refused(values):
    with pytest.raises(CostError, match="calls other layers for other choices"):
        build_costs(Shortcut(("w", values[0]), ("v", values[1])), IMAGE)
