import gzip
import shutil
from urllib.error import URLError

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, FashionMNIST

from nni_spos.data import open_data
from nni_spos.data.datasets import dataset_spec, open_test_set, open_training_set
from nni_spos.data.sources import fashion_mnist
from nni_spos.data.transforms import describe_preprocessing
from nni_spos.errors import DataError, ImagesWarning
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.datasets import DATASETS


def parts(settings):
    spec = dataset_spec(settings)
    return open_training_set(settings, spec), open_test_set(settings, spec)


def pixels(store):
    return store.read(np.arange(len(store.targets)))


def error_of(settings):
    with pytest.raises(DataError) as error:
        open_data(settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_specs_need_no_files():
    own = {"csv": {"file": "nowhere.csv", "label": "class"}}
    specs = [
        dataset_spec(DataSettings(name, "nowhere", num_classes=10, arguments=own.get(name, {})))
        for name in DATASETS.ours
    ]
    assert [(s.image_size, s.channels, s.augmentation) for s in specs] == [
        (16, 1, "shift"),
        (28, 1, "crop_flip"),
        (32, 3, "crop_flip"),
        (224, 3, "imagenet"),
        (224, 3, "imagenet"),
        (224, 3, "imagenet"),
    ]
    changed = dataset_spec(DataSettings("digits", image_size=8, augmentation="none"))
    assert (changed.image_size, changed.augmentation, changed.num_classes) == (8, "none", 10)
    with pytest.raises(DataError, match=r"cifar10 has 10 classes, but .* num_classes = 100"):
        dataset_spec(DataSettings("cifar10", num_classes=100))
    with pytest.raises(DataError, match=r"crop_pct: the images of cifar10 are not cropped\."):
        dataset_spec(DataSettings("cifar10", crop_pct=0.9))


def test_how_much_of_an_image_is_cropped():
    def sizes(**settings):
        made = dataset_spec(DataSettings("image_folder", "nowhere", num_classes=2, **settings))
        return made.image_size, describe_preprocessing(made)["eval_resize"]

    assert sizes() == (224, 256)
    assert sizes(image_size=32) == (32, 37)
    assert sizes(image_size=32, crop_pct=1) == (32, 32)
    assert sizes(crop_pct=0.95) == (224, 236)


def test_digits_parts_are_stratified_and_disjoint():
    train, test = parts(DataSettings("digits"))
    assert pixels(train).shape == (1437, 1, 8, 8)
    assert pixels(test).shape == (360, 1, 8, 8)
    assert pixels(train).max() == 255
    assert np.bincount(test.targets).min() >= 34
    mean, std = pixels(train).double().mean() / 255, pixels(train).double().std() / 255
    spec = dataset_spec(DataSettings("digits"))
    assert spec.mean[0] == pytest.approx(float(mean), abs=1e-3)
    assert spec.std[0] == pytest.approx(float(std), abs=1e-3)
    rows = [{image.numpy().tobytes() for image in pixels(part)} for part in (train, test)]
    assert not rows[0] & rows[1]


def test_ignored_keys_warn():
    with pytest.warns(UserWarning, match="'root' is ignored for digits"):
        open_data(DataSettings("digits", root="somewhere"))


@pytest.mark.skipif(not fashion_mnist.DEBIAN.is_dir(), reason="no package dataset-fashion-mnist")
def test_fashion_mnist_of_debians_package():
    train, test = parts(DataSettings("fashion_mnist"))
    assert pixels(train).shape == (60_000, 1, 28, 28)
    np.testing.assert_array_equal(np.bincount(train.targets), [6000] * 10)
    np.testing.assert_array_equal(np.bincount(test.targets), [1000] * 10)
    spec = dataset_spec(DataSettings("fashion_mnist"))
    assert spec.mean[0] == pytest.approx(float(pixels(train).double().mean()) / 255, abs=1e-4)


def test_fashion_mnist_plain_and_in_torchvisions_folders(fashion_mnist_folder, tmp_path):
    expected = pixels(parts(DataSettings("fashion_mnist", str(fashion_mnist_folder)))[0])
    raw = tmp_path / "other" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for file in fashion_mnist_folder.iterdir():
        (raw / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
    train, test = parts(DataSettings("fashion_mnist", str(tmp_path / "other")))
    assert pixels(train).equal(expected)
    assert len(test.targets) == 50
    # torchvision agrees about what is in these files
    assert FashionMNIST(tmp_path / "other").data[:, None].equal(expected)


def test_fashion_mnist_missing_says_where_and_how(tmp_path, monkeypatch):
    message = error_of(DataSettings("fashion_mnist", str(tmp_path)))
    assert f"are not in {tmp_path} or {tmp_path / 'FashionMNIST/raw'}." in message
    assert "'download: true'" in message
    assert "dataset-fashion-mnist" in message
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "debian")
    assert str(tmp_path / "cache" / "nni_spos") in error_of(DataSettings("fashion_mnist"))
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("damage", [b"", b"no archive", "truncated", "short"])
def test_fashion_mnist_damaged(fashion_mnist_folder, damage):
    file = fashion_mnist_folder / "train-images-idx3-ubyte.gz"
    if damage == "truncated":
        damage = file.read_bytes()[:5000]
    elif damage == "short":
        damage = gzip.compress(gzip.decompress(file.read_bytes())[:-1])
    file.write_bytes(damage)
    message = error_of(DataSettings("fashion_mnist", str(fashion_mnist_folder)))
    assert message.startswith(f"fashion_mnist: {file} is damaged (")


def test_fashion_mnist_files_that_do_not_belong_together(fashion_mnist_folder):
    shutil.copy(
        fashion_mnist_folder / "t10k-labels-idx1-ubyte.gz",
        fashion_mnist_folder / "train-labels-idx1-ubyte.gz",
    )
    message = error_of(DataSettings("fashion_mnist", str(fashion_mnist_folder)))
    assert "images of shape (200, 28, 28) and 50 labels" in message


def test_download_is_torchvisions_and_happens_only_when_needed(
    fashion_mnist_folder, tmp_path, monkeypatch, capsys
):
    calls = []

    def download(self):
        calls.append(self.root)
        print("Downloading")
        raw = tmp_path / "new" / "FashionMNIST" / "raw"
        shutil.copytree(fashion_mnist_folder, raw)
        for file in fashion_mnist_folder.iterdir():
            (raw / file.stem).write_bytes(gzip.decompress(file.read_bytes()))

    monkeypatch.setattr(FashionMNIST, "download", download)
    settings = DataSettings("fashion_mnist", str(tmp_path / "new"), download=True)
    assert len(parts(settings)[0].targets) == 200
    assert len(parts(settings)[0].targets) == 200
    assert len(calls) == 1
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("name", "cls"), [("fashion_mnist", FashionMNIST), ("cifar10", CIFAR10)])
@pytest.mark.parametrize("problem", [URLError("no route\nto host"), RuntimeError("bad checksum")])
def test_failed_download_is_one_line(name, cls, problem, tmp_path, monkeypatch):
    def fail(self):
        raise problem

    monkeypatch.setattr(cls, "download", fail)
    message = error_of(DataSettings(name, str(tmp_path), download=True))
    assert message.startswith(f"{name}: could not be downloaded to {tmp_path} (")
    assert "Check the network" in message


