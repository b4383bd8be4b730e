"""Channels of parts that stand one after the other, of each of which a path keeps the first.

Behind a concatenation a narrow path does not have the first channels of all, but the first ones of
every part. Tensors of weight-sharing layers keep them in an order in which every path's are the
first ones nevertheless, so that whatever trains or counts slices need not know of parts; only where
a path's tensors are used are they brought into the order in which its channels arrive.
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import torch
from torch import Tensor


class ChannelParts(NamedTuple):
    """How many channels each part has, for every choice.

    Parameters
    ----------
    kept
        By choice, the largest first: channels of each part, one part after the other. No part of a
        choice has more than that of the choice before.

    Examples
    --------
    >>> parts = ChannelParts(((4, 2), (2, 1)))
    >>> parts.places(3)
    [0, 1, 4]
    >>> parts.nesting().tolist()
    [0, 1, 4, 2, 3, 5]
    >>> parts.order(6, "cpu").tolist()
    [0, 1, 3, 4, 2, 5]
    """

    kept: tuple[tuple[int, ...], ...]

    def places(self, number: int) -> list[int]:
        """Return which of all channels a path has that has so many, as they arrive.

        Raises KeyError for a number that no choice has.
        """
        kept = {sum(numbers): numbers for numbers in self.kept}[number]
        starts = itertools.accumulate(self.kept[0][:-1], initial=0)
        return [s + i for s, own in zip(starts, kept, strict=True) for i in range(own)]

    def nesting(self) -> Tensor:
        """Return all places in an order of which every choice has the first ones."""
        return torch.tensor(self._nesting(), device="cpu")

    def order(self, number: int, device: torch.device | str) -> Tensor:
        """Return where, in that order, the channels of a path are, as they arrive.

        Parameters
        ----------
        number
            Channels of the path.
        device
            Of the indices, shape (number,).
        """
        return _order(self, number, str(device))

    def _nesting(self) -> list[int]:
        last = [0] * sum(self.kept[0])
        for choice, numbers in enumerate(self.kept):
            for place in self.places(sum(numbers)):
                last[place] = choice
        return sorted(range(len(last)), key=lambda place: (-last[place], place))


@functools.lru_cache(maxsize=4096)
def _order(parts: ChannelParts, number: int, device: str) -> Tensor:
    nested = {place: i for i, place in enumerate(parts._nesting())}
    with torch.inference_mode(False):  # kept, and a training may need it later
        return torch.tensor([nested[place] for place in parts.places(number)], device=device)
