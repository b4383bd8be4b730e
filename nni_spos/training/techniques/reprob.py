"""Random erasing: ``reprob``, as timm has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nni_spos.recipe.settings import real, setting
from nni_spos.training.technique import Technique

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

_STREAM = 0x72


class RandomErasing(Technique):
    """Fill a random rectangle of a training image with noise.

    References
    ----------
    Zhong et al., Random Erasing Data Augmentation, AAAI 2020.
    """

    title = "reprob"

    @dataclass(frozen=True)
    class Settings:
        """What the technique takes from a recipe.

        Parameters
        ----------
        reprob
            Share of the images of which a rectangle is erased.
        """

        reprob: float = setting(real(0, 1), 0.0)

    def augmentation(self) -> ErasingAugmentation:
        return ErasingAugmentation(self.settings.reprob)


class ErasingAugmentation:
    """Erase a rectangle of an image, as its key says.

    Parameters
    ----------
    probability
        That an image is erased.
    """

    def __init__(self, probability: float):
        self._probability = probability

    def pixels(self, images: Tensor, keys: npt.NDArray[np.uint64]) -> Tensor:
        """Leave pixels as they are."""
        return images

    def values(self, images: Tensor, keys: npt.NDArray[np.uint64]) -> Tensor:
        """Change images: float32, shape (N, C, H, W), normalised."""
        from torchvision.transforms import v2

        from nni_spos.data.transforms import draw, each_seeded

        erase = v2.RandomErasing(self._probability, value="random")
        return each_seeded(erase, images, draw(keys, _STREAM, 2**32))
