"""Single Path One-Shot neural architecture search on Microsoft NNI 3.

The public names are loaded when they are first used: NNI gives a tuner ten seconds to start,
and importing this package must not import PyTorch.
"""

from __future__ import annotations

from nni_spos._version import __version__
from nni_spos.process.import_path import leave_working_directory
from nni_spos.process.lazy_names import lazy_names
from nni_spos.process.openmp import limit_spinning

leave_working_directory()  # before anything is imported from there
limit_spinning()  # before anything imports PyTorch

_HOMES = {
    "Constraint": "nni_spos.constraint",
    "CostTable": "nni_spos.cost_table",
    "DataSettings": "nni_spos.recipe.data_settings",
    "EvolutionSearch": "nni_spos.evolution",
    "EvolutionStrategy": "nni_spos.search.nas_strategy",
    "PathSpace": "nni_spos.path",
    "LightningScorer": "nni_spos.search.lightning_scorer",
    "Prior": "nni_spos.priors",
    "RandomSearch": "nni_spos.evolution",
    "ShuffleNetV2Space": "nni_spos.spaces",
    "Signal": "nni_spos.evolution",
    "SinglePathOneShot": "nni_spos.supernet",
    "SposError": "nni_spos.errors",
    "SupernetEvaluator": "nni_spos.search.nas_strategy",
    "TrainSettings": "nni_spos.recipe.training_settings",
    "UniformPrior": "nni_spos.priors",
    "build_costs": "nni_spos.profilers",
    "build_evaluator": "nni_spos.training",
    "build_network": "nni_spos.spaces",
    "compress": "nni_spos.compression.own_loaders",
    "convert": "nni_spos.conversion.convert",
    "evaluate_path": "nni_spos.scoring.evaluation",
    "export_network": "nni_spos.deployment.exporting",
    "extract_subnet": "nni_spos.modules.subnet",
    "load_network": "nni_spos.retraining.network",
    "load_recipe": "nni_spos.recipe.recipe",
    "open_data": "nni_spos.data",
    "open_supernet": "nni_spos.supernet",
    "retrain": "nni_spos.retraining.retrain",
    "run_search": "nni_spos.search.running",
    "search_paths": "nni_spos.search.own_scores",
    "train_supernet": "nni_spos.supernet.training",
}

__all__ = ["__version__", *_HOMES]

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
