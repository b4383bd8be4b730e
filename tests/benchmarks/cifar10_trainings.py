"""Trainings of paths of NAS-Bench-Macro's space on CIFAR-10, for benchmarks.

The images are those of ``shared/data`` beside the repository, as JPEG files and so slightly lossy.
"""

from __future__ import annotations

import argparse
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

ARCHIVE = FilePath(__file__).parents[3] / "shared" / "data" / "cifar10-jpeg.zip"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what all these benchmarks take."""
    parser.add_argument("--output", type=FilePath, required=True, help="folder of the trainings")
    parser.add_argument("--images", type=FilePath, help="image folder, instead of the archive")
    parser.add_argument(
        "--images-per-class", type=int, help="of the archive, to try the script; all by default"
    )
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--num-train", type=int, help="training images; all by default")
    parser.add_argument("--image-size", type=int, default=32, help="pixels")
    parser.add_argument("--num-validation", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=0)


def find_images(options: argparse.Namespace) -> FilePath:
    """Return the folder of the images, which are unpacked once."""
    found: FilePath = options.images or unpack(options.output / "cifar10", options.images_per_class)
    return found.resolve()


def unpack(folder: FilePath, most: int | None) -> FilePath:
    """Return the folder of the images, unpacked once, at most so many of a class."""
    if not folder.is_dir():
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        with zipfile.ZipFile(ARCHIVE) as archive:
            names = [x for x in archive.namelist() if x.endswith(".jpg")]
            taken = [x for x in names if most is None or int(FilePath(x).stem) < most]
            archive.extractall(part, taken)
        part.rename(folder)
    return folder


def recipe(
    options: argparse.Namespace, images: FilePath, retrain: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the recipe of a training, with some settings of its own."""
    data = {
        "name": "image_folder",
        "root": str(images),
        "image_size": options.image_size,
        "crop_pct": 1.0,
        "augmentation": "crop_flip",
        "num_validation": options.num_validation,
        "workers": options.workers,
    }
    if options.num_train is not None:
        data["num_train"] = options.num_train
    return {
        "output": "output",
        "space": {"name": "nasbench_macro"},
        "data": data,
        "supernet": {"epochs": 1},
        "retrain": {
            "epochs": options.epochs,
            "batch_size": options.batch_size,
            "learning_rate": 0.1,
            "weight_decay": 5e-4,
            "label_smoothing": 0.0,
            **retrain,
        },
    }
