import json

import numpy as np
import pytest
import torch
from PIL import Image

from nni_spos.data import DatasetSpec, dataset_spec
from nni_spos.data.transforms import (
    ImageTransform,
    Normalisation,
    check_preprocessing,
    describe_preprocessing,
    draw,
    random_keys,
)
from nni_spos.errors import CheckpointError
from nni_spos.recipe.data_settings import DataSettings

N = 400


def spec(augmentation, size=8, channels=1, native_size=8, crop_pct=1.0):
    zeros, ones = (0.0,) * channels, (1.0,) * channels
    return DatasetSpec(
        "digits", 10, channels, native_size, size, zeros, ones, augmentation, crop_pct
    )


def keys(number=N, seed=0, epoch=0):
    return random_keys(seed, np.full(number, epoch), np.arange(number))


def images(number=N, channels=1, size=8):
    generator = torch.Generator().manual_seed(0)
    shape = (number, channels, size, size)
    return torch.randint(1, 256, shape, dtype=torch.uint8, generator=generator)


def prepared(spec, stored):
    """What the network gets in evaluation."""
    return Normalisation(spec)(ImageTransform(spec).evaluation(stored))


def test_keys_differ_by_seed_epoch_and_index():
    lots = [keys(1000, seed, epoch) for seed in range(5) for epoch in range(5)]
    assert len(np.unique(np.concatenate(lots))) == 25_000
    np.testing.assert_array_equal(keys()[10:20], random_keys(0, np.zeros(10), np.arange(10, 20)))


def test_draws_are_uniform_and_streams_independent():
    many = keys(50_000)
    pairs = np.bincount(draw(many, 0, 5) * 5 + draw(many, 1, 5), minlength=25)
    assert len(pairs) == 25
    expected = 50_000 / 25
    assert ((pairs - expected) ** 2 / expected).sum() < 51.2  # chi-square, 24 degrees, p = 0.001


def test_none_only_scales_and_normalises():
    pixels = images(4)
    given = DatasetSpec("digits", 10, 1, 8, 8, (0.25,), (0.5,), "none")
    result = ImageTransform(given).training(pixels, keys(4))
    torch.testing.assert_close(result, (pixels / 255 - 0.25) / 0.5)
    assert torch.equal(result, prepared(given, pixels))


@pytest.mark.parametrize("channels", [1, 3])
def test_both_memory_formats_have_the_same_values_bit_for_bit(channels):
    mean, std = (0.485, 0.456, 0.406)[:channels], (0.229, 0.224, 0.225)[:channels]
    given = DatasetSpec("cifar10", 10, channels, 8, 8, mean, std, "none")
    pixels = images(20, channels)
    planes, last = (Normalisation(given, channels_last=choice)(pixels) for choice in (False, True))
    assert torch.equal(planes, last)
    assert planes.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last)
    for channel in range(channels):  # 255 is 1.0
        white = Normalisation(given)(torch.full_like(pixels, 255))[0, channel, 0, 0]
        assert white == pytest.approx((1 - mean[channel]) / std[channel], rel=1e-6)
    stored = pixels.to(memory_format=torch.channels_last)
    for choice in (False, True):
        assert torch.equal(Normalisation(given, channels_last=choice)(stored), planes)


def test_shift_moves_every_image_by_at_most_an_eighth():
    pixels = images()
    result = ImageTransform(spec("shift")).training(pixels, keys()).mul(255).round()
    padded = torch.nn.functional.pad(pixels, [1] * 4).float()
    crops = {(y, x): padded[:, :, y : y + 8, x : x + 8] for y in range(3) for x in range(3)}
    found = [
        [position for position, crop in crops.items() if torch.equal(crop[i], result[i])]
        for i in range(N)
    ]
    assert all(len(positions) == 1 for positions in found)
    assert {positions[0] for positions in found} == set(crops)


def test_crop_flip_is_shift_and_half_of_the_images_flipped():
    pixels = images()
    shifted = ImageTransform(spec("shift")).training(pixels, keys())
    result = ImageTransform(spec("crop_flip")).training(pixels, keys())
    same = (shifted == result).flatten(1).all(1)
    mirrored = (shifted.flip(-1) == result).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 160 < mirrored.sum() < 240


@pytest.mark.parametrize("augmentation", ["shift", "crop_flip", "imagenet"])
@pytest.mark.parametrize("channels", [1, 3])
def test_augmentation_of_an_image_depends_on_its_key_alone(augmentation, channels):
    transform = ImageTransform(spec(augmentation, channels=channels))
    pixels = images(20, channels)
    batch = transform.training(pixels, keys(20))
    assert batch.dtype == torch.float32
    assert batch.shape == pixels.shape
    for i in (0, 7, 19):
        torch.rand(3)
        alone = transform.training(pixels[i : i + 1], keys(20)[i : i + 1])
        assert torch.equal(alone[0], batch[i])
    assert not torch.equal(transform.training(pixels, keys(20, epoch=1)), batch)


def test_imagenet_leaves_the_generator_even_after_an_error():
    transform = ImageTransform(spec("imagenet"))
    state = torch.random.get_rng_state()
    transform.training(images(3), keys(3))
    with pytest.raises(TypeError):
        transform.training([object()] * 3, keys(3))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_digits_are_enlarged_smoothly():
    pixels = images(2)
    result = prepared(spec("none", size=16), pixels) * 255
    assert result.shape == (2, 1, 16, 16)
    expected = torch.nn.functional.interpolate(pixels.float(), scale_factor=2, mode="bilinear")
    assert (result - expected).abs().max() < 1.01


def test_files_are_resized_by_their_shorter_side_and_cropped():
    size = 28
    given = spec("imagenet", size, 3, None, 0.875)
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[:, :64, 0] = 255  # left half red, so the centre of the crop is the border
    result = prepared(given, [Image.fromarray(pixels)])
    assert result.shape == (1, 3, size, size)
    red = result[0, 0, 14]
    assert (red[:13] == 1).all()
    assert (red[15:] == 0).all()
    whole = prepared(spec("imagenet", size, 3, None), [Image.fromarray(pixels[:, 32:96])])
    assert (whole[0, 0, :, :13] == 1).all()
    assert (whole[0, 0, :, 15:] == 0).all()
    assert describe_preprocessing(spec("imagenet", 224, 3, None, 0.875))["eval_resize"] == 256
    cropped = ImageTransform(given).training([Image.fromarray(pixels)] * 5, keys(5))
    assert cropped.shape == (5, 3, size, size)


def test_preprocessing_survives_json_and_names_what_differs():
    current = describe_preprocessing(dataset_spec(DataSettings("cifar10")))
    stored = json.loads(json.dumps(current))
    assert stored == current
    check_preprocessing(stored, current)
    check_preprocessing({**stored, "mean": tuple(stored["mean"])}, current)
    with pytest.raises(CheckpointError) as error:
        check_preprocessing({**stored, "image_size": 28, "mean": [0.5] * 3}, current)
    assert "image_size is 28 in the checkpoint, 32 in the recipe; mean is [0.5" in str(error.value)
    assert "std is" not in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match="std is None in the checkpoint"):
        check_preprocessing({k: v for k, v in stored.items() if k != "std"}, current)
    with pytest.raises(CheckpointError, match="gamma is 2 in the checkpoint, None in the recipe"):
        check_preprocessing({**stored, "gamma": 2}, current)
    with pytest.raises(CheckpointError, match="does not say how"):
        check_preprocessing(None, current)
