"""Images that are not square, with any channels and of 16 bits, from files to the network."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from nni_spos.data import DatasetSpec, dataset_spec, open_data
from nni_spos.data.generated import GeneratedData
from nni_spos.data.masks import prepare
from nni_spos.data.pixels import array_type
from nni_spos.data.stores import ImageFiles
from nni_spos.data.transforms import (
    ImageTransform,
    Normalisation,
    check_preprocessing,
    describe_preprocessing,
    random_keys,
)
from nni_spos.errors import CheckpointError, DataError
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.training.resizing import resize, resize_targets

BANDS = '''
import numpy as np
from dataclasses import dataclass
from nni_spos.data import Dataset, DatasetSpec
from nni_spos.recipe.settings import BOOL, setting

SIZES = [(12, 20), (16, 18), (15, 30)]


class Store:
    """Arrays of several sizes, as files of several bands would be read."""

    def __init__(self, seed, number, wrong):
        self.targets = np.arange(number) % 2
        self.seed, self.wrong = seed, wrong

    def read(self, indices):
        images = []
        for i in indices:
            rng = np.random.default_rng([self.seed, i])
            channels = 3 if self.wrong and i == 5 else 4
            image = rng.integers(0, 2**16, (channels, *SIZES[i % 3]))
            images.append((image // 2 + 2**14 * self.targets[i]).astype(np.uint16))
        return images

    def digest(self, indices):
        return repr((self.seed, indices.tolist()))


@dataclass(frozen=True)
class Bands(Dataset):
    wrong: bool = setting(BOOL, False)

    def spec(self):
        return DatasetSpec(
            self.name, 2, 4, None, (8, 12), (0.5,) * 4, (0.25,) * 4, "shift", 0.8, bits=16
        )

    def open_training_set(self):
        return Store(0, 60, self.wrong)

    def open_test_set(self):
        return Store(1, 20, self.wrong)

    def digest_training_images(self):
        return None

    def digest_test_images(self):
        return None
'''


def spec(size, channels=1, augmentation="none", crop_pct=1.0, native=None, bits=8):
    return DatasetSpec(
        "x", 2, channels, native, size, (0.5,) * channels, (0.25,) * channels, augmentation,
        crop_pct, bits=bits,
    )  # fmt: skip


def keys(number):
    return random_keys(0, np.zeros(number, np.int64), np.arange(number))


@pytest.fixture
def bands(tmp_path):
    """Return the settings of a user's data set of four bands, 16 bits and several sizes."""
    (tmp_path / "bands.py").write_text(BANDS)

    def make(**keys):
        return DataSettings("bands:Bands", folder=tmp_path, **keys)

    return make


# ------------------------------------------------------------------------------------ geometry


def test_an_image_keeps_its_shape_when_its_centre_is_cropped():
    """A picture of (row, column) shows where the pixels of the result are from, and how scaled."""
    rows, columns = np.mgrid[0:120, 0:90]
    picture = Image.fromarray(np.stack([rows, columns, rows * 0], -1).astype(np.uint8))
    found = ImageTransform(spec((20, 30), 3)).evaluation([picture])[0].float()
    assert found.shape == (3, 20, 30)
    # 90 columns become 30, so 20 of 40 rows are left, those from 30 on.
    assert found[0, :, 0].diff() == pytest.approx(np.full(19, 3.0), abs=1.01)
    assert found[1, 0].diff() == pytest.approx(np.full(29, 3.0), abs=1.01)
    assert found[0, 0, 0] == pytest.approx(31, abs=1)
    assert found[1, 0, 0] == pytest.approx(1, abs=1)
    # With a part of it, the outer parts are left out on both sides.
    cropped = ImageTransform(spec((20, 30), 3, crop_pct=0.5)).evaluation([picture])[0].float()
    assert cropped[1, 0, 0] == pytest.approx(0.25 * 90, abs=2)
    assert cropped[1, 0, -1] == pytest.approx(0.75 * 90, abs=2)


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (21, 31), (20, 200)])
def test_images_of_any_size_become_images_of_one(shape):
    picture = Image.fromarray(np.full((*shape, 3), 7, np.uint8))
    for given in (spec((20, 30), 3, crop_pct=0.875), spec(20, 3, crop_pct=0.875)):
        found = ImageTransform(given).evaluation([picture])
        assert found.shape == (1, *given.input_shape)
        assert (found == 7).all(), "a border was added"


