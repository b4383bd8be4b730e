"""Score a path with the supernet's weights: a function of weights, path and data alone."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Mapping, Sequence

import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn

from nni_spos.data import EvaluationBatches, ImageData
from nni_spos.display.progress import Progress
from nni_spos.errors import ScoringWarning, SposError, one_line
from nni_spos.modules.subnet import extract_subnet, without_path
from nni_spos.path import Choice, Path, PathSpace
from nni_spos.recipe.search_settings import EvaluationSettings
from nni_spos.scoring.population import NotShareable, Statistics, sharing
from nni_spos.scoring.precision import scoring_precision
from nni_spos.scoring.prefix_tree import PrefixTree
from nni_spos.scoring.racing import Heat, Race
from nni_spos.scoring.recalibration import place_batches, place_images, recalibrate_in
from nni_spos.scoring.repeatability import find_noise
from nni_spos.scoring.scoring_format import peek, scoring_format
from nni_spos.scoring.tallies import Evaluation, Tallies, TooMuch
from nni_spos.scoring.verification import refuse_sharing, verify_sharing
from nni_spos.tasks.base import Task
from nni_spos.tasks.classification import Classification


def score(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    channels_last: bool = True,
    task: Task | None = None,
) -> Evaluation:
    """Score a network on images with targets, in evaluation mode, which it is left in.

    Parameters
    ----------
    network
        Takes images of shape (N, C, H, W) and returns outputs with a row for each.
    batches
        Images and targets, targets of shape (N, ...).
    channels_last
        Memory format of the images, where the network allows it.
    task
        Says what is counted; by default a classification.

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
        return _score_in(network, batches, channels_last, task or Classification())


def _score_in(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    channels_last: bool,
    task: Task,
    heat: Heat | None = None,
) -> Evaluation:
    network.eval()
    tallies = Tallies(task, num_paths=1)
    looks = set() if heat is None else set(itertools.accumulate(heat.rounds(len(batches))))  # type: ignore[arg-type]
    with torch.inference_mode():
        for number, (images, targets) in enumerate(batches, 1):
            outputs = network(place_images(images, network, channels_last))
            targets = targets.to(outputs.device)
            tallies.add(0, outputs, targets)
            if heat is not None:
                heat.add(0, outputs, targets)
                if number in looks and heat.drop():
                    break
    found = tallies.conclude()
    return (found if heat is None else heat.conclude(found))[0]


