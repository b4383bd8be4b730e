"""Colours in the order blue, green, red, and pixels as they are."""

from __future__ import annotations

import pytest
import torch

from nni_spos.data import check_preprocessing, dataset_spec
from nni_spos.data.transforms import Normalisation, describe_preprocessing
from nni_spos.errors import CheckpointError, DataError, RecipeError
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.dataset import DatasetSpec

MEAN, STD = (0.1, 0.2, 0.4), (0.5, 0.25, 0.125)


def spec(**changes):
    return DatasetSpec("x", 2, 3, 4, 4, **{"mean": MEAN, "std": STD, **changes})


def pixels(dtype=torch.uint8):
    return torch.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4).to(dtype)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(("bits", "dtype"), [(8, torch.uint8), (16, torch.uint16)])
def test_the_network_gets_the_same_values_in_the_other_order(channels_last, bits, dtype):
    one, other = (
        Normalisation(spec(bits=bits, channel_order=order), channels_last=channels_last)(
            pixels(dtype)
        )
        for order in ("rgb", "bgr")
    )
    torch.testing.assert_close(other, one.flip(1), rtol=0, atol=0)
    red = (pixels()[:, 0] / (2**bits - 1) - MEAN[0]) / STD[0]
    torch.testing.assert_close(other[:, 2], red)


def settings(name="cifar10", **changes):
    return DataSettings(name, **changes)


@pytest.mark.parametrize("channels_last", [True, False])
def test_pixels_can_stay_as_they_are(channels_last):
    found = dataset_spec(settings(normalisation="none", channel_order="bgr"))
    assert found.mean == (0.0, 0.0, 0.0)
    x = torch.arange(3 * 32 * 32).reshape(1, 3, 32, 32).remainder(256).byte()
    seen = Normalisation(found, channels_last=channels_last)(x)
    assert torch.equal(seen, x.flip(1).float())


def test_both_are_part_of_the_description_and_of_what_a_result_depends_on():
    plain, other = (settings(**x) for x in ({}, {"normalisation": "none", "channel_order": "bgr"}))
    assert describe_preprocessing(dataset_spec(plain))["channel_order"] == "rgb"
    described = describe_preprocessing(dataset_spec(other))
    assert (described["channel_order"], described["std"]) == ("bgr", [1 / 255] * 3)
    for key in ("normalisation", "channel_order"):
        assert plain.deciding()[key] != other.deciding()[key]


def test_what_is_known_in_part_is_compared_in_part():
    current = describe_preprocessing(dataset_spec(settings()))
    stored = {"known_in_part": True, "channel_order": "rgb", "num_classes": 10}
    check_preprocessing(stored, current)
    with pytest.raises(CheckpointError, match=r"num_classes is 7 in the checkpoint, 10 in the"):
        check_preprocessing({**stored, "num_classes": 7}, current)
    with pytest.raises(CheckpointError, match=r"dataset is None in the checkpoint"):
        check_preprocessing({key: x for key, x in stored.items() if key[0] != "k"}, current)


def test_colours_that_there_are_not_have_no_order():
    with pytest.raises(DataError, match=r"channel_order: is bgr, .* digits have 1 channels"):
        dataset_spec(settings("digits", channel_order="bgr"))
    assert dataset_spec(settings("digits", channel_order="rgb")).channels == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"channel_order": "gbr"}, "channel_order.*rgb"),
        ({"normalisation": "no"}, "normalisation.*none"),
        ({"normalisation": "none", "mean": MEAN, "std": STD}, "or 'normalisation: none'"),
    ],
)
def test_other_orders_and_two_normalisations_are_refused(changes, words):
    with pytest.raises(RecipeError, match=words):
        settings(**changes)
