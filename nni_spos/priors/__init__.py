"""How training paths are drawn."""

from nni_spos.priors.base import Prior
from nni_spos.priors.constrained import (
    SPOS_BINS,
    ConstrainedPrior,
    cost_histogram,
    quantile_bins,
)
from nni_spos.priors.filtered import FilteredPrior
from nni_spos.priors.scheduled import ScheduledPrior
from nni_spos.priors.uniform import UniformPrior
from nni_spos.priors.warmup import WarmUpPrior
from nni_spos.priors.widening import WideningPrior

__all__ = [
    "SPOS_BINS",
    "ConstrainedPrior",
    "FilteredPrior",
    "Prior",
    "ScheduledPrior",
    "UniformPrior",
    "WarmUpPrior",
    "WideningPrior",
    "cost_histogram",
    "quantile_bins",
]
