"""Commands that run whole experiments, such as those of the paper."""

from __future__ import annotations

import argparse
from pathlib import Path as FilePath
from typing import Any

from nni_spos.errors import RecipeError


def add_commands(commands: Any) -> None:
    """Add them to the parsers of an ``argparse`` command line."""
    command = commands.add_parser("experiment", help="run an experiment of the paper, step by step")
    command.add_argument("name", nargs="?", help="e.g. table3, or a .yml file")
    command.add_argument("--list", action="store_true", help="show the experiments")
    command.add_argument(
        "--scale", default="small", help="small (default), or full as in the paper"
    )
    command.add_argument(
        "--only", action="append", default=[], metavar="STEP", help="run this step"
    )
    command.add_argument(
        "--dry-run", action="store_true", help="show the steps and how long they take"
    )
    command.add_argument(
        "--set",
        dest="changes",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="change a setting in all recipes, e.g. retrain.epochs=2",
    )
    command.add_argument(
        "--output",
        dest="folder",
        metavar="FOLDER",
        help="folder of the results (default: the experiment's)",
    )
    command.set_defaults(run=experiment)


def experiment(options: argparse.Namespace) -> None:
    """Run an experiment, or say what it would do."""
    if options.list:
        _list()
        return
    if options.name is None:
        raise RecipeError(
            "give the name of an experiment. 'nni-spos experiment --list' shows them."
        )
    from nni_spos.display.tables import LEFT, RIGHT, as_text
    from nni_spos.study import find_study, make_plan, run_plan
    from nni_spos.study.recipes import read_override
    from nni_spos.study.results import steps_table

    plan = make_plan(
        find_study(options.name),
        options.scale,
        [read_override(text) for text in options.changes],
        FilePath(options.folder) if options.folder else None,
    )
    if options.dry_run:
        table = steps_table(plan.select(options.only))
        print(as_text(table, [LEFT, RIGHT, RIGHT, LEFT]))
        return
    print(f"results: {run_plan(plan, options.only)}")


def _list() -> None:
    from nni_spos.display.numbers import format_duration
    from nni_spos.study import list_studies

    for study in list_studies():
        sizes = ", ".join(
            f"{name} about {format_duration(60 * sum(scale.minutes.values()))}"
            for name, scale in study.scales.items()
        )
        print(f"{study.name:<12} {study.title} ({sizes})")
