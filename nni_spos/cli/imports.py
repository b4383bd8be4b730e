"""The command that reads weights that others trained."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from nni_spos.display.loading import loading


def add_commands(commands: Any) -> None:
    """Add it to the parsers of an ``argparse`` command line."""
    command = commands.add_parser("import", help="read weights that others trained")
    command.add_argument(
        "file", help="the authors' supernet, or a state dict of NNI's hub; nothing in it is run"
    )
    command.add_argument(
        "--as",
        dest="read_as",
        metavar="NAME",
        required=True,
        help="a space such as shufflenet, or a published network such as shufflenet-spos",
    )
    command.add_argument(
        "--output",
        required=True,
        help="write them to this file: a supernet to supernet.pt in the output folder of a recipe",
    )
    command.set_defaults(run=import_weights)


def import_weights(options: argparse.Namespace) -> None:
    """Read weights, and say what a recipe needs to use them."""
    with loading():
        from nni_spos.importing import import_weights as run

    found = run(options.file, options.read_as, options.output)
    kind = "supernet" if found.path is None else "network"
    print(f"{kind}: {found.file}")
    print(f"  {found.title}, {found.num_classes} classes, images of {found.channels} channels")
    if found.path is not None:
        print(f"  path {' '.join(map(str, found.path.values()))}")
    print(f"  in a recipe: space: {_as_yaml(found.space)}")
    if found.data:
        print(f"               data: {_as_yaml(found.data)}")
    else:
        print(
            "               data: prepared as in the training of these weights, which is not known"
        )


def _as_yaml(values: Mapping[str, Any]) -> str:
    def text(value: Any) -> str:
        return str(value).lower() if isinstance(value, bool) else str(value)

    return "{" + ", ".join(f"{key}: {text(value)}" for key, value in values.items()) + "}"
