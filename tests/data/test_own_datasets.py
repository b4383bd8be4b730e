"""A user's data set is found beside the recipe, checked, and counts in what results depend on."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from trained_recipes import contents

from nni_spos.cli import main
from nni_spos.data import dataset_spec, open_data
from nni_spos.errors import DataError, ImagesWarning, RecipeError
from nni_spos.process import user_modules
from nni_spos.recipe.identity import Result, describe
from nni_spos.recipe.recipe import load_recipe
from nni_spos.testing.datasets import CHECKS, DatasetCase
from nni_spos.values import changes

STRIPES = Path(__file__).parents[1] / "plugin" / "example_plugin" / "stripes.py"

OWN = '''
import numpy as np
from dataclasses import dataclass
from nni_spos.data import Dataset, DatasetSpec
from nni_spos.recipe.settings import setting, whole_number

@dataclass(frozen=True)
class Own(Dataset):
    """Images of noise.

    Parameters
    ----------
    seed
        Of the noise.
    """

    seed: int = setting(whole_number(0), 0)

    def spec(self):
        return DatasetSpec(self.name, 2, 1, 8, 8, (0.5,), (0.3,))

    def open_training_set(self):
        rng = np.random.default_rng([0, self.seed])
        return rng.integers(0, 256, (40, 1, 8, 8), np.uint8), np.arange(40) % 2

    def open_test_set(self):
        rng = np.random.default_rng([1, self.seed])
        return rng.integers(0, 256, (10, 1, 8, 8), np.uint8), np.arange(10) % 2
'''

KNOWN = """
    def digest_training_images(self):
        from pathlib import Path
        return Path(self.settings.root, "images.txt").read_text()

    def digest_test_images(self):
        return None
"""

SMALL = {"stage_repeats": [1, 1], "stage_channels": [32, 64], "last_channels": 64}


@pytest.fixture(autouse=True)
def modules(monkeypatch):
    """No module that a test finds stays."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(user_modules, "_folders", {})
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("my_", "stripes")):
            del sys.modules[name]


@pytest.fixture
def load(tmp_path):
    """Write a recipe beside the user's module, and load it."""

    def load(code=OWN, **data):
        (tmp_path / "my_data.py").write_text(code)
        sys.modules.pop("my_data", None)  # as in a new process
        content = {
            "output": "output",
            "space": {"name": "shufflenet_small", **SMALL},
            "data": {"name": "my_data:Own", **data},
            "supernet": {"steps": 2, "batch_size": 10},
            "evaluation": {"recalibration_images": 10, "batch_size": 10},
            "search": {"population_size": 3, "num_generations": 2, "top_k": 2},
            "retrain": {"steps": 2, "batch_size": 10},
        }
        (tmp_path / "recipe.yml").write_text(yaml.safe_dump(content))
        return load_recipe(tmp_path / "recipe.yml")

    return load


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_example_passes_the_contract(check, tmp_path):
    shutil.copy(STRIPES, tmp_path)
    check(DatasetCase("stripes:Stripes", folder=tmp_path, num_images=60))


def test_reading_a_recipe_runs_none_of_its_code(load, tmp_path):
    recipe = load("open('canary', 'w')", sead=1)
    assert (recipe.data.name, recipe.data.arguments) == ("my_data:Own", {"sead": 1})
    assert "my_data" not in sys.modules
    assert not (tmp_path / "canary").exists()


