"""What ``nni-spos trial RECIPE`` does: score one path of an NNI experiment."""

from __future__ import annotations

import os

from nni_spos.experiment.costs import load_costs
from nni_spos.experiment.exchange import TrialContext, open_trial
from nni_spos.experiment.manager import Manager
from nni_spos.experiment.worker_client import score_with_worker
from nni_spos.recipe import Recipe, load_recipe


def run_trial(recipe_file: str | os.PathLike[str]) -> None:
    """Score the path that NNI gave this trial, and report the result.

    Reported are ``default`` (top-1 in percent), ``top5``, the path's costs, e.g. ``flops`` and
    ``params``, ``loss`` and the path. The supernet is trained first if it is not there; trials
    that start together train it once. A worker scores the path, see `uses_worker`.

    Parameters
    ----------
    recipe_file
        The recipe that the experiment's tuner was given too.

    Raises
    ------
    ExperimentError
        This process is not a trial of a local experiment, or NNI does not answer.
    SposError
        The recipe, its data or its supernet cannot be used.
    SystemExit
        This trial reported its result before the experiment was resumed.
    """
    recipe = load_recipe(recipe_file)
    space, costs = load_costs(recipe)
    trial = open_trial(space)

    if not recipe.checkpoint.exists():
        from nni_spos.supernet.training import ensure_supernet

        ensure_supernet(recipe)
    results = (
        score_with_worker(recipe, trial.path) if uses_worker(recipe) else _score(recipe, trial)
    )
    accuracies = {"default": results["top1"], "top5": results["top5"]}
    prices = {name: table.price(trial.path) for name, table in costs.items()}
    # NNI's graph of the hyper-parameters breaks off before the path, so the loss comes last.
    trial.report({**accuracies, **prices, "loss": results["loss"]})


def uses_worker(recipe: Recipe) -> bool:
    """Whether a worker scores the paths of a recipe's trials, as its evaluation settings say.

    By default one does on NNI's local service: what a trial starts on another machine would be
    left there, for want of a manager whose end it can see.
    """
    chosen = recipe.evaluation.evaluator
    return chosen == "worker" or (chosen == "auto" and os.environ.get("NNI_PLATFORM") == "local")


def _score(recipe: Recipe, trial: TrialContext) -> dict[str, float]:
    # PyTorch is imported only by a trial that has something to do itself.
    from nni_spos.experiment.scoring import open_scorer

    share_cores()
    return open_scorer(recipe)(trial.path)


def share_cores() -> None:
    """Let PyTorch use this trial's part of the cores, unless ``OMP_NUM_THREADS`` is set.

    By default every trial has a thread for each core of the machine. Threads that wait for each
    other without having a core made four trials on two cores four times slower.
    """
    if "OMP_NUM_THREADS" in os.environ:
        return
    import torch

    manager = Manager.from_channel(os.environ["NNI_TRIAL_COMMAND_CHANNEL"])
    concurrency = manager.experiment()["params"]["trialConcurrency"]
    torch.set_num_threads(max(1, torch.get_num_threads() // concurrency))
