"""Convert, train, search, fine-tune: everything between a network and a smaller one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from nni_spos.conversion.choices import largest
from nni_spos.conversion.plan import ConversionPlan
from nni_spos.conversion.recipe_space import original_network
from nni_spos.conversion.space import ConvertedSpace
from nni_spos.cost_table import Costs
from nni_spos.data import ImageData, open_data
from nni_spos.errors import RecipeError
from nni_spos.path import Path
from nni_spos.recipe.recipe import Recipe
from nni_spos.retraining.network import TrainedNetwork
from nni_spos.retraining.retrain import retrain
from nni_spos.scoring.evaluation import score
from nni_spos.search.building import build_search
from nni_spos.search.results import Results
from nni_spos.search.running import run_search
from nni_spos.spaces import Form
from nni_spos.supernet.building import build_recipe_costs, build_recipe_space
from nni_spos.supernet.training import train_supernet
from nni_spos.tasks.base import Task
from nni_spos.training import Start


@dataclass(frozen=True)
class Compression:
    """A network and what it became.

    Parameters
    ----------
    plan
        What of the network could be chosen.
    task
        What it predicts.
    original_costs, original_test
        Of the network as it was given; its figures are of the test split, with its own weights.
    result
        The fine-tuned network.
    tables
        Cost tables of all that could be chosen, by metric.
    search
        All that was scored.
    """

    plan: ConversionPlan
    task: Task
    original_costs: Mapping[str, float]
    original_test: Mapping[str, float]
    result: TrainedNetwork
    tables: Costs
    search: Results


def compress(recipe: Recipe, announce: Callable[[str], object] = lambda text: None) -> Compression:
    """Train the supernet of a network, search it, and fine-tune the best path.

    What is finished stays, so a run that was cut off goes on where it was. Each stage is a command
    of its own as well: ``train``, ``search`` or ``start``, ``retrain``.

    Parameters
    ----------
    recipe
        With a section ``model``.
    announce
        Called with a line before each stage.

    Raises
    ------
    RecipeError
        The recipe has a space and no model.
    InfeasibleError, ConstraintError
        No path keeps the limits; said before any training.
    SposError
        See `nni_spos.train_supernet`, `nni_spos.run_search` and `nni_spos.retrain`.
    """
    if not recipe.space.is_converted:
        raise RecipeError(
            f"{recipe.file.name}: has a 'space', and compress is for a 'model'. Use nni-spos "
            "train, search and retrain."
        )
    space = build_recipe_space(recipe, Form.SUBNET)
    assert isinstance(space, ConvertedSpace)
    path_space, costs = build_recipe_costs(recipe)
    build_search(recipe.search, path_space, costs)  # refuses limits that no path keeps
    announce("1 of 4: the network as it is")
    data = open_data(recipe.data, task=recipe.task, measured=recipe.files.normalisation)
    test = _test(recipe, data)
    announce("2 of 4: training the supernet")
    train_supernet(recipe, Start.CONTINUE)
    announce("3 of 4: searching")
    search = run_search(recipe)
    best: Path = dict(search.best.path)
    announce("4 of 4: fine-tuning the best path")
    whole = largest(space.plan)
    return Compression(
        plan=space.plan,
        task=data.task,
        original_costs={name: table.price(whole) for name, table in costs.items()},
        original_test=test,
        result=retrain(recipe, best, start=Start.CONTINUE),
        tables=costs,
        search=search,
    )


def _test(recipe: Recipe, data: ImageData) -> Mapping[str, float]:
    """Return the figures of the original network on the test split."""
    network: nn.Module = original_network(recipe, data.spec.num_classes)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    batches = data.test_batches(recipe.evaluation.batch_size)
    return score(network.to(device), batches, task=data.task).to_json()
