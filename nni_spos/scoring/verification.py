"""Whether paths that are scored together give what each gives alone, tried before it is relied on.

What a run can show is observed by `nni_spos.scoring.population`. A network can depend on what no
run shows, such as a variable outside of its modules. So some of the first paths of a supernet run
both ways on a few images, and their outputs are compared.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn

from nni_spos.data import EvaluationBatches
from nni_spos.modules.subnet import extract_subnet
from nni_spos.mutables.quantization import Quantized
from nni_spos.path import Path, PathSpace
from nni_spos.scoring.population import NotShareable, Statistics, sharing
from nni_spos.scoring.prefix_tree import PrefixTree
from nni_spos.scoring.repeatability import run_subnet

NUM_PATHS = 3
"""So many paths of a supernet are compared first; later ones if they share more."""
NUM_IMAGES = 64
TOLERANCE = 1e-3
"""Largest relative difference of the outputs of a path, by the root of the sum of squares."""
QUANTIZED_TOLERANCE = 5e-2
"""The same for quantized layers, whose levels flip where a last digit differs."""


@dataclass
class _Verified:
    """What is known of a supernet: how many paths were compared, which shared so many parts."""

    calls: list[frozenset[str]] | None = None
    num_paths: int = 0
    num_shared: int = -1
    refusal: str = ""


_known: weakref.WeakKeyDictionary[nn.Module, _Verified] = weakref.WeakKeyDictionary()


def refuse_sharing(supernet: ModelSpace, reason: str) -> None:
    """Remember why the paths of a supernet are not scored together: `verify_sharing` raises it."""
    _known.setdefault(supernet, _Verified()).refusal = reason


def verify_sharing(
    supernet: ModelSpace,
    space: PathSpace,
    paths: Sequence[Path],
    batches: EvaluationBatches,
    recalibrated: bool,
    *,
    relative: bool = True,
) -> None:
    """Compare the outputs of a few paths together and alone.

    The first time a few, afterwards two whenever some share more parts than any that were compared.

    Parameters
    ----------
    supernet
        A supernet on the device that it runs on.
    space
        Its labels and choices.
    paths
        Those that are to be scored.
    batches
        On the device of the supernet; at most `NUM_IMAGES` of the first one are used.
    recalibrated
        Whether BatchNorm statistics are those of the paths.
    relative
        Whether only differences between the outputs of an image count.

    Raises
    ------
    NotShareable
        The outputs differ by more than rounding, or the network cannot share at all.
    """
    known = _known.setdefault(supernet, _Verified())
    if known.refusal:
        raise NotShareable(known.refusal)
    images = next(iter(batches))[0][:NUM_IMAGES]
    channels_last = batches.channels_last
    if known.calls is None:
        with sharing(supernet, channels_last) as run:
            known.calls = [part.labels for part in run.trace(paths[0], images[:2].clone())]
    chosen, num_shared = _choose(space, paths, known)
    if not chosen:
        return
    together = _run_together(supernet, space, chosen, images, channels_last, recalibrated)
    is_quantized = any(isinstance(module, Quantized) for module in supernet.modules())
    tolerance = QUANTIZED_TOLERANCE if is_quantized else TOLERANCE
    for path, shared in zip(chosen, together, strict=True):
        alone = _run_alone(supernet, path, images, channels_last, recalibrated)
        if not _agree(shared, alone, tolerance, relative=relative):
            raise NotShareable(f"together they give other outputs than alone, such as {path}")
    known.num_paths += len(chosen)
    known.num_shared = max(num_shared, known.num_shared)


def _choose(space: PathSpace, paths: Sequence[Path], known: _Verified) -> tuple[list[Path], int]:
    """Return paths to compare, those two first that share most; and how many parts they share."""
    different = list({tuple(path.items()): path for path in paths}.values())
    tree = PrefixTree(space, different, known.calls or [])
    num_shared = max(tree.shared)
    if known.num_paths >= NUM_PATHS and num_shared <= known.num_shared:
        return [], known.num_shared
    second = tree.shared.index(num_shared)
    positions = dict.fromkeys(tree.order[max(0, second - 1) : second + 1])
    if known.num_paths < NUM_PATHS:
        positions |= dict.fromkeys(range(len(different)))
    return [different[i] for i in positions][:NUM_PATHS], num_shared


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
    return run_subnet(supernet, subnet, images, channels_last, recalibrated)


def _agree(one: Tensor, other: Tensor, tolerance: float, *, relative: bool = True) -> bool:
    """Whether two outputs are the same up to rounding; what is not finite must be so in both."""
    if one.shape != other.shape or not torch.equal(one.isfinite(), other.isfinite()):
        return False
    one, other = (x.double().nan_to_num(0.0, 0.0, 0.0) for x in (one, other))
    if relative:  # what all classes have in common decides no score
        one, other = (x - x.mean(1, keepdim=True) for x in (one, other))
    return float((one - other).norm()) <= tolerance * float(other.norm()) + 1e-6
