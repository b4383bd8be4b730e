"""Commands that search, under NNI and without, and show what was found."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from nni_spos.cli.options import add_manager_options, add_result_options
from nni_spos.errors import ExperimentError
from nni_spos.recipe import load_recipe, parse_constraints

if TYPE_CHECKING:
    from nni_spos.experiment.results import Results
    from nni_spos.experiment.start import StartResult


def add_commands(commands: Any) -> None:
    """Add them to the parsers of an ``argparse`` command line."""
    command = commands.add_parser("check", help="check an NNI configuration and its recipe")
    command.add_argument("config")
    command.set_defaults(run=check)

    command = commands.add_parser("search", help="search in this process, without NNI's manager")
    command.add_argument("recipe")
    command.add_argument(
        "--no-cache", action="store_true", help="score paths again that earlier searches scored"
    )
    command.add_argument(
        "--folder", default="search", help="of its results, in OUTPUT (default search)"
    )
    command.add_argument(
        "--overwrite",
        action="store_true",
        help="begin anew; the earlier search stays as search.jsonl.previous",
    )
    add_result_options(command)
    command.set_defaults(run=search)

    command = commands.add_parser("trial", help="what an NNI trial runs: evaluate one path")
    command.add_argument("recipe")
    command.set_defaults(run=trial)

    command = commands.add_parser("start", help="run an NNI experiment to its end")
    command.add_argument("config")
    add_manager_options(command)
    command.set_defaults(run=start)

    command = commands.add_parser("resume", help="go on with a stopped NNI experiment")
    command.add_argument("id")
    add_manager_options(command)
    command.set_defaults(run=resume)

    command = commands.add_parser("results", help="the best candidates of a search so far")
    command.add_argument("experiment", help="NNI's id of the experiment, or a folder")
    command.add_argument(
        "--limit",
        action="append",
        default=[],
        help="leave out candidates that break it, e.g. 'flops <= 300M'; may be repeated",
    )
    add_result_options(command)
    command.set_defaults(run=results)

    command = commands.add_parser("report", help="one page about a search, with its charts")
    command.add_argument("experiment", help="NNI's id of the experiment, or a folder")
    command.add_argument("--against", metavar="ID_OR_FOLDER", help="a random search to compare")
    command.add_argument("--format", choices=["html", "md"], default="html")
    command.add_argument("--output", help="file (default report.html beside the journal)")
    command.add_argument("--top", type=int, default=10, help="how many (default 10)")
    command.add_argument("--recipe", help="the search's recipe, if it is not where it was")
    command.add_argument("--retrained", help="retrained network (default: the recipe's)")
    command.set_defaults(run=report)


def check(options: argparse.Namespace) -> None:
    """Check an NNI configuration and everything that it names."""
    from nni_spos.experiment.check import check_config, rehearse_trials

    checked = check_config(options.config)
    for warning in checked.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    rehearse_trials(checked)
    print(
        f"{checked.file.name}: valid; {checked.num_candidates} candidates of {checked.space.size}"
    )


def search(options: argparse.Namespace) -> None:
    """Search in this process."""
    from nni_spos.experiment.local_search import run_search, set_aside
    from nni_spos.experiment.staleness import warn_if_stale

    recipe = load_recipe(options.recipe)
    if options.overwrite:
        set_aside(recipe, options.folder)
    found = run_search(recipe, cached=not options.no_cache, folder=options.folder)
    warn_if_stale(found, recipe)  # another supernet may have been trained meanwhile
    _print_results(found, options)


def trial(options: argparse.Namespace) -> None:
    """Evaluate one path, as a trial of an NNI experiment."""
    from nni_spos.experiment.trial import run_trial

    run_trial(options.recipe)


def start(options: argparse.Namespace) -> None:
    """Run an NNI experiment to its end."""
    from nni_spos.experiment.start import start as run

    _print_experiment(run(options.config, options.port, options.public, options.keep), options)


def resume(options: argparse.Namespace) -> None:
    """Go on with a stopped experiment."""
    from nni_spos.experiment.start import resume as run

    _print_experiment(run(options.id, options.port, options.public, options.keep), options)


def _print_experiment(result: StartResult, options: argparse.Namespace) -> None:
    from nni_spos.experiment.staleness import warn_if_stale

    print(f"experiment {result.id}: {result.status}")
    found = result.results
    warn_if_stale(found)  # another supernet may have been trained meanwhile
    _print_results(found, options)
    if result.status != "DONE":
        raise ExperimentError(
            f"experiment {result.id} was stopped before its end; what was found is above. "
            f"nni-spos resume {result.id} goes on."
        )


def results(options: argparse.Namespace) -> None:
    """List the best candidates and, if asked, write the best path."""
    from nni_spos.experiment.results import load_results
    from nni_spos.experiment.staleness import warn_if_stale

    found = load_results(options.experiment).within(parse_constraints(options.limit))
    warn_if_stale(found)
    _print_results(found, options)


def _print_results(found: Results, options: argparse.Namespace) -> None:
    print(found.format_table(options.top))
    if front := found.format_front():
        print(f"\n{front}")
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
        count=options.top,
    )
    file = write_report(found, options.output, options.format)
    for note in found.notes:
        print(f"note: {note}")
    print(f"report: {file}")
