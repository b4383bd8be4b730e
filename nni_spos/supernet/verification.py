"""Whether paths that are scored together give what each gives alone, tried before it is relied on.

What a run can show is observed by `nni_spos.supernet.population`. A network can depend on what no
run shows, such as a variable outside of its modules. So some of the first paths of a supernet run
both ways on a few images, and their outputs are compared.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn

from nni_spos.data import EvaluationBatches
from nni_spos.mutables.quantization import Quantized
from nni_spos.path import Path, PathSpace
from nni_spos.supernet.population import NotShareable, PrefixTree, Statistics, sharing
from nni_spos.supernet.recalibration import place_images, recalibrate_in
from nni_spos.supernet.subnet import extract_subnet, without_path

NUM_PATHS = 3
"""So many paths of a supernet are compared, in its first call or its first few."""
NUM_IMAGES = 64
TOLERANCE = 1e-3
"""Largest relative difference of the outputs of a path, by the root of the sum of squares."""
QUANTIZED_TOLERANCE = 5e-2
"""The same for quantized layers, whose levels flip where a last digit differs."""

_verified: weakref.WeakKeyDictionary[nn.Module, int] = weakref.WeakKeyDictionary()


def verify_sharing(
    supernet: ModelSpace,
    space: PathSpace,
    paths: Sequence[Path],
    batches: EvaluationBatches,
    recalibrated: bool,
) -> None:
    """Compare the outputs of a few paths together and alone; once for a supernet.

    Parameters
    ----------
    supernet
        A supernet on the device that it runs on.
    space
        Its labels and choices.
    paths
        Those that are to be scored; at most `NUM_PATHS` are tried.
    batches
        On the device of the supernet; at most `NUM_IMAGES` of the first one are used.
    recalibrated
        Whether BatchNorm statistics are those of the paths.

    Raises
    ------
    NotShareable
        The outputs differ by more than rounding, or the network cannot share at all.
    """
    number = _verified.get(supernet, 0)
    if number >= NUM_PATHS:
        return
    chosen = _choose(paths, NUM_PATHS)
    images = next(iter(batches))[0][:NUM_IMAGES]
    channels_last = batches.channels_last
    together = _run_together(supernet, space, chosen, images, channels_last, recalibrated)
    is_quantized = any(isinstance(module, Quantized) for module in supernet.modules())
    tolerance = QUANTIZED_TOLERANCE if is_quantized else TOLERANCE
    for path, shared in zip(chosen, together, strict=True):
        alone = _run_alone(supernet, path, images, channels_last, recalibrated)
        if not _agree(shared, alone, tolerance):
            raise NotShareable(f"together they give other outputs than alone, such as {path}")
    _verified[supernet] = number + len(chosen)


def _choose(paths: Sequence[Path], number: int) -> list[Path]:
    """Return different paths, the first ones: those of a population are in no order."""
    found = {tuple(path.items()): path for path in paths}
    return list(found.values())[:number]


def _run_together(
    supernet: ModelSpace,
    space: PathSpace,
    paths: Sequence[Path],
    images: Tensor,
    channels_last: bool,
    recalibrated: bool,
) -> list[Tensor]:
    found: dict[int, Tensor] = {}

    def keep(index: int, output: Tensor, _: Tensor) -> None:
        found[index] = output.clone()

    def ignore(*_: object) -> None:
        pass

    batches = [(images.clone(), torch.zeros(len(images)))]
    with sharing(supernet, channels_last) as run:
        calls = run.trace(paths[0], images[:2].clone())
        tree = PrefixTree(space, paths, [part.labels for part in calls])
        statistics = Statistics.OF_SUPERNET
        if recalibrated:
            run.walk(tree, paths, batches, Statistics.RECALIBRATED, ignore)
            statistics = Statistics.OF_TREE
        run.walk(tree, paths, batches, statistics, keep)
    return [found[index] for index in range(len(paths))]


def _run_alone(
    supernet: ModelSpace, path: Path, images: Tensor, channels_last: bool, recalibrated: bool
) -> Tensor:
    subnet = extract_subnet(supernet, path)
    if recalibrated:
        with without_path(supernet):
            recalibrate_in(subnet, [(images.clone(), torch.zeros(len(images)))], channels_last)
    with torch.no_grad(), without_path(supernet):
        return subnet.eval()(place_images(images.clone(), subnet, channels_last))


def _agree(one: Tensor, other: Tensor, tolerance: float) -> bool:
    """Whether two outputs are the same up to rounding; what is not finite must be so in both."""
    if one.shape != other.shape or not torch.equal(one.isfinite(), other.isfinite()):
        return False
    one, other = (x.double().nan_to_num(0.0, 0.0, 0.0) for x in (one, other))
    return float((one - other).norm()) <= tolerance * float(other.norm()) + 1e-6
