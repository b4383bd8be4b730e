"""Commands that search, under NNI and without, and show what was found."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nni_spos.cli.options import (
    CONFIG_HELP,
    RECIPE_HELP,
    add_manager_options,
    add_result_options,
    manager_options,
)
from nni_spos.display.announcement import announce
from nni_spos.errors import ExperimentError, SposError
from nni_spos.recipe.recipe import load_recipe
from nni_spos.recipe.rules import parse_constraints

if TYPE_CHECKING:
    from nni_spos.constraint import Constraint
    from nni_spos.experiment.start import StartResult
    from nni_spos.search.results import Results


def add_commands(commands: Any) -> None:
    """Add them to the parsers of an ``argparse`` command line."""
    command = commands.add_parser("check", help="check an NNI configuration and its recipe")
    command.add_argument("config", help=CONFIG_HELP)
    command.set_defaults(run=check)

    command = commands.add_parser("search", help="search without NNI's manager, in this process")
    command.add_argument("recipe", help=RECIPE_HELP)
    command.add_argument(
        "--no-cache",
        action="store_true",
        help="score every path, also those that earlier searches scored",
    )
    command.add_argument(
        "--folder", default="search", help="folder of the results in OUTPUT (default search)"
    )
    command.add_argument(
        "--overwrite",
        action="store_true",
        help="begin again; the earlier search stays as search.jsonl.previous",
    )
    add_result_options(command)
    command.set_defaults(run=search)

    command = commands.add_parser(
        "trial", help="evaluate one path; NNI runs this for each candidate"
    )
    command.add_argument("recipe", help=RECIPE_HELP)
    command.set_defaults(run=trial)

    command = commands.add_parser("start", help="search with NNI, to the end")
    command.add_argument("config", help=CONFIG_HELP)
    add_manager_options(command)
    command.set_defaults(run=start)

    command = commands.add_parser("resume", help="go on with a search of NNI that was stopped")
    command.add_argument("id", help="NNI's id of the experiment")
    add_manager_options(command)
    command.set_defaults(run=resume)

    command = commands.add_parser("results", help="show the best candidates of a search")
    command.add_argument("experiment", help="NNI's id of the experiment, or the folder of a search")
    command.add_argument(
        "--limit",
        action="append",
        default=[],
        help="show only candidates that meet it, e.g. 'flops <= 300M'; may be repeated",
    )
    add_result_options(command)
    command.set_defaults(run=results)

    command = commands.add_parser("report", help="write a page about a search, with charts")
    command.add_argument("experiment", help="NNI's id of the experiment, or the folder of a search")
    command.add_argument(
        "--against", metavar="ID_OR_FOLDER", help="a random search to compare with"
    )
    command.add_argument(
        "--format", choices=["html", "md"], default="html", help="kind of page (default html)"
    )
    command.add_argument(
        "--output", help="write it to this file (default: report.html in the folder of the search)"
    )
    command.add_argument("--top", type=int, default=10, help="candidates to show (default 10)")
    command.add_argument("--recipe", help="the recipe of the search, if it was moved")
    command.add_argument(
        "--retrained", help="file of the retrained network (default: the recipe's)"
    )
    command.add_argument(
        "--exported", metavar="FOLDER", help="exported folder of a path (default: the recipe's)"
    )
    command.set_defaults(run=report)


def check(options: argparse.Namespace) -> None:
    """Check an NNI configuration and everything that it names."""
    from nni_spos.costs.build import build_here
    from nni_spos.experiment.check import check_config, rehearse_trials

    # In this process, for the rehearsal needs what takes longest of it.
    checked = check_config(options.config, build_here)
    for warning in checked.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    rehearse_trials(checked)
    print(
        f"{checked.file.name}: valid; the search will evaluate {checked.num_candidates} of "
        f"{checked.space.size} paths"
    )


def search(options: argparse.Namespace) -> None:
    """Search in this process."""
    from nni_spos.search.running import run_search, set_aside
    from nni_spos.search.staleness import warn_if_stale

    recipe = load_recipe(options.recipe)
    if options.overwrite:
        set_aside(recipe, options.folder)
    from nni_spos.report.search_curves import draw_search

    scorer = None
    if recipe.evaluation.trains_alone and not recipe.search.predicts:
        from nni_spos.costs.stored import load_costs
        from nni_spos.retraining.standalone import StandaloneScorer

        scorer = StandaloneScorer(recipe, load_costs(recipe)[1])
    found = run_search(recipe, scorer, cached=not options.no_cache, folder=options.folder)
    draw_search(found)
    warn_if_stale(found, recipe)  # another supernet may have been trained meanwhile
    _print_results(found, options)


def trial(options: argparse.Namespace) -> None:
    """Evaluate one path, as a trial of an NNI experiment."""
    from nni_spos.experiment.trial import run_trial

    run_trial(options.recipe)


def start(options: argparse.Namespace) -> None:
    """Run an NNI experiment to its end."""
    from nni_spos.experiment.start import start as run

    _print_experiment(run(options.config, manager_options(options)), options)


def resume(options: argparse.Namespace) -> None:
    """Go on with a stopped experiment."""
    from nni_spos.experiment.start import resume as run

    _print_experiment(run(options.id, manager_options(options)), options)


def _print_experiment(result: StartResult, options: argparse.Namespace) -> None:
    from nni_spos.report.search_curves import draw_search
    from nni_spos.search.staleness import warn_if_stale

    print(f"experiment {result.id}: {result.status}")
    found = result.results
    draw_search(found)
    warn_if_stale(found)  # another supernet may have been trained meanwhile
    _print_results(found, options)
    if result.status != "DONE":
        raise ExperimentError(
            f"experiment {result.id} was stopped before its end. What it found is above. "
            f"To go on: nni-spos resume {result.id}"
        )


def results(options: argparse.Namespace) -> None:
    """List the best candidates and, if asked, write the best path."""
    from nni_spos.search.results import load_results
    from nni_spos.search.staleness import warn_if_stale

    limits = parse_constraints(options.limit)
    found = load_results(options.experiment).within(limits)
    warn_if_stale(found)
    _print_results(found, options, limits)
    _print_exported(found)


def _print_exported(found: Results) -> None:
    """Print the figures of the exported file, if there is one, beside those of the search."""
    from nni_spos.display.tables import LEFT, RIGHT, as_text
    from nni_spos.report.exported import exported_note, exported_table, read_exported
    from nni_spos.search.run_record import read_run_record

    recipe = read_run_record(found.folder).recipe
    if recipe is None:
        return
    with contextlib.suppress(SposError):  # the recipe may have gone, or changed
        exported = read_exported(load_recipe(recipe).files.exported)
        if exported is not None:
            table = exported_table(exported, found.candidates, found.task)
            print(f"\n{exported_note(exported, found.best.path)}")
            print(as_text(table, [LEFT, RIGHT, RIGHT]))


def _print_results(
    found: Results, options: argparse.Namespace, limits: Sequence[Constraint] = ()
) -> None:
    from nni_spos.search.unused_limit import unused_line

    print(found.format_table(options.top))
    if front := found.format_front():
        print(f"\n{front}")
    if failures := found.format_failures():
        print(f"\n{failures}")
    if line := unused_line(found, limits=limits):
        print(f"\n{line}")
    if options.output:
        found.save_best(options.output)
        print(f"best path: {options.output}")


def report(options: argparse.Namespace) -> None:
    """Write a report of a search."""
    from nni_spos.report import gather_report, write_report

    found = gather_report(
        options.experiment,
        against=options.against,
        recipe=options.recipe,
        retrained=options.retrained,
        exported=options.exported,
        count=options.top,
    )
    announce("drawing the report")
    file = write_report(found, options.output, options.format)
    for note in found.notes:
        print(f"note: {note}")
    print(f"report: {file}")
