"""Score a path with the supernet's weights: a function of weights, path and data alone."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn
from torch.nn import functional

from nni_spos.data import EvaluationBatches, ImageData
from nni_spos.errors import DataError, ScoringWarning, SposError, one_line
from nni_spos.path import Choice, Path, PathSpace
from nni_spos.recipe import EvaluationSettings
from nni_spos.supernet.population import NotShareable, PrefixTree, Statistics, sharing
from nni_spos.supernet.precision import scoring_precision
from nni_spos.supernet.recalibration import place_batches, place_images, recalibrate_in
from nni_spos.supernet.repeatability import find_noise
from nni_spos.supernet.scoring_format import device_of, peek, scoring_format
from nni_spos.supernet.subnet import extract_subnet, without_path
from nni_spos.supernet.verification import refuse_sharing, verify_sharing

NUM_TOTALS = 4
"""What `_tally` returns."""

Progress = Callable[[float], None]
"""Takes the share of some work that is done, above 0 and up to 1."""


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

    Notes
    -----
    If a logit of any image is not finite, the figures are NaN: none of them would say anything.
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
        Memory format of the images, where the network allows it.

    Warns
    -----
    FormatWarning
        The network fails in channels_last, so the contiguous format is used.

    Raises
    ------
    DataError
        There are no images.
    """
    shape, batches = peek(batches)
    with scoring_format(network, shape, channels_last) as channels_last:
        return _score_in(network, batches, channels_last)


def _score_in(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], channels_last: bool
) -> Evaluation:
    network.eval()
    num_images, totals = 0, torch.zeros(NUM_TOTALS, dtype=torch.float64)
    with torch.inference_mode():
        for images, labels in batches:
            logits = network(place_images(images, network, channels_last))
            totals = totals.to(logits.device) + _tally(logits, labels.to(logits.device))
            num_images += len(labels)
    return _evaluation(totals, num_images)


def _tally(logits: Tensor, labels: Tensor) -> Tensor:
    """Return how many labels come first, how many among five, the sum of the losses, and how many
    images have logits that are not finite.
    """
    logits = logits.float()
    hits = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
    loss = functional.cross_entropy(logits, labels, reduction="sum")
    broken = logits.isfinite().all(1).logical_not().sum()
    return torch.stack([hits[:, 0].sum(), hits.sum(), loss, broken]).double()


