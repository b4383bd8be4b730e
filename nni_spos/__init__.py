"""Single Path One-Shot neural architecture search on Microsoft NNI 3.

The public names are loaded when they are first used: NNI gives a tuner ten seconds to start,
and importing this package must not import PyTorch.
"""

from __future__ import annotations

import importlib
from typing import Any

from nni_spos._version import __version__
from nni_spos.import_path import leave_working_directory
from nni_spos.openmp import limit_spinning

leave_working_directory()  # before anything is imported from there
limit_spinning()  # before anything imports PyTorch

_HOMES = {
    "Constraint": "nni_spos.constraint",
    "CostTable": "nni_spos.cost_table",
    "DataSettings": "nni_spos.recipe",
    "EvolutionSearch": "nni_spos.evolution",
    "EvolutionStrategy": "nni_spos.experiment.nas_strategy",
    "PathSpace": "nni_spos.path",
    "Prior": "nni_spos.priors",
    "RandomSearch": "nni_spos.evolution",
    "ShuffleNetV2Space": "nni_spos.spaces",
    "Signal": "nni_spos.evolution",
    "SinglePathOneShot": "nni_spos.supernet",
    "SposError": "nni_spos.errors",
    "SupernetEvaluator": "nni_spos.experiment.nas_strategy",
    "TrainSettings": "nni_spos.recipe",
    "UniformPrior": "nni_spos.priors",
    "build_costs": "nni_spos.profilers",
    "build_evaluator": "nni_spos.training",
    "evaluate_path": "nni_spos.supernet",
    "load_network": "nni_spos.network",
    "load_recipe": "nni_spos.recipe",
    "open_data": "nni_spos.data",
    "retrain": "nni_spos.retrain",
    "run_search": "nni_spos.experiment.local_search",
    "train_supernet": "nni_spos.supernet.training",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nni_spos' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