def test_download_into_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("fashion_mnist", "cifar10"):
        message = error_of(DataSettings(name, str(tmp_path / "file" / "root"), download=True))
        assert "could not be downloaded" in message


def test_cifar10(cifar10_folder):
    train, test = parts(DataSettings("cifar10", str(cifar10_folder)))
    assert pixels(train).shape == (200, 3, 32, 32)
    expected = CIFAR10(cifar10_folder).data  # height, width, channels
    np.testing.assert_array_equal(pixels(train).permute(0, 2, 3, 1).numpy(), expected)
    assert len(test.targets) == 30


def test_cifar10_missing_or_damaged(cifar10_folder, tmp_path):
    message = error_of(DataSettings("cifar10", str(tmp_path)))
    assert message.startswith(f"cifar10: data_batch_1 is not in {tmp_path / CIFAR10.base_folder}.")
    assert "'download: true'" in message
    file = cifar10_folder / CIFAR10.base_folder / "data_batch_3"
    file.write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")  # must be refused before it is unpickled
    message = error_of(DataSettings("cifar10", str(cifar10_folder)))
    assert message.startswith(f"cifar10: {file} is damaged.")


def test_image_folder(image_folder):
    settings = DataSettings("image_folder", str(image_folder))
    (image_folder / "train" / ".hidden").mkdir()
    (image_folder / "train" / "cat" / "notes.txt").write_text("not an image")
    assert dataset_spec(settings).num_classes == 2
    train, test = parts(settings)
    np.testing.assert_array_equal(np.bincount(train.targets), [12, 12])
    np.testing.assert_array_equal(np.bincount(test.targets), [3, 3])
    bright = [np.asarray(image).mean() > 100 for image in pixels(train)]
    np.testing.assert_array_equal(bright, train.targets == 1)


@pytest.mark.parametrize("name", ["validation", "test"])
def test_other_names_of_the_test_folder(image_folder, name):
    (image_folder / "val").rename(image_folder / name)
    assert len(parts(DataSettings("image_folder", str(image_folder)))[1].targets) == 6


def test_image_folder_problems(image_folder, tmp_path):
    assert "needs 'root'" in error_of(DataSettings("image_folder"))
    message = error_of(DataSettings("image_folder", str(tmp_path / "nowhere")))
    assert f"{tmp_path / 'nowhere' / 'train'} has no class folders" in message
    settings = DataSettings("image_folder", str(image_folder), num_classes=3)
    assert "has 2 class folders, but the recipe's data section says num_classes = 3" in error_of(
        settings
    )
    settings = DataSettings("image_folder", str(image_folder))
    data = open_data(settings)
    (image_folder / "val" / "bird").mkdir()
    with pytest.raises(DataError, match="class folder 'bird' is in only one of"):
        data.test_batches(4)
    shutil.rmtree(image_folder / "val")
    with pytest.raises(DataError, match="has no test images"):
        data.test_batches(4)
    shutil.rmtree(image_folder / "train" / "cat")
    (image_folder / "train" / "cat").mkdir()
    assert "cat has no image of its own. Allowed are files that end in" in error_of(settings)


def test_damaged_files_of_a_folder_are_left_out_if_the_recipe_says_so(image_folder):
    (image_folder / "train" / "cat" / "3.jpg").write_bytes(b"no image")
    (image_folder / "val" / "dog" / "1.jpg").write_bytes(b"")
    settings = DataSettings("image_folder", str(image_folder), image_size=8, on_error="skip")
    message = (
        "open_training_set: 1 of 24 images cannot be read and are left out.*/cat/3.jpg: cannot"
    )
    with pytest.warns(ImagesWarning, match=message):
        data = open_data(settings)
    with pytest.warns(ImagesWarning, match="open_test_set: 1 of 6 images cannot be read"):
        assert data.test_batches(9).num_images == 5
    assert data.num_train + data.num_validation == 23
    assert sum(len(x) for x, _ in data.train_loader(data.num_train, 0)) == data.num_train
    for file in (image_folder / "train").rglob("*.jpg"):
        file.write_bytes(b"no image")
    with pytest.raises(DataError, match="none of 24 images can be read"):
        open_data(settings)
