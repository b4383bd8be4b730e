"""From a trained network to the one that is exported, which computes the same."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from nni_spos.errors import ExportError, SposError, text_of
from nni_spos.export.folding import fold_batchnorm
from nni_spos.export.images import InputImages
from nni_spos.modules.copies import copy_values


class FromPixels(nn.Module):
    """A network that normalises its images itself.

    Parameters
    ----------
    network
        Takes normalised images.
    images
        Says how these are made of pixels.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, network: nn.Module, images: InputImages):
        super().__init__()
        mean, std = (torch.tensor(x).view(-1, 1, 1) for x in (images.mean, images.std))
        self.register_buffer("scale", 1 / (images.largest * std))
        self.register_buffer("offset", -mean / std)
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the outputs for pixels, shape (N, channels, height, width)."""
        return self.network(pixels.to(torch.float32) * self.scale + self.offset)


def settled(network: nn.Module, images: InputImages) -> nn.Module:
    """Return a copy of a network that has run, so that nothing in it waits for its first images.

    Raises
    ------
    ExportError
        It does not run on its images, or gives other outputs for the same images.
    """
    copied = copy_values(network).eval().cpu()
    batch = torch.from_numpy(images.random(2))
    with torch.no_grad():
        try:
            first, second = (copied(batch.clone()) for _ in range(2))
        except SposError:
            raise
        except Exception as problem:  # of a user's network
            raise ExportError(
                f"the network does not run on images of shape {images.shape} "
                f"({type(problem).__name__}: {text_of(problem):.300})."
            ) from problem
    if not isinstance(first, Tensor) or not isinstance(second, Tensor):
        raise ExportError(
            f"the network returns a {type(first).__name__}. It must return one tensor."
        )
    if not first.isfinite().all():
        raise ExportError("the outputs of the network are not finite. Train it anew.")
    if not torch.equal(first, second):
        raise ExportError(
            "the network gives other outputs each time for the same images: dropout or noise in "
            "evaluation mode, or a counter? A file computes always the same. Turn it off."
        )
    return copied


def prepare(network: nn.Module, images: InputImages, *, folded: bool, pixels: bool) -> nn.Module:
    """Return what is exported of a network that `settled` returned; it may be changed.

    Parameters
    ----------
    network
        Nobody else has it.
    images
        What it takes.
    folded
        Whether each BatchNorm becomes a part of the convolution before it.
    pixels
        Whether it is to take pixels.

    Raises
    ------
    ExportError
        The network takes float images that nobody normalises.
    """
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    if folded:
        # What cannot be traced is refused by the format, in its words.
        with contextlib.suppress(Exception):
            network = fold_batchnorm(network, torch.from_numpy(images.random(2)))
    if not pixels:
        return network
    if images.is_prepared:
        raise ExportError(
            "--uint8: the network takes float images that its data set prepares. Leave it out."
        )
    return FromPixels(network, images).eval()


def run_batches(network: nn.Module, batches: Any) -> list[Tensor]:
    """Return what a network returns for each batch."""
    with torch.no_grad():
        return [network(batch) for batch in batches]
