"""Retrain baselines as the winner is retrained, and keep what comes of it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from nni_spos.baseline.paths import Baseline
from nni_spos.errors import CheckpointError, ExperimentError
from nni_spos.experiment.local_search import FOLDER as SEARCH
from nni_spos.experiment.results import JOURNAL_NAME, load_results
from nni_spos.files import read_json, write_json
from nni_spos.recipe import Recipe
from nni_spos.repeats import repetitions, written_repetitions
from nni_spos.retrain import retrain
from nni_spos.stage_cost import StageCost, read_stage_cost
from nni_spos.tensors import load_tensors
from nni_spos.training import Start

FOLDER = "baselines"
"""Folder of the results, in the recipe's output folder."""

WINNER = "winner of the search"
RETRAINED = "retrained path"


@dataclass(frozen=True)
class BaselineResult:
    """What a path has, retrained.

    Parameters
    ----------
    name
        For people.
    costs
        Metric to value.
    tests
        Results on the test split, of every seed that it was measured with.
    cost
        Of the first retraining; None if it is not known.
    widths
        How the widths were scaled: multiplier and channels, or None.
    """

    name: str
    costs: Mapping[str, float]
    tests: Sequence[Mapping[str, float]]
    cost: StageCost | None
    widths: Mapping[str, Any] | None = None


def retrain_baselines(
    recipe: Recipe, baselines: Sequence[Baseline], repeats: int = 1
) -> list[BaselineResult]:
    """Retrain those that are not done yet; an interrupted one goes on.

    Parameters
    ----------
    recipe
        Its output folder keeps the results.
    baselines
        What to retrain.
    repeats
        With how many seeds, see `nni_spos.repeats`.

    Returns
    -------
    All results of the recipe's output folder, also of earlier calls.

    Raises
    ------
    ExperimentError
        One of them was made with other settings.
    RecipeError
        `repeats` is not a number of seeds.
    """
    folder = recipe.output / FOLDER
    missing = []
    for baseline in baselines:  # what is wrong is said before any of them is trained
        for setting, network in repetitions(
            baseline.recipe, folder / f"{baseline.name}.pt", repeats
        ):
            one = dataclasses.replace(baseline, recipe=setting)
            file = network.with_suffix(".json")
            if not file.exists():
                missing.append((one, network))
            elif _read(file).get("made_for") != _made_for(one):
                raise ExperimentError(
                    f"{file}: was made with other settings. Delete it and {network.name}, or give "
                    "the recipe another output folder."
                )
    for baseline, network in missing:
        trained = retrain(baseline.recipe, baseline.path, network, Start.CONTINUE)
        widths = baseline.widths
        content = {
            "name": baseline.name,
            "path": trained.path,
            "costs": dict(trained.costs),
            "test": None if trained.test is None else dict(trained.test),
            "cost": None if trained.cost is None else dict(trained.cost),
            "widths": None
            if widths is None
            else {"multiplier": widths.multiplier, "channels": list(widths.channels)},
            "made_for": _made_for(baseline),
        }
        write_json(network.with_suffix(".json"), content)
    return read_baselines(folder)


def read_baselines(folder: FilePath) -> list[BaselineResult]:
    """Return the results in a folder, by name, those of several seeds as one.

    Raises ExperimentError if one is damaged.
    """
    results: dict[str, BaselineResult] = {}
    for file in sorted(folder.glob("*.json"), key=_by_number):
        content = _read(file)
        try:
            name = str(content["name"])
            tests = [] if content["test"] is None else [dict(content["test"])]
            found = BaselineResult(
                name,
                dict(content["costs"]),
                tests,
                read_stage_cost(content["cost"]),
                content["widths"],
            )
        except (KeyError, TypeError, ValueError) as problem:
            raise ExperimentError(f"{file}: is not a baseline's result ({problem!r}).") from None
        if name in results:
            found = dataclasses.replace(results[name], tests=[*results[name].tests, *tests])
        results[name] = found
    return list(results.values())


def read_compared(recipe: Recipe) -> list[BaselineResult]:
    """Return what baselines are compared with, each named for people.

    The best path of the recipe's search in one process, if there was one, with the test figure of
    the recipe's retrained network if that is of this path; and else that network too, if there is
    one: a search under NNI writes its path to a file, and `retrain` takes any.
    """
    network = read_network(recipe.retrained, RETRAINED)
    folder = recipe.output / SEARCH
    if not (folder / JOURNAL_NAME).is_file():
        return [network[1]] if network else []
    best = load_results(folder).best
    if network is not None and network[0] == best.path:
        return [dataclasses.replace(network[1], name=WINNER)]
    winner = BaselineResult(WINNER, best.costs, (), None)
    return [winner, network[1]] if network else [winner]


def read_network(file: FilePath, name: str) -> tuple[Mapping[str, Any], BaselineResult] | None:
    """Return path and results of a retrained network, or None if it is not there.

    What the same path has with other seeds, in files beside it, is part of the results.

    Raises
    ------
    CheckpointError
        A file is damaged, or is not a network's.
    """
    found: tuple[Mapping[str, Any], BaselineResult] | None = None
    for one in written_repetitions(file) if file.exists() else ():
        path, result = _read_network(one, name)
        if found is None:
            found = path, result
        elif found[0] == path:
            tests = [*found[1].tests, *result.tests]
            found = path, dataclasses.replace(found[1], tests=tests)
    return found


def _read_network(file: FilePath, name: str) -> tuple[Mapping[str, Any], BaselineResult]:
    content = load_tensors(file)
    try:
        tests = [] if content["test"] is None else [dict(content["test"])]
        cost = read_stage_cost(content["cost"])
        return dict(content["path"]), BaselineResult(name, dict(content["costs"]), tests, cost)
    except (KeyError, TypeError, ValueError) as problem:
        raise CheckpointError(f"{file}: is not a trained network ({problem!r}).") from None


def _made_for(baseline: Baseline) -> dict[str, Any]:
    """Return, as JSON values, what the result of a baseline depends on."""
    recipe = baseline.recipe
    return {
        "space": {"name": recipe.space.name, **recipe.space.arguments},
        "path": dict(baseline.path),
        "data": recipe.data.deciding(),
        "retrain": recipe.retrain.deciding(),
    }


def _read(file: FilePath) -> dict[str, Any]:
    content = read_json(file, ExperimentError)
    if not isinstance(content, dict):
        raise ExperimentError(f"{file}: is not a baseline's result.")
    return content


def _by_number(file: FilePath) -> list[tuple[int, str]]:
    """Sort key with 2 before 10."""
    parts = re.findall(r"\d+|\D+", file.stem)
    return [(int(x), "") if x.isdecimal() else (-1, x) for x in parts]
