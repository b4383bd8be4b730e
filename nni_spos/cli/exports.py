"""Commands about networks as files: writing them, and measuring what they take."""

from __future__ import annotations

import argparse
from typing import Any

import yaml

from nni_spos.cli.options import PATH_HELP
from nni_spos.display.loading import loading
from nni_spos.errors import RecipeError
from nni_spos.files.atomic import write_json
from nni_spos.recipe.registries import EXPORTERS

NUM_IMAGES = 1000


def add_commands(commands: Any) -> None:
    """Add them to the parsers of an ``argparse`` command line."""
    command = commands.add_parser(
        "export", help="write a network as a file that runs without nni_spos"
    )
    command.add_argument(
        "network", help="a trained network (.pt), or a recipe (.yml): its retrained network"
    )
    command.add_argument(
        "--format",
        default="onnx",
        help=f"{', '.join(EXPORTERS.ours)}, of a plug-in, or module:Class (default onnx)",
    )
    command.add_argument(
        "--output", dest="folder", help="a new folder (default: exported, beside the network)"
    )
    command.add_argument("--path", help=f"{PATH_HELP}: with the weights of the recipe's supernet")
    command.add_argument("--recipe", help="the recipe of a network's file, for its images")
    command.add_argument(
        "--static",
        nargs="?",
        type=int,
        const=1,
        metavar="N",
        help="fix the number of images at a time, to 1 or N (default: any number)",
    )
    command.add_argument(
        "--no-fold", action="store_true", help="keep BatchNorm apart from convolutions"
    )
    command.add_argument(
        "--uint8", action="store_true", help="let the network take pixels, and normalise them"
    )
    command.add_argument("--opset", type=int, help="version of ONNX's operators")
    command.add_argument(
        "--quantize",
        choices=["int8"],
        help="make a float network one of whole numbers of 8 bits, calibrated on training images",
    )
    command.add_argument(
        "--set",
        dest="keys",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a key of the format; may be repeated",
    )
    command.add_argument(
        "--verify",
        type=int,
        default=NUM_IMAGES,
        metavar="N",
        help="compare the file on so many search-validation images (default 1000)",
    )
    command.add_argument("--test", action="store_true", help="compare it on test images instead")
    command.add_argument(
        "--tolerance", type=float, help="largest difference of outputs, relative (default 1e-4)"
    )
    command.add_argument(
        "--agreement",
        type=float,
        metavar="PERCENT",
        help="answers that must be the network's (default 99.9; 90 with --quantize)",
    )
    command.set_defaults(run=export)

    command = commands.add_parser("benchmark", help="measure how fast an exported network is")
    command.add_argument("network", help="an exported folder, or a trained network (.pt)")
    command.add_argument(
        "--original", metavar="NETWORK", help="another one to compare with, in turns"
    )
    command.add_argument(
        "--runtime", help="onnxruntime, torch or openvino (default: that of the file)"
    )
    command.add_argument(
        "--threads", type=int, default=1, help="threads of one operator (default 1)"
    )
    command.add_argument("--batch", type=int, default=1, help="images at a time (default 1)")
    command.add_argument("--runs", type=int, default=200, help="timed runs (default 200)")
    command.add_argument("--json", metavar="FILE", help="write the figures to this JSON file")
    command.set_defaults(run=benchmark)


def export(options: argparse.Namespace) -> None:
    """Export a network, and print how its file compares."""
    keys = dict(_read_key(text) for text in options.keys)
    for name in ("opset", "quantize"):
        if getattr(options, name) is not None:
            keys[name] = getattr(options, name)
    EXPORTERS.check_name(options.format)
    with loading():
        from nni_spos.deployment.exporting import export_network

    found = export_network(
        options.network,
        options.folder,
        format=options.format,
        recipe=options.recipe,
        path=options.path,
        static=options.static,
        fold=not options.no_fold,
        uint8=options.uint8,
        images=options.verify,
        test=options.test,
        tolerance=options.tolerance,
        agreement=options.agreement,
        **keys,
    )
    proof = found.verification
    print(f"exported: {found.folder}")
    print(f"  {found.file.name}: {found.num_bytes:,} bytes")
    print(
        f"  on {proof.num_images} {proof.images}: outputs differ by at most "
        f"{proof.largest_difference:.3g} of {proof.largest_output:.3g}"
    )
    if proof.agreement_percent is not None:
        print(f"  the same answer for {proof.agreement_percent:.2f} % of them")
    for title, figures in (("file", proof.file), ("network", proof.network)):
        if figures:
            print(f"  {title}: {found.describe(figures)}")
    if proof.file is None:
        print("  accuracy not measured: name the recipe for its images, --recipe FILE")


def _read_key(text: str) -> tuple[str, Any]:
    """Return a key of a format and its value. Raises RecipeError."""
    name, equals, value = text.partition("=")
    try:
        if not equals:
            raise ValueError
        return name.strip(), yaml.safe_load(value)
    except (ValueError, yaml.YAMLError):
        raise RecipeError(f"--set: must be KEY=VALUE, got {text!r:.80}.") from None


def benchmark(options: argparse.Namespace) -> None:
    """Measure a network, and perhaps another one beside it."""
    from nni_spos.display.tables import LEFT, RIGHT, Table, as_text

    with loading():
        from nni_spos.deployment.benchmark import SPEED_HEADER, speed_rows
        from nni_spos.deployment.benchmark import benchmark as run

    places = [options.network, *([options.original] if options.original else [])]
    speeds = run(
        places,
        runtime=options.runtime,
        threads=options.threads,
        batch=options.batch,
        runs=options.runs,
    )
    table = Table(SPEED_HEADER, speed_rows(speeds))
    print(as_text(table, [LEFT, LEFT, *[RIGHT] * (len(SPEED_HEADER) - 2)]))
    if len(speeds) > 1:
        print(f"{speeds[1].p50_ms / speeds[0].p50_ms:.2f} times as fast as {speeds[1].name}")
    if options.json:
        write_json(options.json, [x.to_json() for x in speeds])
        print(f"figures: {options.json}")
