"""``predict.py`` of an exported folder: a short program that needs nothing of this package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nni_spos.export.base import Exporter
from nni_spos.export.images import InputImages

_HEAD = '''"""Predict what is in images: python predict.py IMAGE ...

Needs {needs}.
"""

import json
import sys
from pathlib import Path

import numpy as np
{imports}
from PIL import Image

HERE = Path(__file__).parent
SETTINGS = json.loads((HERE / "preprocessing.json").read_text(encoding="utf-8"))
NAMES = json.loads((HERE / "classes.json").read_text(encoding="utf-8"))
{program}


def read(file):
    """Return an image as the network takes it, shape (1, channels, height, width)."""
{pixels}
{values}


'''

_FILE = """    image = Image.open(file).convert(SETTINGS["mode"])
    height, width = SETTINGS["image_size"]
{resize}
    pixels = np.asarray(image).reshape(height, width, -1).transpose(2, 0, 1)"""

_CROP = """    image = image.resize((columns, rows), Image.Resampling.BILINEAR)
    left, top = round((columns - width) / 2), round((rows - height) / 2)
    image = image.crop((left, top, left + width, top + height))"""

_RESIZES = {
    "shorter side": """    shorter = min(image.size)
    columns, rows = (int(SETTINGS["resize"] * side / shorter) for side in image.size)
"""
    + _CROP,
    "cover": """    least = SETTINGS["resize"][::-1]
    scale = max(wanted / side for wanted, side in zip(least, image.size))
    columns, rows = (max(x, round(side * scale)) for x, side in zip(least, image.size))
"""
    + _CROP,
    "stretch": """    image = image.resize((width, height), Image.Resampling.BILINEAR)""",
}

_ARRAY = """    pixels = np.load(file)  # as in the data set, shape (channels, height, width)"""

_NORMALISE = """    mean, std = (
        np.array(SETTINGS[name], np.float32)[:, None, None] for name in ("mean", "std")
    )
    return ((pixels / np.float32(SETTINGS["largest"]) - mean) / std)[None].astype(np.float32)"""

_AS_IT_IS = """    return np.ascontiguousarray(pixels[None].astype(SETTINGS["input"]))"""

_ANSWERS = {
    "class": '''def answer(file, outputs):
    """Print the most probable classes."""
    shares = np.exp(outputs - outputs.max())
    shares /= shares.sum()
    best = np.argsort(-shares, kind="stable")[:5]
    print(f"{file}:", ", ".join(f"{NAMES[i]} {100 * shares[i]:.1f} %" for i in best))
''',
    "labels": '''def answer(file, outputs):
    """Print the labels that the image has, with their probabilities."""
    shares = 1 / (1 + np.exp(-outputs))
    found = [i for i in np.argsort(-shares) if shares[i] >= SETTINGS["threshold"]]
    print(f"{file}:", ", ".join(f"{NAMES[i]} {100 * shares[i]:.1f} %" for i in found) or "none")
''',
    "values": '''def answer(file, outputs):
    """Print the values."""
    print(f"{file}:", ", ".join(f"{n} {x:.6g}" for n, x in zip(NAMES, outputs.ravel())))
''',
    "mask": '''def answer(file, outputs):
    """Write the class of each pixel beside the image, and print the share of each class."""
    classes = outputs.argmax(0).astype(np.uint8)
    Image.fromarray(classes).save(f"{file}.mask.png")
    shares = np.bincount(classes.ravel(), minlength=len(NAMES)) / classes.size
    print(f"{file}:", ", ".join(f"{n} {100 * x:.1f} %" for n, x in zip(NAMES, shares) if x))
''',
}

_END = """

if __name__ == "__main__":
    for name in sys.argv[1:]:
        answer(name, run(read(name))[0])
"""


def predict_program(
    exporter: Exporter, targets: Sequence[str], preprocessing: Mapping[str, Any]
) -> str:
    """Return the program for a format, or "" if the format has none.

    Parameters
    ----------
    exporter
        Says how the network is run.
    targets
        Kinds of what the network predicts, see `nni_spos.recipe.dataset.TARGETS`; of others the
        values are printed.
    preprocessing
        What `describe_images` returns.
    """
    if not exporter.program:
        return ""
    pixels = _ARRAY
    if preprocessing["mode"] is not None:
        pixels = _FILE.replace("{resize}", _RESIZES[preprocessing["fit"]])
    takes_floats = preprocessing["input"] == "float32" and not preprocessing["is_prepared"]
    kind = next((x for x in targets if x in _ANSWERS), "values")
    pieces = {
        "{needs}": ", ".join([*exporter.needs, "numpy", "pillow"]),
        "{imports}": exporter.imports,
        "{program}": exporter.program,
        "{pixels}": pixels,
        "{values}": _NORMALISE if takes_floats else _AS_IT_IS,
    }
    head = _HEAD
    for name, text in pieces.items():
        head = head.replace(name, text)
    if preprocessing["mode"] is None and kind != "mask":
        head = head.replace("from PIL import Image\n", "")
    return f"{head}{_ANSWERS[kind]}{_END}"


def describe_images(
    images: InputImages, *, takes_pixels: bool, stretched: bool, threshold: float
) -> dict[str, Any]:
    """Return what ``preprocessing.json`` says: how an image becomes the input of the network.

    Parameters
    ----------
    images
        What the network takes.
    takes_pixels
        Whether it normalises them itself.
    stretched
        Whether images are resized to their final size, whatever their shape, and not cropped.
    threshold
        Probability from which a label counts as predicted.
    """
    fit = "stretch" if stretched else "shorter side" if isinstance(images.resize, int) else "cover"
    is_file = images.bits == 8 and not images.is_prepared
    return {
        "input": images.pixel_type if takes_pixels else "float32",
        "layout": "NCHW",
        "channels": images.channels,
        "mode": MODES.get(images.channels) if is_file else None,
        "bits": images.bits,
        "image_size": [images.height, images.width],
        "fit": fit,
        "resize": images.resize if isinstance(images.resize, int) else list(images.resize),
        "interpolation": "bilinear",
        "largest": images.largest,
        "mean": list(images.mean),
        "std": list(images.std),
        "is_prepared": images.is_prepared,
        "threshold": threshold,
    }


MODES = {1: "L", 3: "RGB"}
"""What Pillow calls images of so many channels."""
