"""Commands that study how well the method works."""

from __future__ import annotations

import argparse
from typing import Any

from nni_spos.errors import RecipeError
from nni_spos.recipe import load_recipe


def add_commands(commands: Any) -> None:
    """Add them to the parsers of an ``argparse`` command line."""
    command = commands.add_parser(
        "correlate", help="how well a supernet ranks paths, by their stand-alone accuracies"
    )
    command.add_argument("recipe")
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--table", metavar="FILE", help="NAS-Bench-Macro's table of accuracies")
    source.add_argument(
        "--retrain", type=int, metavar="N", help="train N random paths, each from scratch"
    )
    command.add_argument(
        "--paths", type=int, metavar="N", help="random paths of the table (default: all)"
    )
    command.add_argument("--seed", type=int, default=0, help="draws the paths (default 0)")
    command.add_argument(
        "--scores",
        choices=["both", "recalibrated", "inherited"],
        default="both",
        help="with BatchNorm recalibrated for each path, or as the supernet's training left it",
    )
    command.add_argument("--json", metavar="FILE", help="write figures and points to this file")
    command.add_argument("--plot", metavar="FILE", help="draw the paths to this PNG file")
    command.set_defaults(run=correlate)


def correlate(options: argparse.Namespace) -> None:
    """Correlate scores with stand-alone accuracies."""
    if options.retrain is not None and options.paths is not None:
        raise RecipeError("--paths is for --table; the number of paths to train is --retrain N.")
    if options.seed < 0:
        raise RecipeError(f"--seed: got {options.seed}; must be a whole number >= 0.")
    from nni_spos.experiment.correlate import SCORES, correlate_retrained, correlate_table

    recipe = load_recipe(options.recipe)
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
