"""The process that builds the cost tables of a recipe: ``build RECIPE``.

The tuner and trials start it, so that they need not import PyTorch. How it ended is one JSON value
on its standard output: null, or the error.
"""

from __future__ import annotations

import contextlib
import json
import sys

from nni_spos.costs.stored import save_costs
from nni_spos.display.announcement import announce
from nni_spos.display.loading import loading
from nni_spos.errors import CostError, SposError, error_as_data
from nni_spos.recipe.recipe import Recipe, load_recipe


def build_here(recipe: Recipe) -> None:
    """Build the cost tables of a recipe in this process, and write them.

    Raises
    ------
    SposError
        See `nni_spos.supernet.building.build_analytic_costs`.
    CostError
        The code of the space ends the process.
    """
    with loading():
        from nni_spos.supernet.building import build_analytic_costs
    announce("building the cost tables")
    try:
        built = build_analytic_costs(recipe)
    except SystemExit as end:
        raise CostError(
            f"{recipe.file}: the costs cannot be built: the code of the space ends the process "
            f"(sys.exit({end.code!r:.80}))."
        ) from None
    save_costs(recipe, *built)


def main(file: str) -> int:
    """Build the tables of a recipe, and write how that ended."""
    outcome = None
    # What a user's model prints is not the answer.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            build_here(load_recipe(file))
        except SposError as problem:
            outcome = error_as_data(problem)
    print(json.dumps(outcome))
    return 2 if outcome else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
