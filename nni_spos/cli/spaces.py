"""Commands about search spaces: their costs, priors and latencies."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from nni_spos.cli.options import PATH_HELP, RECIPE_HELP
from nni_spos.cost_table import Costs
from nni_spos.display.loading import loading
from nni_spos.errors import CostError
from nni_spos.files.atomic import write_json
from nni_spos.files.yaml_files import is_yaml_name
from nni_spos.latency.runtimes import RUNTIMES
from nni_spos.metrics import format_metric, metric_title
from nni_spos.path import Path, PathSpace
from nni_spos.recipe.recipe import SpaceSettings, load_recipe

SPACE_HELP = "a recipe (.yml), a space such as shufflenet, or module:Class, whose code is run"


def add_commands(commands: Any) -> None:
    """Add them to the parsers of an ``argparse`` command line."""
    command = commands.add_parser(
        "profile", help="show the costs of a path, and the range of its space"
    )
    command.add_argument("space", help=SPACE_HELP)
    command.add_argument("--path", help=PATH_HELP)
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=profile)

    command = commands.add_parser("costs", help="build the cost tables of a recipe")
    command.add_argument("recipe", help=RECIPE_HELP)
    command.set_defaults(run=costs)

    command = commands.add_parser(
        "space",
        help="show what can be chosen in a converted network, or a search space as JSON",
    )
    command.add_argument("recipe", help=RECIPE_HELP)
    command.add_argument("--json", action="store_true", help="print JSON, for NNI, in any case")
    command.add_argument("--output", help="write the JSON to this file")
    command.set_defaults(run=space)

    command = commands.add_parser("prior", help="show which paths a training draws")
    command.add_argument("recipe", help=RECIPE_HELP)
    command.add_argument("--plot", help="draw the costs of all paths and of these to this PNG file")
    command.set_defaults(run=prior)

    command = commands.add_parser("schema", help="JSON Schema of recipes, for editors")
    command.add_argument("--output", help="write it to this file")
    command.set_defaults(run=schema)

    command = commands.add_parser("latency", help="measure the latency of every choice")
    command.add_argument("space", help=SPACE_HELP)
    command.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu", help="where to measure (default cpu)"
    )
    command.add_argument(
        "--runtime",
        choices=["torch", *RUNTIMES],
        default="torch",
        help="what runs the networks (default torch); others run on the CPU",
    )
    command.add_argument("--batch", type=int, default=1, help="images at a time (default 1)")
    command.add_argument(
        "--threads",
        type=int,
        help="threads of one operator (default: PyTorch's own number, or 1 in another runtime)",
    )
    command.add_argument("--output", required=True, help="write the table to this JSON file")
    command.add_argument(
        "--paths", type=int, default=30, help="random paths to test the table with (default 30)"
    )
    command.add_argument("--plot", help="draw predicted and measured latencies to this PNG file")
    command.set_defaults(run=latency)


def profile(options: argparse.Namespace) -> None:
    """Print the costs of a path and the extremes of its space."""
    name, shape, space, costs, path = _open(options.space, options.path)
    content: dict[str, object] = {"space": name, "input_shape": list(shape)}
    if path is not None:
        content["path"] = {metric: table.price(path) for metric, table in costs.items()}
    for extreme in ("cheapest", "dearest"):
        content[extreme] = {metric: getattr(table, extreme)()[0] for metric, table in costs.items()}
    if options.json:
        print(json.dumps(content, indent=2))
        return
    size = "x".join(map(str, shape))
    print(f"{name}, {space.size} paths, images of {size}; 1 multiply-add = 1 FLOP")
    for row in ("path", "cheapest", "dearest"):
        for metric, cost in content.get(row, {}).items():  # type: ignore[attr-defined]
            exact = f"{cost:,}" if isinstance(cost, int) else f"{cost:.4g}"
            title = f"{metric_title(metric)} "
            print(f"  {row:<9}{title:<16}{exact:>13}  ({format_metric(metric, cost)})")


def _open(
    space_or_recipe: str, name_or_file: str | None
) -> tuple[str, Sequence[int], PathSpace, Costs, Path | None]:
    """Return name of a space, shape of an image, the space, its costs and the path that is named.

    A recipe also has its measured latencies.
    """
    recipe = load_recipe(space_or_recipe) if is_yaml_name(space_or_recipe) else None
    with loading():
        from nni_spos.profilers import build_costs
        from nni_spos.spaces import (
            Form,
            build_space,
            default_input_shape,
            find_published,
            read_path,
        )

    if recipe is not None:
        from nni_spos.data import dataset_spec
        from nni_spos.supernet.building import build_recipe_costs

        settings, shape = recipe.space, dataset_spec(recipe.data).input_shape
        space, costs = build_recipe_costs(recipe)
    else:
        network = find_published(name_or_file) if name_or_file else None
        settings = SpaceSettings(space_or_recipe, network.arguments if network else {})
        model = build_space(settings.name, settings.arguments, Form.SUBNET)
        space, shape = PathSpace.from_model_space(model), default_input_shape(model)
        costs = build_costs(model, shape)
    path = read_path(name_or_file, settings, space) if name_or_file else None
    return settings.name, shape, space, costs, path


def costs(options: argparse.Namespace) -> None:
    """Build the cost tables of a recipe and keep them in its output folder."""
    from nni_spos.costs.build import build_here

    recipe = load_recipe(options.recipe)
    build_here(recipe)
    print(recipe.files.costs)


def space(options: argparse.Namespace) -> None:
    """Show what can be chosen, or write NNI's search-space JSON of a recipe."""
    from nni_spos.costs.stored import load_costs

    recipe = load_recipe(options.recipe)
    if recipe.space.is_converted and not (options.json or options.output):
        with loading():
            from nni_spos.spaces import Form
            from nni_spos.supernet.building import build_recipe_space
        print(build_recipe_space(recipe, Form.SUBNET))
        return
    search_space = load_costs(recipe)[0].to_search_space()
    if options.output:
        write_json(options.output, search_space)
    else:
        print(json.dumps(search_space, indent=2))


