"""BatchNorm statistics of one path, which the supernet's own are not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nni_spos.data import EvaluationBatches
from nni_spos.errors import DataError
from nni_spos.scoring.scoring_format import device_of, peek, scoring_format


def place_images(images: Tensor, network: nn.Module, channels_last: bool) -> Tensor:
    """Return images, shape (N, C, H, W), on the device of a network and in a memory format."""
    device = device_of(network) or images.device
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return images.to(device, memory_format=layout)


def place_batches(
    batches: EvaluationBatches, network: nn.Module, channels_last: bool
) -> EvaluationBatches:
    """Return batches whose images need no more placing: what is sent to the device are bytes."""
    return batches.to(device_of(network) or "cpu", channels_last)


def recalibrate(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], channels_last: bool = True
) -> int:
    """Replace the BatchNorm statistics of a network by those of some images, in place.

    The statistics are reset and then are the average over the batches, each batch weighing the
    same. Only BatchNorm layers run in training mode, so that dropout plays no part. Everything
    but the statistics (modes, momentum, weights) is afterwards as it was.

    Parameters
    ----------
    network
        A subnet. Layers that keep no statistics are left alone.
    batches
        Images of shape (N, C, H, W), with labels that are not used. Make all batches the same
        size: a smaller last one weighs as much as the others.
    channels_last
        Memory format of the images, where the network allows it; faster for depth-wise
        convolutions.

    Returns
    -------
    Number of images that were used. A norm that none of them ran through keeps its statistics.

    Raises
    ------
    DataError
        There are no images.

    References
    ----------
    Guo et al., Single Path One-Shot NAS, ECCV 2020, section 3.4.
    """
    shape, batches = peek(batches)
    with scoring_format(network, shape, channels_last) as channels_last:
        return recalibrate_in(network, batches, channels_last)


def recalibrate_in(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], channels_last: bool
) -> int:
    """Recalibrate in a memory format that is known to be right."""
    num_images = 0
    with gathering_statistics(network) as norms, torch.no_grad():
        network.eval()
        for norm in norms:
            norm.train()
        for images, _ in batches:
            network(place_images(images, network, channels_last))
            num_images += len(images)
    if not num_images:
        raise DataError("recalibration needs at least one image.")
    return num_images


@contextlib.contextmanager
def gathering_statistics(network: nn.Module) -> Iterator[list[_BatchNorm]]:
    """Let the BatchNorm layers of a network gather statistics anew, each batch weighing the same.

    They do while they are in training mode, which is left to the block, as is running the network.
    Afterwards all modes and momenta are as they were.

    Yields
    ------
    Those layers. One that nothing ran through gets its statistics back.
    """
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    modes = {module: module.training for module in network.modules()}
    momenta = [norm.momentum for norm in norms]
    statistics = [[buffer.clone() for buffer in norm.buffers()] for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's cumulative average
    # Code of the user's own may need a number.
    counters = [_Counter(norm) for norm in norms if type(norm).forward is not _BatchNorm.forward]
    try:
        yield norms
    finally:
        for counter in counters:
            counter.remove()
        for norm, momentum, before in zip(norms, momenta, statistics, strict=True):
            norm.momentum = momentum
            if _is_reset(norm):  # others run in its place, or nothing does
                for buffer, content in zip(norm.buffers(), before, strict=True):
                    buffer.copy_(content)
        for module, mode in modes.items():
            module.training = mode


def _is_reset(norm: _BatchNorm) -> bool:
    """Whether nothing has updated the statistics. Code of the user's own need not count batches."""
    mean, variance = norm.running_mean, norm.running_var
    return bool((mean == 0).all() and (variance == 1).all() and norm.num_batches_tracked == 0)


class _Counter:
    """Gives a norm, before each of its calls, the momentum of the average over its calls."""

    def __init__(self, norm: _BatchNorm):
        self._num_calls = 0
        self.remove = norm.register_forward_pre_hook(self._count).remove

    def _count(self, norm: nn.Module, _: object) -> None:
        self._num_calls += 1
        norm.momentum = 1.0 / self._num_calls
