"""Smaller images in the first steps of a training: progressive resizing."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional


def size_at(resizing: Sequence[tuple[int, float]], step: int, num_steps: int) -> int | None:
    """Return the size of a step's images in pixels; None where they are left as they are.

    Parameters
    ----------
    resizing
        Sizes in the order in which they are used, each with its share of the steps.
    step
        From 0.
    num_steps
        Of the whole training.

    Examples
    --------
    >>> [size_at([(16, 0.5), (24, 0.25)], step, 4) for step in range(4)]
    [16, 16, 24, None]
    """
    end = 0.0
    for size, share in resizing:
        end += share
        if step < round(end * num_steps):
            return size
    return None


def resize(images: Tensor, size: int | None) -> Tensor:
    """Return images of shape (N, C, H, W) with the height and width `size`, bilinearly."""
    if size is None:
        return images
    return functional.interpolate(
        images, (size, size), mode="bilinear", align_corners=False, antialias=True
    )
