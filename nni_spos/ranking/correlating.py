"""Does the supernet rank paths as training each of them from scratch does?"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nni_spos.cost_table import Costs
from nni_spos.costs.stored import load_costs
from nni_spos.display.progress import open_bar
from nni_spos.errors import NotFiniteError, RecipeError
from nni_spos.files.atomic import write_json
from nni_spos.path import Indices, Path, PathSpace
from nni_spos.prediction import PathInputs
from nni_spos.priors import UniformPrior
from nni_spos.ranking.choice_bias import ChoiceBias, choice_biases, format_biases
from nni_spos.ranking.correlation import (
    CONFIDENCE,
    NUM_RESAMPLES,
    RankCorrelation,
    format_rankings,
    rank,
)
from nni_spos.ranking.figures import RankingPanel, plot_rankings
from nni_spos.ranking.published import load_table
from nni_spos.recipe.identity import Result, describe
from nni_spos.recipe.recipe import Recipe
from nni_spos.recipe.task import find_task
from nni_spos.retraining.standalone import train_standalone
from nni_spos.scoring.failures import describe_not_finite
from nni_spos.search.device_pool import open_device_scorer
from nni_spos.search.kept_supernets import keep_supernet
from nni_spos.tasks.base import Figure

CHUNK = 64
"""Paths that are scored together; what is scored survives an interruption."""

LISTED = 2**20
"""Paths of a space that is shuffled to draw from it; of a larger one few draws are repeated."""

SCORES = {"recalibrated": True, "inherited": False}
"""Statistics of BatchNorm that a score is with, and whether these are recalibrated for a path.

