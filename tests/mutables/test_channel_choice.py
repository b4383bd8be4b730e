"""Numbers of channels: how they are rounded, which are refused, and labels that occur twice."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from nni.mutable import Categorical, MutableExpression
from nni.nas.nn.pytorch import ModelSpace
from small_spaces import Chain, build_supernet, choose
from torch import nn

from nni_spos.errors import PathError, SpaceError, SposError
from nni_spos.mutables import (
    SCALES,
    MutableConv2d,
    channel_choice,
    channel_labels,
    scale_channels,
    share_weights,
)
from nni_spos.path import PathSpace
from nni_spos.profilers import build_costs
from nni_spos.supernet import SinglePathOneShot


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        (48, [9, 19, 28, 38, 48, 57, 67, 76]),  # 9.6, 19.2, 28.8, 38.4, 48, 57.6, 67.2, 76.8
        (5, [1, 2, 3, 4, 5, 6, 7, 8]),
        (35, [7, 14, 21, 28, 35, 42, 49, 56]),
    ],
)
def test_scales_are_rounded_down(channels, expected):
    assert list(channel_choice("w", channels).values) == expected
    assert [scale_channels(channels, scale) for scale in SCALES] == expected


def test_the_product_is_exact_where_that_of_floats_is_not():
    assert int(45 * 1.4) == 62
    assert scale_channels(45, 1.4) == 63
    assert scale_channels(90, 1.4, multiple_of=4) == 128  # 126, a half between 124 and 128


@pytest.mark.parametrize(
    ("channels", "scale", "multiple_of", "expected"),
    [
        (32, 0.3, 8, 8),  # 9.6 is nearer to 8
        (32, 0.4, 8, 16),  # 12.8 is nearer to 16
        (24, 0.5, 8, 16),  # 12: a half goes up
        (40, 0.5, 8, 24),  # 20: again, not to the even multiple
        (10, 0.1, 8, 8),  # 1 is nearer to 0, but there is at least one multiple
        (16, 1, 8, 16),
        (30, 1, 8, 32),
        (5, 1.5, 2, 8),  # 7.5
        (5, 1.5, 1, 7),
    ],
)
def test_multiples_are_the_nearest_ones(channels, scale, multiple_of, expected):
    assert scale_channels(channels, scale, multiple_of) == expected
    assert list(channel_choice("w", channels, [scale], multiple_of).values) == [expected]


def test_scales_that_round_to_the_same_number_are_one_choice_in_the_order_of_scales():
    assert list(channel_choice("w", 4, [1, 0.6, 0.5, 0.9, 1.1]).values) == [4, 2, 3]
    assert list(channel_choice("w", 16, [1.6, 0.2, 0.3, 0.5], multiple_of=8).values) == [24, 8]


def test_the_choices_are_whole_numbers_of_python_under_the_label():
    for scales in ([0.5, 1], (Fraction(1, 2), 1.0), np.array([0.5, 1])):
        choice = channel_choice("stage 1 width", 8, scales)
        assert isinstance(choice, Categorical)
        assert choice.label == "stage 1 width"
        assert [(type(x), x) for x in choice.values] == [(int, 4), (int, 8)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"channels": 4, "scales": []}, "needs at least one scale"),
        ({"channels": 4, "scales": [1, 0.2]}, r"4 channels at scale 0\.2 are none\. Use larger"),
        ({"channels": 4, "scales": [0, 1]}, "scales must be numbers above 0, got 0"),
        ({"channels": 4, "scales": [1, -0.5]}, r"scales must be numbers above 0, got -0\.5"),
        ({"channels": 4, "scales": [0.0], "multiple_of": 8}, r"above 0, got 0\.0"),
        ({"channels": 4, "scales": [-1], "multiple_of": 8}, "above 0, got -1"),
        ({"channels": 4, "scales": [float("nan")]}, "above 0, got nan"),
        ({"channels": 4, "scales": [float("inf")]}, "above 0, got inf"),
        ({"channels": 4, "scales": ["1"]}, "above 0, got '1'"),
        ({"channels": 0}, "channels must be a whole number of at least 1, got 0"),
        ({"channels": 0, "multiple_of": 8}, "channels must be a whole number of at least 1, got 0"),
        ({"channels": -8, "multiple_of": 8}, "channels must be .* got -8"),
        ({"channels": 8.0}, r"channels must be .* got 8\.0"),
        ({"channels": 8, "multiple_of": 0}, "multiple_of must be .* at least 1, got 0"),
        ({"channels": 8, "multiple_of": 1.5}, r"multiple_of must be .* got 1\.5"),
    ],
)
def test_widths_that_no_layer_can_have_are_refused(arguments, words):
    with pytest.raises(SpaceError, match=rf"^channel_choice\('w'\): .*{words}") as caught:
        channel_choice("w", **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"channels": 5, "scales": [0.2]},
        {"channels": 1, "scales": [1]},
        {"channels": 1, "scales": [0.001], "multiple_of": 8},
    ],
)
def test_widths_of_at_least_one_are_accepted(arguments):
    assert min(channel_choice("w", **arguments).values) >= 1


class Pair(ModelSpace):
    """Two layers beside each other, with widths of their own."""

    def __init__(self, first: Categorical, second: Categorical):
        super().__init__()
        self.first = MutableConv2d(1, first, 1)
        self.second = MutableConv2d(1, second, 1)

    def forward(self, x):
        return self.first(x).sum(1) + self.second(x).sum(1)


def in_one_layer(first, second):
    return Chain(lambda: MutableConv2d(first, second, 1))


DIFFERENT = {"longer": (4, 8, 12), "other values": (4, 16), "other order": (8, 4)}


def widths(*values):
    return choose("w", *values)


@pytest.mark.parametrize("make", [Pair, in_one_layer], ids=["two layers", "one layer"])
@pytest.mark.parametrize("values", [DIFFERENT["longer"], DIFFERENT["other values"]])
def test_a_label_with_different_choices_is_refused_before_anything_is_priced(make, values):
    for use in (PathSpace.from_model_space, lambda space: build_costs(space, (1, 8, 8))):
        with pytest.raises(PathError) as caught:
            use(make(widths(4, 8), widths(*values)))
        assert str(caught.value) == (
            f"the label 'w' has the choices [4, 8] in one place and {list(values)} in another. "
            "Use one choice object in both places, or two labels."
        )


def test_the_same_choices_in_another_order_are_different_ones():
    for make in (Pair, in_one_layer):
        space = make(widths(4, 8), widths(*DIFFERENT["other order"]))
        with pytest.raises(PathError, match=r"choices \[4, 8\] in one place and \[8, 4\] in anot"):
            PathSpace.from_model_space(space)


@pytest.mark.parametrize("mutate", [share_weights, SinglePathOneShot().mutate_model])
def test_a_layer_whose_arguments_disagree_about_a_label_cannot_be_made(mutate):
    with pytest.raises(SpaceError) as caught:
        mutate(in_one_layer(widths(4, 8), widths(4, 16)))
    assert str(caught.value) == (
        "layer 'layers.0': the label 'w' has the choices (4, 8) in one argument and (4, 16) in "
        "'out_channels'. Use one choice object, or two labels."
    )


def test_layers_that_disagree_about_a_label_are_refused_as_a_supernet_too():
    supernet = SinglePathOneShot().mutate_model(Pair(widths(4, 8), widths(4, 16)))
    with pytest.raises(SposError, match=r"label 'w' has the choices \[4, 8\] in one place and"):
        PathSpace.from_model_space(supernet)


@pytest.mark.parametrize("make", [Pair, in_one_layer], ids=["two layers", "one layer"])
def test_equal_choices_under_one_label_are_one_choice(make):
    space = make(widths(4, 8), widths(4, 8))
    assert dict(PathSpace.from_model_space(space)) == {"w": (4, 8)}
    supernet = SinglePathOneShot().mutate_model(space)
    assert dict(PathSpace.from_model_space(supernet)) == {"w": (4, 8)}


SIZES = {"s": 4, "l": 8}


def test_the_labels_of_channels_are_those_that_layers_take_as_channels():
    width, kernel = choose("w", 4, 8), choose("k", 1, 3)
    supernet = build_supernet(
        lambda: MutableConv2d(3, width * 2, kernel, padding=kernel // 2),
        lambda: MutableConv2d(width * 2, choose("out", 2, 3), 1),
        nn.ReLU,
        # A choice by name decides about channels, but is none between numbers.
        lambda: MutableConv2d(1, MutableExpression.switch_case(choose("size", "s", "l"), SIZES), 1),
    )
    assert channel_labels(supernet) == ("w", "out")
