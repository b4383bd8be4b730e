"""The command line: ``nni-spos COMMAND``. What a user can mend is one line and exit code 2."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from nni_spos._version import __version__
from nni_spos.constraint import format_metric
from nni_spos.errors import SposError
from nni_spos.files import write_json
from nni_spos.latency_table import LatencyWarning
from nni_spos.path import PathSpace
from nni_spos.recipe import SpaceSettings, load_recipe

if TYPE_CHECKING:
    from nni_spos.experiment.results import Results
    from nni_spos.experiment.start import StartResult
    from nni_spos.training import Start

PATH_HELP = "JSON file, label to choice, or a published network such as shufflenet-spos"
NAMES = {"flops": "multiply-adds", "params": "parameters"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code.

    That is 0, 2 for an error that the user can mend, or 130 if the user pressed Ctrl-C.
    """
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    # NNI warns of every name in torch.nn that is younger than NNI.
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="nni")
    options = _parser().parse_args(arguments)
    try:
        with _warnings_in_a_line():
            options.run(options)
    except SposError as problem:
        print(f"{type(problem).__name__}: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


@contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    """Print warnings about latency tables like other messages, without Python's line of code."""
    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=LatencyWarning)
        show = warnings.showwarning

        def show_in_a_line(
            message: Warning | str, category: type[Warning], *where: Any, **more: Any
        ) -> None:
            if issubclass(category, LatencyWarning):
                print(f"warning: {message}", file=sys.stderr)
            else:
                show(message, category, *where, **more)

        warnings.showwarning = show_in_a_line
        yield


def profile(options: argparse.Namespace) -> None:
    """Print the costs of a path and the extremes of its space."""
    from nni_spos.profilers import build_costs
    from nni_spos.spaces import Form, build_space, default_input_shape, find_published, read_path

    network = find_published(options.path) if options.path else None
    settings = SpaceSettings(options.space, network.arguments if network else {})
    model = build_space(settings.name, settings.arguments, Form.SUBNET)
    shape = default_input_shape(model)
    path_space = PathSpace.from_model_space(model)
    path = read_path(options.path, settings, path_space) if options.path else None
    costs = build_costs(model, shape)
    content: dict[str, object] = {"space": options.space, "input_shape": list(shape)}
    if path is not None:
        content["path"] = {name: table.price(path) for name, table in costs.items()}
    for extreme in ("cheapest", "dearest"):
        content[extreme] = {name: getattr(table, extreme)()[0] for name, table in costs.items()}
    if options.json:
        print(json.dumps(content, indent=2))
        return
    size = "x".join(map(str, shape))
    print(f"{options.space}, {path_space.size} paths, images of {size}; 1 multiply-add = 1 FLOP")
    for row in ("path", "cheapest", "dearest"):
        for name, cost in content.get(row, {}).items():  # type: ignore[attr-defined]
            shown = format_metric(name, cost)
            print(f"  {row:<9}{NAMES.get(name, name):<14}{cost:>13,}  ({shown})")


def costs(options: argparse.Namespace) -> None:
    """Build the cost tables of a recipe and keep them in its output folder."""
    from nni_spos.experiment.costs import save_costs
    from nni_spos.supernet.building import build_analytic_costs

    recipe = load_recipe(options.recipe)
    save_costs(recipe, *build_analytic_costs(recipe))
    print(recipe.output / "costs.json")


def space(options: argparse.Namespace) -> None:
    """Write NNI's search-space JSON of a recipe."""
    from nni_spos.experiment.costs import load_costs

    search_space = load_costs(load_recipe(options.recipe))[0].to_search_space()
    if options.output:
        write_json(options.output, search_space)
    else:
        print(json.dumps(search_space, indent=2))


def prior(options: argparse.Namespace) -> None:
    """Show which paths a recipe's prior draws."""
    from nni_spos.experiment.costs import load_costs
    from nni_spos.experiment.prior_report import describe_prior, plot_prior_of
    from nni_spos.supernet.training import build_prior

    recipe = load_recipe(options.recipe)
    space, costs = load_costs(recipe)
    drawn = build_prior(recipe.supernet, space, costs)
    print(describe_prior(drawn))
    if options.plot:
        plot_prior_of(drawn, costs[recipe.supernet.metric_of_prior], options.plot)
        print(f"plot: {options.plot}")


