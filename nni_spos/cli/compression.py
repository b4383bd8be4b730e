"""The command that makes a network smaller, from its weights to the fine-tuned result."""

from __future__ import annotations

import argparse
from typing import Any

from nni_spos.cli.options import RECIPE_HELP
from nni_spos.display.loading import loading
from nni_spos.display.markdown import as_markdown
from nni_spos.display.tables import LEFT, RIGHT, as_text
from nni_spos.files.atomic import write_text
from nni_spos.recipe.recipe import load_recipe


def add_commands(commands: Any) -> None:
    """Add it to the parsers of an ``argparse`` command line."""
    command = commands.add_parser(
        "compress", help="convert a network, train, search and fine-tune; goes on if it was cut off"
    )
    command.add_argument("recipe", help=RECIPE_HELP)
    command.set_defaults(run=compress)


def compress(options: argparse.Namespace) -> None:
    """Run all stages for a recipe with a model."""
    from nni_spos.ranks import leading

    with leading() as leads:
        if leads:
            _compress(options)


def _compress(options: argparse.Namespace) -> None:
    recipe = load_recipe(options.recipe)
    with loading():
        from nni_spos.compression.diagram import draw_units
        from nni_spos.compression.pipeline import compress as run
        from nni_spos.compression.tables import figures_table, units_table
        from nni_spos.report.drawing import as_file
        from nni_spos.search.unused_limit import unused_line

    found = run(recipe, print)
    figures, units = figures_table(found), units_table(found)
    print(as_text(figures, [LEFT, RIGHT, RIGHT, RIGHT]))
    file, picture = recipe.files.compression, recipe.files.compression_diagram
    chart = draw_units(found)
    write_text(picture, as_file(chart))
    text = "\n".join(
        [
            "# The network and what it became",
            "",
            as_markdown(figures),
            "",
            f"![{chart.alt}]({picture.name})",
            "",
            chart.caption,
            "",
            as_markdown(units),
            "",
        ]
    )
    write_text(file, text)
    if line := unused_line(found.search, found.tables):
        print(line)
    print(f"network: {recipe.files.retrained}")
    print(f"units: {file}")
