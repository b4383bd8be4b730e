"""Plain layers that are given a choice, and layers that do not fit: which, and what to do."""

from __future__ import annotations

import textwrap

import pytest
from torch import nn

from nni_spos.errors import CostError, RecipeError, SpaceError
from nni_spos.mutables import channel_choice
from nni_spos.profilers import build_costs
from nni_spos.spaces import Form, build_space

MODULE = """
import nni
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn
from nni_spos.mutables import MutableBatchNorm2d, MutableConv2d, channel_choice


class Space(ModelSpace):
    def __init__(self):
        super().__init__()
        width = channel_choice("width", 8, [0.5, 1.0])
        self.layers = nn.Sequential({layers})

    def forward(self, x):
        return self.layers(x)
"""
CHOICE = "Categorical([4, 8], label='width')"


def build(tmp_path, name, *layers):
    text = textwrap.dedent(MODULE).format(layers=", ".join(layers))
    (tmp_path / f"{name}.py").write_text(text)
    return build_space(f"{name}:Space", {}, Form.SUBNET, folder=tmp_path)


@pytest.mark.parametrize(
    ("layer", "argument", "use"),
    [
        ("nn.Conv2d(1, width, 3)", "out_channels", "MutableConv2d"),
        ("nn.Conv2d(width, 2, 3)", "in_channels", "MutableConv2d"),
        ("nn.Conv2d(1, 8, width)", "kernel_size", "MutableConv2d"),
        ("nn.BatchNorm2d(width)", "num_features", "MutableBatchNorm2d"),
        ("nn.Linear(width, 2)", "in_features", "MutableLinear"),
        ("nn.Linear(2, width)", "out_features", "MutableLinear"),
        ("nn.ConvTranspose2d(1, width, 3)", "out_channels", "MutableConvTranspose2d"),
        ("nn.GroupNorm(2, width)", "num_channels", "MutableGroupNorm"),
        ("nn.LayerNorm(width)", "normalized_shape", "MutableLayerNorm"),
        ("nn.PReLU(width)", "num_parameters", "MutablePReLU"),
    ],
)
def test_a_plain_layer_with_a_choice_names_the_class_to_use(tmp_path, layer, argument, use):
    name = f"plain_{argument}_{use}".lower()
    with pytest.raises(RecipeError) as caught:
        build(tmp_path, name, layer)
    kind = use.removeprefix("Mutable")
    text = str(caught.value)
    assert f"nn.{kind} cannot have a choice as its argument '{argument}', got {CHOICE}." in text
    assert f"Use nni_spos.mutables.{use} instead." in text
    assert f"{name}.py, line 12" in text or f"layer 'layers.0': nn.{kind}" in text
    assert "\n" not in text


def test_the_class_to_use_is_accepted(tmp_path):
    layers = ("MutableConv2d(1, width, 3)", "MutableBatchNorm2d(width)", "nn.ReLU()")
    assert (
        build_costs(build(tmp_path, "accepted", *layers), (1, 8, 8))["flops"].dearest()[0] == 2592
    )


def test_a_layer_without_such_a_class_says_which_have_one(tmp_path):
    with pytest.raises(RecipeError) as caught:
        build(tmp_path, "pooling", "nn.AdaptiveAvgPool2d(width)")
    text = str(caught.value)
    assert "layer 'layers.0': nn.AdaptiveAvgPool2d cannot have a choice" in text
    assert "Choose among several AdaptiveAvgPool2d with a LayerChoice." in text
    assert "MutableConv2d, MutableLinear" in text


@pytest.mark.parametrize(
    ("name", "layers", "words"),
    [
        (
            "channels",
            ("MutableConv2d(1, width, 3)", "nn.ReLU()", "nn.Conv2d(8, 2, 1)"),
            "do not fit the space (layer 'layers.2' (Conv2d) gets (1, 4, 6, 6), where 'width' is "
            "4: Given groups=1",
        ),
        (
            "norms",
            ("MutableConv2d(1, width, 3)", "nn.BatchNorm2d(8)"),
            "(layer 'layers.1' (BatchNorm2d) gets (1, 4, 6, 6), where 'width' is 4: a BatchNorm of "
            "8 channels got 4).",
        ),
        (
            "both",
            ("MutableConv2d(1, width, 3)", "MutableConv2d(nni.choice('other', [4, 16]), 2, 1)"),
            "(layer 'layers.1' (Conv2d) gets (1, 4, 6, 6), where 'width' is 4, 'other' is 16: ",
        ),
        (
            "units",
            (
                "nn.Conv2d(1, 4, 3)",
                "LayerChoice({'a': nn.Conv2d(4, 4, 1), 'b': nn.Conv2d(8, 4, 1)}, label='unit')",
            ),
            "(layer 'layers.1.b' (Conv2d) gets (1, 4, 6, 6), where 'unit' is 'b': ",
        ),
        (
            "plain",
            ("nn.Conv2d(1, 4, 3)", "nn.Conv2d(8, 4, 1)", "MutableConv2d(4, width, 1)"),
            "do not fit the space (layer 'layers.1' (Conv2d) gets (1, 4, 6, 6): Given groups=1",
        ),
    ],
)
def test_a_layer_that_does_not_fit_is_named_with_the_choices_before_it(
    tmp_path, name, layers, words
):
    space = build(tmp_path, f"misfit_{name}", *layers)
    with pytest.raises(CostError) as caught:
        build_costs(space, (1, 8, 8))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_in_python_a_choice_says_so_itself():
    width = channel_choice("width", 8, [0.5, 1.0])
    for layer in (lambda: nn.Conv2d(1, width, 3), lambda: nn.Conv2d(1, width * 2, 3)):
        with pytest.raises(
            SpaceError, match=r"argument 'out_channels', got .*MutableConv2d instead"
        ):
            layer()
    with pytest.raises(RuntimeError, match=r"Cannot use bool\(\) on SymbolicExpression"):
        bool(width)
    with pytest.raises(TypeError, match=r"not iterable"):  # and does not fill the memory
        nn.LayerNorm(width)