def latency(options: argparse.Namespace) -> None:
    """Measure the latencies of a space."""
    from nni_spos.experiment.latency import run_latency

    table = run_latency(
        options.space,
        options.output,
        device=options.device,
        batch_size=options.batch,
        threads=options.threads,
        num_paths=options.paths,
        plot=options.plot,
    )
    print(table.describe())
    print(f"table: {options.output}")


def check(options: argparse.Namespace) -> None:
    """Check an NNI configuration and everything that it names."""
    from nni_spos.experiment.check import check_config

    checked = check_config(options.config)
    for warning in checked.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(
        f"{checked.file.name}: valid; {checked.num_candidates} candidates of {checked.space.size}"
    )


def train(options: argparse.Namespace) -> None:
    """Train the supernet of a recipe."""
    from nni_spos.experiment.scoring import score_random_paths
    from nni_spos.supernet.training import train_supernet

    recipe = load_recipe(options.recipe)
    print(f"supernet: {train_supernet(recipe, _start(options))}")
    scores = score_random_paths(recipe, options.paths)
    if scores:
        mean = sum(scores) / len(scores)
        print(
            f"  {len(scores)} random paths with its weights: validation top-1 {mean:.2f} % on "
            f"average, from {min(scores):.2f} to {max(scores):.2f} %"
        )


def trial(options: argparse.Namespace) -> None:
    """Evaluate one path, as a trial of an NNI experiment."""
    from nni_spos.experiment.trial import run_trial

    run_trial(options.recipe)


def search(options: argparse.Namespace) -> None:
    """Search in this process."""
    from nni_spos.experiment.local_search import run_search

    recipe = load_recipe(options.recipe)
    _print_results(run_search(recipe, cached=not options.no_cache), options)


def start(options: argparse.Namespace) -> None:
    """Run an NNI experiment to its end."""
    from nni_spos.experiment.start import start as run

    _print_experiment(run(options.config, options.port, options.public, options.keep), options)


def resume(options: argparse.Namespace) -> None:
    """Go on with a stopped experiment."""
    from nni_spos.experiment.start import resume as run

    _print_experiment(run(options.id, options.port, options.public, options.keep), options)


def _print_experiment(result: StartResult, options: argparse.Namespace) -> None:
    print(f"experiment {result.id}: {result.status}")
    _print_results(result.results, options)


def results(options: argparse.Namespace) -> None:
    """List the best candidates and, if asked, write the best path."""
    from nni_spos.experiment.results import load_results

    _print_results(load_results(options.experiment), options)


def _print_results(found: Results, options: argparse.Namespace) -> None:
    print(found.format_table(options.top))
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


