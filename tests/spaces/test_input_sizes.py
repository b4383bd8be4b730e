"""Spaces of images that are not square."""

from __future__ import annotations

import pytest
import torch

from nni_spos.errors import RecipeError
from nni_spos.profilers import build_costs
from nni_spos.spaces import Form, build_space, default_input_shape

SMALL = {
    "shufflenet_small": {
        "stem_channels": 4,
        "stage_repeats": [1, 1],
        "stage_channels": [8, 16],
        "last_channels": 8,
    },
    "resnet_small": {
        "stage_repeats": [1, 1],
        "stage_channels": [8, 16],
        "bit_pairs": None,
        "channel_scales": [0.5, 1.0],
    },
    "proxylessnas_small": {},
    "fbnet_small": {},
    "nasbench_macro": {},
    "channelbench_resnet": {"full_channels": [4] * 7},
    "channelbench_mobilenet": {"full_channels": [4] * 7},
}

OWN = """
from collections.abc import Sequence
from torch import nn
from nni.nas.nn.pytorch import LayerChoice, ModelSpace

class Own(ModelSpace):
    def __init__(self, num_classes, input_size: SIZE = 32):
        super().__init__()
        self.input_size = input_size
        self.unit = LayerChoice({"a": nn.Identity(), "b": nn.ReLU()}, label="unit")
"""


def build(name, size, **arguments):
    arguments = {**SMALL.get(name, {}), **arguments}
    sizes = {"num_classes": 3, "in_channels": 4, "input_size": size}
    return build_space(name, arguments, Form.SUBNET, **sizes)


@pytest.mark.parametrize("name", ["shufflenet_small", "resnet_small"])
def test_costs_grow_with_each_side(name):
    flops = {}
    for size in (16, (16, 32), (32, 16)):
        space = build(name, size)
        shape = default_input_shape(space)
        assert shape == (4, *((size, size) if isinstance(size, int) else size))
        flops[size] = build_costs(space, shape)["flops"].dearest()[0]
    assert flops[16, 32] == flops[32, 16]
    assert 1.9 * flops[16] < flops[16, 32] <= 2 * flops[16]


@pytest.mark.parametrize("name", SMALL)
def test_our_spaces_take_two_sides(name):
    space = build(name, (32, 48))
    assert (space.input_size, space.in_channels) == ((32, 48), 4)
    path = {label: mutable.values[0] for label, mutable in space.simplify().items()}
    assert space.freeze(path).eval()(torch.zeros(1, 4, 32, 48)).shape == (1, 3)
    assert build(name, [32, 32]).input_size == 32
    assert build(name, 32, input_size=[40, 64]).input_size == (40, 64)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("shufflenet_small", (2, 64), r"input_size must be at least 4 pixels, got \(2, 64\)"),
        ("fbnet_small", (64, 2), r"input_size must be at least 8 pixels, got \(64, 2\)"),
        ("resnet_small", (0, 8), "input_size must be a whole number > 0, or two of them"),
    ],
)
def test_sides_that_are_too_short(name, size, message):
    with pytest.raises(RecipeError, match=message):
        build(name, size)


@pytest.mark.parametrize(
    "annotation", ["int", "int | None", "int | Sequence[int]", "'tuple[int, int] | int'", "object"]
)
def test_a_space_that_takes_squares_only(tmp_path, monkeypatch, annotation):
    (tmp_path / "sized.py").write_text(OWN.replace("SIZE", annotation))
    sizes = {"num_classes": 3, "folder": tmp_path}
    assert build_space("sized:Own", {}, Form.SUBNET, input_size=32, **sizes).input_size == 32
    if "Sequence" in annotation or "tuple" in annotation or annotation == "object":
        found = build_space("sized:Own", {}, Form.SUBNET, input_size=(24, 32), **sizes)
        assert found.input_size == (24, 32)
        return
    with pytest.raises(RecipeError) as raised:
        build_space("sized:Own", {}, Form.SUBNET, input_size=(24, 32), **sizes)
    assert str(raised.value).startswith(
        "space sized:Own: takes square images only: its argument input_size is a whole number"
    )
    assert "24 pixels high and 32 wide" in str(raised.value)
