"""``predict.py``: it prepares images as the network was trained on them, and says what they are."""

from __future__ import annotations

import dataclasses
import json
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from nni_spos.data.transforms import ImageTransform, Normalisation, describe_preprocessing
from nni_spos.deployment.program import describe_images, predict_program
from nni_spos.deployment.verification import Limits, Verification, _agreeing
from nni_spos.errors import CheckpointError
from nni_spos.export.base import Exporter
from nni_spos.export.images import InputImages
from nni_spos.recipe.dataset import DatasetSpec
from nni_spos.recipe.task import TaskSettings, find_task


@dataclasses.dataclass(frozen=True)
class Sums(Exporter):
    """Its outputs are four sums over the pixels."""

    file: ClassVar[str] = "model.txt"
    program: ClassVar[str] = (
        "def run(images):\n    return images.mean(1).reshape(len(images), 4, -1).sum(2)"
    )

    def write(self, model, folder):
        pass

    def open(self, folder, threads=None, network=None):
        pass


def load_program(folder, spec, targets=("class",), **options):
    options = {"takes_pixels": False, "stretched": False, "threshold": 0.5, **options}
    images = InputImages.read(describe_preprocessing(spec))
    described = describe_images(images, **options)
    (folder / "preprocessing.json").write_text(json.dumps(described))
    (folder / "classes.json").write_text(json.dumps(["ant", "bee", "cow", "dog"]))
    text = predict_program(Sums(), targets, described)
    assert len([x for x in text.splitlines() if x.strip()]) <= 45
    names = {"__name__": "predict", "__file__": str(folder / "predict.py")}
    exec(compile(text, "predict.py", "exec"), names)
    return names


def spec_of(channels=3, image_size=8, crop_pct=1.0, native_size=None, **more):
    mean, std = (tuple(x + 0.1 * i for i in range(channels)) for x in (0.3, 0.2))
    return DatasetSpec(
        "any", 4, channels, native_size, image_size, mean, std, crop_pct=crop_pct, **more
    )


def picture(folder, width, height, mode="RGB"):
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    values = np.random.default_rng(width).integers(0, 256, shape, dtype=np.uint8)
    file = folder / f"{width}x{height}.png"
    Image.fromarray(values).save(file)
    return str(file)


@pytest.mark.parametrize("size", [(20, 13), (13, 20), (8, 8), (101, 9)])
@pytest.mark.parametrize(
    "spec",
    [spec_of(), spec_of(crop_pct=0.875), spec_of(channels=1), spec_of(image_size=(6, 10)),
     spec_of(image_size=(10, 6), crop_pct=0.7)],
    ids=["square", "crop", "grey", "wide", "high"],
)  # fmt: skip
def test_an_image_becomes_what_the_network_was_trained_on(tmp_path, spec, size):
    mode = "RGB" if spec.channels == 3 else "L"
    file = picture(tmp_path, *size, mode)
    wanted = Normalisation(spec)(ImageTransform(spec).evaluation([Image.open(file)]))
    found = load_program(tmp_path, spec)["read"](file)
    assert found.dtype == np.float32
    assert found.shape == wanted.shape
    assert np.abs(found - wanted.numpy()).max() < 1e-5
    pixels = load_program(tmp_path, spec, takes_pixels=True)["read"](file)
    assert pixels.dtype == np.uint8
    assert torch.equal(
        torch.from_numpy(pixels), ImageTransform(spec).evaluation([Image.open(file)])
    )


def test_images_of_one_size_are_not_cropped(tmp_path):
    spec = spec_of(native_size=(12, 16), image_size=8)
    file = picture(tmp_path, 16, 12)
    found = load_program(tmp_path, spec, stretched=True)["read"](file)
    stretched = Image.open(file).resize((8, 8), Image.Resampling.BILINEAR)
    values = np.asarray(stretched, np.float32).transpose(2, 0, 1) / 255
    mean, std = (np.array(x, np.float32)[:, None, None] for x in (spec.mean, spec.std))
    assert np.abs(found[0] - (values - mean) / std).max() < 1e-5


def test_what_pillow_does_not_open_comes_as_an_array(tmp_path):
    spec = spec_of(channels=2, bits=16)
    pixels = np.random.default_rng(0).integers(0, 65536, (2, 8, 8), dtype=np.uint16)
    np.save(tmp_path / "image.npy", pixels)
    found = load_program(tmp_path, spec)["read"](tmp_path / "image.npy")
    wanted = Normalisation(spec)(torch.from_numpy(pixels[None]))
    assert np.abs(found - wanted.numpy()).max() < 1e-5


