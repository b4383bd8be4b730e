"""Networks that were published, as paths of our spaces."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nni.nas.nn.pytorch import ModelSpace

from nni_spos.errors import PathError, unknown
from nni_spos.path import Path, PathSpace, load_path
from nni_spos.recipe.recipe import SpaceSettings
from nni_spos.spaces.registry import Form, build_space

FREE = ("num_classes", "input_size", "in_channels", "dropout", "affine")
"""Arguments of spaces that leave the layers of a published network as they are."""


@dataclass(frozen=True)
class PublishedNetwork:
    """A published network.

    Parameters
    ----------
    name
        As in `PUBLISHED`.
    space
        One of `nni_spos.spaces.SPACES`.
    arguments
        Keyword arguments of the space that are not its defaults.
    path
        Label to choice.
    """

    name: str
    space: str
    arguments: Mapping[str, Any]
    path: Path

    def build(self, form: Form = Form.SUBNET, **arguments: Any) -> ModelSpace:
        """Build the network, e.g. for another ``num_classes``. Raises RecipeError."""
        return build_space(self.space, {**self.arguments, **arguments}, form, path=self.path)

    def check_space(self, space: SpaceSettings) -> None:
        """Refuse a space that does not have the network. Raises PathError."""
        if space.name != self.space:
            raise PathError(
                f"{self.name} is a path of the space {self.space}, not of {space.name}."
            )
        for key in {**self.arguments, **space.arguments}:
            needed, given = (x.get(key, "its default") for x in (self.arguments, space.arguments))
            if key not in FREE and given != needed:
                raise PathError(f"{self.name} needs the space's {key} to be {needed}, got {given}.")


# Space, its arguments, and the choices of all units, stage by stage.
_NETWORKS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    # Guo et al., Single Path One-Shot NAS, ECCV 2020, the authors' released code.
    "shufflenet-spos": (
        "shufflenet",
        {},
        ("k7 k5 k3 k5", "k7 k3 k7 k3", "k7 k3 k7 xcep k3 k3 k3 k3", "xcep k7 xcep xcep"),
    ),
    # Cai et al., ProxylessNAS, ICLR 2019, the authors' released code.
    "proxylessnas-cpu": (
        "proxylessnas_cpu",
        {},
        (
            "k3e6 k3e3 k3e3 k3e3",
            "k3e6 k3e3 k3e3 k5e3",
            "k3e6 k3e3 skip skip",
            "k5e6 k3e3 k3e3 k3e3",
            "k5e6 k5e3 k5e3 k3e3",
            "k5e6",
        ),
    ),
    "proxylessnas-gpu": (
        "proxylessnas_gpu",
        {},
        (
            "k5e3 skip skip skip",
            "k7e3 k3e3 skip skip",
            "k7e6 k5e3 skip skip",
            "k5e6 k3e3 k5e3 skip",
            "k7e6 k7e6 k7e6 k5e6",
            "k7e6",
        ),
    ),
    "proxylessnas-mobile": (
        "proxylessnas_mobile",
        {},
        (
            "k5e3 k3e3 skip skip",
            "k7e3 k3e3 k5e3 k5e3",
            "k7e6 k5e3 k5e3 k5e3",
            "k5e6 k5e3 k5e3 k5e3",
            "k7e6 k7e6 k7e3 k7e3",
            "k7e6",
        ),
    ),
    # Wu et al., FBNet, CVPR 2019.
    "fbnet-a": (
        "fbnet",
        {"last_channels": 1504},
        (
            "skip",
            "k3e3 k3e1 skip skip",
            "k5e6 k3e3 k5e1 k3e3",
            "k5e6 k5e3 k5e1g2 k5e6",
            "k3e6 k5e1g2 k5e3 k3e1g2",
            "k5e6 k5e6 k5e3 k5e6",
            "k5e6",
        ),
    ),
    "fbnet-b": (
        "fbnet",
        {},
        (
            "k3e1",
            "k3e6 k5e1 k3e1 k3e1",
            "k5e6 k5e3 k3e6 k5e6",
            "k5e6 k5e6 skip k5e3",
            "k5e6 k3e1 k5e1 k5e3",
            "k5e6 k5e1 k5e6 k5e6",
            "k3e6",
        ),
    ),
    "fbnet-c": (
        "fbnet",
        {},
        (
            "k3e1",
            "k3e6 skip k3e1 k3e1",
            "k5e6 k5e3 k5e6 k3e6",
            "k5e6 k5e3 k5e6 k5e6",
            "k5e6 k5e6 k5e6 k5e3",
            "k5e6 k5e6 k5e6 k5e6",
            "k3e6",
        ),
    ),
}

PUBLISHED: dict[str, PublishedNetwork] = {
    name: PublishedNetwork(
        name,
        space,
        arguments,
        {f"layer_{i}": choice for i, choice in enumerate(" ".join(stages).split(), 1)},
    )
    for name, (space, arguments, stages) in _NETWORKS.items()
}
"""Published networks by name."""


def published(name: str) -> PublishedNetwork:
    """Return a published network by its name.

    Raises
    ------
    PathError
        There is none of this name; the known ones are given.

    Examples
    --------
    >>> network = published("fbnet-a")
    >>> network.space, network.arguments, network.path["layer_2"]
    ('fbnet', {'last_channels': 1504}, 'k3e3')
    """
    if name not in PUBLISHED:
        raise PathError(unknown("network", name, PUBLISHED))
    return PUBLISHED[name]


def find_published(name_or_file: str) -> PublishedNetwork | None:
    """Return the network that a text names, or None where it names a file.

    A file is one that exists, or whose name has a suffix or a folder.

    Raises
    ------
    PathError
        There is neither such a network nor such a file.
    """
    folder, file = os.path.split(name_or_file)
    is_file = folder or os.path.splitext(file)[1] or os.path.exists(name_or_file)
    if is_file and name_or_file not in PUBLISHED:
        return None
    return published(name_or_file)


def read_path(name_or_file: str, space: SpaceSettings, choices: PathSpace | None = None) -> Path:
    """Return the path of a published network, or that of a JSON file.

    Parameters
    ----------
    name_or_file
        See `find_published`.
    space
        Must be that of a published network.
    choices
        Labels and choices that the path of a file is checked against, if they are given.

    Raises
    ------
    PathError
        There is none, or it is a path of another space.
    """
    network = find_published(name_or_file)
    if network is None:
        return load_path(name_or_file, choices)
    network.check_space(space)
    return network.path
