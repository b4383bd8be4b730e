"""Any data set of torchvision, with files in its own format that are written here."""

from __future__ import annotations

import gzip
import pickle
import struct

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from nni_spos.data import dataset_spec, open_data
from nni_spos.errors import DataError, ImagesWarning, RecipeError
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.dataset import is_ours


def settings(name, root=None, **keys):
    common = {x: keys.pop(x) for x in list(keys) if x in DataSettings.__dataclass_fields__}
    root = None if root is None else str(root)
    return DataSettings(f"torchvision:{name}", root, **common, arguments=keys)


def only(batches):
    (batch,) = batches
    return batch


@pytest.fixture
def mnist(tmp_path):
    """Files of FashionMNIST: a class has images of one grey value, 20 times itself."""
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for prefix, number in (("train", 60), ("t10k", 20)):
        labels = (np.arange(number) % 10).astype(np.uint8)
        images = np.broadcast_to(20 * labels[:, None, None], (number, 28, 28)).astype(np.uint8)
        for kind, header, values in (
            ("images-idx3", struct.pack(">IIII", 0x803, number, 28, 28), images),
            ("labels-idx1", struct.pack(">II", 0x801, number), labels),
        ):
            (folder / f"{prefix}-{kind}-ubyte").write_bytes(header + values.tobytes())
            with gzip.open(folder / f"{prefix}-{kind}-ubyte.gz", "wb") as stream:
                stream.write(header + values.tobytes())
    return tmp_path


@pytest.fixture
def pets(tmp_path):
    """Files of OxfordIIITPet: images of three breeds, of sizes of their own."""
    root = tmp_path / "oxford-iiit-pet"
    for name in ("images", "annotations"):
        (root / name).mkdir(parents=True)
    for split, numbers in (("trainval", range(30)), ("test", range(30, 39))):
        lines = []
        for i in numbers:
            name = f"{('Cat', 'dog', 'pug')[i % 3]}_{i}"
            Image.new("RGB", (20 + i, 30), (6 * i, 0, 0)).save(root / "images" / f"{name}.jpg")
            lines.append(f"{name} {i % 3 + 1} 1 1")
        (root / "annotations" / f"{split}.txt").write_text("\n".join(lines))
    return tmp_path


def test_fashion_mnist_in_torchvisions_own_format(mnist):
    data = open_data(settings("FashionMNIST", mnist, num_validation=10))
    spec = data.spec
    assert (spec.name, spec.num_classes, spec.channels) == ("torchvision:FashionMNIST", 10, 1)
    assert (spec.image_size, data.num_train, data.num_validation) == (28, 50, 10)
    images, labels = only(data.test_batches(99))
    assert labels.tolist() == list(range(10)) * 2
    grey = (images[:, 0, 14, 14] * spec.std[0] + spec.mean[0]) * 255
    np.testing.assert_allclose(grey.numpy(), 20 * labels.numpy(), atol=1e-3)


def test_cifar10_in_torchvisions_own_format(cifar10_folder):
    data = open_data(settings("CIFAR10", cifar10_folder))
    assert (data.spec.num_classes, data.spec.channels, data.spec.image_size) == (10, 3, 32)
    assert (data.num_train, data.num_validation) == (180, 20)
    with open(cifar10_folder / "cifar-10-batches-py" / "test_batch", "rb") as stream:
        pixels = pickle.load(stream)["data"].reshape(30, 3, 32, 32)
    images, labels = only(data.test_batches(99))
    assert labels.tolist() == [i % 10 for i in range(30)]
    mean, std = (np.array(x)[:, None, None] for x in (data.spec.mean, data.spec.std))
    np.testing.assert_allclose(images.numpy() * std + mean, pixels / 255, atol=1e-5)


def test_parts_by_name_and_photos_of_any_size(pets):
    made = settings("OxfordIIITPet", pets, image_size=16)
    data = open_data(made)
    assert (data.spec.num_classes, data.spec.augmentation) == (3, "imagenet")
    assert data.num_train + data.num_validation == 30
    images, labels = only(data.test_batches(99))
    assert images.shape == (9, 3, 16, 16)
    assert labels.tolist() == [0, 1, 2] * 3
    own = open_data(settings("OxfordIIITPet", pets, image_size=16, validation_split="test"))
    assert (own.num_train, own.num_validation) == (30, 9)
    assert own.test_batches(99).num_images == 9
    with pytest.raises(DataError, match="has no test set"):
        open_data(settings("OxfordIIITPet", pets, split="test", test_split=None)).test_batches(9)


def test_a_test_set_by_the_name_that_the_class_knows(pets, monkeypatch):
    class Pets(datasets.OxfordIIITPet):
        def __init__(self, root, split="trainval"):
            if split not in ("trainval", "val"):
                raise ValueError(f"Unknown value '{split}' for argument split.")
            super().__init__(root, "test" if split == "val" else split)

    monkeypatch.setattr(datasets, "Country211", Pets)
    assert open_data(settings("Country211", pets)).test_batches(9).num_images == 9


def test_fake_data_needs_no_files():
    data = open_data(settings("FakeData", size=20, num_classes=2, image_size=8, num_test=4))
    assert (data.spec.num_classes, data.spec.channels, data.spec.image_size) == (2, 3, 8)
    assert (data.num_train, data.num_validation, data.test_batches(9).num_images) == (14, 2, 4)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (settings("CIFAR11"), "unknown data set of torchvision 'CIFAR11'; did you mean 'CIFAR1"),
        (settings(""), "write what is to be found: torchvision:NAME."),
        (settings("CIFAR10", trian=True), "unknown key 'trian'. Keys: name, root, download"),
        (settings("FashionMNIST", transform=1), "unknown key 'transform'"),
        (settings("OxfordIIITPet", split=7), ".split: got 7; must be text, or null."),
        (settings("OxfordIIITPet", test_splt="val"), "did you mean 'test_split'? Keys: name, "),
    ],
)
def test_names_and_keys_that_there_are_not(made, message):
    with pytest.raises(RecipeError) as caught:
        dataset_spec(made)
    assert message in str(caught.value)


def test_missing_files_are_said_with_what_to_do(tmp_path):
    with pytest.raises(DataError) as caught:
        open_data(settings("CIFAR100", tmp_path))
    text = str(caught.value)
    assert text.startswith(f"data set torchvision:CIFAR100: cannot be read in {tmp_path} (Dataset")
    assert text.endswith(f"Set 'download: true' in the recipe's data section, or put its files "
                         f"into {tmp_path}.")  # fmt: skip
    with pytest.raises(DataError, match=r"torchvision does not download it\. Put its files into "):
        open_data(settings("FER2013", tmp_path))
    assert "\n" not in text


def test_a_failed_download_is_one_line(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("Network is unreachable")

    monkeypatch.setattr("torchvision.datasets.utils.urllib.request.urlopen", fail)
    with pytest.raises(DataError, match=r"could not be downloaded to .* Check the network and t"):
        open_data(settings("CIFAR100", tmp_path, download=True))


def test_what_is_published_never_changes_and_folders_may(pets, tmp_path):
    made = settings("OxfordIIITPet", pets)
    assert made.own().digest_training_images() is None
    assert not is_ours(made)
    assert settings("FakeData").own().digest_training_images() is None
    for i in range(12):
        folder = tmp_path / "folder" / f"class{i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9)).save(folder / f"{i}.png")
    with pytest.warns(ImagesWarning, match="does not say when its images change"):
        assert dataset_spec(settings("ImageFolder", tmp_path / "folder")).num_classes == 2
