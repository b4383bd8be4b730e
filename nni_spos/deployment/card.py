"""``README.md`` of an exported folder: a model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nni_spos.display.markdown import as_markdown, escape_markdown
from nni_spos.display.tables import Table
from nni_spos.metrics import format_metric, metric_title
from nni_spos.tasks.base import Task
from nni_spos.tasks.lookup import describe_figures


def model_card(
    content: Mapping[str, Any],
    preprocessing: Mapping[str, Any],
    task: Task | None,
    *,
    has_program: bool,
    needs: Sequence[str],
) -> str:
    """Return the page.

    Parameters
    ----------
    content
        What ``export.json`` says.
    preprocessing
        What ``preprocessing.json`` says.
    task
        What the network predicts; None where that is not known.
    has_program
        Whether there is a ``predict.py``.
    needs
        What that needs, beside NumPy and Pillow.
    """
    name = content["task"].get("name", "")
    batch = content["batch"] or "N"
    height, width = preprocessing["image_size"]
    shape = f"({batch}, {preprocessing['channels']}, {height}, {width})"
    parts = [
        f"# {escape_markdown(content['space'])}: {escape_markdown(name or 'network')}",
        f"`{content['file']}` takes images of shape {shape}, {preprocessing['input']}, and returns "
        f"{_returns(task)}.",
    ]
    if has_program:
        parts += [
            "## Use",
            f"    pip install {' '.join([*needs, 'numpy', 'pillow'])}\n"
            "    python predict.py IMAGE ...",
            "`preprocessing.json` says how an image becomes the input, `classes.json` what the "
            "outputs are called.",
        ]
    parts += [
        "## How well it does",
        as_markdown(Table(["figure", "value"], _figures(content))),
        _proof(content["verification"]),
        "## What it costs",
        as_markdown(Table(["cost", "value"], _costs(content))),
        "## Where it is from",
        as_markdown(Table(["", "value"], _origin(content))),
        "## Path",
        as_markdown(
            Table(["unit", "choice"], [[str(k), str(v)] for k, v in content["path"].items()])
        ),
        "## Settings of the training",
        as_markdown(
            Table(["setting", "value"], [[str(k), str(v)] for k, v in content["settings"].items()])
        ),
        f"nni_spos {content['nni_spos']}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _returns(task: Task | None) -> str:
    kinds = {
        "class": "a logit for each class",
        "labels": "a logit for each label",
        "values": "the values",
        "mask": "of each pixel a logit for each class",
    }
    return kinds.get(task.targets[0], "its outputs") if task else "its outputs"


def _figures(content: Mapping[str, Any]) -> list[list[str]]:
    proof, known = content["verification"], {"task": content["task"]}
    rows = []
    for title, found in (("file", proof["file"]), ("network in PyTorch", proof["network"])):
        if found:
            rows.append(
                [f"{title}, on {found['num_images']} {proof['images']}", _line(known, found)]
            )
    if content["test"]:
        number = content["test"].get("num_images", "")
        rows.append([f"network in PyTorch, on {number} test images", _line(known, content["test"])])
    return rows or [["accuracy", "not measured: the images were not at hand"]]


def _line(known: Mapping[str, Any], found: Mapping[str, float]) -> str:
    return describe_figures(known, {k: v for k, v in found.items() if k != "num_images"})


def _proof(proof: Mapping[str, Any]) -> str:
    text = (
        f"On {proof['num_images']} {proof['images']} the outputs of the file differ from the "
        f"network's by at most {proof['largest_difference']:.3g}; the largest output is "
        f"{proof['largest_output']:.3g}."
    )
    if proof["agreement_percent"] is not None:
        text += f" They give the same answer for {proof['agreement_percent']:.2f} %."
    return text


def _costs(content: Mapping[str, Any]) -> list[list[str]]:
    costs = [[metric_title(k), format_metric(k, v)] for k, v in content["costs"].items()]
    return [*costs, [f"{content['file']} (bytes)", f"{content['bytes']:,}"]]


def _origin(content: Mapping[str, Any]) -> list[list[str]]:
    return [
        ["data", content["data"]],
        ["weights", f"{content['weights']['kind']}, {content['weights']['digest']}"],
        [f"SHA-256 of {content['file']}", content["sha256"]],
    ]