def test_a_shift_is_an_eighth_of_each_side():
    image = torch.arange(1, 16 * 24 + 1).view(1, 1, 16, 24).remainder(251).to(torch.uint8)
    many = image.expand(150, 1, 16, 24)
    found = ImageTransform(spec((16, 24), augmentation="shift", native=(16, 24))).training(
        many, keys(150)
    )
    pixels = (found * 0.25 + 0.5) * 255
    padded = torch.nn.functional.pad(image, [3, 3, 2, 2]).float()
    places = {
        (top, left)
        for one in pixels
        for top in range(5)
        for left in range(7)
        if torch.allclose(one, padded[0, :, top : top + 16, left : left + 24], atol=1e-3)
    }
    assert len(places) == 5 * 7


def test_the_crops_of_a_square_are_those_of_torchvision():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8))
    given = spec(16, 3, "imagenet")
    found = ImageTransform(given).training([picture], keys(1))
    usual = v2.Compose(
        [
            v2.RandomResizedCrop(16, antialias=True),
            v2.ColorJitter(0.4, 0.4, 0.4),
            v2.RandomHorizontalFlip(),
        ]
    )
    with torch.random.fork_rng():
        torch.manual_seed(int(keys(1)[0]))
        expected = v2.functional.pil_to_tensor(usual(picture))
    assert torch.equal(found, Normalisation(given)(expected[None]))


