"""Commands that train: supernets, and the paths that were found."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from nni_spos.cli.options import NAMES, PATH_HELP, REPEATS_HELP, add_start_options, start_of
from nni_spos.constraint import format_metric
from nni_spos.errors import RecipeError
from nni_spos.files import check_writable
from nni_spos.recipe import load_recipe
from nni_spos.repeats import repetitions

if TYPE_CHECKING:
    from nni_spos.network import TrainedNetwork


def add_commands(commands: Any) -> None:
    """Add them to the parsers of an ``argparse`` command line."""
    command = commands.add_parser("train", help="train the supernet of a recipe")
    command.add_argument("recipe")
    command.add_argument(
        "--paths", type=int, default=5, help="random paths to score at the end (default 5)"
    )
    add_start_options(command)
    command.set_defaults(run=train)

    command = commands.add_parser("retrain", help="train a path from scratch, score the test split")
    command.add_argument("recipe")
    command.add_argument("--path", required=True, help=PATH_HELP)
    command.add_argument("--output", help="file for the network (default OUTPUT/retrained.pt)")
    command.add_argument("--seed", type=int, help="instead of the recipe's")
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
    from nni_spos.experiment.scoring import score_random_paths
    from nni_spos.supernet.training import train_supernet

    recipe = load_recipe(options.recipe)
    print(f"supernet: {train_supernet(recipe, start_of(options))}")
    scores = score_random_paths(recipe, options.paths)
    if scores:
        mean = sum(scores) / len(scores)
        print(
            f"  {len(scores)} random paths with its weights: validation top-1 {mean:.2f} % on "
            f"average, from {min(scores):.2f} to {max(scores):.2f} %"
        )


def _retrain(options: argparse.Namespace) -> None:
    from nni_spos.baseline.table import format_spread
    from nni_spos.experiment.staleness import warn_of_path
    from nni_spos.retrain import keep_inherited
    from nni_spos.retrain import retrain as run
    from nni_spos.spaces import read_path

    recipe = load_recipe(options.recipe)
    if options.seed is not None:
        settings = dataclasses.replace(recipe.retrain, seed=options.seed)
        recipe = dataclasses.replace(recipe, retrain=settings)
    path = read_path(options.path, recipe.space)
    warn_of_path(recipe, path)
    if options.repeats > 1:
        recipe = keep_inherited(recipe)
    runs = repetitions(recipe, FilePath(options.output or recipe.retrained), options.repeats)
    if len(runs) > 1 and options.resume is not None:
        raise RecipeError("--repeats: goes with --continue, not with --resume.")
    for _, file in runs:
        check_writable(file)
    found = []
    for one, file in runs:
        trained = run(one, path, file, start_of(options))
        assert trained.test is not None
        found.append(trained.test["top1"])
        _show(trained, file)
    if len(found) > 1:
        print(f"{len(found)} seeds: test top-1 {format_spread(found)} %")


def _show(trained: TrainedNetwork, file: FilePath) -> None:
    print(f"network: {file}")
    print(f"  path {' '.join(map(str, trained.path.values()))}")
    for name, cost in trained.costs.items():
        print(f"  {NAMES.get(name, name)} {cost:,} ({format_metric(name, cost)})")
    assert trained.test is not None
    print(
        f"  test: top-1 {trained.test['top1']:.2f} %, top-5 {trained.test['top5']:.2f} %, "
        f"loss {trained.test['loss']:.4f}, {trained.test['num_images']} images"
    )