def evaluate_path(
    supernet: ModelSpace,
    path: Mapping[str, Choice],
    data: ImageData,
    settings: EvaluationSettings | None = None,
    channels_last: bool = True,
    race: Race | None = None,
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
    race
        The best paths so far: others are dropped early, and their score is estimated.

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
            return _evaluate_alone(subnet, data, settings, channels_last, race)


def _evaluate_alone(
    subnet: nn.Module,
    data: ImageData,
    settings: EvaluationSettings,
    channels_last: bool,
    race: Race | None,
) -> Evaluation:
    batches = place_batches(_scored_batches(data, settings, race), subnet, channels_last)
    heat = None if race is None else race.start(1, batches.num_images)
    with scoring_precision(subnet, settings.precision):
        if settings.recalibrate:
            images = place_batches(_recalibration_batches(data, settings), subnet, channels_last)
            recalibrate_in(subnet, images, channels_last)
        return _score_in(subnet, batches, channels_last, data.task, heat)


def evaluate_paths(
    supernet: ModelSpace,
    paths: Sequence[Mapping[str, Choice]],
    data: ImageData,
    settings: EvaluationSettings | None = None,
    channels_last: bool = True,
    progress: Progress | None = None,
    race: Race | None = None,
) -> list[Evaluation]:
    """Score many paths like `evaluate_path`, in one pass over the images.

    Paths that make the same choices in the first units share what these compute, so that a
    generation of a search takes about half the time (`nni_spos.scoring.population` says how).
    The results are those of one path at a time, up to the rounding of floats; that is tried with
    the first few paths of a supernet before it is relied on.

    Parameters
    ----------
    supernet
        A model space with trained weights, mutated to a supernet if layers of it have choices as
        arguments. It is afterwards as it was, but must not be used while this runs.
    paths, data, settings, channels_last, race
        As for `evaluate_path`.
    progress
        Called after every batch of every path.

    Returns
    -------
    Results in the order of the paths.

    Warns
    -----
    ScoringWarning
        The network does not allow to share, or gives other outputs each time, or a metric keeps too
        much of every path; its paths are scored one after another.
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
            relative = data.task.compares_outputs
            noise = find_noise(
                supernet, checked[0], batches, settings.recalibrate, relative=relative
            )
            if noise:
                raise NotShareable(noise)
            verify_sharing(
                supernet, space, checked, batches, settings.recalibrate, relative=relative
            )
            with scoring_precision(supernet, settings.precision):
                return _evaluate_together(
                    supernet, space, checked, data, settings, channels_last, progress, race
                )
    except (SposError, OSError):
        raise
    except (NotShareable, TooMuch) as problem:
        reason = str(problem)
    except Exception as problem:  # of the user's code, which may run well alone
        reason = f"together they fail ({type(problem).__name__}: {one_line(str(problem)):.200})"
    refuse_sharing(supernet, reason)
    text = f"the paths of this network are scored one by one: {reason}."
    warnings.warn(text, ScoringWarning, stacklevel=2)
    results = []
    for number, path in enumerate(checked, 1):
        results.append(evaluate_path(supernet, path, data, settings, channels_last, race))
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
    race: Race | None,
) -> list[Evaluation]:
    batches = place_batches(_scored_batches(data, settings, race), supernet, channels_last)
    heat = None if race is None else race.start(len(paths), batches.num_images)
    images = None
    if settings.recalibrate:
        images = place_batches(_recalibration_batches(data, settings), supernet, channels_last)
    tallies = Tallies(data.task, len(paths), len(batches))
    num_done, num_all = 0, len(paths) * (len(batches) + (len(images) if images else 0))

    def count(*_: object) -> None:
        nonlocal num_done
        num_done += 1
        if progress is not None:
            progress(num_done / num_all)

    def add(index: int, outputs: Tensor, targets: Tensor) -> None:
        tallies.add(index, outputs, targets)
        if heat is not None:
            heat.add(index, outputs, targets)
        count()

    with sharing(supernet, channels_last) as run:
        calls = run.trace(paths[0], next(iter(batches))[0][:2])
        tree = PrefixTree(space, paths, [part.labels for part in calls])
        statistics = Statistics.OF_SUPERNET
        if images is not None:
            run.walk(tree, paths, images, Statistics.RECALIBRATED, count)
            statistics = Statistics.OF_TREE
        if heat is None:
            run.walk(tree, paths, batches, statistics, add)
            return tallies.conclude()
        rest, num_seen = iter(batches), 0
        for number in heat.rounds(len(batches)):
            run.walk(tree, paths, itertools.islice(rest, number), statistics, add)
            num_seen += number
            dropped = heat.drop()
            num_done += len(dropped) * (len(batches) - num_seen)
            tree = tree.without(dropped)
            if not heat.left:
                break
    return heat.conclude(tallies.conclude())


def _scored_batches(
    data: ImageData, settings: EvaluationSettings, race: Race | None
) -> EvaluationBatches:
    """Return the validation images; for a race in an order in which some stand for all."""
    if race is None:
        return data.validation_batches(settings.batch_size)
    return data.shuffled_validation_batches(settings.batch_size)


def _recalibration_batches(data: ImageData, settings: EvaluationSettings) -> EvaluationBatches:
    """Return whole batches only, since each weighs the same in the average."""
    size = settings.batch_size
    num_images = min(settings.recalibration_images, data.num_train)
    whole = num_images - num_images % size or num_images
    return data.recalibration_batches(whole, size, settings.seed)