@pytest.mark.parametrize(("channels", "bits"), [(1, 16), (2, 8), (3, 16), (4, 8), (13, 16)])
def test_random_crops_of_any_channels(channels, bits):
    given = spec((16, 24), channels, "imagenet", bits=bits)
    kind = {8: np.uint8, 16: np.uint16}[bits]
    stored = [np.full((channels, 30 + i, 40), given.largest // 2, kind) for i in range(3)]
    transform = ImageTransform(given)
    found = transform.training(transform.promised(stored, np.arange(3)), keys(3))
    assert found.shape == (3, channels, 16, 24)
    assert found.isfinite().all()
    if channels not in (1, 3):  # no colours that could be varied
        middle = (given.largest // 2 / given.largest - 0.5) / 0.25
        assert found.numpy() == pytest.approx(middle, abs=1e-5)


# ---------------------------------------------------------------------------------- 16 bits


@pytest.mark.parametrize("channels_last", [False, True])
def test_no_value_of_16_bits_is_lost(channels_last):
    given = spec((256, 256), native=(256, 256), bits=16)
    pixels = torch.from_numpy(np.arange(65536, dtype=np.uint16).reshape(1, 1, 256, 256))
    found = Normalisation(given, channels_last=channels_last)(
        ImageTransform(given).evaluation(pixels)
    )
    assert len(found.unique()) == 65536
    expected = (np.arange(65536) / 65535 - 0.5) / 0.25
    assert np.abs(found.numpy().ravel() - expected).max() < 1e-6


@pytest.mark.parametrize("channels", [1, 3])
def test_files_of_16_bits_are_read_as_they_are(tmp_path, channels):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 65536, (6, 8), dtype=np.uint16)
    (tmp_path / "a").mkdir()
    Image.fromarray(values).save(tmp_path / "a" / "0.png")
    Image.fromarray(values).save(tmp_path / "a" / "1.tif")
    Image.fromarray((values >> 8).astype(np.uint8)).save(tmp_path / "a" / "2.png")
    files = ImageFiles(tmp_path, ["a"], channels, 16)
    deep, other, shallow = files.read(np.arange(3))
    assert deep.dtype == torch.uint16
    assert torch.equal(deep, torch.from_numpy(values).expand(channels, 6, 8))
    assert torch.equal(deep, other)
    high_bytes = torch.from_numpy((values >> 8).astype(np.int32))
    assert torch.equal(shallow.int(), high_bytes.expand(channels, 6, 8) * 257)


def write_deep_colours(file, values):
    """Write a PNG of 16-bit RGB or RGBA, which Pillow cannot write; shape (H, W, 3 or 4)."""

    def chunk(name, data):
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    height, width, channels = values.shape
    kind = {3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )  # fmt: skip


def test_colours_of_16_bits_are_read_as_they_are(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 65536, (6, 8, 3), dtype=np.uint16)
    (tmp_path / "a").mkdir()
    write_deep_colours(tmp_path / "a" / "0.png", values)
    found = ImageFiles(tmp_path, ["a"], 3, 16).read(np.array([0]))[0]
    assert torch.equal(found, torch.from_numpy(values).permute(2, 0, 1))
    grey = ImageFiles(tmp_path, ["a"], 1, 16).read(np.array([0]))[0]
    assert np.abs(grey.numpy()[0] - values @ [0.299, 0.587, 0.114]).max() <= 0.5
    opaque = np.concatenate([values, np.full((6, 8, 1), 65535)], -1)
    write_deep_colours(tmp_path / "a" / "0.png", opaque)
    assert torch.equal(ImageFiles(tmp_path, ["a"], 3, 16).read(np.array([0]))[0], found)
    opaque[0, 0, 3] = 65534
    write_deep_colours(tmp_path / "a" / "0.png", opaque)
    with pytest.raises(DataError, match=r"0\.png: .*some of its pixels are transparent"):
        ImageFiles(tmp_path, ["a"], 3, 16).read(np.array([0]))


def test_files_of_16_bits_that_are_said_to_have_8(tmp_path):
    (tmp_path / "a").mkdir()
    Image.fromarray(np.full((6, 8), 40_000, np.uint16)).save(tmp_path / "a" / "0.png")
    with pytest.raises(DataError, match=r"0\.png: .*16 bits, .*bits: 8\. Say bits: 16, or"):
        ImageFiles(tmp_path, ["a"], 1, 8).read(np.array([0]))
    (scaled,) = ImageFiles(tmp_path, ["a"], 1).read(np.array([0]))
    assert (scaled.mode, set(np.asarray(scaled).ravel())) == ("L", {round(40_000 / 257)})


# ------------------------------------------------------------------------------- whole data sets


@pytest.mark.parametrize("held_mb", [16, 0])
def test_images_of_bands_from_a_store_to_batches(bands, tmp_path, held_mb):
    data = open_data(bands(held_mb=held_mb, num_validation=10), tmp_path / "held")
    assert data.spec.input_shape == (4, 8, 12)
    (held, labels), again = (next(iter(data.validation_batches(10))) for _ in range(2))
    assert held.shape == (10, 4, 8, 12)
    assert torch.equal(held, again[0])
    files = {x.name for x in (tmp_path / "held").glob("*.u16")}
    assert files == ({"validation.u16"} if held_mb == 0 else set())
    assert labels.tolist().count(0) == 5
    # Not a value is one of 8 bits only.
    values = (held * 0.25 + 0.5) * 65535
    assert (values - values.round()).abs().max() < 0.02
    assert (values.round() % 257 != 0).any()
    images, _ = next(iter(data.train_loader(8, seed=0)))
    assert images.shape == (8, 4, 8, 12)
    described = describe_preprocessing(data.spec)
    assert described["image_size"] == [8, 12]
    assert described["eval_resize"] == [10, 15]
    check_preprocessing({**described, "eval_resize": (10, 15)}, described)
    with pytest.raises(CheckpointError, match="image_size is 8 in the checkpoint, "):
        check_preprocessing({**described, "image_size": 8}, described)
    assert GeneratedData(data.spec, 4, 0).train_batch()[0].shape == (4, 4, 8, 12)


def test_images_with_different_channels(bands):
    data = open_data(bands(arguments={"wrong": True}, num_validation=10))
    with pytest.raises(DataError) as raised:
        list(data.train_loader(50, seed=0))
    assert str(raised.value).startswith(
        "data set bands:Bands: image 5 has shape (3, 15, 30) and type torch.uint16; must have "
        "shape (4, height, width) and type torch.uint16, as the data set says."
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("bits=16", "bits=8", r"let its spec\(\) say bits=16"),
        ("bits=16", "bits=12", r"its spec\(\) says 12 bits; must be 8 or 16"),
        (
            "(0.25,) * 4",
            "(0.25,) * 3",
            "has 4 values of mean and 3 of std; must be 4",
        ),
        ("(0.25,) * 4", "(0.0,) * 4", "must be above 0"),
        ("(8, 12)", "(8, 0)", "a size of images must be a whole number > 0"),
    ],
)
def test_specs_that_are_refused(bands, tmp_path, old, new, message):
    (tmp_path / "bands.py").write_text(BANDS.replace(old, new))
    with pytest.raises(DataError, match=message):
        open_data(bands())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"mean": (0.5,) * 3, "std": (0.5,) * 3}, "data.mean: has 3 values; the images of digits "),
        ({"channels": 3}, "data.channels: is 3, and the images of digits have 1"),
        ({"bits": 16}, "data.bits: is 16, and the images of digits have 8"),
    ],
)
def test_what_the_images_are_not(keys, message):
    with pytest.raises(DataError) as raised:
        dataset_spec(DataSettings("digits", **keys))
    assert message in str(raised.value)
    assert dataset_spec(DataSettings("digits", channels=1, bits=8, mean=(0.5,), std=(1.0,)))


