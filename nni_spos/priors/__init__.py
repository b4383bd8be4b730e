"""How training paths are drawn."""

from nni_spos.priors.base import Prior
from nni_spos.priors.filtered import FilteredPrior
from nni_spos.priors.uniform import UniformPrior

__all__ = ["FilteredPrior", "Prior", "UniformPrior"]
