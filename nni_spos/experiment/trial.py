"""What ``nni-spos trial RECIPE`` does: score one path of an NNI experiment."""

from __future__ import annotations

import math
import os

from nni_spos.errors import (
    NOT_FINITE,
    CheckpointError,
    DataError,
    EvaluatorError,
    NotFiniteError,
    RehearsalError,
)
from nni_spos.experiment.costs import load_costs
from nni_spos.experiment.exchange import (
    MEMORY,
    TrialContext,
    open_manager,
    open_trial,
    runs_elsewhere,
)
from nni_spos.experiment.shared_supernet import ensure_shared_supernet
from nni_spos.experiment.worker_client import Answer, ask_worker
from nni_spos.kept_supernets import keep_for_trial
from nni_spos.recipe import Recipe, load_recipe
from nni_spos.stage_cost import measure_memory
from nni_spos.values import not_finite


def run_trial(recipe_file: str | os.PathLike[str]) -> None:
    """Score the path that NNI gave this trial, and report the result.

    Reported are ``default`` (top-1 in percent), ``top5``, the path's costs, e.g. ``flops`` and
    ``params``, ``loss``, the path, and the memory that its evaluation needed. The supernet is
    trained first if it is not there; trials that start together train it once. On other machines
    than the tuner's it is never trained, but fetched, see `nni_spos.experiment.shared_supernet`. A
    worker scores the path, see `uses_worker`.

    Parameters
    ----------
    recipe_file
        The recipe that the experiment's tuner was given too.

    Raises
    ------
    ExperimentError
        This process is not a trial, or NNI does not answer.
    SposError
        The recipe, its data or its supernet cannot be used. What keeps every trial from its result,
        and not this path alone, is reported too, and ends the search.
    SystemExit
        This trial reported its result before the experiment was resumed.
    """
    recipe = load_recipe(recipe_file)
    space, costs = load_costs(recipe)
    trial = open_trial(space)

    try:
        answer = _evaluate(recipe, trial)
    except (CheckpointError, DataError, EvaluatorError, RehearsalError) as problem:
        trial.report_problem(problem)
        raise
    results = answer.results
    if found := not_finite(results):
        raise NotFiniteError(f"{NOT_FINITE}: {found}.")
    accuracies = {"default": results["top1"], "top5": results["top5"]}
    prices = {name: table.price(trial.path) for name, table in costs.items()}
    # NNI's graph of the hyper-parameters breaks off before the path, so the losses come last.
    losses = {name: results[name] for name in ("loss", "log_likelihood")}
    trial.report({**accuracies, **prices, **losses, MEMORY: answer.memory})


def _evaluate(recipe: Recipe, trial: TrialContext) -> Answer:
    recipe = _with_supernet(recipe)
    return ask_worker(recipe, trial.path) if uses_worker(recipe) else _score(recipe, trial)


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


def _score(recipe: Recipe, trial: TrialContext) -> Answer:
    # PyTorch is imported only by a trial that has something to do itself.
    from nni_spos.experiment.scoring import open_scorer

    share_cores()
    return Answer(open_scorer(recipe)(trial.path), measure_memory())


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
