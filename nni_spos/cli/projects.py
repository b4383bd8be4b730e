"""The command that begins a project."""

from __future__ import annotations

import argparse
import os
import shlex
from typing import Any

from nni_spos.errors import ProjectError
from nni_spos.project.examples import EXAMPLES
from nni_spos.project.writing import new_project


def add_commands(commands: Any) -> None:
    """Add it to the parsers of an ``argparse`` command line."""
    command = commands.add_parser(
        "new",
        help="begin a project: write an example to a folder",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Write an example to a new or an empty folder: a recipe, NNI's configuration, "
        "\nand a README.md that says what to run.",
        epilog=f"examples:\n{_list()}",
    )
    command.add_argument("folder", nargs="?", metavar="FOLDER", help="a new or an empty folder")
    command.add_argument(
        "--example", default="digits", metavar="NAME", help="begin with this one (default digits)"
    )
    command.add_argument("--list", action="store_true", help="show the examples")
    command.set_defaults(run=new)


def new(options: argparse.Namespace) -> None:
    """Write a project, and print what to run next."""
    if options.list:
        print(_list())
        return
    if options.folder is None:
        raise ProjectError("give the folder of the new project, e.g. 'nni-spos new my_search'.")
    project = new_project(options.folder, options.example)
    print(f"new project: {project.folder} ({project.example.name}: {project.example.about})")
    if project.example.images:
        print(f"Images: {project.example.images.replace('`', '')}")
    if project.example.name == "remote":
        print("Change the addresses and the users in spos.yml first.")
    print("Run next:")
    if os.path.abspath(project.folder) != os.getcwd():
        print(f"  cd {shlex.quote(os.fspath(project.folder))}")
    for command in project.commands:
        print(f"  {command}")


def _list() -> str:
    width = max(map(len, EXAMPLES))
    return "\n".join(f"  {x.name:<{width}}  {x.about}" for x in EXAMPLES.values())