def schema(options: argparse.Namespace) -> None:
    """Write the JSON Schema of recipes."""
    from nni_spos.recipe.json_schema import recipe_schema

    content = recipe_schema()
    if options.output:
        write_json(options.output, content)
    else:
        print(json.dumps(content, indent=2))


def prior(options: argparse.Namespace) -> None:
    """Show which paths a recipe's prior draws."""
    from nni_spos.costs.prior_report import describe_prior, plot_prior_of
    from nni_spos.costs.stored import load_costs
    from nni_spos.evolution.front import DEFAULT_COST
    from nni_spos.priors.building import build_prior

    recipe = load_recipe(options.recipe)
    space, costs = load_costs(recipe)
    drawn = build_prior(recipe.supernet, space, costs)
    print(describe_prior(drawn))
    if options.plot:
        plot_prior_of(drawn, costs[drawn.metric or DEFAULT_COST], options.plot)
        print(f"plot: {options.plot}")


def latency(options: argparse.Namespace) -> None:
    """Measure the latencies of a space."""
    if is_yaml_name(options.space):
        load_recipe(options.space)  # what is wrong with it is said at once
    if options.runtime != "torch" and options.device != "cpu":
        raise CostError(f"--runtime {options.runtime}: runs on the CPU. Leave out --device.")
    with loading():
        from nni_spos.costs.measuring import run_latency

    table = run_latency(
        options.space,
        options.output,
        device=options.device if options.runtime == "torch" else options.runtime,
        batch_size=options.batch,
        threads=options.threads,
        num_paths=options.paths,
        plot=options.plot,
    )
    print(table.describe())
    print(f"table: {options.output}")
