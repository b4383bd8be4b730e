"""The prior that a recipe asks for."""

from __future__ import annotations

from nni_spos.cost_table import Costs
from nni_spos.path import PathSpace
from nni_spos.priors.base import Prior
from nni_spos.recipe.registries import PRIORS
from nni_spos.recipe.training_settings import SupernetSettings


def build_prior(settings: SupernetSettings, space: PathSpace, costs: Costs) -> Prior:
    """Make the prior that a recipe's section ``supernet`` asks for.

    Parameters
    ----------
    settings
        That section.
    space
        Labels and their choices.
    costs
        Cost tables by metric.

    Raises
    ------
    RecipeError
        There is no such prior, it has not such a key, or its code fails.
    ConstraintError, InfeasibleError
        There is no such cost, a bin is empty, or the quantiles do not make bins.
    """
    prior = PRIORS.find(settings.prior, settings.folder)
    own = settings.own()
    with PRIORS.explained(settings.prior, settings.folder):
        return prior.build(space, costs, settings.seed, own)
