"""Parts of channels: sets that stand one after the other wherever a layer makes or reads them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from nni_spos.conversion.channels import ChannelIds

Chain = tuple[int, ...]
"""Sets of channels that are in the same order everywhere."""


def find_chains(slots: Sequence[ChannelIds]) -> list[Chain]:
    """Return the longest parts of which every slot has whole ones only.

    Parameters
    ----------
    slots
        Sets of channels that layers make or read, in their order; a set may be there several times
        in a row.

    Examples
    --------
    >>> find_chains([np.array([1, 2]), np.array([3]), np.array([1, 2, 3])])
    [(1, 2), (3,)]
    """
    rows = list(dict.fromkeys(tuple(_without_repeats(slot)) for slot in slots))
    if len(rows) == 1 and len(set(rows[0])) == len(rows[0]):
        return rows  # the usual case, much faster
    before: dict[int, set[int | None]] = {}
    after: dict[int, set[int | None]] = {}
    for row in rows:
        for one, other in itertools.pairwise([None, *row, None]):
            if other is not None:
                before.setdefault(other, set()).add(one)
            if one is not None:
                after.setdefault(one, set()).add(other)

    def follower(one: int) -> int | None:
        (found, *others) = after[one]
        if others or found is None or len(before[found]) > 1:
            return None
        return found

    chains: list[Chain] = []
    seen: set[int] = set()
    for start, ahead in before.items():
        # One that follows a single other, which is followed by nothing else, begins no part.
        if start in seen or (len(ahead) == 1 and (one := next(iter(ahead))) and follower(one)):
            continue
        chain = [start]
        while (found := follower(chain[-1])) is not None and found != start:
            chain.append(found)
        chains.append(tuple(chain))
        seen.update(chain)
    return chains


def sequence_of(slot: ChannelIds, chains: Sequence[Chain]) -> tuple[int, ...] | None:
    """Return which parts a slot has, one after the other.

    None if it does not have whole parts, or some of its channels more often than others.
    """
    starts = {chain[0]: number for number, chain in enumerate(chains)}
    row = _without_repeats(slot)
    sequence: list[int] = []
    place = 0
    while place < len(row):
        number = starts.get(row[place])
        if number is None or tuple(row[place : place + len(chains[number])]) != chains[number]:
            return None
        sequence.append(number)
        place += len(chains[number])
    times, rest = divmod(len(slot), len(row))
    if rest or not np.array_equal(slot, np.repeat(np.array(row), times)):
        return None
    return tuple(sequence)


def _without_repeats(slot: ChannelIds) -> list[int]:
    """Return sets of channels without those that repeat the one before."""
    keeps = np.concatenate([[True], slot[1:] != slot[:-1]])
    kept: list[int] = slot[keeps].tolist()
    return kept
