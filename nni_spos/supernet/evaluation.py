"""Score a path with the supernet's weights: a function of weights, path and data alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn
from torch.nn import functional

from nni_spos.data import ImageData
from nni_spos.errors import DataError
from nni_spos.path import Choice
from nni_spos.recipe import EvaluationSettings
from nni_spos.supernet.recalibration import place_images, recalibrate
from nni_spos.supernet.subnet import extract_subnet


@dataclass(frozen=True)
class Evaluation:
    """How well a network does on some images.

    Parameters
    ----------
    top1, top5
        Percentage of images whose label is the first, or among the first five, of the outputs.
    loss
        Mean cross entropy, without label smoothing.
    num_images
        Number of images.
    """

    top1: float
    top5: float
    loss: float
    num_images: int


def score(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], channels_last: bool = True
) -> Evaluation:
    """Score a network on labelled images, in evaluation mode, which it is left in.

    Parameters
    ----------
    network
        Takes images of shape (N, C, H, W) and returns logits of shape (N, num_classes).
    batches
        Images and labels, labels of shape (N,).
    channels_last
        Memory format of the images.

    Raises
    ------
    DataError
        There are no images.
    """
    network.eval()
    num_images = first = among_five = 0
    loss = 0.0
    with torch.inference_mode():
        for images, labels in batches:
            logits = network(place_images(images, network, channels_last)).float()
            labels = labels.to(logits.device)
            best = logits.topk(min(5, logits.shape[1]), dim=1).indices
            hits = best == labels[:, None]
            first += int(hits[:, 0].sum())
            among_five += int(hits.sum())
            loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
            num_images += len(labels)
    if not num_images:
        raise DataError("scoring needs at least one image.")
    percent = 100.0 / num_images
    return Evaluation(first * percent, among_five * percent, loss / num_images, num_images)


def evaluate_path(
    supernet: ModelSpace,
    path: Mapping[str, Choice],
    data: ImageData,
    settings: EvaluationSettings | None = None,
    channels_last: bool = True,
) -> Evaluation:
    """Score a path on the search-validation images with the supernet's weights.

    The path's network is a copy, so the supernet is left as it was, bit for bit, and neither
    the order of paths nor how often one is scored makes a difference.

    Parameters
    ----------
    supernet
        A model space with trained weights.
    path
        Label to choice.
    data
        Training images for recalibration (prepared as for evaluation), validation images.
    settings
        Number and seed of the recalibration images, batch size; ``recalibrate: false`` scores
        with the statistics that supernet training left.
    channels_last
        Memory format of the images; fastest if the supernet's weights have the same.

    Raises
    ------
    PathError
        The path is not one of the space.
    """
    settings = settings or EvaluationSettings()
    subnet = extract_subnet(supernet, path)
    if settings.recalibrate:
        size = settings.batch_size
        num_images = min(settings.recalibration_images, data.num_train)
        # Whole batches only, since each weighs the same in the average.
        whole = num_images - num_images % size or num_images
        images = data.recalibration_batches(whole, size, settings.seed)
        recalibrate(subnet, images, channels_last)
    return score(subnet, data.validation_batches(settings.batch_size), channels_last)
