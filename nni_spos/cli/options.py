"""Options that several commands have, and what they mean."""

from __future__ import annotations

import argparse
from pathlib import Path as FilePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nni_spos.training import Start

PATH_HELP = "JSON file, label to choice, or a published network such as shufflenet-spos"

REPEATS_HELP = "train with so many seeds, the recipe's and those after it (default 1)"

NAMES = {"flops": "multiply-adds", "params": "parameters"}


def add_manager_options(command: argparse.ArgumentParser) -> None:
    """Add the options of commands that run NNI's manager."""
    command.add_argument("--port", type=int, default=8080, help="of the web page (default 8080)")
    command.add_argument("--public", action="store_true", help="show the page to the network")
    command.add_argument("--keep", action="store_true", help="leave the manager running at the end")
    add_result_options(command)


def add_result_options(command: argparse.ArgumentParser) -> None:
    """Add the options of commands that show results."""
    command.add_argument("--top", type=int, default=10, help="how many (default 10)")
    command.add_argument("--output", help="write the best path to this JSON file")


def add_start_options(command: argparse.ArgumentParser) -> None:
    """Add the options of commands that train."""
    group = command.add_mutually_exclusive_group()
    group.add_argument(
        "--resume",
        nargs="?",
        const=True,
        metavar="CHECKPOINT",
        help="go on from the last checkpoint, or from this one",
    )
    group.add_argument(
        "--continue",
        dest="go_on",
        action="store_true",
        help="as --resume, or begin if nothing is there; what is finished stays",
    )
    group.add_argument("--overwrite", action="store_true", help="delete what was trained before")


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