def test_a_folder_of_grey_images_of_16_bits(image_folder):
    keys = {"channels": 1, "bits": 16, "num_validation": 4}
    settings = DataSettings("image_folder", str(image_folder), **keys)
    assert dataset_spec(settings).input_shape == (1, 224, 224)
    images, _ = next(iter(open_data(settings).validation_batches(2)))
    assert images.shape == (2, 1, 224, 224)
    with pytest.raises(DataError, match=r"data.channels: .* must be 1 or 3, got 4"):
        dataset_spec(DataSettings("image_folder", str(image_folder), channels=4))


# -------------------------------------------------------- PyTorch's data sets, and lists of files

SAMPLES = '''
import numpy as np
import torch
from PIL import Image

class Samples:
    """Samples of 12 x 20 pixels."""

    def __init__(self, kind: str = "deep", number: int = 40):
        rng = np.random.default_rng(0)
        self.values = rng.integers(0, 65536, (number, 2, 12, 20)).astype(np.uint16)
        self.kind = kind

    def __len__(self):
        return len(self.values)

    def __getitem__(self, i):
        values = self.values[i]
        if self.kind == "pillow":
            return Image.fromarray(values[0]), i % 2
        if self.kind == "shallow" or (self.kind == "mixed" and i == 7):
            values = (values >> 8).astype(np.uint8)
        return torch.from_numpy(values), i % 2
'''


@pytest.fixture
def samples(tmp_path):
    (tmp_path / "samples.py").write_text(SAMPLES)

    def make(kind, **keys):
        arguments = {"kind": kind}
        keys = {"num_test": 10, "num_validation": 10, **keys}
        return DataSettings("samples:Samples", folder=tmp_path, arguments=arguments, **keys)

    return make


@pytest.mark.parametrize(("kind", "bits"), [("deep", 16), ("shallow", 8)])
def test_samples_that_are_tensors(samples, kind, bits):
    data = open_data(samples(kind, mean=(0.0,) * 2, std=(1.0,) * 2))
    spec = data.spec
    assert (spec.native_size, spec.input_shape, spec.bits) == ((12, 20), (2, 12, 20), bits)
    images, _ = next(iter(data.validation_batches(10)))
    steps = images * spec.largest
    assert (steps - steps.round()).abs().max() < 0.01
    assert len(steps.round().unique()) > (256 if bits == 16 else 200)


