"""Does the supernet rank paths as training each of them from scratch does?"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nni_spos.choice_bias import ChoiceBias, choice_biases, format_biases
from nni_spos.correlation import CONFIDENCE, NUM_RESAMPLES, Ranking, format_rankings, rank
from nni_spos.cost_table import Costs
from nni_spos.errors import NOT_FINITE, NotFiniteError, RecipeError
from nni_spos.experiment.costs import load_costs
from nni_spos.experiment.device_pool import open_device_scorer
from nni_spos.experiment.standalone import load_table, train_standalone
from nni_spos.files import write_json
from nni_spos.identity import Result, describe
from nni_spos.kept_supernets import keep_supernet
from nni_spos.path import Path, PathSpace
from nni_spos.plots import RankingPanel, plot_rankings
from nni_spos.priors import UniformPrior
from nni_spos.progress import open_bar
from nni_spos.recipe import Recipe
from nni_spos.values import not_finite

CHUNK = 64
"""Paths that are scored together; what is scored survives an interruption."""

LISTED = 2**20
"""Paths of a space that is shuffled to draw from it; of a larger one few draws are repeated."""

SCORES = {"recalibrated": True, "inherited": False}
"""Statistics of BatchNorm that a score is with, and whether these are recalibrated for a path.

A name alone is that of the accuracy; with `BY_LIKELIHOOD` behind it, of the log-likelihood.
"""

BY_LIKELIHOOD = "_log_likelihood"

FLOPS = "flops"
"""The score that costs nothing: how far multiply-adds alone rank."""


@dataclass(frozen=True)
class Study:
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
        Stand-alone accuracy of each path in percent.
    scores
        By name, those of each path: accuracy in percent, log-likelihood, or multiply-adds.
    rankings
        By the same names.
    biases
        By the same names but `FLOPS`, see `nni_spos.choice_bias.choice_biases`.
    """

    recipe: Recipe
    source: str
    seed: int
    space_size: int
    paths: Sequence[Path]
    accuracies: Sequence[float]
    scores: Mapping[str, Sequence[float]]
    rankings: Mapping[str, Ranking]
    biases: Mapping[str, Sequence[ChoiceBias]]

    def describe(self) -> str:
        """Return the figures as a table, with what they are of."""
        lines = [
            f"{self.recipe.space.name}: {len(self.paths):,} of {self.space_size:,} paths; "
            f"stand-alone accuracy {self.source}",
            format_rankings(self.rankings),
        ]
        for name in self._accuracy_scores():
            values = self.scores[name]
            lines.append(
                f"{name}: top-1 {np.mean(values):.2f} % on average, "
                f"from {min(values):.2f} to {max(values):.2f} %"
            )
        found = {name: biases for name, biases in self.biases.items() if biases}
        if found:
            lines.append("choices that are ranked too high (+) or too low (-), in percentiles:")
            lines += (f"{name}: {format_biases(biases)}" for name, biases in found.items())
        return "\n".join(lines)

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
            "evaluation": evaluation,
            "seed": self.seed,
            "num_resamples": NUM_RESAMPLES,
            "confidence": CONFIDENCE,
            "rankings": {name: ranking.to_json() for name, ranking in self.rankings.items()},
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
        plot_rankings(panels, self.accuracies, self.scores[FLOPS], file)

    def _accuracy_scores(self) -> list[str]:
        return [name for name in self.scores if name in SCORES]


def correlate_table(
    recipe: Recipe,
    file: str | os.PathLike[str],
    count: int | None = None,
    seed: int = 0,
    scores: Sequence[str] = tuple(SCORES),
) -> Study:
    """Compare scores with the published accuracies of NAS-Bench-Macro's networks.

    Parameters
    ----------
    recipe
        Of a trained supernet; its sections space, data, supernet and evaluation are used.
    file
        The table, see `nni_spos.spaces.load_nas_bench_macro`.
    count
        How many paths, drawn uniformly without repeats; None: all.
    seed
        Draws the paths, and the resamples.
    scores
        Keys of `SCORES`.

    Raises
    ------
    CheckpointError, RecipeError
        See `nni_spos.experiment.scoring.open_scorer`; or `count` is too small or too large.
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
) -> Study:
    """Compare scores with the validation accuracies of paths that are trained from scratch.

    Parameters
    ----------
    recipe
        Of a trained supernet; its section retrain says how the paths are trained.
    count, seed, scores
        As for `correlate_table`.

    Raises
    ------
    CheckpointError, DataError, ExperimentError, RecipeError
        See `correlate_table` and `nni_spos.experiment.standalone.train_standalone`.
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
) -> Study:
    recipe = keep_supernet(recipe)  # it is opened for every kind of score
    space = costs[FLOPS].space
    values: dict[str, Sequence[float]] = {}
    for name in scores:
        values |= _score(recipe, paths, space, name)
    indices = space.encode(paths)
    accuracies = find_accuracies(recipe)  # last: trainings take the longest
    biases = {name: choice_biases(space, indices, x, accuracies) for name, x in values.items()}
    values[FLOPS] = costs[FLOPS].price_many(indices).tolist()
    rankings = {name: rank(x, accuracies, seed) for name, x in values.items()}
    return Study(recipe, source, seed, space.size, paths, accuracies, values, rankings, biases)


def _score(
    recipe: Recipe, paths: Sequence[Path], space: PathSpace, name: str
) -> dict[str, list[float]]:
    """Return accuracies in percent and log-likelihoods of the paths with the supernet's weights."""
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
    in_order = [found[i] for i in range(len(paths))]
    for path, one in zip(paths, in_order, strict=True):
        if problem := not_finite(one):
            raise NotFiniteError(f"path {path}: {NOT_FINITE}: {problem}. Train the supernet anew.")
    return {
        name: [x["top1"] for x in in_order],
        name + BY_LIKELIHOOD: [x["log_likelihood"] for x in in_order],
    }
