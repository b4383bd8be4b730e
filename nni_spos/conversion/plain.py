"""Plain layers in the place of layers of a class derived from them, where they compute the same.

Libraries pad for themselves before a convolution, or put an activation into a BatchNorm. What such
a layer does is tried out, in several sizes of image, before it is replaced.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nni_spos.conversion.space import become, replace
from nni_spos.conversion.tracing import call

DERIVED = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)
SIZES = ((0, 0), (1, 1), (3, 2))
"""Pixels that images are higher and wider, where a layer and its stand-in are compared."""


class SamePadding2d(nn.Module):
    """Zeros around an image, so that a convolution returns ceil(size / stride) pixels.

    Parameters
    ----------
    kernel_size, stride, dilation
        Of the convolution behind it, (height, width). The bottom and the right get more zeros.
    """

    def __init__(
        self, kernel_size: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
    ):
        super().__init__()
        self.kernel_size, self.stride, self.dilation = kernel_size, stride, dilation

    def forward(self, x: Tensor) -> Tensor:
        margins: list[int] = []
        places = zip(x.shape[-2:], self.kernel_size, self.stride, self.dilation, strict=True)
        for size, kernel, stride, dilation in places:
            total = max(0, (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size)
            margins = [total // 2, total - total // 2, *margins]
        return nn.functional.pad(x, margins) if any(margins) else x

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, dilation={self.dilation}"


def make_plain(network: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Replace layers of derived classes by plain ones that compute the same, in place.

    Parameters
    ----------
    network
        In evaluation mode.
    inputs
        Of the network, as `nni_spos.conversion.tracing.call` takes them.
    """
    derived = [module for module in network.modules() if _is_derived(module)]
    if not derived:
        return
    given: dict[nn.Module, Tensor] = {}

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        if len(args) == 1 and isinstance(args[0], Tensor):
            given.setdefault(module, args[0].detach())

    handles = [module.register_forward_pre_hook(note) for module in derived]
    try:
        call(network, inputs)
    finally:
        for handle in handles:
            handle.remove()
    for module in derived:
        if module in given:
            x = given[module]
            made = next((made for made in _candidates(module, x) if _same(module, made, x)), None)
            if isinstance(made, nn.Sequential):
                replace(network, {module: made})
            elif made is not None:
                become(module, made)


def _is_derived(module: nn.Module) -> bool:
    return isinstance(module, DERIVED) and type(module) not in DERIVED


def _candidates(module: nn.Module, given: Tensor) -> Iterator[nn.Module]:
    """Yield plain layers that may compute what a layer does."""
    plain = next(kind for kind in DERIVED if isinstance(module, kind))
    same = _as(module, plain)
    if isinstance(same, nn.Conv2d):
        if (margins := _own_padding(module, given)) is not None:
            left, right, top, bottom = margins
            if left == right and top == bottom:
                yield _with_padding(same, (top, left))
            yield nn.Sequential(nn.ZeroPad2d(margins), _with_padding(same, (0, 0)))
        padding = SamePadding2d(*(getattr(same, x) for x in ("kernel_size", "stride", "dilation")))
        yield nn.Sequential(padding, _with_padding(same, (0, 0)))
    yield same
    if children := list(module.children()):
        yield nn.Sequential(same, *children)


def _as(module: nn.Module, plain: type[nn.Module]) -> Any:
    """Return a layer as one of its base class, with the same tensors."""
    made: Any = object.__new__(plain)
    vars(made).update(vars(module))
    made._modules = {}
    made._parameters = dict(module._parameters)
    made._buffers = dict(module._buffers)
    return made


def _with_padding(module: nn.Conv2d, padding: tuple[int, int]) -> nn.Conv2d:
    made = copy.copy(module)
    made.padding = padding
    # What PyTorch derives from it, for padding that is no zeros.
    made._reversed_padding_repeated_twice = [x for x in reversed(padding) for _ in range(2)]
    return made


def _own_padding(module: nn.Module, given: Tensor) -> list[int] | None:
    """Return left, right, top and bottom if a layer pads, convolves, and does nothing else."""
    calls: list[tuple[str, Any]] = []

    class Calls(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            calls.append((func.overloadpacket.__name__, args))
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), Calls():
        module(given)
    names = [name for name, _ in calls]
    if names not in (["convolution"], ["constant_pad_nd", "convolution"]):
        return None
    height, width = calls[-1][1][4]
    margins = list(calls[0][1][1]) if len(calls) == 2 else []
    margins += [0] * (4 - len(margins))
    return [m + p for m, p in zip(margins, (width, width, height, height), strict=True)]


def _same(module: nn.Module, made: nn.Module, given: Tensor) -> bool:
    """Whether two layers compute the same, for images of several sizes, and as they are trained."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for extra in SIZES if given.dim() == 4 else SIZES[:1]:
            x = (
                nn.functional.pad(given, (0, extra[1], 0, extra[0]), value=0.5)
                if any(extra)
                else given
            )
            try:
                if not torch.equal(module(x), made(x)):
                    return False
                one, other = (copy.deepcopy(m).train() for m in (module, made))
                results = []
                for layer in (one, other):
                    torch.manual_seed(0)
                    results.append(layer(torch.cat([x, x])))
                if not torch.equal(*results):
                    return False
            except Exception:  # the code of others
                return False
    return True
