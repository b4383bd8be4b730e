"""How others name the weights of spaces that we have too, and how they prepare images."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nni_spos.data.transforms import KNOWN_IN_PART
from nni_spos.errors import CheckpointError
from nni_spos.path import Path
from nni_spos.recipe.data_settings import BGR, RGB
from nni_spos.spaces.proxylessnas import BLOCKS as INVERTED_RESIDUALS
from nni_spos.spaces.shufflenet import BLOCKS as SHUFFLE_BLOCKS

Weights = Mapping[str, Tensor]
"""Tensors by the names that a file has for them."""

PLAIN_BGR: Mapping[str, Any] = {
    "value_range": [0.0, 1.0],
    "mean": [0.0] * 3,
    "std": [1 / 255] * 3,
    "channel_order": BGR,
}
"""Blue, green, red, 0 to 255, as the authors of Single Path One-Shot train and test."""

IMAGENET_RGB: Mapping[str, Any] = {
    "value_range": [0.0, 1.0],
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "channel_order": RGB,
}
"""Mean and standard deviation of ImageNet."""


@dataclass(frozen=True)
class Layout:
    """The names that one kind of file has for the weights of a space, or of one of its networks.

    Parameters
    ----------
    title
        What the file holds, for messages.
    mark
        Found in a name that no other kind of file has.
    theirs
        From a name of ours to the file's.
    stem, classifier
        Names in the file of the first convolution and of the last layer, without ``.weight``.
    preprocessing
        What is known of how images were prepared.
    find_path
        From the weights to the path of a network; None: they are those of a supernet. Raises
        CheckpointError.
    """

    title: str
    mark: re.Pattern[str]
    theirs: Callable[[str], str]
    stem: str
    classifier: str
    preprocessing: Mapping[str, Any]
    find_path: Callable[[Weights], Path] | None = None

    def fits(self, weights: Weights) -> bool:
        """Whether a file has the names of this kind."""
        return any(map(self.mark.match, weights))

    def describe_images(self, num_classes: int, channels: int) -> dict[str, Any]:
        """Return the preprocessing for a file of ours, known in part."""
        return {
            KNOWN_IN_PART: True,
            "num_classes": num_classes,
            "channels": channels,
            **self.preprocessing,
        }


def _numbered_blocks(name: str) -> str:
    """The authors number the blocks of a unit: 3x3, 5x5, 7x7, xception."""
    match = re.fullmatch(rf"(features\.\d+)\.({'|'.join(SHUFFLE_BLOCKS)})\.(.*)", name)
    return name if match is None else f"{match[1]}.{[*SHUFFLE_BLOCKS].index(match[2])}.{match[3]}"


def _as_it_is(name: str) -> str:
    return name


DEPTH = 4
"""Units of every stage of ProxylessNAS but the last, which has one."""

NUM_STAGES = 6

_UNIT = re.compile(r"features\.(\d+)\.(.*)")
_PLACES = {"stem.3.main": "blocks.0", "conv_last": "feature_mix_layer"}


def _hub_stages(name: str, unit_of: Callable[[int, int, str], str]) -> str:
    """NNI's hub has blocks by stage; the first of `blocks` is the fixed one behind the stem."""
    for ours, theirs in _PLACES.items():
        if name.startswith(f"{ours}."):
            return theirs + name.removeprefix(ours)
    match = _UNIT.fullmatch(name)
    if match is None:
        return name
    stage, position = divmod(int(match[1]), DEPTH)
    return unit_of(stage + 1, position, match[2])


def _hub_choices(name: str) -> str:
    def unit(stage: int, position: int, rest: str) -> str:
        place = f".blocks.{position}" if stage < NUM_STAGES else ""
        return f"blocks.{stage}{place}.{rest.replace('.main.', '.', 1)}"

    return _hub_stages(name, unit)


def _hub_network(name: str) -> str:
    def unit(stage: int, position: int, rest: str) -> str:
        place = f".{position}" if stage < NUM_STAGES else ""
        return f"blocks.{stage}{place}.{rest.removeprefix('main.')}"

    return _hub_stages(name, unit)