A name alone is that of the task's objective; with `BY_LIKELIHOOD` behind it, of the log-likelihood.
"""

BY_LIKELIHOOD = "_log_likelihood"

FLOPS = "flops"
PARAMS = "params"
UNITS = "units"

TRIVIAL = {
    FLOPS: "multiply-adds",
    PARAMS: "parameters",
    UNITS: "the number of units that do not make their cheapest choice",
}
"""Scores that cost nothing, and what they are: a supernet has to rank better."""


@dataclass(frozen=True)
class RankingStudy:
    """Scores of paths beside their stand-alone accuracies.

    Parameters
    ----------
    recipe
        Of the supernet.
    source
        Where the stand-alone accuracies are from, in words.
    seed
        That drew paths and resamples.
    space_size
        Paths in the space.
    paths
        Label to choice.
    accuracies
        What each path reaches alone: the objective of the task, such as an accuracy in percent.
    scores
        By name, those of each path: the objective, log-likelihood, or one of `TRIVIAL`.
    rankings
        By the same names.
    biases
        By the same names but those of `TRIVIAL`, see `nni_spos.ranking.choice_bias.choice_biases`.
    """

    recipe: Recipe
    source: str
    seed: int
    space_size: int
    paths: Sequence[Path]
    accuracies: Sequence[float]
    scores: Mapping[str, Sequence[float]]
    rankings: Mapping[str, RankCorrelation]
    biases: Mapping[str, Sequence[ChoiceBias]]

    @property
    def figure(self) -> Figure:
        """The objective of the task, which all scores but trivial ones and likelihoods are."""
        task = find_task(self.recipe.task)
        return task.figure(task.objective)

    def describe(self) -> str:
        """Return the figures as a table, with what they are of."""
        lines = [
            f"{self.recipe.space.name}: {len(self.paths):,} of {self.space_size:,} paths; "
            f"stand-alone {self.figure.title or self.figure.name} {self.source}",
            format_rankings(self.rankings, self.figure),
            *(f"{name}: {TRIVIAL[name]}" for name in self.scores if name in TRIVIAL),
            *self.unbeaten(),
        ]
        for name in self._accuracy_scores():
            values = self.scores[name]
            lines.append(
                f"{name}: {self.figure.brief} "
                f"{self.figure.format(float(np.mean(values)))} on average, from "
                f"{self.figure.format(min(values))} to {self.figure.format(max(values))}"
            )
        found = {name: biases for name, biases in self.biases.items() if biases}
        if found:
            lines.append("choices that are ranked too high (+) or too low (-), in percentiles:")
            lines += (f"{name}: {format_biases(biases)}" for name, biases in found.items())
        return "\n".join(lines)

    def unbeaten(self) -> list[str]:
        """Return a sentence for each score of the supernet that a trivial one ranks as well as.

        One that is the same for all paths ranks as chance does. Where all paths are as accurate, no
        score says anything.
        """
        taus = {name: ranking.tau.value for name, ranking in self.rankings.items()}
        worth = {name: tau or 0.0 for name, tau in taus.items()}
        trivial = max((name for name in taus if name in TRIVIAL), key=worth.__getitem__)
        if all(tau is None for tau in taus.values()):
            return []
        shown = {name: "undefined" if x is None else f"{x:.3f}" for name, x in taus.items()}
        return [
            f"{name} ranks no better than {TRIVIAL[trivial]}: tau {shown[name]}, and {trivial} "
            f"{shown[trivial]}"
            for name in taus
            if name not in TRIVIAL and worth[name] <= worth[trivial]
        ]

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write the figures, and all points that they are of, as JSON."""
        columns = {"accuracy": self.accuracies, **self.scores}
        points = [
            {"path": path, **dict(zip(columns, row, strict=True))}
            for path, *row in zip(self.paths, *columns.values(), strict=True)
        ]
        evaluation = self.recipe.evaluation.deciding()
        del evaluation["recalibrate"]  # the scores are with and without
        content = {
            "made_for": describe(Result.SCORES, self.recipe),
            "space": {"name": self.recipe.space.name, **self.recipe.space.arguments},
            "space_size": self.space_size,
            "accuracy": self.source,
            "figure": self.figure.name,
            "evaluation": evaluation,
            "seed": self.seed,
            "num_resamples": NUM_RESAMPLES,
            "confidence": CONFIDENCE,
            "rankings": {name: ranking.to_json() for name, ranking in self.rankings.items()},
            "unbeaten": self.unbeaten(),
            "biases": {
                name: [dataclasses.asdict(bias) for bias in biases]
                for name, biases in self.biases.items()
            },
            "points": points,
        }
        write_json(file, content)

    def plot(self, file: str | os.PathLike[str]) -> None:
        """Draw stand-alone accuracy over each score, as PNG."""
        panels = [
            RankingPanel(
                f"{name}, tau {self.rankings[name].tau}", self.scores[name], self.biases[name]
            )
            for name in self._accuracy_scores()
        ]
        plot_rankings(panels, self.accuracies, self.scores[FLOPS], file, self.figure.full_title)

    def _accuracy_scores(self) -> list[str]:
        return [name for name in self.scores if name in SCORES]


def correlate_table(
    recipe: Recipe,
    file: str | os.PathLike[str],
    count: int | None = None,
    seed: int = 0,
    scores: Sequence[str] = tuple(SCORES),
) -> RankingStudy:
    """Compare scores with the published accuracies of a benchmark's networks.

    Parameters
    ----------
    recipe
        Of a trained supernet; its sections space, data, supernet and evaluation are used.
    file
        The table, see `nni_spos.spaces.load_nas_bench_macro` and `load_channel_bench_macro`.
    count
        How many paths, drawn uniformly without repeats; None: all.
    seed
        Draws the paths, and the resamples.
    scores
        Keys of `SCORES`.

    Raises
    ------
    CheckpointError, RecipeError
        See `nni_spos.search.scorer.open_scorer`; or `count` is too small or too large.
    DataError
        The images are missing, or the table is not one of the recipe's networks.
    """
    space, costs = load_costs(recipe)
    table = load_table(file, space, costs)
    paths = draw_paths(space, space.size if count is None else count, seed)
    source = f"from {os.path.basename(file)}"
    return _compare(
        recipe, paths, costs, seed, scores, source, lambda _: [table.accuracy(x) for x in paths]
    )


