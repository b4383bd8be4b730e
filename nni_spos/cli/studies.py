"""Commands that study how well the method works."""

from __future__ import annotations

import argparse
from typing import Any

from nni_spos.cli.options import RECIPE_HELP, add_result_options
from nni_spos.display.loading import loading
from nni_spos.errors import RecipeError
from nni_spos.recipe.recipe import load_recipe


def add_commands(commands: Any) -> None:
    """Add them to the parsers of an ``argparse`` command line."""
    command = commands.add_parser(
        "correlate", help="compare a supernet's scores with results of paths trained alone"
    )
    command.add_argument("recipe", help=RECIPE_HELP)
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--table", metavar="FILE", help="published accuracies of all paths")
    source.add_argument(
        "--retrain", type=int, metavar="N", help="train N random paths, each from scratch"
    )
    command.add_argument(
        "--paths", type=int, metavar="N", help="random paths of the table (default: all)"
    )
    command.add_argument(
        "--seed", type=int, default=0, help="seed that draws the paths (default 0)"
    )
    command.add_argument(
        "--scores",
        choices=["both", "recalibrated", "inherited"],
        default="both",
        help="BatchNorm statistics: of each path, or inherited from the training (default both)",
    )
    command.add_argument("--json", metavar="FILE", help="write the numbers to this JSON file")
    command.add_argument("--plot", metavar="FILE", help="draw the paths to this PNG file")
    command.set_defaults(run=correlate)

    command = commands.add_parser(
        "landmarks", help="train a few paths alone, from which all others are predicted"
    )
    command.add_argument("recipe", help=RECIPE_HELP)
    command.add_argument("-n", type=int, default=24, help="number of paths to train (default 24)")
    add_result_options(command)
    command.set_defaults(run=landmarks)


def correlate(options: argparse.Namespace) -> None:
    """Correlate scores with what paths reach alone."""
    if options.retrain is not None and options.paths is not None:
        raise RecipeError(
            "--paths: only for --table. Give the number of paths to train as --retrain N."
        )
    if options.seed < 0:
        raise RecipeError(f"--seed: must be at least 0, got {options.seed}.")
    recipe = load_recipe(options.recipe)
    with loading():
        from nni_spos.ranking.correlating import SCORES, correlate_retrained, correlate_table

    scores = tuple(SCORES) if options.scores == "both" else (options.scores,)
    if options.table is not None:
        study = correlate_table(recipe, options.table, options.paths, options.seed, scores)
    else:
        study = correlate_retrained(recipe, options.retrain, options.seed, scores)
    print(study.describe())
    if options.json:
        study.save(options.json)
        print(f"figures: {options.json}")
    if options.plot:
        study.plot(options.plot)
        print(f"plot: {options.plot}")


def landmarks(options: argparse.Namespace) -> None:
    """Train landmark paths, and say how far a model of them may be trusted."""
    recipe = load_recipe(options.recipe)
    with loading():
        from nni_spos.ranking.landmarks import judge, train_landmarks

    found = train_landmarks(recipe, options.n)
    print(found.format_table(options.top))
    if failures := found.format_failures():
        print(f"\n{failures}")
    print(f"\n{judge(recipe).describe()}")
    if options.output:
        found.save_best(options.output)
        print(f"best path: {options.output}")
