"""The metrics that a recipe lists beside ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path as FilePath

from nni_spos.components import declared_keys
from nni_spos.errors import RecipeError, unknown
from nni_spos.metrics.base import Metric
from nni_spos.recipe.recipe import MetricSettings
from nni_spos.recipe.registries import METRICS
from nni_spos.recipe.settings import check_settings


def build_metrics(chosen: Sequence[MetricSettings], folder: FilePath | None = None) -> list[Metric]:
    """Make the metrics that a recipe lists; left out are those of ours that every space has.

    Parameters
    ----------
    chosen
        The recipe's section ``metrics``.
    folder
        Of the recipe, where a user's module is looked for first.

    Raises
    ------
    RecipeError
        There is no such metric, it has not such a key, or its code fails.
    """
    return [build_metric(x, folder) for x in chosen if not METRICS.is_of_every_space(x.name)]


def build_metric(chosen: MetricSettings, folder: FilePath | None = None) -> Metric:
    """Make a metric; the parameters and errors are those of `build_metrics`."""
    metric = METRICS.find(chosen.name, folder)
    where = f"metric {chosen.name}"
    keys = declared_keys(metric)
    for key in chosen.arguments:
        if key not in keys:
            raise RecipeError(f"{where}: {unknown('key', key, keys)}")
    arguments = check_settings(metric, chosen.arguments, where) if keys else {}
    with METRICS.explained(chosen.name, folder):
        return metric(**arguments)
