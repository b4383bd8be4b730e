"""A recipe: one YAML file, what it says, and what a result of it depends on.

The public names are loaded when they are first used, since parts of this package are needed to
read others.
"""

from __future__ import annotations

from nni_spos.process.lazy_names import lazy_names

_HOMES = {
    "DataSettings": "nni_spos.recipe.data_settings",
    "EvaluationSettings": "nni_spos.recipe.search_settings",
    "Output": "nni_spos.recipe.output",
    "Recipe": "nni_spos.recipe.recipe",
    "RetrainSettings": "nni_spos.recipe.training_settings",
    "SearchSettings": "nni_spos.recipe.search_settings",
    "SupernetSettings": "nni_spos.recipe.training_settings",
    "TrainSettings": "nni_spos.recipe.training_settings",
    "load_recipe": "nni_spos.recipe.recipe",
}

__all__ = list(_HOMES)

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
