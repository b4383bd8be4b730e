"""In which memory format a network is scored."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from nni_spos.modules.memory_format import choose_format, in_format, logits_of
from nni_spos.modules.subnet import covering_subnets

Batches = Iterable[tuple[Tensor, Tensor]]

_found: WeakKeyDictionary[nn.Module, dict[tuple[object, ...], bool]] = WeakKeyDictionary()
"""What was found of a network, by its device and the shape of an image."""


def can_be_channels_last(network: nn.Module, input_shape: Sequence[int]) -> bool:
    """Whether a network, or all subnets of a supernet, can be scored in channels_last.

    It is found out once for each network.

    Parameters
    ----------
    network
        It is not changed.
    input_shape
        Of one image: (channels, height, width).

    Warns
    -----
    FormatWarning
        It cannot, see `nni_spos.modules.memory_format.choose_format`.
    """
    found = _found.setdefault(network, {})
    key = (device_of(network), *input_shape)
    if key not in found:
        chosen = choose_format(covering_subnets(network), input_shape, logits_of)
        found[key] = chosen is torch.channels_last
    return found[key]


def device_of(network: nn.Module) -> torch.device | None:
    """Return the device of the weights, or None if there are none."""
    return next((p.device for p in network.parameters()), None)


def peek(batches: Batches) -> tuple[Sequence[int], Batches]:
    """Return the shape of an image, () if there is none, and all batches."""
    rest = iter(batches)
    first = list(itertools.islice(rest, 1))
    return (first[0][0].shape[1:] if first else ()), itertools.chain(first, rest)


def note_format(network: nn.Module, input_shape: Sequence[int], channels_last: bool) -> None:
    """Spare `can_be_channels_last` what is known of a network, on the device that it is on."""
    key = (device_of(network), *input_shape)
    _found.setdefault(network, {})[key] = channels_last


@contextmanager
def scoring_format(
    network: nn.Module, input_shape: Sequence[int], channels_last: bool
) -> Iterator[bool]:
    """Lay a network out for images in channels_last if that is wanted and right.

    Yields whether it is. Afterwards the network lies in memory as before.
    """
    if channels_last and can_be_channels_last(network, input_shape):
        yield True
    else:
        with in_format(network, torch.contiguous_format):
            yield False
