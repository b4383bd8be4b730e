"""What ``nni-spos trial RECIPE`` does: score one path of an NNI experiment."""

from __future__ import annotations

import os

from nni_spos.experiment.costs import load_costs
from nni_spos.experiment.exchange import open_trial
from nni_spos.experiment.manager import Manager
from nni_spos.recipe import load_recipe


def run_trial(recipe_file: str | os.PathLike[str]) -> None:
    """Score the path that NNI gave this trial, and report the result.

    Reported are ``default`` (top-1 in percent), ``top5``, the path's costs, e.g. ``flops`` and
    ``params``, ``loss`` and the path. The supernet is trained first if it is not there; trials
    that start together train it once.

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

    # PyTorch is imported only by a trial that has something to do.
    from nni_spos.experiment.scoring import open_scorer
    from nni_spos.supernet.training import ensure_supernet

    ensure_supernet(recipe)
    share_cores()  # not before: while one trial trains, the others only wait
    results = open_scorer(recipe)(trial.path)
    accuracies = {"default": results["top1"], "top5": results["top5"]}
    prices = {name: table.price(trial.path) for name, table in costs.items()}
    # NNI's graph of the hyper-parameters breaks off before the path, so the loss comes last.
    trial.report({**accuracies, **prices, "loss": results["loss"]})


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