def test_its_images_are_opened(load):
    recipe = load(seed=3, num_validation=10)
    with pytest.warns(ImagesWarning, match=r"^data set my_data:Own: does not say when its images"):
        data = open_data(recipe.data)
    assert data.spec == dataset_spec(recipe.data)
    assert (data.spec.name, data.num_train, data.num_validation) == ("my_data:Own", 30, 10)
    images, labels = next(iter(data.test_batches(10)))
    expected = np.random.default_rng([1, 3]).integers(0, 256, (10, 1, 8, 8), np.uint8)
    np.testing.assert_allclose(images.numpy(), (expected / 255 - 0.5) / 0.3, atol=1e-5)
    assert labels.tolist() == [0, 1] * 5


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"sead": 1}, "unknown key 'sead'; did you mean 'seed'? Keys: name, root, download,"),
        ({"seed": -1}, ".seed: got -1; must be a whole number >= 0, below 2^63."),
    ],
)
def test_keys_that_it_has_not_are_refused(load, data, message):
    with pytest.raises(RecipeError) as caught:
        dataset_spec(load(**data).data)
    assert str(caught.value).startswith("data set my_data:Own")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("(40, 1, 8, 8)", "(40, 3, 8, 8)", "open_training_set returned images of shape (40, 3, 8"),
        ("np.arange(40) % 2", "np.arange(40) % 3", "returned the class 2 for image 2; its"),
        ("np.arange(40) % 2", "np.arange(40) / 2", "returned targets of type float64; must be"),
        ("np.arange(40) % 2", "np.arange(39) % 2", "returned 40 images and targets of shape"),
        ("(40, 1, 8, 8)", "(0, 1, 8, 8)", "returned 0 images and targets of shape (40,)"),
        ("return rng", "return 5, rng", "returned a tuple; must be (images, targets), or an Im"),
        ("return rng", "1 / 0; rng", "division by zero (my_data.py, line 24)"),
        ("(0.3,)", "(0.3, 0.3)", "its spec() has 1 values of mean and 2 of std; must be 1"),
        ("DatasetSpec(self", "tuple((self", "spec() returned a tuple, not a DatasetSpec."),
        ("8, 8, (0.5,), (0.3,))", "8, 8)", "missing 2 required"),
        ("    seed: int", "    root: int", "its key 'root' is one of the section data too."),
        ("open_test_set", "open_tests", "the class Own does not define open_test_set."),
        ("(Dataset)", "", "is a Own, not a Dataset. Derive the class from nni_spos.data."),
        ("@dataclass(frozen=True)", "", "declares 'seed', but is no dataclass."),
    ],
)
def test_what_is_wrong_with_it_is_one_line(load, old, new, message):
    code = OWN.replace(old, new) if "tuple((" not in new else OWN.replace(
        "DatasetSpec(self.name, 2, 1, 8, 8, (0.5,), (0.3,))", "(1, 2)"
    )  # fmt: skip
    assert code != OWN
    with pytest.raises((DataError, RecipeError)) as caught:
        open_data(load(code).data)
    assert str(caught.value).startswith("data set my_data:Own: ")
    assert message in str(caught.value)


def described(recipe):
    return {result: describe(result, recipe) for result in Result}


@pytest.mark.slow
def test_its_code_its_keys_and_its_images_count(load, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "images.txt").write_text("first")
    code = OWN + KNOWN
    before = described(load(code, root="images"))

    def stale(recipe):
        return {x: changes(before[x], now) for x, now in described(recipe).items()
                if before[x] != now}  # fmt: skip

    assert not stale(load(code.replace("np.random", "np. random"), root="images"))
    found = stale(load(code.replace("[0, self.seed]", "[2, self.seed]"), root="images"))
    assert set(found) == set(Result) - {Result.COSTS}
    assert all("code of the data set was" in text for text in found.values())
    found = stale(load(code, root="images", seed=1))
    assert set(found) == set(Result) - {Result.COSTS}
    assert all(text == "data: seed was none and now is 1" for text in found.values())
    found = stale(load(code.replace("2, 1, 8, 8", "2, 1, 8, 16"), root="images"))
    assert found[Result.COSTS] == "size of the images: image_size was 8 and now is 16"
    (tmp_path / "images" / "images.txt").write_text("other")
    found = stale(load(code, root="images"))
    assert set(found) == set(Result) - {Result.COSTS, Result.WORKER}
    assert all(text.startswith("training images was 'first'") for text in found.values())


def test_a_trial_knows_its_worker_without_running_the_code(load):
    recipe = load("1 / 0")
    assert describe(Result.WORKER, recipe)["code of the data set"]
    with pytest.raises(RecipeError, match="division by zero"):
        describe(Result.SUPERNET, recipe)


def test_images_that_nobody_can_know_are_said_to_be(load):
    recipe = load()
    assert describe(Result.SUPERNET, recipe)["training images"] == {"digest": "cannot be known"}


@pytest.mark.slow
def test_every_command_works_with_it(load, tmp_path, monkeypatch, capsys):
    load()
    monkeypatch.chdir(tmp_path)
    assert main(["train", "recipe.yml"]) == 0
    error = capsys.readouterr().err
    assert error.count("warning: data set my_data:Own: does not say when its images change") == 1
    assert main(["search", "recipe.yml", "--output", "best.json"]) == 0
    assert main(["retrain", "recipe.yml", "--path", "best.json"]) == 0
    assert main(["report", "output/search", "--format", "md"]) == 0
    before = contents(tmp_path / "output")
    load(OWN.replace("[0, self.seed]", "[2, self.seed]"))
    capsys.readouterr()
    assert main(["search", "recipe.yml"]) == 2
    assert "code of the data set was" in capsys.readouterr().err
    assert contents(tmp_path / "output") == before
