"""The most memory that activations take at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from nni_spos.cost_table import CostTable, Factor, Number, PeakTable
from nni_spos.errors import CostError
from nni_spos.metrics.base import Metric
from nni_spos.metrics.network import Condition, Network
from nni_spos.metrics.units import Unit


class PeakActivationBytes(Metric):
    """Bytes of the activations that are needed at the same time, at most: a small device's RAM.

    At each operator these are its inputs, its outputs, and what later operators read. A value has 4
    bytes. Each BatchNorm is a part of the convolution before it, and what is computed element by
    element is written over its input where nobody reads that later: as runtimes for devices do.

    It is a maximum and no sum. So a limit on it is kept exactly, but paths that keep it are found
    by trying, and not by counting.
    """

    name = "peak_activation_bytes"
    unit = Unit("activations in RAM (bytes)", suffix="B")
    is_optional = True

    def costs(self, network: Network) -> Iterable[tuple[Condition, Number]]:
        """Yield what each operator needs, with the choices that a path must make for it."""
        if network.find_peaks is None:
            raise CostError(f"metric {self.name}: needs the network itself, not only its layers.")
        return network.find_peaks()

    def table(self, network: Network) -> CostTable:
        """Return the largest of what the operators of every path need. Raises CostError."""
        space, constant = network.space, 0
        found: dict[tuple[str, ...], Any] = {}
        places = {label: {c: i for i, c in enumerate(choices)} for label, choices in space.items()}
        for condition, cost in self.costs(network):
            ordered = sorted(condition, key=lambda pair: space.labels.index(pair[0]))
            labels = tuple(label for label, _ in ordered)
            if not labels:
                constant = max(constant, int(cost))
                continue
            table = found.setdefault(
                labels, np.zeros([len(space[label]) for label in labels], np.int64)
            )
            place = tuple(places[label][choice] for label, choice in ordered)
            table[place] = max(table[place], int(cost))
        factors = [Factor(labels, x) for labels, x in found.items() if (x > constant).any()]
        return PeakTable(self.name, space, constant, factors)
