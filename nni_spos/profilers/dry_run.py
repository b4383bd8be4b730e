"""Run a network for its shapes: without data, or with random images where it asks for values."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from nni_spos.errors import CostError, SposError

T = TypeVar("T")

_ABOUT_SHAPES = re.compile(
    r"\b(shapes?|sizes?|dim|dims|dimensions?|channels?|features?|[1-5]D)\b", re.IGNORECASE
)
"""In the messages of PyTorch about tensors that do not fit."""


_PLACE = "nni_spos_place"
"""Attribute of an error: where it was raised."""


def run_dry(prepare: Callable[[str], Callable[[Tensor], T]], input_shape: Sequence[int]) -> list[T]:
    """Return what runs return: of one on the meta device, or else of several on the CPU.

    Parameters
    ----------
    prepare
        Called with a device, returns what is called with an image there, with the batch dimension.
    input_shape
        Of one image: (channels, height, width).

    Raises
    ------
    CostError
        The images do not fit, or it fails with every image for another reason.
    """
    with torch.no_grad(), torch.random.fork_rng(devices=[]), _plain_attention():
        try:
            return [prepare("meta")(torch.empty(1, *input_shape, device="meta"))]
        except SposError:
            raise
        except Exception:  # whatever code raises that asks for values, or brings tensors that have
            torch.manual_seed(0)
        try:
            return _run_images(prepare("cpu"), input_shape)
        except SposError:
            raise
        except Exception as problem:
            raise refusal(problem, input_shape) from None


def note_place(problem: BaseException, place: str) -> None:
    """Remember which layer raised an error, for `refusal`."""
    with contextlib.suppress(AttributeError):
        problem.__dict__[_PLACE] = place


def refusal(problem: Exception, input_shape: Sequence[int], what: str = "space") -> CostError:
    """Return the error that says why a network does not run on images of a shape."""
    text = " ".join(str(problem).split())
    place = vars(problem).get(_PLACE, "")
    shape = tuple(input_shape)
    is_shape = _ABOUT_SHAPES.search(text) and ".reshape(" not in text
    if is_shape and isinstance(problem, RuntimeError | IndexError | ValueError):
        where = f"{place}: " if place else ""
        return CostError(f"images of shape {shape} do not fit the {what} ({where}{text:.300}).")
    reason = f"{type(problem).__name__}: {text}" if text else type(problem).__name__
    where = f" ({place})" if place else ""
    return CostError(f"with images of shape {shape} the {what} does not run{where}: {reason:.300}")


def _run_images(run: Callable[[Tensor], T], input_shape: Sequence[int]) -> list[T]:
    """Return the results of the images that it runs on; raises the first problem if of none."""
    results: list[T] = []
    problems: list[Exception] = []
    for image in _images(input_shape):
        try:
            results.append(run(image))
        except SposError:
            raise
        except Exception as problem:
            problems.append(problem)
    if not results:
        raise problems[0]
    return results


def _images(input_shape: Sequence[int]) -> Iterator[Tensor]:
    """Yield images that branches on values tell apart: of each sign, large, small and none."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(1, *input_shape, generator=generator)
    yield from (normal, -normal, 100 * normal, normal / 100)
    yield torch.rand(1, *input_shape, generator=generator)
    yield torch.zeros_like(normal)


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Keep PyTorch from doing a whole layer of attention as one operator, without its layers."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