def correlate_retrained(
    recipe: Recipe, count: int, seed: int = 0, scores: Sequence[str] = tuple(SCORES)
) -> RankingStudy:
    """Compare scores with the validation results of paths that are trained from scratch.

    Parameters
    ----------
    recipe
        Of a trained supernet; its section retrain says how the paths are trained.
    count, seed, scores
        As for `correlate_table`.

    Raises
    ------
    CheckpointError, DataError, ExperimentError, RecipeError
        See `correlate_table` and `nni_spos.retraining.standalone.train_standalone`.
    """
    space, costs = load_costs(recipe)
    paths = draw_paths(space, count, seed)
    source = "on validation images, trained with the recipe's retrain settings"

    def train(kept: Recipe) -> Sequence[float]:
        return train_standalone(kept, paths, costs)

    return _compare(recipe, paths, costs, seed, scores, source, train)


def draw_paths(space: PathSpace, count: int, seed: int) -> list[Path]:
    """Draw different paths uniformly; the first ones of a seed do not depend on the number.

    Raises
    ------
    RecipeError
        Fewer than two, which have no order, or more than the space has.
    """
    if not 2 <= count <= space.size:
        raise RecipeError(
            f"got {count} paths; a correlation needs 2 or more, and the space has {space.size:,}."
        )
    if space.size <= LISTED:
        order = np.random.default_rng(seed).permutation(space.size)
        return space.decode(space.enumerate()[order[:count]])
    prior = UniformPrior(space, seed)
    found: dict[tuple[int, ...], Path] = {}
    for step in itertools.count():
        path = prior.path(step)
        found.setdefault(space.key(path), path)
        if len(found) == count:
            break
    return list(found.values())


def _compare(
    recipe: Recipe,
    paths: Sequence[Path],
    costs: Costs,
    seed: int,
    scores: Sequence[str],
    source: str,
    find_accuracies: Callable[[Recipe], Sequence[float]],
) -> RankingStudy:
    recipe = keep_supernet(recipe)  # it is opened for every kind of score
    space = costs[FLOPS].space
    values: dict[str, Sequence[float]] = {}
    for name in scores:
        values |= _score(recipe, paths, space, name)
    indices = space.encode(paths)
    accuracies = find_accuracies(recipe)  # last: trainings take the longest
    biases = {name: choice_biases(space, indices, x, accuracies) for name, x in values.items()}
    values |= trivial_scores(costs, indices)
    rankings = {name: rank(x, accuracies, seed) for name, x in values.items()}
    return RankingStudy(
        recipe, source, seed, space.size, paths, accuracies, values, rankings, biases
    )


def trivial_scores(costs: Costs, indices: Indices) -> dict[str, list[float]]:
    """Return the scores of `TRIVIAL` of paths, given as positions."""
    sizes = PathInputs(costs[FLOPS].space, costs).sizes(indices)
    return {
        FLOPS: costs[FLOPS].price_many(indices).tolist(),
        PARAMS: costs[PARAMS].price_many(indices).tolist(),
        UNITS: (sizes > 0).sum(axis=1).tolist(),
    }


def _score(
    recipe: Recipe, paths: Sequence[Path], space: PathSpace, name: str
) -> dict[str, list[float]]:
    """Return objectives and log-likelihoods of the paths with the supernet's weights."""
    settings = dataclasses.replace(recipe.evaluation, recalibrate=SCORES[name])
    recipe = dataclasses.replace(recipe, evaluation=settings)
    # Neighbours in this order share most work.
    order = sorted(range(len(paths)), key=lambda i: space.key(paths[i]))
    found: dict[int, dict[str, float]] = {}
    with (
        contextlib.closing(open_device_scorer(recipe)) as scorer,
        open_bar(name, len(paths), "path") as bar,
    ):

        def show(share: float) -> None:
            bar.update(len(found) + int(share * len(part)) - bar.n)

        for begin in range(0, len(order), CHUNK):
            part = order[begin : begin + CHUNK]
            results = scorer.score_many([paths[i] for i in part], show)
            found |= dict(zip(part, results, strict=True))
            bar.update(len(found) - bar.n)
    objective = find_task(recipe.task).objective
    in_order = [found[i] for i in range(len(paths))]
    for path, one in zip(paths, in_order, strict=True):
        if problem := describe_not_finite(one):
            raise NotFiniteError(f"path {path}: {problem}. Train the supernet anew.")
    return {
        name: [x[objective] for x in in_order],
        name + BY_LIKELIHOOD: [x["log_likelihood"] for x in in_order],
    }
