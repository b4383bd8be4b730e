"""Commands that compare: baselines of a search."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from nni_spos.cli.options import RECIPE_HELP, REPEATS_HELP
from nni_spos.constraint import Constraint
from nni_spos.display.loading import loading
from nni_spos.errors import ConstraintError, RecipeError
from nni_spos.files.atomic import write_text
from nni_spos.recipe.recipe import Recipe, load_recipe
from nni_spos.recipe.task import find_task
from nni_spos.retraining.repeats import repetitions

if TYPE_CHECKING:
    from nni_spos.baseline import Baseline


def add_commands(commands: Any) -> None:
    """Add them to the parsers of an ``argparse`` command line."""
    command = commands.add_parser("baseline", help="train networks to compare the best path with")
    command.add_argument("recipe", help=RECIPE_HELP)
    kinds = command.add_subparsers(required=True, metavar="KIND")

    kind = kinds.add_parser("fixed", help="the same choice in every unit")
    kind.add_argument(
        "--choice",
        action="append",
        required=True,
        help="the choice, e.g. k3; repeat it for labels with other choices",
    )
    kind.add_argument(
        "--target", help="scale the widths to this number of multiply-adds, e.g. 2630k"
    )
    kind.set_defaults(run=fixed)

    kind = kinds.add_parser("random", help="random paths within the recipe's limits")
    kind.add_argument("-n", type=int, default=5, help="number of paths (default 5)")
    kind.add_argument("--seed", type=int, help="seed, instead of the search's")
    kind.set_defaults(run=random)

    kind = kinds.add_parser("random-search", help="the best of a random search on the supernet")
    kind.set_defaults(run=random_search)

    for kind in kinds.choices.values():
        kind.add_argument("--repeats", type=int, default=1, help=REPEATS_HELP)


def fixed(options: argparse.Namespace) -> None:
    """Retrain the path of one choice everywhere."""
    recipe = _load(options)
    target = None if options.target is None else _read_flops(options.target)
    with loading():
        from nni_spos.baseline import fixed_baseline

    baseline = fixed_baseline(recipe, options.choice, target)
    if baseline.widths is not None:
        print(
            f"widths times {baseline.widths.multiplier:.4g}: "
            f"{', '.join(map(str, baseline.widths.channels))}"
        )
    _retrain(recipe, [baseline], options.repeats)


def random(options: argparse.Namespace) -> None:
    """Retrain random paths."""
    recipe = _load(options)
    if options.n < 1:
        raise RecipeError(f"-n: must be at least 1, got {options.n}.")
    seed = recipe.search.seed if options.seed is None else options.seed
    if seed < 0:
        raise RecipeError(f"--seed: must be at least 0, got {seed}.")
    with loading():
        from nni_spos.baseline import random_baselines

    _retrain(recipe, random_baselines(recipe, options.n, seed), options.repeats)


def random_search(options: argparse.Namespace) -> None:
    """Search at random, and retrain the best path."""
    recipe = _load(options)
    with loading():
        from nni_spos.baseline import searched_baseline

    _retrain(recipe, [searched_baseline(recipe)], options.repeats)


def _load(options: argparse.Namespace) -> Recipe:
    """Read the recipe, and check the number of seeds before anything is searched or trained."""
    recipe = load_recipe(options.recipe)
    repetitions(recipe, recipe.files.retrained, options.repeats)
    return recipe


def _retrain(recipe: Recipe, baselines: list[Baseline], repeats: int) -> None:
    from nni_spos.baseline import baseline_table, read_compared, retrain_baselines
    from nni_spos.display.markdown import as_markdown

    results = retrain_baselines(recipe, baselines, repeats)
    compared = [*read_compared(recipe), *results]
    table = as_markdown(baseline_table(compared, find_task(recipe.task)))
    print(table)
    print(f"table: {write_text(recipe.files.baseline_table, table)}")


def _read_flops(text: str) -> float:
    """Return a number of multiply-adds. Raises RecipeError."""
    try:
        return Constraint.parse(f"flops <= {text}").high
    except ConstraintError:
        raise RecipeError(
            f"--target: {text!r:.80} is not a number such as 2630k or 330M."
        ) from None
