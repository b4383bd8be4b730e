"""Retrain baselines as the winner is retrained, and keep what comes of it."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from nni_spos.baseline.paths import Baseline
from nni_spos.errors import CheckpointError, ExperimentError, StaleWarning
from nni_spos.files.atomic import read_json, write_json
from nni_spos.files.tensors import load_tensors
from nni_spos.process.stage_cost import StageCost, read_stage_cost
from nni_spos.recipe.identity import Result, describe
from nni_spos.recipe.output import results_beside
from nni_spos.recipe.recipe import Recipe
from nni_spos.retraining.repeats import repetitions, written_repetitions
from nni_spos.retraining.retrain import keep_inherited, retrain
from nni_spos.search.results import load_results
from nni_spos.search.staleness import warn_if_stale
from nni_spos.training import Start
from nni_spos.values import changes, is_finite, is_plain

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
    task
        What the task was, as `nni_spos.recipe.identity` describes it; None if it is not known.
    """

    name: str
    costs: Mapping[str, float]
    tests: Sequence[Mapping[str, float]]
    cost: StageCost | None
    widths: Mapping[str, Any] | None = None
    task: Mapping[str, Any] | None = None


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
        With how many seeds, see `nni_spos.retraining.repeats`.

    Returns
    -------
    All results of the recipe's output folder, also of earlier calls, but for stale ones.

    Warns
    -----
    StaleWarning
        An earlier one was made with other settings than today's.

    Raises
    ------
    ExperimentError
        One of them was made with other settings.
    RecipeError
        `repeats` is not a number of seeds.
    """
    missing = []
    kept = [dataclasses.replace(x, recipe=keep_inherited(x.recipe)) for x in baselines]
    for baseline in kept:  # what is wrong is said before any of them is trained
        for setting, network in repetitions(
            baseline.recipe, recipe.files.baseline(baseline.name), repeats
        ):
            one = dataclasses.replace(baseline, recipe=setting)
            file = results_beside(network)
            if not file.exists():
                missing.append((one, network))
                continue
            if found := changes(_recorded(_read(file)), _made_for(one)):
                raise ExperimentError(
                    f"{file}: was made with other settings ({found}). Delete it and "
                    f"{network.name}, or give the recipe another output folder."
                )
            if one.recipe.latency and network.exists():  # they may have been measured anew
                missing.append((one, network))
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
        write_json(results_beside(network), content)
    return read_baselines(recipe.files.baselines, recipe)


def read_baselines(folder: FilePath, recipe: Recipe | None = None) -> list[BaselineResult]:
    """Return the results in a folder, by name, those of several seeds as one.

    With a recipe those are left out, with a warning, that it would not give today. Raises
    ExperimentError if one is damaged.
    """
    results: dict[str, BaselineResult] = {}
    for file in sorted(folder.glob("*.json"), key=_by_number):
        content = _read(file)
        is_scaled = content.get("widths") is not None
        if recipe is not None and _is_stale(file, _recorded(content), recipe, is_scaled):
            continue
        try:
            name = str(content["name"])
            found = _result(name, content, content["widths"])
        except (KeyError, TypeError) as problem:
            raise ExperimentError(f"{file}: is not a baseline's result ({problem!r}).") from None
        if name in results:
            found = dataclasses.replace(results[name], tests=[*results[name].tests, *found.tests])
        results[name] = found
    return list(results.values())


def read_compared(recipe: Recipe) -> list[BaselineResult]:
    """Return what baselines are compared with, each named for people.

    The best path of the recipe's search in one process, if there was one, with the test figure of
    the recipe's retrained network if that is of this path; and else that network too, if there is
    one: a search under NNI writes its path to a file, and `retrain` takes any. What is not of
    today's model, images and settings is left out, with a warning.
    """
    network = read_network(recipe.files.retrained, RETRAINED, recipe)
    search = recipe.files.search
    found = load_results(search.path) if search.journal.is_file() else None
    if found is None or warn_if_stale(found, recipe):
        return [network[1]] if network else []
    best = found.best
    if network is not None and network[0] == best.path:
        return [dataclasses.replace(network[1], name=WINNER)]
    winner = BaselineResult(WINNER, best.costs, (), None)
    return [winner, network[1]] if network else [winner]


def read_network(
    file: FilePath, name: str, recipe: Recipe | None = None
) -> tuple[Mapping[str, Any], BaselineResult] | None:
    """Return path and results of a retrained network, or None if it is not there.

    What the same path has with other seeds, in files beside it, is part of the results. With a
    recipe those networks are left out, with a warning, that it would not give today.

    Raises
    ------
    CheckpointError
        A file is damaged, or is not a network's.
    """
    found: tuple[Mapping[str, Any], BaselineResult] | None = None
    for one in written_repetitions(file) if file.exists() else ():
        path, result, made_for = _read_network(one, name)
        if recipe is not None and made_for is not None and _is_stale(one, made_for, recipe):
            continue
        if found is None:
            found = path, result
        elif found[0] == path:
            tests = [*found[1].tests, *result.tests]
            found = path, dataclasses.replace(found[1], tests=tests)
    return found


def _read_network(
    file: FilePath, name: str
) -> tuple[Mapping[str, Any], BaselineResult, Mapping[str, Any] | None]:
    content = load_tensors(file)
    try:
        path, made_for = content["path"], content.get("made_for")
        if not isinstance(path, dict) or not isinstance(made_for or {}, dict):
            raise TypeError("a part of it has another type")
        if not is_plain(path) or not is_plain(made_for):
            raise TypeError("a part of it is not made of plain values")
        return path, _result(name, content), made_for
    except (KeyError, TypeError, AttributeError) as problem:
        raise CheckpointError(f"{file}: is not a trained network ({problem!r}).") from None


def _result(name: str, content: Mapping[str, Any], widths: Any = None) -> BaselineResult:
    """Return what a file says. Raises KeyError or TypeError if it is not a result."""
    costs, test = content["costs"], content["test"]
    for figures in (costs, {} if test is None else test):
        if not isinstance(figures, dict) or not all(map(is_finite, figures.values())):
            raise TypeError("a cost or a test figure is not a number")
    if test is not None and not test:
        raise TypeError("its test has no figures")
    if widths is not None and not (
        is_finite(widths["multiplier"]) and isinstance(widths["channels"], list)
    ):
        raise TypeError("its widths are none")
    tests = [] if test is None else [test]
    task = _recorded(content).get("task")
    cost = read_stage_cost(content["cost"])
    return BaselineResult(name, costs, tests, cost, widths, task)


def _made_for(baseline: Baseline) -> dict[str, Any]:
    """Return, as JSON values, what the result of a baseline depends on."""
    return {**describe(Result.BASELINE, baseline.recipe), "path": dict(baseline.path)}


def _is_stale(
    file: FilePath, made_for: Mapping[str, Any], recipe: Recipe, is_scaled: bool = False
) -> bool:
    """Whether a result is not one that a recipe gives today; then it is said in one line.

    Its seed may be another one than the recipe's, and widths that were scaled are its own.
    """
    free = {"path", "space"} if is_scaled else {"path"}
    both = []
    for parts in (made_for, describe(Result.BASELINE, recipe)):
        kept = {name: values for name, values in parts.items() if name not in free}
        retrain = kept.get("retrain")
        if isinstance(retrain, Mapping):
            kept["retrain"] = {key: value for key, value in retrain.items() if key != "seed"}
        both.append(kept)
    found = changes(*both)
    if found:
        text = f"{file}: was made with other settings than today's ({found}), and is left out."
        warnings.warn(text, StaleWarning, stacklevel=2)
    return bool(found)


def _recorded(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the result of a baseline depends on, as its file says."""
    made_for = content.get("made_for")
    return made_for if isinstance(made_for, Mapping) else {}


def _read(file: FilePath) -> dict[str, Any]:
    content = read_json(file, ExperimentError)
    if not isinstance(content, dict):
        raise ExperimentError(f"{file}: is not a baseline's result.")
    return content


def _by_number(file: FilePath) -> list[tuple[int, str]]:
    """Sort key with 2 before 10."""
    parts = re.findall(r"\d+|\D+", file.stem)
    return [(int(x), "") if x.isdecimal() else (-1, x) for x in parts]
