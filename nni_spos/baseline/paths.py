"""Which paths are baselines: one choice everywhere, random ones, the best of a random search."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nni_spos.baseline.widths import Widths, scale_widths
from nni_spos.costs.stored import load_costs
from nni_spos.errors import InfeasibleError, PathError
from nni_spos.evolution import FeasibleSampler
from nni_spos.path import Choice, Path, PathSpace
from nni_spos.recipe.recipe import Recipe
from nni_spos.search.running import run_search
from nni_spos.spaces import Form
from nni_spos.supernet.building import build_recipe_space

RANDOM_SEARCH = "random_search"
"""Folder of the random search, in the recipe's output folder."""


@dataclass(frozen=True)
class Baseline:
    """A path to be retrained.

    Parameters
    ----------
    name
        Of its files and in tables.
    recipe
        The recipe, with the widths of the baseline.
    path
        Label to choice.
    widths
        How its widths were scaled, if they were.
    """

    name: str
    recipe: Recipe
    path: Path
    widths: Widths | None = None


def fixed_path(space: PathSpace, choices: Sequence[str]) -> Path:
    """Return the path that makes the same choice in every unit.

    Parameters
    ----------
    space
        Labels and their choices.
    choices
        As text. Each label takes the one that it has, or its only choice.

    Raises
    ------
    PathError
        A label has none of the choices, or several, or no label has one of them.

    Examples
    --------
    >>> fixed_path(PathSpace({"layer_1": ["k3", "k5"], "bits": [2, 4], "width": [8]}), ["k3", "4"])
    {'layer_1': 'k3', 'bits': 4, 'width': 8}
    """
    path: Path = {}
    for label, values in space.items():
        found: list[Choice] = [x for x in values if str(x) in choices]
        if len(values) > 1 and len(found) != 1:
            problem = "has several of" if found else "has none of"
            raise PathError(
                f"label '{label}' {problem} the choices {', '.join(choices)}. Give one for every "
                f"label; its choices: {', '.join(map(str, values))}."
            )
        path[label] = (found or list(values))[0]
    unused = [x for x in choices if x not in map(str, path.values())]
    if unused:
        raise PathError(f"no label has the choice {unused[0]}.")
    return path


def fixed_baseline(
    recipe: Recipe, choices: Sequence[str], target_flops: float | None = None
) -> Baseline:
    """Return the path of one choice everywhere, with its widths scaled to a cost if one is given.

    Raises
    ------
    PathError
        See `fixed_path`.
    RecipeError
        See `scale_widths`.
    """
    name = re.sub(r"[^\w.-]+", "_", "-".join(["fixed", *choices]))

    def path_of(space: PathSpace) -> Path:
        return fixed_path(space, choices)

    if target_flops is None:
        space = PathSpace.from_model_space(build_recipe_space(recipe, Form.SUBNET))
        return Baseline(name, recipe, path_of(space))
    scaled, widths = scale_widths(recipe, path_of, target_flops)
    space = PathSpace.from_model_space(build_recipe_space(scaled, Form.SUBNET))
    return Baseline(f"{name}-{target_flops:.10g}", scaled, path_of(space), widths)


def random_baselines(recipe: Recipe, count: int, seed: int) -> list[Baseline]:
    """Return random paths that meet the constraints of the recipe's search, all different.

    The first ones are the same for every `count`.

    Raises
    ------
    ConstraintError, InfeasibleError
        The constraints cannot be met, or by fewer paths.
    """
    space, costs = load_costs(recipe)
    sampler = FeasibleSampler(space, costs, recipe.search.constraints)
    drawn = dict.fromkeys(
        itertools.islice(sampler.stream(np.random.default_rng(seed)), 10 * count + 100)
    )
    paths = space.decode(list(drawn)[:count])
    if len(paths) < count:
        raise InfeasibleError(f"only {len(paths)} paths meet the constraints; {count} were asked.")
    return [Baseline(f"random-{i}", recipe, path) for i, path in enumerate(paths, start=1)]


def searched_baseline(recipe: Recipe) -> Baseline:
    """Return what a random search finds on the supernet, with as many candidates as the recipe's.

    It is in ``OUTPUT/random_search``. Raises the errors of
    `nni_spos.search.running.run_search`.
    """
    changes = {"algorithm": "random", "sensitivity": False}
    search = recipe.search.changed(changes, recipe.file.name)
    found = run_search(dataclasses.replace(recipe, search=search), folder=RANDOM_SEARCH)
    return Baseline("random-search", recipe, found.best.path)
