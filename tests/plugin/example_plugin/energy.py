"""A metric: the energy of a network's multiply-adds and of what its layers write."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nni_spos.metrics import Layer, LayerMetric, Unit
from nni_spos.recipe.settings import real, setting


@dataclass(frozen=True)
class Energy(LayerMetric):
    """Energy for one image, in nanojoules.

    Parameters
    ----------
    pj_per_mac
        Energy of a multiply-add, in picojoules.
    pj_per_output
        Energy of writing a number, in picojoules.
    """

    name = "energy_nj"
    unit = Unit("energy (nJ)", suffix=" nJ")

    pj_per_mac: float = setting(real(0), 4.5)
    pj_per_output: float = setting(real(0), 20.0)

    def of_layer(self, layer: Layer) -> float:
        """Return the energy of one call of a layer."""
        if not layer.macs:
            return 0
        written = math.prod(layer.output_shape)
        return (layer.macs * self.pj_per_mac + written * self.pj_per_output) / 1000
