"""Whether networks compute in the memory format channels_last what they do in the usual one.

A network's own code can depend on how its tensors lie in memory: ``x.view(len(x), -1)`` behind a
convolution fails in channels_last, and code that reads strides computes something else. What a
network does is not told by its layers, so it is run in both formats.
"""

from __future__ import annotations

import contextlib
import functools
import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from nni_spos.errors import FormatWarning
from nni_spos.modules.agreement import Outputs, differ
from nni_spos.modules.copies import copy_values

RunOnImages = Callable[[nn.Module, Tensor], Outputs]
"""Takes a network and images of shape (N, C, H, W), and returns what was computed."""

NUM_IMAGES = 2
"""One image alone can have strides of both formats at once."""


def choose_format(
    networks: Iterable[nn.Module], input_shape: Sequence[int], run: RunOnImages
) -> torch.memory_format:
    """Return channels_last if networks compute the same in it, else the contiguous format.

    Parameters
    ----------
    networks
        They may be one supernet, with another path set each time. Memory format, gradients and
        modes are changed.
    input_shape
        Of one image: (channels, height, width).
    run
        What they are needed for.

    Warns
    -----
    FormatWarning
        A network fails in channels_last, or computes something else.
    """
    for network in networks:
        reason = find_fault(network, input_shape, run)
        if reason:
            warnings.warn(
                f"the network cannot be run in the memory format channels_last ({reason}); the "
                "contiguous format is used instead, which can be slower. x.reshape or "
                "x.flatten(1) in place of x.view makes up for most such code.",
                FormatWarning,
                stacklevel=2,
            )
            return torch.contiguous_format
    return torch.channels_last


def find_fault(network: nn.Module, input_shape: Sequence[int], run: RunOnImages) -> str:
    """Return what goes wrong in channels_last and not in the contiguous format, or ``""``.

    What goes wrong in both is not about the format: whoever runs the network sees it. The network
    is changed as `choose_format` says.
    """
    usual, other = torch.contiguous_format, torch.channels_last
    try:
        expected = _run_in(usual, network, input_shape, run)
    except Exception:
        return ""
    try:
        found = _run_in(other, network, input_shape, run)
    except Exception as problem:
        return f"{type(problem).__name__}: {' '.join(str(problem).split()):.200}"
    precise: list[nn.Module] = []  # made only if it is needed

    def in_layout(layout: torch.memory_format, dtype: torch.dtype, seed: int) -> Outputs:
        if dtype is torch.float64 and not precise:
            precise.append(copy_values(network).double())
        model = precise[0] if dtype is torch.float64 else network
        return _run_in(layout, model, input_shape, run, dtype, seed)

    one, two = (functools.partial(in_layout, layout) for layout in (usual, other))
    return "its results are others there" if differ(one, two, expected, found) else ""


def logits_of(network: nn.Module, images: Tensor) -> Outputs:
    """Return what a network computes in evaluation mode: a `RunOnImages`."""
    with torch.no_grad():
        return [network.eval()(images)]


@contextlib.contextmanager
def in_format(network: nn.Module, layout: torch.memory_format) -> Iterator[None]:
    """Let the weights of a network lie in a memory format; afterwards they lie as before.

    Convolutions take their output's format from the weights too. The values stay, so nothing may
    train the network meanwhile.
    """
    swapped = []
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.dim() == 4:
            swapped.append((tensor, tensor.data))
            # Not 'contiguous', which leaves a tensor with one channel as it is, whose strides can
            # still be those of channels_last; and by these convolutions decide.
            tensor.data = tensor.data.to(memory_format=layout)
    try:
        yield
    finally:
        for tensor, data in swapped:
            tensor.data = data


@contextlib.contextmanager
def kept_generators(device: torch.device | str = "cpu") -> Iterator[None]:
    """Leave all global random generators, of a device as well, as they are."""
    devices = [torch.device(device)] if torch.device(device).type == "cuda" else []
    state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)


def _run_in(
    layout: torch.memory_format,
    network: nn.Module,
    input_shape: Sequence[int],
    run: RunOnImages,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Outputs:
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    network.to(memory_format=layout)
    images = torch.randn(NUM_IMAGES, *input_shape, generator=torch.Generator().manual_seed(0))
    with kept_generators(device), kept_buffers(network):
        seed_generators(seed, device)
        with torch.autocast(device.type, enabled=False):
            return run(network, images.to(device, dtype, memory_format=layout))


@contextlib.contextmanager
def kept_buffers(network: nn.Module) -> Iterator[None]:
    """Let the next run find the statistics that this one finds."""
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, content in buffers:
                buffer.copy_(content)


def seed_generators(seed: int, device: torch.device | str = "cpu") -> None:
    """Seed all global random generators that a network's code may use."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # the largest that it takes
    # torch.manual_seed would note the stack for each kind of device that is not in use: 1 ms.
    torch.default_generator.manual_seed(seed)
    if torch.device(device).type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
