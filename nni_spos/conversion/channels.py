"""Which channels belong together: a narrower network keeps or drops them as one."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

ChannelIds = NDArray[np.int64]
"""Channels by number, of any shape."""

FIXED = 0
"""The channel that stands for all that stay: of images, constants and what is not understood."""


class ChannelSets:
    """Disjoint sets of channels, joined as a run of the network shows what depends on what."""

    def __init__(self) -> None:
        self._parents = [FIXED]
        self._reasons: dict[int, str] = {}
        self._added: set[int] = set()

    def new(self, number: int) -> ChannelIds:
        """Return new channels, each a set of its own."""
        first = len(self._parents)
        self._parents.extend(range(first, first + number))
        return np.arange(first, first + number)

    def find(self, channel: int) -> int:
        """Return the channel that stands for the set of a channel."""
        parents = self._parents
        root = channel
        while parents[root] != root:
            root = parents[root]
        while parents[channel] != root:
            parents[channel], channel = root, parents[channel]
        return root

    def roots(self, channels: ChannelIds) -> ChannelIds:
        """Return the channels that stand for the sets of channels; the shape stays."""
        parents, find = self._parents, self.find
        flat = [
            parent if parents[parent := parents[channel]] == parent else find(channel)
            for channel in channels.ravel().tolist()
        ]
        return np.array(flat, dtype=np.int64).reshape(channels.shape)

    def join(
        self, one: ChannelIds, other: ChannelIds, reason: str, *, is_sum: bool = False
    ) -> None:
        """Let channels at the same places belong together.

        Parameters
        ----------
        one, other
            Of shapes that NumPy broadcasts.
        reason
            Why channels stay that are joined with one that stays.
        is_sum
            Whether they are added, which couples the blocks of a network with each other.
        """
        both = np.broadcast_arrays(self.roots(one), self.roots(other))
        pairs = np.stack([x.ravel() for x in both], 1)
        apart = pairs[pairs[:, 0] != pairs[:, 1]]
        for first, second in dict.fromkeys(map(tuple, apart.tolist())):
            self._join(first, second, reason)
        if is_sum:
            self._added.update(map(self.find, np.unique(pairs[:, 0]).tolist()))

    def fix(self, channels: ChannelIds, reason: str) -> None:
        """Let channels stay, for a reason that is shown."""
        for channel in np.unique(channels).tolist():
            self._reasons.setdefault(self.find(channel), reason)

    def reason(self, channels: Iterable[int]) -> str:
        """Return why one of these channels stays, or ""."""
        roots = [self.find(channel) for channel in channels]
        return next((self._reasons[root] for root in roots if root in self._reasons), "")

    def are_added(self, channels: Iterable[int]) -> bool:
        """Whether one of these channels is the term of a sum."""
        return any(self.find(channel) in self._added for channel in channels)

    def _join(self, one: int, other: int, reason: str) -> None:
        first, second = self.find(one), self.find(other)
        if first == second:
            return
        if second < first:
            first, second = second, first
        if first == FIXED:
            self._reasons.setdefault(second, reason)
            return
        self._parents[second] = first
        if second in self._reasons:
            self._reasons.setdefault(first, self._reasons[second])
        if second in self._added:
            self._added.add(first)
