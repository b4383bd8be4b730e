"""Images and their losses mixed in pairs: ``mixup`` and ``cutmix``, with timm's names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nni_spos.recipe.settings import real, setting
from nni_spos.training.technique import Compute, Technique

if TYPE_CHECKING:
    from torch import Tensor


class Mixing(Technique):
    """Mix the images of a batch two by two, and the losses in proportion.

    The loss of a mixed image is the same mixture of its losses with both targets, which for cross
    entropy is the loss with mixed targets. Shares and places are a function of (seed, step). The
    two are neighbours, so that they are in the part of one process if all parts are even: then the
    number of processes makes no difference.

    References
    ----------
    Zhang et al., mixup, ICLR 2018; Yun et al., CutMix, ICCV 2019.
    """

    title = "mixup and cutmix"
    targets = ("class", "labels")

    @dataclass(frozen=True)
    class Settings:
        """What the technique takes from a recipe.

        Parameters
        ----------
        mixup
            Alpha of the Beta distribution of the shares with which two images are blended; 0: none.
        cutmix
            Alpha of the Beta distribution of the area that is replaced by another image; 0: none.
        mixup_prob
            Share of the batches that are mixed.
        mixup_switch_prob
            Share of cutmix where both are asked for.
        """

        mixup: float = setting(real(0), 0.0)
        cutmix: float = setting(real(0), 0.0)
        mixup_prob: float = setting(real(0, 1), 1.0)
        mixup_switch_prob: float = setting(real(0, 1), 0.5)

    @classmethod
    def switches(cls) -> Sequence[str]:
        """Either of them switches it on."""
        return ("mixup", "cutmix")

    def __init__(self, settings: Settings, training: Any):
        super().__init__(settings, training)
        self._share = 1.0

    def batch(self, images: Tensor, targets: Tensor, step: int) -> Tensor:
        settings = self.settings
        generator = np.random.default_rng([self.training.settings.seed, step, 0x3D])
        is_mixed, is_cut = generator.random(2) < (settings.mixup_prob, settings.mixup_switch_prob)
        self._share = 1.0
        if not is_mixed:
            return images
        if not settings.mixup or (settings.cutmix and is_cut):
            return self._cut(images, generator)
        self._share = float(generator.beta(settings.mixup, settings.mixup))
        return images.lerp(_partners(images), 1 - self._share)

    def loss(self, compute: Compute, outputs: Tensor, targets: Tensor) -> Tensor:
        if self._share == 1.0:
            return compute(outputs, targets)
        other = compute(outputs, _partners(targets))
        return self._share * compute(outputs, targets) + (1 - self._share) * other

    def _cut(self, images: Tensor, generator: np.random.Generator) -> Tensor:
        height, width = images.shape[-2:]
        side = math.sqrt(1 - generator.beta(self.settings.cutmix, self.settings.cutmix))
        rows, columns = (
            _span(generator.integers(size), side * size, size) for size in (height, width)
        )
        mixed = images.clone()
        mixed[:, :, rows, columns] = _partners(images)[:, :, rows, columns]
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        self._share = 1 - area / (height * width)
        return mixed


def _partners(values: Tensor) -> Tensor:
    """Return for each image what its neighbour has, shape (N, ...); the last of an odd N is alone.

    >>> import torch
    >>> _partners(torch.arange(5)).tolist()
    [1, 0, 3, 2, 4]
    """
    import torch

    number = len(values)
    return values[(torch.arange(number, device=values.device) ^ 1).clamp(max=number - 1)]


def _span(centre: int, length: float, size: int) -> slice:
    """Return what is within an image of a span around a pixel."""
    half = length / 2
    return slice(max(0, round(centre - half)), min(size, round(centre + half)))
