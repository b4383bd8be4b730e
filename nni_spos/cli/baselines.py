"""Commands that compare: baselines of a search."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from nni_spos.cli.options import REPEATS_HELP
from nni_spos.constraint import Constraint
from nni_spos.errors import ConstraintError, RecipeError
from nni_spos.files import write_text
from nni_spos.recipe import Recipe, load_recipe
from nni_spos.repeats import repetitions

if TYPE_CHECKING:
    from nni_spos.baseline import Baseline


def add_commands(commands: Any) -> None:
    """Add them to the parsers of an ``argparse`` command line."""
    command = commands.add_parser("baseline", help="retrain what the winner is compared with")
    command.add_argument("recipe")
    kinds = command.add_subparsers(required=True, metavar="KIND")

    kind = kinds.add_parser("fixed", help="the same choice in every unit")
    kind.add_argument(
        "--choice",
        action="append",
        required=True,
        help="e.g. k3; again for labels with other choices",
    )
    kind.add_argument("--target", help="scale the widths to so many multiply-adds, e.g. 2630k")
    kind.set_defaults(run=fixed)

    kind = kinds.add_parser("random", help="random paths that meet the recipe's constraints")
    kind.add_argument("-n", type=int, default=5, help="how many (default 5)")
    kind.add_argument("--seed", type=int, help="instead of the search's")
    kind.set_defaults(run=random)

    kind = kinds.add_parser("random-search", help="the best of a random search on the supernet")
    kind.set_defaults(run=random_search)

    for kind in kinds.choices.values():
        kind.add_argument("--repeats", type=int, default=1, help=REPEATS_HELP)


def fixed(options: argparse.Namespace) -> None:
    """Retrain the path of one choice everywhere."""
    from nni_spos.baseline import fixed_baseline

    recipe = _load(options)
    target = None if options.target is None else _read_flops(options.target)
    baseline = fixed_baseline(recipe, options.choice, target)
    if baseline.widths is not None:
        print(
            f"widths times {baseline.widths.multiplier:.4g}: "
            f"{', '.join(map(str, baseline.widths.channels))}"
        )
    _retrain(recipe, [baseline], options.repeats)


def random(options: argparse.Namespace) -> None:
    """Retrain random paths."""
    from nni_spos.baseline import random_baselines

    recipe = _load(options)
    if options.n < 1:
        raise RecipeError(f"-n: must be at least 1, got {options.n}.")
    seed = recipe.search.seed if options.seed is None else options.seed
    if seed < 0:
        raise RecipeError(f"--seed: must be at least 0, got {seed}.")
    _retrain(recipe, random_baselines(recipe, options.n, seed), options.repeats)


def random_search(options: argparse.Namespace) -> None:
    """Search at random, and retrain the best path."""
    from nni_spos.baseline import searched_baseline

    recipe = _load(options)
    _retrain(recipe, [searched_baseline(recipe)], options.repeats)


def _load(options: argparse.Namespace) -> Recipe:
    """Read the recipe, and check the number of seeds before anything is searched or trained."""
    recipe = load_recipe(options.recipe)
    repetitions(recipe, recipe.retrained, options.repeats)
    return recipe


def _retrain(recipe: Recipe, baselines: list[Baseline], repeats: int) -> None:
    from nni_spos.baseline import FOLDER, baseline_table, read_compared, retrain_baselines
    from nni_spos.report.markdown import as_markdown

    results = retrain_baselines(recipe, baselines, repeats)
    table = as_markdown(baseline_table([*read_compared(recipe), *results]))
    print(table)
    print(f"table: {write_text(recipe.output / FOLDER / 'table.md', table)}")


def _read_flops(text: str) -> float:
    """Return a number of multiply-adds. Raises RecipeError."""
    try:
        return Constraint.parse(f"flops <= {text}").high
    except ConstraintError:
        raise RecipeError(
            f"--target: {text!r:.80} is not a number such as 2630k or 330M."
        ) from None
