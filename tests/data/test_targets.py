"""Targets of every kind: how they are kept, and what is refused."""

import dataclasses

import numpy as np
import pytest
import torch

from nni_spos.data.reading import ImageSplit
from nni_spos.data.stores import ImageTensor
from nni_spos.data.targets import as_targets, find_problem
from nni_spos.data.transforms import ImageTransform
from nni_spos.recipe.dataset import DatasetSpec

SPEC = DatasetSpec("own", 3, 1, 4, 4, (0.0,), (1.0,))


def problem(values, target):
    return find_problem(np.array(values), dataclasses.replace(SPEC, target=target))


@pytest.mark.parametrize(
    ("values", "dtype", "shape"),
    [
        (np.arange(6) % 3, torch.int64, (2,)),
        (np.ones((6, 3), np.int64), torch.int64, (2, 3)),
        (np.ones((6, 3), bool), torch.float32, (2, 3)),
        (np.ones((6, 3)), torch.float32, (2, 3)),
        (np.ones((6, 4, 4), np.uint8), torch.int64, (2, 4, 4)),
    ],
)
def test_a_batch_has_the_targets_of_its_images(values, dtype, shape):
    images = torch.zeros(6, 1, 4, 4, dtype=torch.uint8)
    split = ImageSplit(
        ImageTensor(images, as_targets(values)), np.arange(1, 6), ImageTransform(SPEC)
    )
    _, targets = split.__getitems__([4, 0])
    assert (targets.dtype, tuple(targets.shape)) == (dtype, shape)
    assert torch.equal(targets, torch.as_tensor(values)[[5, 1]].to(dtype))
    assert len(split.targets()) == 5


@pytest.mark.parametrize(
    ("target", "values", "message"),
    [
        ("class", [0, 2, 1], ""),
        ("class", [0, 2, 3], "the class 3 for image 2; its spec() says 3 classes, 0 to 2"),
        ("class", [0.0, 1.0], "targets of type float64; must be whole numbers"),
        ("class", [[0], [1]], "targets of shape (2, 1); must be (N,), as its spec() says"),
        ("labels", [[0, 1, 1], [1.0, 0, 0]], ""),
        ("labels", [[0, 1, 1], [1, 0, 2]], "a label of image 1 that is neither 0 nor 1"),
        ("labels", [[0, 1]], "targets of shape (1, 2); must be (N, 3), as its spec() says"),
        ("values", [[0.5, -1, 2]], ""),
        ("values", [[0.5, 1, 2], [0, np.nan, 0]], "a target of image 1 that is no finite number"),
        ("mask", [[[0, 1], [2, 255]]], ""),
        ("mask", [[[0, 1], [3, 255]]], "the class 3 for image 0; its spec() says 3 classes, 0 to"),
        ("mask", [0, 1], "targets of shape (2,); must be (N, H, W), as its spec() says"),
    ],
)
def test_targets_that_the_spec_does_not_allow_are_refused(target, values, message):
    found = problem(values, target)
    assert found.startswith(message) if message else not found
