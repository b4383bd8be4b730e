"""A check says which images are missing, and what to put where."""

import dataclasses

import pytest
from small_experiments import write_recipe

from nni_spos.experiment.image_warnings import image_warnings
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.recipe import load_recipe


@pytest.fixture
def warnings(tmp_path):
    recipe = load_recipe(write_recipe(tmp_path))

    def warnings(*folders, name="image_folder", num_classes=2):
        for folder in folders:
            (tmp_path / "data" / folder).mkdir(parents=True)
        data = DataSettings(name, root=str(tmp_path / "data"), num_classes=num_classes)
        return image_warnings(dataclasses.replace(recipe, data=data))

    return warnings


def test_no_images(warnings, tmp_path):
    (line,) = warnings()
    assert line.startswith(f"recipe.yml: data: there are no images in {tmp_path}/data/train yet. ")
    assert f"{tmp_path}/data/train/CLASS/ and {tmp_path}/data/val/CLASS/" in line


def test_another_number_of_classes(warnings):
    (line,) = warnings("train/a", "train/b", "train/c", "val/a")
    assert "num_classes is 2, but" in line
    assert "has 3 class folders" in line


def test_no_test_images(warnings):
    (line,) = warnings("train/a", "train/b")
    assert "there are no test images yet" in line


@pytest.mark.parametrize("num_classes", [2, None])
@pytest.mark.parametrize("test", ["val", "validation", "test"])
def test_all_is_there(warnings, test, num_classes):
    folders = ("train/a", "train/b", f"{test}/a", f"{test}/b")
    assert warnings(*folders, num_classes=num_classes) == []


def test_other_data_sets_are_not_looked_for(warnings):
    assert warnings(name="cifar10", num_classes=None) == []
