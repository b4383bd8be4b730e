"""Whether a network gives the same outputs each time, tried before its paths are compared.

Dropout that is on in evaluation mode, noise, or state outside of the modules make an accuracy that
differs from one scoring to the next. A search works with such accuracies, but nobody can repeat it.
"""

from __future__ import annotations

import random
import weakref
from collections.abc import Sequence

import numpy as np
import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn

from nni_spos.data import EvaluationBatches
from nni_spos.errors import SposError
from nni_spos.modules.subnet import extract_subnet, without_path
from nni_spos.mutables.quantization import Quantized
from nni_spos.path import Path
from nni_spos.scoring.recalibration import place_images, recalibrate_in

NUM_RUNS = 3
NUM_IMAGES = 16
ROUNDING = 1e-5
"""Largest relative difference of two runs, by the root of the sum of squares."""
GPU_TOLERANCE = 1e-3
"""The same on a GPU, where the second run of a layer may be another algorithm than the first."""
GPU_QUANTIZED_TOLERANCE = 5e-2
"""The same for quantized layers, whose levels flip where a last digit differs."""

_known: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()


def find_noise(
    supernet: ModelSpace,
    path: Path,
    batches: EvaluationBatches,
    recalibrated: bool,
    *,
    relative: bool = True,
) -> str:
    """Return in words that outputs of a path differ from run to run, and how far; else ``""``.

    Each run has a copy of the path's layers, as every scoring has. A supernet is tried once.

    Parameters
    ----------
    supernet
        A supernet on the device that it runs on.
    path
        Label to choice.
    batches
        On the device of the supernet; at most `NUM_IMAGES` of the first one are used.
    recalibrated
        Whether BatchNorm statistics are those of the path.
    relative
        Whether only differences between the outputs of an image count.
    """
    if supernet not in _known:
        try:
            _known[supernet] = _find(supernet, path, batches, recalibrated, relative=relative)
        except (SposError, OSError):
            raise
        except Exception:
            return ""  # of the user's code: the scoring of the path says what is wrong
    return _known[supernet]


def run_subnet(
    supernet: ModelSpace, subnet: nn.Module, images: Tensor, channels_last: bool, recalibrated: bool
) -> Tensor:
    """Return outputs of a path's layers, which were copied from a supernet, in evaluation mode.

    Recalibrated they have the statistics of the images, which are of shape (N, C, H, W).
    """
    if recalibrated:
        with without_path(supernet):
            recalibrate_in(subnet, [(images.clone(), torch.zeros(len(images)))], channels_last)
    with torch.no_grad(), without_path(supernet):
        return subnet.eval()(place_images(images.clone(), subnet, channels_last))


def _find(
    supernet: ModelSpace,
    path: Path,
    batches: EvaluationBatches,
    recalibrated: bool,
    *,
    relative: bool,
) -> str:
    images = next(iter(batches))[0][:NUM_IMAGES]
    # All at once, so that the order of a set of modules is not the same by chance.
    subnets = [extract_subnet(supernet, path) for _ in range(NUM_RUNS)]
    states = _generators()
    first, *others = (
        run_subnet(supernet, subnet, images, batches.channels_last, recalibrated)
        for subnet in subnets
    )
    draws = states != _generators()
    differences = [_difference(first, other, relative=relative) for other in others]
    if max(differences) <= (ROUNDING if draws else _tolerance(supernet, images)):
        return ""
    furthest = others[differences.index(max(differences))]
    guess = "noise, a counter outside of it, or the order of a set?"
    if draws:
        guess = "it draws random numbers: dropout or noise in evaluation mode?"
    found = _describe(max(differences), first, furthest, relative=relative)
    return (
        f"it gives other outputs each time that it is run ({guess}), {found}. So results of a path "
        "differ from one scoring to the next, and a search cannot be repeated"
    )


def _tolerance(supernet: ModelSpace, images: Tensor) -> float:
    if images.device.type == "cpu":
        return ROUNDING
    is_quantized = any(isinstance(module, Quantized) for module in supernet.modules())
    return GPU_QUANTIZED_TOLERANCE if is_quantized else GPU_TOLERANCE


def _generators() -> Sequence[object]:
    """Return the states of the global random generators, to be compared."""
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    states = [bytes(state.numpy()) for state in (torch.get_rng_state(), *devices)]
    state = np.random.get_state(legacy=False)["state"]
    return [*states, bytes(state["key"]), state["pos"], random.getstate()]


def _difference(one: Tensor, other: Tensor, *, relative: bool = True) -> float:
    """Return how far outputs differ, relative to their size; infinity if they are not alike."""
    if one.shape != other.shape or not torch.equal(one.isfinite(), other.isfinite()):
        return float("inf")
    one, other = (x.double().nan_to_num(0.0, 0.0, 0.0) for x in (one, other))
    if relative:  # what all classes have in common decides no score
        one, other = (x - x.mean(1, keepdim=True) for x in (one, other))
    size = max(float(one.norm()), float(other.norm()))
    return float((one - other).norm()) / size if size else 0.0


def _describe(difference: float, one: Tensor, other: Tensor, *, relative: bool = True) -> str:
    if one.shape != other.shape:
        return "even of other shapes"
    by = f"by {100 * difference:.2g} %" if difference < float("inf") else "not all of them finite"
    if not relative or one.ndim != 2:
        return f"{by} on the same images"
    changed = int((one.argmax(-1) != other.argmax(-1)).sum())
    return f"{by} on the same images, of which {changed} of {len(one)} get another class"