def retrain(options: argparse.Namespace) -> None:
    """Train a path from scratch and score the test split."""
    from nni_spos.retrain import retrain as run
    from nni_spos.spaces import read_path

    recipe = load_recipe(options.recipe)
    if options.seed is not None:
        settings = dataclasses.replace(recipe.retrain, seed=options.seed)
        recipe = dataclasses.replace(recipe, retrain=settings)
    file = FilePath(options.output or recipe.retrained)
    trained = run(recipe, read_path(options.path, recipe.space), file, _start(options))
    print(f"network: {file}")
    print(f"  path {' '.join(map(str, trained.path.values()))}")
    for name, cost in trained.costs.items():
        print(f"  {NAMES.get(name, name)} {cost:,} ({format_metric(name, cost)})")
    assert trained.test is not None
    print(
        f"  test: top-1 {trained.test['top1']:.2f} %, top-5 {trained.test['top5']:.2f} %, "
        f"loss {trained.test['loss']:.4f}, {trained.test['num_images']} images"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nni-spos",
        description="Single Path One-Shot architecture search on Microsoft NNI 3. "
        "'nni-spos COMMAND --help' says more. Wrong input is one line and exit code 2.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("profile", help="costs of a path, and extremes of a space")
    command.add_argument("space", help="e.g. shufflenet, shufflenet_small or module:Class")
    command.add_argument("--path", help=PATH_HELP)
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=profile)

    command = commands.add_parser("costs", help="build the cost tables of a recipe")
    command.add_argument("recipe")
    command.set_defaults(run=costs)

    command = commands.add_parser("space", help="NNI's search-space JSON of a recipe")
    command.add_argument("recipe")
    command.add_argument("--output", help="write it to this file")
    command.set_defaults(run=space)

    command = commands.add_parser("check", help="check an NNI configuration and its recipe")
    command.add_argument("config")
    command.set_defaults(run=check)

    command = commands.add_parser("train", help="train the supernet of a recipe")
    command.add_argument("recipe")
    command.add_argument(
        "--paths", type=int, default=5, help="random paths to score at the end (default 5)"
    )
    _add_start_options(command)
    command.set_defaults(run=train)

    command = commands.add_parser("prior", help="which paths the prior of a recipe draws")
    command.add_argument("recipe")
    command.add_argument("--plot", help="draw costs of the space and of the prior to this PNG file")
    command.set_defaults(run=prior)

    command = commands.add_parser("latency", help="measure every choice of every unit")
    command.add_argument("space", help="a recipe (.yml), or a name as for profile")
    command.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    command.add_argument("--batch", type=int, default=1, help="images at a time (default 1)")
    command.add_argument("--threads", type=int, help="of PyTorch (default: as it is)")
    command.add_argument("--output", required=True, help="write the table to this JSON file")
    command.add_argument("--paths", type=int, default=30, help="to validate with (default 30)")
    command.add_argument("--plot", help="draw predicted against measured to this PNG file")
    command.set_defaults(run=latency)

    command = commands.add_parser("search", help="search in this process, without NNI's manager")
    command.add_argument("recipe")
    command.add_argument(
        "--no-cache", action="store_true", help="score paths again that earlier searches scored"
    )
    _add_result_options(command)
    command.set_defaults(run=search)

    command = commands.add_parser("trial", help="what an NNI trial runs: evaluate one path")
    command.add_argument("recipe")
    command.set_defaults(run=trial)

    command = commands.add_parser("start", help="run an NNI experiment to its end")
    command.add_argument("config")
    _add_manager_options(command)
    command.set_defaults(run=start)

    command = commands.add_parser("resume", help="go on with a stopped NNI experiment")
    command.add_argument("id")
    _add_manager_options(command)
    command.set_defaults(run=resume)

    command = commands.add_parser("results", help="the best candidates of a search so far")
    command.add_argument("experiment", help="NNI's id of the experiment, or a folder")
    _add_result_options(command)
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

    command = commands.add_parser("retrain", help="train a path from scratch, score the test split")
    command.add_argument("recipe")
    command.add_argument("--path", required=True, help=PATH_HELP)
    command.add_argument("--output", help="file for the network (default OUTPUT/retrained.pt)")
    command.add_argument("--seed", type=int, help="instead of the recipe's")
    _add_start_options(command)
    command.set_defaults(run=retrain)
    return parser


def _add_manager_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--port", type=int, default=8080, help="of the web page (default 8080)")
    command.add_argument("--public", action="store_true", help="show the page to the network")
    command.add_argument("--keep", action="store_true", help="leave the manager running at the end")
    _add_result_options(command)


def _add_result_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--top", type=int, default=10, help="how many (default 10)")
    command.add_argument("--output", help="write the best path to this JSON file")


def _add_start_options(command: argparse.ArgumentParser) -> None:
    group = command.add_mutually_exclusive_group()
    group.add_argument(
        "--resume",
        nargs="?",
        const=True,
        metavar="CHECKPOINT",
        help="go on from the last checkpoint, or from this one",
    )
    group.add_argument("--overwrite", action="store_true", help="delete what was trained before")


def _start(options: argparse.Namespace) -> Start | FilePath:
    from nni_spos.training import Start

    if options.overwrite:
        return Start.OVERWRITE
    if options.resume is None:
        return Start.NEW
    return Start.RESUME if options.resume is True else FilePath(options.resume)


if __name__ == "__main__":
    sys.exit(main())
