"""What every data set promises."""

from __future__ import annotations

import pytest

from nni_spos.recipe.datasets import DATASETS
from nni_spos.testing.datasets import CHECKS, DatasetCase

FOLDERS = {
    "digits": None,
    "fashion_mnist": "fashion_mnist_folder",
    "cifar10": "cifar10_folder",
    "image_folder": "image_folder",
    "csv": "csv_folder",
    "segmentation_folder": "segmentation_folder",
}
"""Name of each data set, and of the fixture that makes its files."""

KEYS = {
    "csv": {"file": "images.csv", "label": "class", "split": "split", "groups": "camera"},
    "segmentation_folder": {"num_classes": 3, "image_size": 16},
}
"""Keys of a data set."""


def test_every_data_set_is_checked():
    assert set(FOLDERS) == set(DATASETS.ours)


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_contract(name, check, request):
    fixture = FOLDERS[name]
    folder = None if fixture is None else request.getfixturevalue(fixture)
    root = {} if folder is None else {"root": str(folder)}
    check(DatasetCase(name, folder, **root, **KEYS.get(name, {})))
