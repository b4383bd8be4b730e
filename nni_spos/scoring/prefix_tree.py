"""Paths as a prefix tree, so that what they have in common is computed once."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from nni_spos.path import Path, PathSpace


@dataclass
class Node:
    """A part on the paths that agree up to it.

    Parameters
    ----------
    statistics
        Mean and variance of its BatchNorms, by id of the module.
    """

    statistics: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)


class PrefixTree:
    """Paths in an order in which those that agree longest follow each other.

    Parameters
    ----------
    space
        Labels and choices.
    paths
        The paths.
    calls
        The labels of every part, in the order of the calls.
    """

    def __init__(self, space: PathSpace, paths: Sequence[Path], calls: Sequence[frozenset[str]]):
        seen: list[str] = []
        self._num_seen: list[int] = []
        for labels in calls:
            seen += [label for label in space if label in labels and label not in seen]
            self._num_seen.append(len(seen))
        columns = [space.labels.index(label) for label in seen]
        keys = [tuple(space.key(path)[column] for column in columns) for path in paths]
        self.order = sorted(range(len(paths)), key=lambda i: keys[i])
        ordered = [keys[i] for i in self.order]
        pairs = itertools.pairwise(ordered)
        self.shared = [0, *(self._num_shared(one, other) for one, other in pairs), 0]
        """How many leading calls each path shares with the one before it; ends with a 0."""
        self.nodes: list[list[Node]] = []
        for num_shared in self.shared[:-1]:
            before = self.nodes[-1][:num_shared] if self.nodes else []
            self.nodes.append([*before, *(Node() for _ in calls[num_shared:])])

    def _num_shared(self, one: Sequence[int], other: Sequence[int]) -> int:
        pairs = enumerate(zip(one, other, strict=True))
        agree = next((i for i, (a, b) in pairs if a != b), len(one))
        return sum(number <= agree for number in self._num_seen)

    def without(self, dropped: Container[int]) -> PrefixTree:
        """Return the tree without some paths, by their numbers; statistics stay known."""
        rest = copy.copy(self)
        kept = [place for place, index in enumerate(self.order) if index not in dropped]
        rest.order = [self.order[place] for place in kept]
        rest.nodes = [self.nodes[place] for place in kept]
        # What two share is what all between them do.
        pairs = itertools.pairwise(kept)
        rest.shared = [0, *(min(self.shared[a + 1 : b + 1]) for a, b in pairs), 0]
        return rest

    @property
    def num_nodes(self) -> int:
        """Number of different nodes: how many calls of parts a batch takes."""
        return sum(len(nodes) - n for nodes, n in zip(self.nodes, self.shared, strict=False))
