"""What the winner of a search is compared with, retrained in the same setting (paper: Table 3)."""

from nni_spos.baseline.paths import Baseline, fixed_baseline, random_baselines, searched_baseline
from nni_spos.baseline.retraining import (
    BaselineResult,
    read_baselines,
    read_compared,
    retrain_baselines,
)
from nni_spos.baseline.table import baseline_table

__all__ = [
    "Baseline",
    "BaselineResult",
    "baseline_table",
    "fixed_baseline",
    "random_baselines",
    "read_baselines",
    "read_compared",
    "retrain_baselines",
    "searched_baseline",
]
