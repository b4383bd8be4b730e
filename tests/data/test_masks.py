"""Masks are transformed together with their images, and are refused if they do not fit them."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from nni_spos.data.loaders import open_data
from nni_spos.errors import DataError, ImagesWarning
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.task import TaskSettings

SIZE = 16
TASK = TaskSettings("segmentation")


@pytest.fixture
def root(segmentation_folder):
    return segmentation_folder


def opened(root, **keys):
    keys = {"num_classes": 3, "image_size": SIZE, "num_validation": 2, **keys}
    folder = keys.pop("folder", None)
    return open_data(DataSettings("segmentation_folder", root=str(root), **keys), folder, TASK)


def agreement(batch):
    """Share of the variance in an image that its mask explains, the least of a batch."""
    shares = []
    for image, mask in zip(*batch, strict=True):
        red = image[0][mask != 255]
        classes = mask[mask != 255]
        rest = sum(((x := red[classes == c]) - x.mean()).square().sum() for c in classes.unique())
        total = (red - red.mean()).square().sum()
        shares.append(float(1 - rest / total) if total > 1 else 1.0)
    return min(shares)


@pytest.mark.parametrize("augmentation", ["none", "shift", "crop_flip", "imagenet"])
def test_masks_follow_their_images(root, augmentation):
    data = opened(root, augmentation=augmentation)
    batches = [batch for seed in range(3) for batch in data.train_loader(5, seed)]
    for images, masks in batches:
        assert masks.dtype == torch.int64
        assert masks.shape == (len(images), SIZE, SIZE)
        assert set(masks.unique().tolist()) <= {0, 1, 2, 255}
    assert min(map(agreement, batches)) > 0.6
    # What is shifted in does not count; nothing else is left out.
    is_shifted = augmentation in ("shift", "crop_flip")
    assert any((masks == 255).any() for _, masks in batches) == is_shifted


def test_held_masks_are_those_that_are_read(root, tmp_path):
    held, filed = opened(root), opened(root, held_mb=0, folder=tmp_path / "kept")
    unheld = opened(root, held_mb=0)
    (tmp_path / "kept").mkdir()
    for make in (lambda x: x.validation_batches(2), lambda x: x.recalibration_batches(6, 3, 0)):
        for batches in zip(*map(make, (held, filed, unheld)), strict=True):
            images, masks = zip(*batches, strict=True)
            assert all(torch.equal(x, images[0]) for x in images)
            assert all(torch.equal(x, masks[0]) for x in masks)
            assert agreement(batches[0]) > 0.95
    assert (tmp_path / "kept" / "validation.u8").exists()
    images, masks = next(iter(held.test_batches(2)))
    assert agreement((images, masks)) > 0.95


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: save(x, np.full((32, 32), 7)), "masks/3.png: has the class 7 at x 0, y 0; num_"),
        (lambda x: save(x, np.zeros((32, 31))), "images/3.png has 31 x 32 pixels, its image 32"),
        (
            lambda x: Image.new("RGB", (32, 32)).save(x),
            "masks/3.png: cannot be read as a mask (its",
        ),
        (lambda x: x.write_bytes(b"no image"), "masks/3.png: cannot be read as a mask ("),
    ],
)
def test_a_mask_that_does_not_fit_is_named(root, spoil, message):
    list(opened(root).train_loader(12, 0))
    spoil(root / "train" / "masks" / "3.png")
    data = opened(root)
    with pytest.raises(DataError) as caught:
        list(itertools.chain(data.train_loader(12, 0), data.validation_batches(2)))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    save(root / "val" / "masks" / "0.png", np.zeros((8, 8)))
    with pytest.warns(ImagesWarning, match=r"open_training_set: 1 of 12 images cannot be read and"):
        data = opened(root, on_error="skip")
    batches = [*data.train_loader(9, 0), *data.validation_batches(2)]
    assert sum(len(masks) for _, masks in batches) == data.num_train + data.num_validation == 11
    with pytest.warns(ImagesWarning, match=r"open_test_set: 1 of 2 images cannot be read"):
        assert data.test_batches(2).num_images == 1


def save(file, mask):
    Image.fromarray(mask.astype(np.uint8)).save(file)


def test_an_image_without_a_mask_is_named(root):
    (root / "train" / "masks" / "3.png").unlink()
    with pytest.raises(DataError, match="train/masks: has no file for '3'"):
        opened(root)


def test_the_number_of_classes_must_be_known(root):
    with pytest.raises(DataError, match="needs 'num_classes'"):
        opened(root, num_classes=None)