def _shuffle_path(weights: Weights) -> Path:
    """Find the blocks by the number of their convolutions and the sizes of their kernels."""
    path: Path = {}
    while f"{(place := f'features.{len(path)}.branch_main')}.0.weight" in weights:
        choice, filters = "xcep", f"{place}.3.weight"
        if f"{place}.12.weight" not in weights:
            choice = _block(filters, f"k{_kernel(filters, weights)}", SHUFFLE_BLOCKS)
        path[f"layer_{len(path) + 1}"] = choice
    return path


def _residual_path(weights: Weights) -> Path:
    """Find the blocks by the sizes of their kernels and their inner widths."""
    path: Path = {}
    for stage in range(1, NUM_STAGES + 1):
        for position in range(DEPTH if stage < NUM_STAGES else 1):
            place = f"blocks.{stage}.{position}" if stage < NUM_STAGES else f"blocks.{stage}"
            expand, filters = f"{place}.0.weight", f"{place}.3.weight"
            choice = "skip"
            if filters in weights and weights.get(expand, weights[filters]).dim() == 4:
                kernel = _kernel(filters, weights)
                hidden, inputs = weights.get(expand, weights[filters]).shape[:2]
                choice = _block(
                    filters, f"k{kernel}e{hidden // max(1, inputs)}", INVERTED_RESIDUALS
                )
            path[f"layer_{len(path) + 1}"] = choice
    return path


def _kernel(name: str, weights: Weights) -> int:
    tensor = weights.get(name)
    return tensor.shape[-1] if tensor is not None and tensor.dim() == 4 else 0


def _block(name: str, found: str, known: Mapping[str, Any]) -> str:
    if found not in known:
        raise CheckpointError(
            f"'{name}' is that of a block {found}; the space has {', '.join(known)}."
        )
    return found


SHUFFLENET = (
    Layout(
        title="the authors' supernet",
        mark=re.compile(r"features\.\d+\.[0-3]\.branch_"),
        theirs=_numbered_blocks,
        preprocessing=PLAIN_BGR,
        stem="first_conv.0",
        classifier="classifier.0",
    ),
    Layout(
        title="a supernet of NNI's ShuffleNetSpace",
        mark=re.compile(rf"features\.\d+\.({'|'.join(SHUFFLE_BLOCKS)})\.branch_"),
        theirs=_as_it_is,
        preprocessing={},
        stem="first_conv.0",
        classifier="classifier.0",
    ),
    Layout(
        title="a network of the authors' blocks",
        mark=re.compile(r"features\.\d+\.branch_"),
        theirs=_as_it_is,
        preprocessing=PLAIN_BGR,
        find_path=_shuffle_path,
        stem="first_conv.0",
        classifier="classifier.0",
    ),
)
"""Files with weights of a `ShuffleNetV2Space`."""

PROXYLESSNAS = (
    Layout(
        title="a supernet of NNI's ProxylessNAS",
        mark=re.compile(r"blocks\.\d+\.(blocks\.\d+\.)?k\d+e\d+\."),
        theirs=_hub_choices,
        preprocessing={},
        stem="stem.0",
        classifier="classifier",
    ),
    Layout(
        title="a network of NNI's ProxylessNAS",
        mark=re.compile(r"blocks\.1\.\d+\.\d+\."),
        theirs=_hub_network,
        preprocessing=IMAGENET_RGB,
        find_path=_residual_path,
        stem="stem.0",
        classifier="classifier",
    ),
)
"""Files with weights of a `ProxylessNASSpace`."""

LAYOUTS: Mapping[str, tuple[Layout, ...]] = {
    "shufflenet": SHUFFLENET,
    "shufflenet_small": SHUFFLENET,
    "proxylessnas_cpu": PROXYLESSNAS,
    "proxylessnas_gpu": PROXYLESSNAS,
    "proxylessnas_mobile": PROXYLESSNAS,
}
"""Kinds of files by the space that they can be read as."""