def _evaluation(totals: Tensor, num_images: int) -> Evaluation:
    if not num_images:
        raise DataError("scoring needs at least one image.")
    first, among_five, loss, broken = totals.tolist()
    if broken:
        return Evaluation(math.nan, math.nan, math.nan, num_images)
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
        Number and seed of the recalibration images, batch size, precision; ``recalibrate: false``
        scores with the statistics that supernet training left.
    channels_last
        Memory format of the images, where the whole supernet allows it; fastest if its weights
        have the same.

    Warns
    -----
    FormatWarning
        A path fails in channels_last, so the contiguous format is used.

    Raises
    ------
    PathError
        The path is not one of the space.
    """
    settings = settings or EvaluationSettings()
    with scoring_format(supernet, data.spec.input_shape, channels_last) as channels_last:
        subnet = extract_subnet(supernet, path)  # in the supernet's memory format
        with without_path(supernet):
            return _evaluate_alone(subnet, data, settings, channels_last)


def _evaluate_alone(
    subnet: nn.Module, data: ImageData, settings: EvaluationSettings, channels_last: bool
) -> Evaluation:
    batches = place_batches(data.validation_batches(settings.batch_size), subnet, channels_last)
    with scoring_precision(subnet, settings.precision):
        if settings.recalibrate:
            images = place_batches(_recalibration_batches(data, settings), subnet, channels_last)
            recalibrate_in(subnet, images, channels_last)
        return _score_in(subnet, batches, channels_last)


def evaluate_paths(
    supernet: ModelSpace,
    paths: Sequence[Mapping[str, Choice]],
    data: ImageData,
    settings: EvaluationSettings | None = None,
    channels_last: bool = True,
    progress: Progress | None = None,
) -> list[Evaluation]:
    """Score many paths like `evaluate_path`, in one pass over the images.

    Paths that make the same choices in the first units share what these compute, so that a
    generation of a search takes about half the time (`nni_spos.supernet.population` says how).
    The results are those of one path at a time, up to the rounding of floats; that is tried with
    the first few paths of a supernet before it is relied on.

    Parameters
    ----------
    supernet
        A model space with trained weights, mutated to a supernet if layers of it have choices as
        arguments. It is afterwards as it was, but must not be used while this runs.
    paths, data, settings, channels_last
        As for `evaluate_path`.
    progress
        Called after every batch of every path.

    Returns
    -------
    Results in the order of the paths.

    Warns
    -----
    ScoringWarning
        The network does not allow to share, or gives other outputs each time; its paths are scored
        one after another.
    FormatWarning
        See `evaluate_path`.

    Raises
    ------
    PathError
        A path is not one of the space.
    """
    space = PathSpace.from_model_space(supernet)
    settings = settings or EvaluationSettings()
    checked = [space.validate(path) for path in paths]
    if not checked:
        return []
    try:
        with scoring_format(supernet, data.spec.input_shape, channels_last) as channels_last:
            batches = place_batches(
                data.validation_batches(settings.batch_size), supernet, channels_last
            )
            if noise := find_noise(supernet, checked[0], batches, settings.recalibrate):
                raise NotShareable(noise)
            verify_sharing(supernet, space, checked, batches, settings.recalibrate)
            with scoring_precision(supernet, settings.precision):
                return _evaluate_together(
                    supernet, space, checked, data, settings, channels_last, progress
                )
    except (SposError, OSError):
        raise
    except NotShareable as problem:
        reason = str(problem)
    except Exception as problem:  # of the user's code, which may run well alone
        reason = f"together they fail ({type(problem).__name__}: {one_line(str(problem)):.200})"
    refuse_sharing(supernet, reason)
    text = f"the paths of this network are scored one by one: {reason}."
    warnings.warn(text, ScoringWarning, stacklevel=2)
    results = []
    for number, path in enumerate(checked, 1):
        results.append(evaluate_path(supernet, path, data, settings, channels_last))
        if progress is not None:
            progress(number / len(checked))
    return results


def _evaluate_together(
    supernet: ModelSpace,
    space: PathSpace,
    paths: Sequence[Path],
    data: ImageData,
    settings: EvaluationSettings,
    channels_last: bool,
    progress: Progress | None,
) -> list[Evaluation]:
    batches = place_batches(data.validation_batches(settings.batch_size), supernet, channels_last)
    images = None
    if settings.recalibrate:
        images = place_batches(_recalibration_batches(data, settings), supernet, channels_last)
    # In one piece: small tensors between activations would split the memory.
    totals = torch.zeros(len(paths), NUM_TOTALS, dtype=torch.float64, device=device_of(supernet))
    num_done, num_all = 0, len(paths) * (len(batches) + (len(images) if images else 0))

    def count(*_: object) -> None:
        nonlocal num_done
        num_done += 1
        if progress is not None:
            progress(num_done / num_all)

    def add(index: int, logits: Tensor, labels: Tensor) -> None:
        totals[index] += _tally(logits, labels)
        count()

    with sharing(supernet, channels_last) as run:
        calls = run.trace(paths[0], next(iter(batches))[0][:2])
        tree = PrefixTree(space, paths, [part.labels for part in calls])
        statistics = Statistics.OF_SUPERNET
        if images is not None:
            run.walk(tree, paths, images, Statistics.RECALIBRATED, count)
            statistics = Statistics.OF_TREE
        num_images = run.walk(tree, paths, batches, statistics, add)
    return [_evaluation(total, num_images) for total in totals]


def _recalibration_batches(data: ImageData, settings: EvaluationSettings) -> EvaluationBatches:
    """Return whole batches only, since each weighs the same in the average."""
    size = settings.batch_size
    num_images = min(settings.recalibration_images, data.num_train)
    whole = num_images - num_images % size or num_images
    return data.recalibration_batches(whole, size, settings.seed)
