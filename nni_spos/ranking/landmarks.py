"""Train a few paths alone, so that a model can say what all others will reach."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nni_spos.cost_table import Costs
from nni_spos.costs.stored import load_costs
from nni_spos.display.tables import Table, as_text
from nni_spos.errors import RecipeError
from nni_spos.path import Path, PathSpace
from nni_spos.prediction import PathModel
from nni_spos.ranking.correlating import TRIVIAL, trivial_scores
from nni_spos.ranking.correlation import RankCorrelation, rank
from nni_spos.recipe.recipe import Recipe
from nni_spos.recipe.search_settings import STANDALONE
from nni_spos.recipe.task import find_task
from nni_spos.retraining.standalone import StandaloneScorer
from nni_spos.search.predicted import LEAST, known_accuracies
from nni_spos.search.results import Results
from nni_spos.search.running import run_search
from nni_spos.tasks.base import Figure

LEFT_OUT = "left out"
"""Score of a path by a model of all other trained paths."""

CLOSE = 2.0
"""Deviations within which a prediction should be for 95 of 100 paths."""


@dataclass(frozen=True)
class Trust:
    """How far a model of trained paths may be trusted.

    Parameters
    ----------
    figure
        What is predicted.
    paths
        Paths that were trained alone.
    accuracies
        What each reached.
    rankings
        How well a model of all others ranks them, and what costs nothing, see `TRIVIAL`.
    error
        Mean distance of what is predicted without a path from what it reached.
    close
        Share of the paths for which it is at most `CLOSE` standard deviations.
    """

    figure: Figure
    paths: Sequence[Path]
    accuracies: Sequence[float]
    rankings: Mapping[str, RankCorrelation]
    error: float
    close: float

    @property
    def is_better_than_trivial(self) -> bool:
        """Whether the model ranks the trained paths better than all that costs nothing."""
        taus = {name: x.tau.value or 0.0 for name, x in self.rankings.items()}
        return taus[LEFT_OUT] > max(taus[name] for name in TRIVIAL)

    def describe(self) -> str:
        """Return the figures as a table, and what they mean."""
        rows = [[name, str(x.tau), str(x.rho)] for name, x in self.rankings.items()]
        lines = [
            f"{len(self.paths)} paths were trained alone; each was predicted from all others:",
            as_text(Table(["score", "Kendall tau [95 %]", "Spearman rho [95 %]"], rows)),
            f"predictions are off by {self.error:.{self.figure.digits}f} on average; "
            f"{self.close:.0%} are within {CLOSE:g} standard deviations, 95 % should be",
        ]
        if not self.is_better_than_trivial:
            lines.append(
                "do not trust it: it ranks these paths no better than what costs nothing. Train "
                "more paths, or longer."
            )
        return "\n".join(lines)


def train_landmarks(recipe: Recipe, number: int, *, progress: bool = True) -> Results:
    """Train paths alone: first those that say most about all others, then those that look best.

    Two thirds of them say most; each of the last third is the path that promises the largest
    improvement by a model of all before it. It is a search with the algorithm ``bayesian``, in
    ``OUTPUT/landmarks_NUMBER``: it can be stopped at any moment, and the same call goes on. What is
    trained counts for all later calls, with other numbers too.

    Parameters
    ----------
    recipe
        Its section retrain says how a path is trained, its section search which limits it keeps.
    number
        Paths to train, at least `LEAST`.
    progress
        Whether to show a progress bar.

    Raises
    ------
    RecipeError
        The number is too small.
    CheckpointError, DataError, ExperimentError
        See `nni_spos.retraining.retrain.train_path` and `nni_spos.search.running.run_search`.
    """
    if number < LEAST:
        raise RecipeError(f"-n: must be at least {LEAST}, got {number}.")
    changes = {
        "algorithm": "bayesian",
        "population_size": 1,
        "num_generations": number,
        "num_initial": number - number // 3,
        "objective": find_task(recipe.task).objective,
        "cost_objectives": [],
        "sensitivity": False,
    }
    settings = dataclasses.replace(recipe.evaluation, evaluator=STANDALONE)
    recipe = dataclasses.replace(recipe, evaluation=settings).with_search(changes, "landmarks")
    _, costs = load_costs(recipe)
    scorer = StandaloneScorer(recipe, costs)
    return run_search(recipe, scorer, progress, folder=recipe.files.landmarks(number).path.name)


def judge(recipe: Recipe, seed: int = 0) -> Trust:
    """Say how far a model of all paths that a recipe has trained may be trusted.

    Raises
    ------
    ExperimentError
        There are too few of them.
    """
    space, costs = load_costs(recipe)
    paths, accuracies = known_accuracies(recipe, space)
    task = find_task(recipe.task)
    return _trust(task.figure(task.objective), space, costs, paths, accuracies, seed)


def _trust(
    figure: Figure,
    space: PathSpace,
    costs: Costs,
    paths: Sequence[Path],
    accuracies: Sequence[float],
    seed: int,
) -> Trust:
    model = PathModel(space, costs).fit(paths, accuracies)
    mean, deviation = model.leave_one_out()
    scores = {LEFT_OUT: mean.tolist(), **trivial_scores(costs, space.encode(paths))}
    distance = np.abs(mean - np.asarray(accuracies))
    return Trust(
        figure=figure,
        paths=paths,
        accuracies=accuracies,
        rankings={name: rank(x, accuracies, seed) for name, x in scores.items()},
        error=float(distance.mean()),
        close=float((distance <= CLOSE * deviation).mean()),
    )
