"""RandAugment and TrivialAugment: ``aa``, with timm's names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nni_spos.errors import DataError, RecipeError
from nni_spos.recipe.settings import TEXT, optional, setting
from nni_spos.training.technique import Technique

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

LEVELS = 101
"""Of torchvision's magnitudes, so that timm's, from 0 to 10, have a digit behind the point."""

FORMS = "rand-m9, rand-m9-n2, rand-m9-mstd0.5-p0.5 (timm's) or trivial"

_STREAM = 0x61


@dataclass(frozen=True)
class RandPolicy:
    """What a name such as ``rand-m9-n2-mstd0.5-p0.5`` says.

    Parameters
    ----------
    magnitude
        From 0 to 10.
    num_ops
        Operations that are drawn for an image.
    spread
        Standard deviation of the magnitude of an operation.
    probability
        That an operation which was drawn is done; 0.5 as in timm.
    """

    magnitude: float = 9.0
    num_ops: int = 2
    spread: float = 0.0
    probability: float = 0.5


def parse(name: str) -> RandPolicy | None:
    """Return what a policy's name says; None for ``trivial``.

    Raises
    ------
    RecipeError
        It is no such name.

    Examples
    --------
    >>> parse("rand-m7-mstd0.5-inc1")
    RandPolicy(magnitude=7.0, num_ops=2, spread=0.5, probability=0.5)
    """
    if name == "trivial":
        return None
    kind, *parts = name.split("-")
    values: dict[str, float] = {}
    for part in parts:
        found = re.fullmatch(r"(mstd|m|n|p|inc)(\d+(?:\.\d+)?)", part)
        if found is None:
            raise RecipeError(f"aa: '{part}' in {name!r} is not understood. Give {FORMS}.")
        values[found[1]] = float(found[2])
    policy = RandPolicy(
        values.get("m", 9.0), int(values.get("n", 2)), values.get("mstd", 0.0), values.get("p", 0.5)
    )
    is_right = 0 <= policy.magnitude <= 10 and policy.num_ops >= 1 and policy.probability <= 1
    if kind != "rand" or not is_right:
        raise RecipeError(
            f"aa: got {name!r}; must be {FORMS}, with a magnitude m from 0 to 10, at least one "
            "operation n, and a probability p of each from 0 to 1."
        )
    if values.get("inc", 1) != 1:
        raise RecipeError(f"aa: {name!r}: magnitudes always increase in strength, as inc1 says.")
    return policy


class AutoAugment(Technique):
    """Change colours and geometry of each training image at random, with torchvision's v2.

    ``rand-m9-n2-p0.5`` draws two operations for an image, and does each with probability 0.5 at
    nine tenths of its full strength; without n and p these are the numbers, as in timm.

    References
    ----------
    Cubuk et al., RandAugment, NeurIPS 2020; Mueller and Hutter, TrivialAugment, ICCV 2021.
    """

    title = "aa"
    targets = ("class", "labels", "values")

    @dataclass(frozen=True)
    class Settings:
        """What the technique takes from a recipe.

        Parameters
        ----------
        aa
            Policy of the augmentation: rand-m9, rand-m9-n2-mstd0.5 and so on, or trivial; null:
            none.
        """

        aa: str | None = setting(optional(TEXT), None)

        def __post_init__(self) -> None:
            if self.aa is not None:
                parse(self.aa)

    def __init__(self, settings: Settings, training: Any):
        super().__init__(settings, training)
        spec = training.spec
        if spec.channels not in (1, 3) or spec.bits != 8 or spec.is_prepared:
            found = "that are prepared already"
            if not spec.is_prepared:
                found = f"of {spec.channels} channels and {spec.bits} bits"
            raise RecipeError(
                "aa: changes images of 1 or 3 channels and 8 bits, not images "
                f"{found}. Leave it out."
            )

    def augmentation(self) -> PolicyAugmentation:
        return PolicyAugmentation(self.settings.aa)


class PolicyAugmentation:
    """Apply a policy to each image, as its key says.

    Parameters
    ----------
    name
        Of the policy.
    """

    def __init__(self, name: str):
        self._name = name

    def pixels(self, images: Tensor, keys: npt.NDArray[np.uint64]) -> Tensor:
        """Change images: uint8, shape (N, C, H, W)."""
        import torch

        from nni_spos.data.transforms import draw, each_seeded

        if images.dtype != torch.uint8:
            raise DataError(f"aa: takes images of 8 bits, got {images.dtype}. Leave it out.")
        # Drawn first: the data set's own augmentation may have seeded with the key itself.
        return each_seeded(self._change, images, draw(keys, _STREAM, 2**32))

    def values(self, images: Tensor, keys: npt.NDArray[np.uint64]) -> Tensor:
        """Leave normalised images as they are."""
        return images

    def _change(self, image: Tensor) -> Tensor:
        import torch
        from torchvision.transforms import v2

        policy = parse(self._name)
        if policy is None:
            return v2.TrivialAugmentWide()(image)
        for _ in range(policy.num_ops):
            if float(torch.rand(())) >= policy.probability:
                continue
            magnitude = policy.magnitude
            if policy.spread:
                magnitude += policy.spread * float(torch.randn(()))
            level = round(min(max(magnitude, 0.0), 10.0) * (LEVELS - 1) / 10)
            image = v2.RandAugment(1, level, LEVELS)(image)
        return image
