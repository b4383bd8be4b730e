"""How training paths are drawn."""

from nni_spos.priors.base import Prior
from nni_spos.priors.uniform import UniformPrior

__all__ = ["Prior", "UniformPrior"]