@pytest.mark.parametrize(("bits", "levels"), [(16, 65536), (None, 256)])
def test_samples_that_are_deep_images_of_pillow(samples, bits, levels):
    keys = {"channels": 1, "image_size": (12, 20), "crop_pct": 1.0}
    data = open_data(samples("pillow", bits=bits, mean=(0.0,), std=(1.0,), **keys))
    images, _ = next(iter(data.validation_batches(10)))
    assert images.shape == (10, 1, 12, 20)
    steps = images * (levels - 1)
    assert (steps - steps.round()).abs().max() < 0.01
    assert (len(steps.round().unique()) > 256) is (bits == 16)


def test_samples_of_two_types(samples):
    with pytest.raises(DataError, match="image 7 is pixels; others are pixels of 16 bits"):
        open_data(samples("mixed"))


def test_files_of_a_list(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 65536, (40, 6, 10)).astype(np.uint16)
    for i, image in enumerate(values):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    lines = "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(40))
    (tmp_path / "list.csv").write_text(f"image,label\n{lines}")
    settings = DataSettings(
        "csv", folder=tmp_path, arguments={"file": "list.csv", "label": "label"}, channels=1,
        bits=16, image_size=(6, 10), crop_pct=1.0, num_validation=10, num_test=10,
        normalisation="from data",
    )  # fmt: skip
    data = open_data(settings)
    train = values[data._splits.train] / 65535
    assert (data.spec.mean[0], data.spec.std[0]) == pytest.approx((train.mean(), train.std()))
    images, _ = next(iter(data.validation_batches(10)))
    found = images.numpy() * data.spec.std[0] + data.spec.mean[0]
    assert found[:, 0] == pytest.approx(values[data._splits.validation] / 65535, abs=1e-6)


# -------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize("augmentation", [None, "shift", "crop_flip", "imagenet"])
@pytest.mark.parametrize("bits", [8, 16])
def test_masks_follow_images_that_are_not_square(augmentation, bits):
    """Each class has a brightness of its own, so an image says what its mask must be."""
    given = DatasetSpec(
        "x", 3, 2, None, (16, 24), (0.0,) * 2, (1.0,) * 2, augmentation or "none", 0.8, "mask",
        bits=bits,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    masks, images = [], []
    for shape in [(40, 60), (60, 40), (33, 71)] * 3:
        blocks = rng.integers(0, 3, (4, 4)).repeat(20, 0).repeat(20, 1)[: shape[0], : shape[1]]
        masks.append(blocks.astype(np.uint8))
        levels = (blocks + 1) * (given.largest // 4)
        images.append(np.stack([levels] * 2).astype(array_type(given)))
    transform, indices = ImageTransform(given), np.arange(len(masks))
    stored = transform.promised(images, indices)
    pixels, labels = prepare(
        transform, stored, masks, indices, None if augmentation is None else keys(len(masks))
    )
    assert pixels.shape == (9, 2, 16, 24)
    assert labels.shape == (9, 16, 24)
    values = Normalisation(given)(pixels) if augmentation is None else pixels
    counted = labels != 255
    said = (values[:, 0] * 4).round().long() - 1
    assert (said == labels)[counted].float().mean() > 0.85, "else they are not of one place"
    assert counted.float().mean() > 0.7
    assert len(labels[counted].unique()) == 3


def test_masks_shrink_with_their_images():
    masks = torch.arange(12 * 20).view(1, 12, 20).div(20, rounding_mode="floor")
    small = resize_targets(masks, 6)
    assert small.shape == (1, 6, 10)
    assert torch.equal(small[0, :, 0], torch.arange(0, 12, 2))
    assert resize(torch.rand(1, 3, 12, 20), 6).shape[-2:] == small.shape[-2:]
