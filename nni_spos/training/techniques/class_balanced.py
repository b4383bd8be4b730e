"""Every class as often as the others: ``class_balanced``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nni_spos.recipe.settings import BOOL, setting
from nni_spos.training.technique import Technique


class ClassBalanced(Technique):
    """Show images of every class equally often in an epoch, those of rare classes again.

    An epoch has as many images as without it, so that of common classes some are left out, other
    ones in every epoch.
    """

    title = "class_balanced"
    targets = ("class",)

    @dataclass(frozen=True)
    class Settings:
        """What the technique takes from a recipe.

        Parameters
        ----------
        class_balanced
            Whether an epoch has as many images of every class.
        """

        class_balanced: bool = setting(BOOL, False)

    def order(self, targets: npt.NDArray[Any]) -> Callable[[int, int], npt.NDArray[np.int64]]:
        members = [np.flatnonzero(targets == label) for label in np.unique(targets)]

        def order(seed: int, epoch: int) -> npt.NDArray[np.int64]:
            generator = np.random.default_rng([seed, epoch, 0xBA])
            # Which classes get one image more than others is another matter in every epoch.
            shares = np.full(len(members), len(targets) // len(members))
            shares[generator.permutation(len(members))[: len(targets) % len(members)]] += 1
            taken = [
                np.concatenate(
                    [generator.permutation(images) for _ in range(-(-share // len(images)))]
                )[:share]
                for images, share in zip(members, shares, strict=True)
            ]
            return generator.permutation(np.concatenate(taken))

        return order
