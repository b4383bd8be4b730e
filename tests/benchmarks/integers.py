"""Whether exported integers compute what networks with bits do, in which operators and bytes.

    OMP_NUM_THREADS=1 python -W ignore tests/benchmarks/integers.py

The networks are paths of ``resnet_small`` and of a converted ResNet-18 of torchvision: all layers
of 8 bits, weights of 4 and 8 bits mixed, and any pair of 2 to 8 bits. Each is trained from random
weights for a few epochs on CIFAR-10 in ``shared/data`` beside the repository, and compared on other
images of it. With ``--epochs 0`` the weights stay random, so that classes are near each other and a
difference is soon seen.

For each network: its accuracy, the share of images with the same class, the largest difference of
logits as a share of the largest one; what its convolutions are in the graph that onnxruntime runs;
bytes of the file, of the numbers in it, and ``size_bytes``, which counts the bits that were chosen.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import onnxruntime
import torch
from exports import ARCHIVE, BATCH, SIZE, compare, export, give_statistics, read_images, resized
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn
from torch.nn import functional

from nni_spos import convert
from nni_spos.deployment.verification import AGREEMENT
from nni_spos.mutables.quantization import Quantized
from nni_spos.path import Path as SpacePath
from nni_spos.path import PathSpace
from nni_spos.profilers import build_costs
from nni_spos.spaces import Form, build_space, default_input_shape

PAIRS = [[w, a] for w in range(2, 9) for a in range(2, 9)]
KINDS = ("QLinearConv", "ConvInteger", "Conv")
Shape = tuple[int, int, int]


def spaces() -> Iterator[tuple[str, ModelSpace, Shape]]:
    """Yield spaces whose layers choose their bits, with the shape of an image."""
    arguments = {"bit_pairs": PAIRS, "quantizer": "symmetric", "channel_scales": None}
    space = build_space("resnet_small", arguments, Form.SUBNET)
    yield "resnet_small", space, default_input_shape(space)
    from torchvision import models

    network = models.resnet18(num_classes=10).eval()
    pairs = [*PAIRS, 32]
    yield (
        "torchvision:resnet18",
        convert(network, torch.randn(1, 3, SIZE, SIZE), choices={"bits": pairs}),
        (3, SIZE, SIZE),
    )


def paths(space: PathSpace) -> Iterator[tuple[str, SpacePath]]:
    """Yield the paths that are compared, by what they are."""
    draws = random.Random(0)
    kinds: dict[str, Callable[[str], bool]] = {
        "8w8a": lambda pair: pair == "8w8a",
        "4w8a and 8w8a": lambda pair: pair in ("4w8a", "8w8a"),
        "2 to 8 bits": lambda pair: pair != "32",
    }
    for name, is_one in kinds.items():
        path = {}
        for label, choices in space.items():
            fitting = [x for x in choices if "bits" not in label or is_one(str(x))]
            path[label] = draws.choice(fitting)
        yield name, path


def train(network: nn.Module, images: Tensor, labels: Tensor, epochs: int) -> None:
    """Train a network, which is in evaluation mode afterwards."""
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    network.train()
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(epoch))
        for rows in order.split(BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(network(images[rows]), labels[rows]).backward()
            optimizer.step()
        print(f"epoch {epoch + 1}/{epochs}", file=sys.stderr, flush=True)


def top1(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the accuracy in percent."""
    with torch.no_grad():
        found = torch.cat([network(batch).argmax(1) for batch in images.split(BATCH)])
    return 100 * float((found == labels).float().mean())


def operators(file: Path) -> str:
    """Return how many convolutions of each kind onnxruntime runs."""
    options = onnxruntime.SessionOptions()
    optimised = file.with_name("optimised.onnx")
    options.optimized_model_filepath, options.log_severity_level = str(optimised), 3
    onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    found = Counter(node.op_type for node in onnx.load(optimised).graph.node)
    return ", ".join(f"{found[kind]} {kind}" for kind in KINDS if found[kind])


def num_bytes(file: Path) -> int:
    """Return the bytes of all numbers in a file; two of 4 bits share one."""
    sizes = onnx.load(file).graph.initializer
    return sum(math.ceil(math.prod(x.dims) * _bits(x.data_type) / 8) for x in sizes)


def _bits(kind: int) -> int:
    if kind in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4):
        return 4
    return 8 * int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)


def measure(
    network: nn.Module, shape: Shape, priced: float, images: Tensor, labels: Tensor
) -> tuple[bool, str]:
    """Return whether enough classes are the same, and a row of the table."""
    layers = [x for x in network.modules() if isinstance(x, Quantized)]
    eights = sum(
        (x.weight_bits, x.activation_bits) == (8, 8) for x in layers if hasattr(x, "stride")
    )
    with tempfile.TemporaryDirectory() as folder:
        run = export(network, shape, Path(folder))
        difference, percent = compare(network, images, run)
        file = Path(folder) / "model.onnx"
        whole, numbers, kinds = file.stat().st_size, num_bytes(file), operators(file)
    row = (
        f"{top1(network, images, labels):.1f} | {percent:.2f} | {difference:.1e} | "
        f"{eights} of {len(layers)} | {kinds} | {whole:,} | {numbers:,} | "
        f"{priced:,.0f} | {100 * (numbers / priced - 1):+.1f} %"
    )
    return percent >= AGREEMENT, row


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="of networks; all by default")
    parser.add_argument("--images", type=int, default=10_000, help="to compare on")
    parser.add_argument("--training-images", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    if not ARCHIVE.is_file():
        parser.error(f"{ARCHIVE}: no such file; it has the images of CIFAR-10.")
    torch.manual_seed(0)  # spaces are built with random weights
    images, labels = read_images(options.images + options.training_images)
    wrong, number = 0, options.training_images
    print(
        "| network | bits | top-1 (%) | same class (%) | difference | 8w8a convolutions | "
        "in onnxruntime | bytes of the file | of its numbers | size_bytes | numbers above it |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for name, space, shape in spaces():
        if options.names and name not in options.names:
            continue
        given = resized(images, shape)
        size = build_costs(space, shape)["size_bytes"]
        for bits, path in paths(PathSpace.from_model_space(space)):
            torch.manual_seed(0)
            network = space.freeze(path)
            train(network, given[:number], labels[:number], options.epochs)
            give_statistics(network, given[: 4 * BATCH])
            good, row = measure(network, shape, size.price(path), given[number:], labels[number:])
            wrong += not good
            print(f"| {name} | {bits} | {row} |", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
