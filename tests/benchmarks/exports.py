"""Export networks of every space, and converted ones, to ONNX and compare each with PyTorch.

    OMP_NUM_THREADS=1 python -W ignore tests/benchmarks/exports.py [--paths 5] [NAME ...]

For each space in its small form: random paths with fresh weights, whose BatchNorm has the
statistics of the images. Names with ``torchvision:`` are converted, as is ``efficientnet_lite0``
with its ImageNet weights where its packages are installed, and a random path of them is exported.
Compared are the logits that onnxruntime computes of the file, and the classes, on images of
CIFAR-10 in ``shared/data`` beside the repository, resized to what the network takes.

Logits may differ by 1e-4 of the largest. Networks with bits become whole numbers, whose classes
have to be the network's for 99.9 % of the images.
"""

from __future__ import annotations

import argparse
import io
import random
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from cifar10_trainings import ARCHIVE
from compressors import efficientnet_lite0
from torch import Tensor, nn
from torch.nn import functional as F

from nni_spos import convert
from nni_spos.deployment.verification import AGREEMENT, TOLERANCE
from nni_spos.export.base import ExportForm, Model, Run
from nni_spos.export.images import InputImages
from nni_spos.export.onnx_format import OnnxExporter
from nni_spos.export.preparing import prepare, settled
from nni_spos.export.quantizing import is_quantized
from nni_spos.path import PathSpace
from nni_spos.spaces import Form, build_space, default_input_shape

SPACES = (
    "shufflenet_small",
    "shufflenet_channels_small",
    "shufflenet_joint_small",
    "resnet_small",
    "proxylessnas_small",
    "fbnet_small",
    "nasbench_macro",
    "channelbench_resnet",
    "channelbench_mobilenet",
)
CONVERTED = tuple(
    f"torchvision:{name}"
    for name in (
        "resnet18",
        "resnet50",
        "resnext50_32x4d",
        "vgg11_bn",
        "mobilenet_v2",
        "mobilenet_v3_small",
        "efficientnet_b0",
        "regnet_y_400mf",
        "mnasnet1_0",
        "densenet121",
    )
)
SIZE = 64
"""Height and width of the images for converted networks."""
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
BATCH = 50


def read_images(number: int) -> tuple[Tensor, Tensor]:
    """Return normalised images, shape (number, 3, 32, 32), and their classes, shape (number,)."""
    from PIL import Image

    with zipfile.ZipFile(ARCHIVE) as archive:
        names = sorted(x for x in archive.namelist() if x.endswith((".jpg", ".jpeg")))
        chosen = random.Random(0).sample(names, number)
        classes = sorted({x.split("/")[-2] for x in names})
        pixels = [
            np.asarray(Image.open(io.BytesIO(archive.read(x))).convert("RGB")) for x in chosen
        ]
    values = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(x).view(-1, 1, 1) for x in (MEAN, STD))
    labels = torch.tensor([classes.index(x.split("/")[-2]) for x in chosen])
    return (values - mean) / std, labels


def networks(name: str, number: int) -> Iterator[tuple[nn.Module, tuple[int, int, int]]]:
    """Yield networks of random paths, with what they take."""
    if name not in SPACES:
        from torchvision import models

        own = name == "efficientnet_lite0"
        network = efficientnet_lite0() if own else models.get_model(name.partition(":")[2])
        space = convert(network.eval(), torch.randn(1, 3, SIZE, SIZE))
        shape = (3, SIZE, SIZE)
    else:
        space = build_space(name, {}, Form.SUBNET)
        shape = default_input_shape(space)
    choices = PathSpace.from_model_space(space)
    draws = random.Random(1)
    for _ in range(number):
        path = {label: draws.choice(list(offered)) for label, offered in choices.items()}
        yield space.freeze(path), shape


def give_statistics(network: nn.Module, images: Tensor) -> None:
    """Let BatchNorm have the statistics of images, and the network be evaluated."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        network.train()
        for batch in images.split(BATCH):
            network(batch)
    network.eval()


def resized(images: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Return images as a network takes them."""
    channels, height, width = shape
    given = F.interpolate(images, (height, width), mode="bilinear", antialias=True)
    return given.mean(1, keepdim=True) if channels == 1 else given


def export(network: nn.Module, shape: tuple[int, int, int], folder: Path) -> Run:
    """Write a network as ONNX into a folder, and return what runs the file."""
    channels, height, width = shape
    kind = InputImages(
        channels=channels, height=height, width=width, bits=8, mean=MEAN[:channels],
        std=STD[:channels], resize=height,
    )  # fmt: skip
    exporter = OnnxExporter()
    prepared = prepare(settled(network, kind), kind, folded=True, pixels=False)
    exporter.write(Model(prepared, kind, ExportForm()), folder)
    return exporter.open(folder)


def compare(network: nn.Module, images: Tensor, run: Run) -> tuple[float, float]:
    """Return the largest difference of logits, relative to the largest, and percent of classes."""
    with torch.no_grad():
        wanted = torch.cat([network(batch) for batch in images.split(BATCH)])
    got = torch.cat([torch.from_numpy(run(x.numpy())) for x in images.split(BATCH)])
    difference = float((wanted - got).abs().max()) / max(1.0, float(wanted.abs().max()))
    return difference, 100 * float((wanted.argmax(1) == got.argmax(1)).float().mean())


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", default=[*SPACES, *CONVERTED])
    parser.add_argument("--paths", type=int, default=5, help="of each space")
    parser.add_argument("--images", type=int, default=1000)
    options = parser.parse_args()
    if not ARCHIVE.is_file():
        parser.error(f"{ARCHIVE}: no such file; it has the images of CIFAR-10.")
    (images, _), wrong = read_images(options.images), 0
    for name in options.names:
        torch.manual_seed(0)
        number = options.paths if name in SPACES else 1
        for network, shape in networks(name, number):
            given = resized(images, shape)
            give_statistics(network, given[: 4 * BATCH])
            with tempfile.TemporaryDirectory() as folder:
                difference, percent = compare(network, given, export(network, shape, Path(folder)))
            rounded = is_quantized(network)
            good = percent >= AGREEMENT if rounded else difference <= TOLERANCE and percent == 100
            wrong += not good
            text = f"{name}: difference {difference:.1e}, {percent:.2f} % of the classes"
            print(text if good else f"{text}  WRONG", flush=True)
    print(f"{wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
