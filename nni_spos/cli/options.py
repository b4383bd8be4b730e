"""Options that several commands have, and what they mean."""

from __future__ import annotations

import argparse
from pathlib import Path as FilePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nni_spos.experiment.start import ManagerOptions
    from nni_spos.training import Start

PATH_HELP = "a JSON file with a choice for each label, or a published network such as fbnet-a"

REPEATS_HELP = "number of trainings, each with the next seed (default 1)"

RECIPE_HELP = "a recipe (.yml)"

CONFIG_HELP = "an NNI configuration (.yml)"


def add_manager_options(command: argparse.ArgumentParser) -> None:
    """Add the options of commands that run NNI's manager."""
    command.add_argument(
        "--port", type=int, default=8080, help="port of NNI's web page (default 8080)"
    )
    command.add_argument(
        "--public",
        action="store_true",
        help="open the web page, which has no password, to the network",
    )
    command.add_argument(
        "--keep", action="store_true", help="keep the web page running after the end"
    )
    add_result_options(command)


def manager_options(options: argparse.Namespace) -> ManagerOptions:
    """Return how NNI's manager runs, as `add_manager_options` asks."""
    from nni_spos.experiment.start import ManagerOptions

    return ManagerOptions(options.port, options.public, options.keep)


def add_result_options(command: argparse.ArgumentParser) -> None:
    """Add the options of commands that show results."""
    command.add_argument("--top", type=int, default=10, help="candidates to show (default 10)")
    command.add_argument("--output", help="write the best path to this JSON file")


def add_start_options(command: argparse.ArgumentParser) -> None:
    """Add the options of commands that train."""
    group = command.add_mutually_exclusive_group()
    group.add_argument(
        "--resume",
        nargs="?",
        const=True,
        metavar="CHECKPOINT",
        help="go on from the last checkpoint, or from CHECKPOINT",
    )
    group.add_argument(
        "--continue",
        dest="go_on",
        action="store_true",
        help="go on, or begin if there is no checkpoint yet; keep what is finished",
    )
    group.add_argument("--overwrite", action="store_true", help="begin again from the first step")


def start_of(options: argparse.Namespace) -> Start | FilePath:
    """Return how a training begins, as `add_start_options` asks."""
    from nni_spos.training import Start

    if options.overwrite:
        return Start.OVERWRITE
    if options.go_on:
        return Start.CONTINUE
    if options.resume is None:
        return Start.NEW
    return Start.RESUME if options.resume is True else FilePath(options.resume)
