"""What ``nni-spos trial RECIPE`` does: score one path of an NNI experiment."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence

from nni_spos.cost_table import Costs
from nni_spos.costs.stored import load_costs
from nni_spos.experiment.exchange import (
    MEMORY,
    open_manager,
    open_trial,
    restore_numbers,
    runs_elsewhere,
)
from nni_spos.experiment.shared_supernet import ensure_shared_supernet
from nni_spos.path import Choice, Path
from nni_spos.process.stage_cost import measure_memory
from nni_spos.recipe.recipe import Recipe, load_recipe
from nni_spos.recipe.task import find_task
from nni_spos.scoring.failures import check_finite, raise_for_path
from nni_spos.scoring.notes import NOTES, collecting
from nni_spos.search.kept_supernets import keep_for_trial
from nni_spos.search.nni_results import DEFAULT
from nni_spos.search.predicted import DEVIATION, PredictedScorer
from nni_spos.search.score_cache import NUM_IMAGES
from nni_spos.tasks.base import LOG_LIKELIHOOD, LOSS
from nni_spos.worker.client import Answer, ask_worker


def run_trial(recipe_file: str | os.PathLike[str]) -> None:
    """Score the path that NNI gave this trial, and report the result.

    Reported are ``default`` (the objective of the task), its other figures, the path's costs, e.g.
    ``flops`` and ``params``, ``loss``, the path, the memory that its evaluation needed, and what
    was warned of.
    The supernet is trained first if it is not there; trials that start together train it once. On
    other machines than the tuner's it is never trained, but fetched, see
    `nni_spos.experiment.shared_supernet`. A worker scores the path, see `uses_worker`.

    Parameters
    ----------
    recipe_file
        The recipe that the experiment's tuner was given too.

    Raises
    ------
    ExperimentError
        This process is not a trial, or NNI does not answer.
    SposError, OSError
        The recipe, its data or its supernet cannot be used, the path cannot be scored, or the
        machine is in trouble. It is reported too: what the path does not do itself stops the
        search.
    """
    recipe = load_recipe(recipe_file)
    trial = open_trial()
    if trial is None:
        return
    try:
        space, costs = load_costs(recipe)
        path = space.validate(restore_numbers(trial.path, space))
        trial = dataclasses.replace(trial, path=path)
        answer = _evaluate(recipe, path, costs)
        prices = {name: table.price(path) for name, table in costs.items()}
    except Exception as problem:
        trial.report_error(problem)
        raise
    results = answer.results
    # NNI shows the objective of the task. Its module is imported, and no PyTorch.
    task, shown = find_task(recipe.task), recipe.search.reported
    main = {DEFAULT: results[shown]}
    others = [*(x.name for x in task.figures), DEVIATION]
    figures = {name: results[name] for name in others if name in results and name != shown}
    # NNI's graph of the hyper-parameters breaks off before the path, so the losses come last.
    names = (LOSS.name, LOG_LIKELIHOOD, NUM_IMAGES)
    losses = {name: results[name] for name in names if name in results}
    notes = {NOTES: list(answer.notes)} if answer.notes else {}
    trial.report({**main, **figures, **prices, **losses, MEMORY: answer.memory, **notes})


def _evaluate(recipe: Recipe, path: Path, costs: Costs) -> Answer:
    """Return the results of a path. Raises FailedPathError if it is the path that fails."""
    if recipe.search.predicts:
        return _predict(recipe, path, costs)
    if recipe.evaluation.trains_alone:
        return _train(recipe, path, costs)
    return _score_with_supernet(recipe, path)


def _score_with_supernet(recipe: Recipe, path: Path) -> Answer:
    recipe = _with_supernet(recipe)
    return ask_worker(recipe, path) if uses_worker(recipe) else _score(recipe, path)


def _predict(recipe: Recipe, path: Path, costs: Costs) -> Answer:
    """Return what a model of the trained paths predicts."""

    def score_many(paths: Sequence[Mapping[str, Choice]]) -> list[Mapping[str, float]]:
        return [_score_with_supernet(recipe, dict(x)).results for x in paths]

    space = next(iter(costs.values())).space
    supernet = score_many if recipe.evaluation.supernet_input else None
    return Answer(PredictedScorer(recipe, space, costs, supernet)(path), measure_memory(), [])


def _train(recipe: Recipe, path: Path, costs: Costs) -> Answer:
    """Train a path alone, and return its results on the validation images."""
    share_cores()
    from nni_spos.retraining.standalone import StandaloneScorer

    notes = list[str]()
    with collecting(notes):
        results = StandaloneScorer(recipe, costs)(path)
    check_finite(results)
    return Answer(results, measure_memory(), notes)


def _with_supernet(recipe: Recipe) -> Recipe:
    """Return a recipe with the supernet of this trial's experiment, trained or fetched first."""
    if runs_elsewhere():
        return ensure_shared_supernet(recipe, open_manager())
    kept = keep_for_trial(recipe)
    if not kept.checkpoint.exists():
        from nni_spos.supernet.training import ensure_supernet

        ensure_supernet(recipe)
        kept = keep_for_trial(recipe)
    return kept


def uses_worker(recipe: Recipe) -> bool:
    """Whether a worker scores the paths of a recipe's trials, as its evaluation settings say.

    By default one does, on every machine. It ends with NNI's process there: the manager, or the
    keeper of the trials.
    """
    return recipe.evaluation.evaluator != "inline"


def _score(recipe: Recipe, path: Path) -> Answer:
    # PyTorch is imported only by a trial that has something to do itself.
    from nni_spos.search.scorer import open_scorer

    share_cores()
    scorer, notes = open_scorer(recipe), list[str]()
    try:
        with collecting(notes):
            results = scorer(path)
    except Exception as problem:
        raise_for_path(problem)
        raise
    check_finite(results)
    return Answer(results, measure_memory(), notes)


def share_cores() -> None:
    """Let PyTorch use this trial's part of the cores, unless ``OMP_NUM_THREADS`` is set.

    By default every trial has a thread for each core of the machine. Threads that wait for each
    other without having a core made four trials on two cores four times slower.
    """
    if "OMP_NUM_THREADS" in os.environ:
        return
    import torch

    settings = open_manager().experiment()["params"]
    # NNI deals its trials out to the machines in turn.
    num_machines = len(settings.get("trainingService", {}).get("machineList", [])) or 1
    num_here = math.ceil(settings["trialConcurrency"] / num_machines)
    torch.set_num_threads(max(1, torch.get_num_threads() // num_here))
