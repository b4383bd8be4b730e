"""Small files of our data sets."""

import gzip
import hashlib
import pickle
import struct

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10


@pytest.fixture
def image_folder(tmp_path):
    """Root of 24 training and 6 test images of two classes, of several sizes."""
    rng = np.random.default_rng(0)
    root = tmp_path / "images"
    for part, number in (("train", 12), ("val", 3)):
        for label, name in enumerate(("cat", "dog")):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(number):
                pixels = rng.integers(0, 100, (40 + i, 60 - i, 3)) + 100 * label
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.jpg")
    return root


@pytest.fixture
def csv_folder(image_folder):
    """The same images, and the file images.csv that lists them: two of each camera."""
    rows = ["image,class,split,camera"]
    for part, number in (("train", 12), ("val", 3)):
        split = {"train": "train", "val": "test"}[part]
        for i in range(number):
            for name in ("cat", "dog"):
                rows.append(f"{part}/{name}/{i}.jpg,{name},{split},{part}{i}")
    (image_folder / "images.csv").write_text("\n".join(rows))
    return image_folder


@pytest.fixture
def segmentation_folder(tmp_path):
    """Images whose red is 0, 100 or 200 where the mask has the class 0, 1 or 2."""
    root = tmp_path / "scenes"
    generator = np.random.default_rng(0)
    for part, number in (("train", 12), ("val", 2)):
        for kind in ("images", "masks"):
            (root / part / kind).mkdir(parents=True)
        for i in range(number):
            # Large patches: where they meet, a resized image has values between.
            mask = generator.integers(3, size=(2, 2)).repeat(16, 0).repeat(16, 1)
            image = np.stack([100 * mask, 0 * mask, 0 * mask], -1).astype(np.uint8)
            Image.fromarray(image).save(root / part / "images" / f"{i}.png")
            Image.fromarray(mask.astype(np.uint8)).save(root / part / "masks" / f"{i}.png")
    return root


@pytest.fixture
def fashion_mnist_folder(tmp_path):
    """Files in the format and with the names of Fashion-MNIST: 200 training, 50 test images."""
    rng = np.random.default_rng(0)
    root = tmp_path / "fashion"
    root.mkdir()
    for prefix, number in (("train", 200), ("t10k", 50)):
        images = rng.integers(0, 256, (number, 28, 28), dtype=np.uint8)
        header = struct.pack(">IIII", 0x803, number, 28, 28)
        with gzip.open(root / f"{prefix}-images-idx3-ubyte.gz", "wb") as stream:
            stream.write(header + images.tobytes())
        labels = (np.arange(number) % 10).astype(np.uint8)
        with gzip.open(root / f"{prefix}-labels-idx1-ubyte.gz", "wb") as stream:
            stream.write(struct.pack(">II", 0x801, number) + labels.tobytes())
    return root


@pytest.fixture
def cifar10_folder(tmp_path, monkeypatch):
    """Root of files in the layout of CIFAR-10, whose checksums torchvision is told to expect."""
    rng = np.random.default_rng(0)
    root = tmp_path / "cifar"
    folder = root / CIFAR10.base_folder
    folder.mkdir(parents=True)

    def write(name, content):
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    def batch(number):
        images = rng.integers(0, 256, (number, 3072), dtype=np.uint8)
        return {"data": images, "labels": [i % 10 for i in range(number)]}

    train = [[f"data_batch_{i}", write(f"data_batch_{i}", batch(40))] for i in range(1, 6)]
    monkeypatch.setattr(CIFAR10, "train_list", train)
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", write("test_batch", batch(30))]])
    names = {"label_names": [f"class {i}" for i in range(10)]}
    meta = {**CIFAR10.meta, "md5": write("batches.meta", names)}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    return root
