"""Mean and standard deviation of the training images, where a recipe asks for them."""

from __future__ import annotations

import dataclasses
import json
import pickle

import numpy as np
import pytest

from nni_spos.data import measuring, open_data
from nni_spos.data.transforms import Normalisation
from nni_spos.errors import DataError
from nni_spos.files.locks import exclusive
from nni_spos.recipe.data_settings import FROM_DATA, DataSettings

DIGITS = DataSettings("digits", num_train=150, num_validation=50, normalisation=FROM_DATA)

OWN = '''
import numpy as np
from dataclasses import dataclass
from nni_spos.data import Dataset, DatasetSpec

@dataclass(frozen=True)
class Own(Dataset):
    """Deep images of two channels."""

    def spec(self):
        return DatasetSpec(self.name, 2, 2, (6, 9), (6, 9), (0.5,) * 2, (0.5,) * 2, bits=16)

    def open_training_set(self):
        images = np.random.default_rng(0).integers(0, 65536, (60, 2, 6, 9)).astype(np.uint16)
        images[:, 1] = images[:, 1] // 2 + 60
        return images, np.arange(60) % 2

    def open_test_set(self):
        return self.open_training_set()
'''


def pixels_of(data):
    """Return the values of the training images in [0, 1], as floats of 64 bits."""
    store, splits = data._store, data._splits
    pixels = data._transform.evaluation(store.read(splits.train)).numpy()
    return pixels.astype(np.float64) / data.spec.largest


def check_exact(data):
    values = pixels_of(data)
    assert data.spec.mean == pytest.approx(values.mean((0, 2, 3)), rel=1e-12)
    assert data.spec.std == pytest.approx(values.std((0, 2, 3)), rel=1e-9)


@pytest.fixture
def reads(monkeypatch):
    """How often images are measured."""
    found = []
    original = measuring._measure

    def notice(*arguments):
        found.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(measuring, "_measure", notice)
    return found


@pytest.mark.parametrize("image_size", [None, 5, (6, 9)])
def test_they_are_those_of_the_training_split(image_size):
    data = open_data(dataclasses.replace(DIGITS, image_size=image_size))
    check_exact(data)
    images = np.concatenate([x.numpy() for x, _ in data.recalibration_batches(150, 50, 0)])
    assert images.mean() == pytest.approx(0, abs=1e-5)
    assert images.std() == pytest.approx(1, abs=1e-5)
    assert data.preprocessing["mean"] == list(data.spec.mean)
    usual = open_data(dataclasses.replace(DIGITS, image_size=image_size, normalisation=None))
    assert usual.spec.mean != data.spec.mean
    assert np.array_equal(usual._splits.train, data._splits.train)


def test_deep_images_of_two_channels(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    data = open_data(DataSettings("own:Own", folder=tmp_path, normalisation=FROM_DATA))
    check_exact(data)
    assert data.spec.mean[0] > 1.8 * data.spec.mean[1]


def test_files_of_many_sizes(image_folder):
    settings = DataSettings(
        "image_folder", str(image_folder), image_size=(16, 24), normalisation=FROM_DATA
    )
    check_exact(open_data(settings))


def test_they_are_measured_once_and_kept(tmp_path, reads):
    file = tmp_path / "out" / "normalisation.json"
    first = open_data(DIGITS, measured=file)
    assert json.loads(file.read_text())["mean"] == list(first.spec.mean)
    again = open_data(DIGITS, measured=file)
    other_process = pickle.loads(pickle.dumps(again))
    assert first.spec == again.spec == other_process.spec
    assert len(reads) == 1
    for number, changes in enumerate([{"split_seed": 1}, {"image_size": 5}, {"num_train": 120}]):
        found = open_data(dataclasses.replace(DIGITS, **changes), measured=file)
        assert found.spec.mean != first.spec.mean
        assert len(reads) == 2 + number
    assert open_data(DIGITS).spec == first.spec  # without a file too


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:20],
        lambda text: "[]",
        lambda text: json.dumps({**json.loads(text), "mean": "half"}),
        lambda text: json.dumps({**json.loads(text), "mean": [0.5, 0.5]}),
        lambda text: json.dumps({**json.loads(text), "std": [0]}),
    ],
)
def test_a_damaged_file_is_written_again(tmp_path, reads, damage):
    file = tmp_path / "normalisation.json"
    expected = open_data(DIGITS, measured=file).spec
    whole = file.read_text()
    file.write_text(damage(whole))
    assert open_data(DIGITS, measured=file).spec == expected
    assert file.read_text() == whole
    assert len(reads) == 2


def test_the_one_that_waits_does_not_measure_again(tmp_path, reads, monkeypatch):
    file = tmp_path / "normalisation.json"
    expected = open_data(DIGITS, measured=file)
    content = file.read_text()
    file.unlink()

    def wait(*arguments, **keys):
        file.write_text(content)  # by the process that had the lock
        return exclusive(*arguments, **keys)

    monkeypatch.setattr(measuring, "exclusive", wait)
    assert open_data(DIGITS, measured=file).spec == expected.spec
    assert len(reads) == 1


def test_a_channel_that_says_nothing(tmp_path):
    flat = OWN.replace("images[:, 1] // 2 + 60", "7")
    (tmp_path / "own.py").write_text(flat)
    settings = DataSettings("own:Own", folder=tmp_path, normalisation=FROM_DATA)
    file = tmp_path / "normalisation.json"
    with pytest.raises(DataError) as raised:
        open_data(settings, measured=file)
    assert str(raised.value) == (
        "data.normalisation: channel 1 of the training images of own:Own has the same value "
        "everywhere, so its standard deviation is 0. Leave the channel out of the images, or give "
        "mean and std."
    )
    assert not file.exists()
    assert open_data(dataclasses.replace(settings, normalisation=None)).spec.mean == (0.5, 0.5)


def test_what_a_recipe_gives_is_used():
    given = open_data(dataclasses.replace(DIGITS, normalisation=None, mean=(0.25,), std=(0.125,)))
    assert (given.preprocessing["mean"], given.preprocessing["std"]) == ([0.25], [0.125])
    images, _ = next(iter(given.validation_batches(50)))
    raw = given._transform.evaluation(given._store.read(given._splits.validation))
    assert np.array_equal(images.numpy(), Normalisation(given.spec)(raw).numpy())
    assert images.min() == pytest.approx(-0.25 / 0.125)