@pytest.mark.parametrize(
    ("kind", "outputs", "words"),
    [
        ("class", [0.0, 5.0, 1.0, 0.0], "x.png: bee 96.9 %, cow 1.8 %, ant 0.7 %, dog 0.7 %"),
        ("labels", [-3.0, 2.0, 0.1, -0.1], "x.png: bee 88.1 %, cow 52.5 %"),
        ("labels", [-3.0] * 4, "x.png: none"),
        ("values", [1.5, -2.0, 0.0, 1e6], "x.png: ant 1.5, bee -2, cow 0, dog 1e+06"),
        ("own", [1.5, -2.0, 0.0, 1e6], "x.png: ant 1.5, bee -2, cow 0, dog 1e+06"),
    ],
)
def test_answers(tmp_path, capsys, kind, outputs, words):
    answer = load_program(tmp_path, spec_of(), (kind,))["answer"]
    answer("x.png", np.array(outputs, np.float32))
    assert capsys.readouterr().out.strip() == words


def test_a_mask_is_written_beside_its_image(tmp_path, capsys):
    answer = load_program(tmp_path, spec_of(), ("mask",))["answer"]
    outputs = np.zeros((4, 2, 2), np.float32)
    outputs[2, 0] = outputs[1, 1, 1] = 1
    answer(str(tmp_path / "x.png"), outputs)
    assert capsys.readouterr().out.endswith("x.png: ant 25.0 %, bee 25.0 %, cow 50.0 %\n")
    mask = np.asarray(Image.open(tmp_path / "x.png.mask.png"))
    assert mask.tolist() == [[2, 2], [0, 1]]


@pytest.mark.parametrize(
    ("task", "wanted", "found", "agreed"),
    [
        ("classification", [[1, 2], [2, 1]], [[1, 3], [1, 2]], 1),
        ("multilabel", [[1, -1], [2, 1]], [[3, -2], [2, -1]], 1),
        ("segmentation", [[[[1, 0]], [[0, 1]]]], [[[[1, 1]], [[0, 0]]]], 0.5),
    ],
)
def test_answers_that_agree(task, wanted, found, agreed):
    tensors = (torch.tensor(x, dtype=torch.float32) for x in (wanted, found))
    assert _agreeing(*tensors, find_task(TaskSettings(task))) == agreed


@pytest.mark.parametrize(
    ("limits", "difference", "largest", "agreement", "words"),
    [
        (Limits(), 1e-4, 0.5, 100.0, ""),
        (Limits(), 2e-4, 0.5, 100.0, "outputs differ"),
        (Limits(), 9e-4, 10.0, 100.0, ""),
        (Limits(), float("nan"), 1.0, 100.0, "outputs differ"),
        (Limits(), 0.0, 1.0, 99.8, "99.80 % of 1000 images; at least 99.9 %"),
        (Limits(difference=None), 3.0, 1.0, 99.9, ""),
        (Limits(), 0.0, 1.0, None, ""),
    ],
)
def test_what_is_too_far_from_the_network(limits, difference, largest, agreement, words):
    proof = Verification("images", 1000, difference, largest, agreement, None, None, limits)
    assert words in proof.problem()
    assert bool(words) == bool(proof.problem())


def test_pixels_and_values():
    images = InputImages.read(describe_preprocessing(spec_of(bits=16)))
    pixels = np.random.default_rng(0).integers(0, 65536, (2, 3, 8, 8), dtype=np.uint16)
    values = images.normalised(pixels)
    assert np.array_equal(images.pixels_of(values), pixels)
    wanted = Normalisation(spec_of(bits=16))(torch.from_numpy(pixels))
    assert np.abs(values - wanted.numpy()).max() < 1e-5
    assert images.random(3).shape == (3, 3, 8, 8)


@pytest.mark.parametrize(
    "change",
    [{"image_size": 0}, {"mean": [0.5]}, {"bits": 4}, {"std": None}, {"channels": "3"},
     {"mean": ["a", "b", "c"]}],
)  # fmt: skip
def test_a_file_that_says_other_things_of_its_images(change):
    described = describe_preprocessing(spec_of())
    with pytest.raises(CheckpointError, match="the file"):
        InputImages.read({**described, **change})
    assert InputImages.read(described).shape == (3, 8, 8)
