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
        Lengths of the shorter side in the order in which they are used, each with its share of the
        steps.
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


def resize_targets(targets: Tensor, size: int | None) -> Tensor:
    """Return targets for images of another size: masks, shape (N, H, W), by the nearest pixel."""
    if size is None or targets.ndim != 3:
        return targets
    masks = targets[:, None].float()
    return functional.interpolate(masks, _sides(masks, size))[:, 0].to(targets.dtype)


def resize(images: Tensor, size: int | None) -> Tensor:
    """Return images of shape (N, C, H, W) whose shorter side is `size`, bilinearly."""
    if size is None:
        return images
    return functional.interpolate(
        images, _sides(images, size), mode="bilinear", align_corners=False, antialias=True
    )


def _sides(images: Tensor, size: int) -> tuple[int, int]:
    """Return height and width of images whose shorter side becomes `size`."""
    height, width = images.shape[-2:]
    shorter = min(height, width)
    return round(height * size / shorter), round(width * size / shorter)
