"""Data sets of the package datasets: folders that save_to_disk wrote, and names of the Hub."""

from __future__ import annotations

import json
import shutil
import sys

import datasets
import numpy as np
import pytest
from PIL import Image

from nni_spos.data import dataset_spec, open_data
from nni_spos.errors import DataError, ImagesWarning, RecipeError
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.json_schema import recipe_schema

COLUMNS = datasets.Features(
    {
        "photo": datasets.Image(),
        "kind": datasets.ClassLabel(names=["cat", "dog", "emu"]),
        "tags": datasets.List(datasets.Value("int64")),
        "x": datasets.Value("float32"),
        "y": datasets.Value("float32"),
        "camera": datasets.Value("string"),
    }
)


def rows(numbers):
    values = {
        "photo": [Image.fromarray(np.full((9, 9, 3), 8 * i, np.uint8)) for i in numbers],
        "kind": [i % 2 for i in numbers],
        "tags": [[i % 2, 1] for i in numbers],
        "x": [i / 8 for i in numbers],
        "y": [0.5 for i in numbers],
        "camera": [f"c{i // 4}" for i in numbers],
    }
    return datasets.Dataset.from_dict(values, features=COLUMNS)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    datasets.disable_progress_bars()
    folder = tmp_path_factory.mktemp("saved")
    parts = {"train": rows(range(20)), "validation": rows(range(20, 24)), "test": rows([24, 25])}
    datasets.DatasetDict(parts).save_to_disk(folder / "parts")
    rows(range(20)).save_to_disk(folder / "one")
    return folder


def named(folder, name="parts", **keys):
    common = {x: keys.pop(x) for x in list(keys) if x in DataSettings.__dataclass_fields__}
    return DataSettings(f"huggingface:{name}", **common, arguments=keys, folder=folder)


def only(batches):
    (batch,) = batches
    return batch


def numbers(batches):
    spec = batches.spec
    images, _ = only(batches)
    return [
        round(x) for x in ((images[:, 0, 0, 0] * spec.std[0] + spec.mean[0]) * 255 / 8).tolist()
    ]


def test_a_saved_folder_is_read(saved):
    data = open_data(named(saved))
    spec = data.spec
    assert (spec.num_classes, spec.channels, spec.image_size, spec.target) == (3, 3, 9, "class")
    assert (data.num_train, data.num_validation) == (18, 2)
    assert numbers(data.test_batches(9)) == [24, 25]
    labels = only(data.recalibration_batches(99, 99, 0))[1]
    assert labels.tolist() == [i % 2 for i in numbers(data.recalibration_batches(99, 99, 0))]
    own = open_data(named(saved, validation_split="validation"))
    assert numbers(own.validation_batches(9)) == [20, 21, 22, 23]
    assert open_data(named(saved, "one", num_test=2)).test_batches(9).num_images == 2


@pytest.mark.parametrize(
    ("keys", "target", "expected"),
    [
        ({"labels": "tags"}, "labels", lambda i: [i % 2, 1]),
        ({"labels": ["kind", "kind"]}, "labels", lambda i: [i % 2, i % 2]),
        ({"values": ["x", "y"]}, "values", lambda i: [i / 8, 0.5]),
        ({"values": "x"}, "values", lambda i: [i / 8]),
    ],
)
def test_labels_and_values(saved, keys, target, expected):
    data = open_data(named(saved, **keys))
    batches = data.recalibration_batches(99, 99, 0)
    assert (data.spec.target, data.spec.num_classes) == (target, len(expected(0)))
    assert only(batches)[1].tolist() == [expected(i) for i in numbers(batches)]


def test_groups_of_a_column_stay_together(saved):
    data = open_data(named(saved, groups="camera", num_validation=4))
    held = {i // 4 for i in numbers(data.validation_batches(9))}
    kept = {i // 4 for i in numbers(data.recalibration_batches(99, 99, 0))}
    assert (len(held), held | kept, held & kept) == (1, set(range(5)), set())


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ({"imge": "photo"}, RecipeError, "unknown key 'imge'; did you mean 'image'? Keys: name"),
        ({"label": "kind", "values": "x"}, RecipeError, "needs one of label, labels and values"),
        ({"label": "knd"}, DataError, "unknown column 'knd'; did you mean 'kind'? Columns: photo"),
        ({"split": "trian"}, DataError, "unknown split 'trian'; did you mean 'train'? Splits: tr"),
        ({"test_split": "no"}, DataError, "unknown split 'no'. Splits: train, validation, test."),
        ({"name": "nowhere"}, DataError, "nowhere. If this is a name of the Hugging Face Hub, set"),
    ],
)
def test_what_is_wrong_is_one_line(saved, keys, error, message):
    with pytest.raises(error) as caught:
        dataset_spec(named(saved, keys.pop("name", "parts"), **keys))
    assert message in str(caught.value)


def test_columns_that_nobody_names(saved, tmp_path):
    rows([0, 1]).remove_columns(["kind"]).save_to_disk(tmp_path / "few")
    with pytest.raises(DataError, match=r"no column is known to have classes\. Set 'label' to one"):
        dataset_spec(named(tmp_path, "few"))
    (tmp_path / "few" / "state.json").write_text("{")
    with (
        pytest.raises(DataError, match=r"cannot be loaded from .*few"),
        pytest.warns(ImagesWarning),
    ):
        dataset_spec(named(tmp_path, "few"))


def test_without_the_package_there_is_one_line(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'nni_spos\[huggingface\]'\.$"):
        dataset_spec(named(saved, split="other"))


def test_a_folder_is_known_by_its_contents(saved, tmp_path):
    before = named(saved).own().digest_training_images()
    shutil.copytree(saved / "parts", tmp_path / "copied")
    assert named(tmp_path, "copied").own().digest_training_images() == before
    file = tmp_path / "copied" / "train" / "state.json"
    state = json.loads(file.read_text())
    file.write_text(json.dumps({**state, "_fingerprint": "other"}))
    assert named(tmp_path, "copied").own().digest_training_images() != before


def test_a_name_of_the_hub_is_downloaded_if_the_recipe_says_so(saved, monkeypatch, tmp_path):
    asked = []

    def load_dataset(*names, **options):
        asked.append((names, options))
        return datasets.load_from_disk(saved / "parts")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    keys = {"download": True, "subset": "small", "revision": "3f", "root": "cache"}
    assert open_data(named(tmp_path, "me/pets", **keys)).num_train == 18
    options = {"revision": "3f", "cache_dir": str(tmp_path / "cache")}
    assert asked == [(("me/pets", "small"), options)]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: 1 / 0)
    with pytest.raises(DataError, match="cannot be loaded from the Hugging Face Hub"):
        open_data(named(tmp_path, "me/other", **keys))


def test_the_schema_knows_its_keys():
    rules = recipe_schema()["properties"]["data"]["allOf"]
    (found,) = [x for x in rules if x["if"]["properties"]["name"].get("pattern") == "^huggingface:"]
    assert {"subset", "labels", "root"} <= set(found["then"]["properties"])
