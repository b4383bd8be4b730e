"""Sizes, channels, bits and normalisation of images, as a recipe says them."""

from __future__ import annotations

import pytest

from nni_spos.errors import RecipeError
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.dataset import DatasetSpec
from nni_spos.recipe.image_size import IMAGE_SIZE, height_width, read_size, size_as_json
from nni_spos.recipe.settings import read_settings


def read(**keys):
    return read_settings(DataSettings, {"name": "digits", **keys}, "data")


def test_a_square_has_one_form():
    assert read(image_size=32) == read(image_size=[32, 32])
    assert read(image_size=[48, 64]).image_size == (48, 64)
    assert [height_width(x) for x in (32, (48, 64))] == [(32, 32), (48, 64)]
    assert [size_as_json(x) for x in (32, (48, 64))] == [32, [48, 64]]
    spec = DatasetSpec("x", 2, 4, [48, 64], [8, 8], (0.5,) * 4, (0.5,) * 4, bits=16)
    assert (spec.native_size, spec.image_size) == ((48, 64), 8)
    assert (spec.input_shape, spec.largest) == ((4, 8, 8), 65535)


@pytest.mark.parametrize("size", [0, -1, 2.5, True, "32", [], [32], [32, 0], [1, 2, 3], [8, 2.5]])
def test_what_is_no_size(size):
    assert not IMAGE_SIZE.accepts(size)
    with pytest.raises(RecipeError, match=r"data.image_size: got .* of them, \[height, width\]"):
        read(image_size=size)
    with pytest.raises(ValueError, match="a size of images must be a whole number > 0, or two"):
        read_size(size)


def test_mean_and_std_are_given():
    found = read(mean=[0, 0.5], std=[1, 0.25])
    assert (found.mean, found.std) == ((0.0, 0.5), (1.0, 0.25))
    assert read(normalisation="from data").normalisation == "from data"
    assert read().deciding() != found.deciding()
    assert read().deciding() != read(normalisation="from data").deciding()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"mean": [0.5]}, "give both 'mean' and 'std', or neither."),
        ({"std": [0.5]}, "give both 'mean' and 'std', or neither."),
        ({"mean": [0.5], "std": [0.5, 0.5]}, "mean has 1 values and std 2; give one for each"),
        ({"mean": [0.5], "std": [0]}, "data.std: got [0]; must be a list of numbers above 0"),
        ({"mean": [127.5], "std": [0.5]}, "data.mean: got [127.5]; must be a list of numbers from"),
        ({"mean": 0.5, "std": [0.5]}, "data.mean: got 0.5; must be a list of numbers from 0 to 1"),
        ({"mean": [0.5], "std": [0.5], "normalisation": "from data"}, "give 'mean' and 'std', or"),
        ({"normalisation": "data"}, "data.normalisation: got 'data'; must be one of from data"),
        ({"bits": 12}, "data.bits: got 12; must be one of 8, 16"),
        ({"channels": 0}, "data.channels: got 0; must be a whole number > 0"),
    ],
)
def test_refuses(keys, message):
    with pytest.raises(RecipeError) as raised:
        read(**keys)
    assert message in str(raised.value)
