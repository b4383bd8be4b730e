"""Commands that train: supernets, and the paths that were found."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from nni_spos.cli.options import (
    PATH_HELP,
    RECIPE_HELP,
    REPEATS_HELP,
    add_start_options,
    start_of,
)
from nni_spos.display.loading import loading
from nni_spos.errors import RecipeError
from nni_spos.files.atomic import check_writable
from nni_spos.metrics import format_metric, metric_title
from nni_spos.recipe.recipe import load_recipe
from nni_spos.recipe.task import find_task
from nni_spos.retraining.repeats import repetitions
from nni_spos.tasks.lookup import describe_figures

if TYPE_CHECKING:
    from nni_spos.retraining.network import TrainedNetwork


def add_commands(commands: Any) -> None:
    """Add them to the parsers of an ``argparse`` command line."""
    command = commands.add_parser("train", help="train the supernet of a recipe")
    command.add_argument("recipe", help=RECIPE_HELP)
    command.add_argument(
        "--paths", type=int, default=5, help="random paths to score at the end (default 5)"
    )
    add_start_options(command)
    command.set_defaults(run=train)

    command = commands.add_parser("retrain", help="train one path from scratch, and test it")
    command.add_argument("recipe", help=RECIPE_HELP)
    command.add_argument("--path", required=True, help=PATH_HELP)
    command.add_argument(
        "--output",
        help="write the network to this file (default: retrained.pt in the output folder)",
    )
    command.add_argument("--seed", type=int, help="seed, instead of the recipe's")
    command.add_argument("--repeats", type=int, default=1, help=REPEATS_HELP)
    add_start_options(command)
    command.set_defaults(run=retrain)


def train(options: argparse.Namespace) -> None:
    """Train the supernet of a recipe."""
    from nni_spos.ranks import leading

    with leading() as leads:
        if leads:
            _train(options)


def retrain(options: argparse.Namespace) -> None:
    """Train a path from scratch and score the test split."""
    from nni_spos.ranks import leading

    with leading() as leads:
        if leads:
            _retrain(options)


def _train(options: argparse.Namespace) -> None:
    recipe = load_recipe(options.recipe)
    with loading():
        from nni_spos.search.scorer import score_random_paths
        from nni_spos.supernet.training import train_supernet

    print(f"supernet: {train_supernet(recipe, start_of(options))}")
    scores = score_random_paths(recipe, options.paths)
    if scores:
        task = find_task(recipe.task)
        figure = task.figure(task.objective)
        print(
            f"  {len(scores)} random paths with its weights: validation "
            f"{figure.brief} {figure.format(sum(scores) / len(scores))} on average, "
            f"from {figure.format(min(scores))} to {figure.format(max(scores))}"
        )


def _retrain(options: argparse.Namespace) -> None:
    from nni_spos.search.staleness import warn_of_path

    recipe = load_recipe(options.recipe)
    if options.seed is not None:
        settings = dataclasses.replace(recipe.retrain, seed=options.seed)
        recipe = dataclasses.replace(recipe, retrain=settings)
    with loading():
        from nni_spos.baseline.table import format_spread
        from nni_spos.retraining.retrain import keep_inherited
        from nni_spos.retraining.retrain import retrain as run
        from nni_spos.spaces import read_path

    path = read_path(options.path, recipe.space)
    warn_of_path(recipe, path)
    if options.repeats > 1:
        recipe = keep_inherited(recipe)
    runs = repetitions(recipe, FilePath(options.output or recipe.files.retrained), options.repeats)
    if len(runs) > 1 and options.resume is not None:
        raise RecipeError("--repeats: cannot go with --resume. Use --continue.")
    for _, file in runs:
        check_writable(file)
    task = find_task(recipe.task)
    objective, found = task.objective, []
    for one, file in runs:
        trained = run(one, path, file, start_of(options))
        assert trained.test is not None
        found.append(trained.test[objective])
        _show(trained, file)
    if len(found) > 1:
        figure = task.figure(objective)
        spread = " ".join(filter(None, [format_spread(found, figure), figure.unit]))
        print(f"{len(found)} seeds: test {figure.brief} {spread}")


def _show(trained: TrainedNetwork, file: FilePath) -> None:
    print(f"network: {file}")
    print(f"  path {' '.join(map(str, trained.path.values()))}")
    for name, cost in trained.costs.items():
        print(f"  {metric_title(name)} {cost:,} ({format_metric(name, cost)})")
    assert trained.test is not None
    figures = {name: value for name, value in trained.test.items() if name != "num_images"}
    shown = describe_figures({"task": trained.task}, figures)
    print(f"  test: {shown}, {trained.test['num_images']} images")
