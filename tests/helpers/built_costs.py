"""Cost tables without a process of their own, and each space's tables built once."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import subprocess
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from nni_spos.baseline import widths
from nni_spos.cost_table import Costs
from nni_spos.costs import build, stored
from nni_spos.data import dataset_spec
from nni_spos.path import PathSpace
from nni_spos.process.child import python_command
from nni_spos.recipe.recipe import Recipe
from nni_spos.spaces import SPACES
from nni_spos.supernet import building

Build = Callable[[Recipe], tuple[PathSpace, Costs]]


@pytest.fixture(autouse=True)
def costs_built_here(request, monkeypatch):
    """Build costs in this process: another one would first import PyTorch and NNI for seconds.

    Tests marked ``spawn`` or ``nni`` have real ones.
    """
    if not any(map(request.node.get_closest_marker, ("spawn", "nni"))):
        monkeypatch.setattr(stored, "subprocess", SimpleNamespace(run=_run_here))


def _run_here(command: Sequence[str], **_: Any) -> subprocess.CompletedProcess[str]:
    prefix = python_command("nni_spos.costs.build", [])
    assert command[: len(prefix)] == prefix
    with (
        contextlib.redirect_stdout(io.StringIO()) as output,
        contextlib.redirect_stderr(io.StringIO()) as errors,
    ):
        code = build.main(*command[len(prefix) :])
    return subprocess.CompletedProcess(command, code, output.getvalue(), errors.getvalue())


@pytest.fixture(scope="session", autouse=True)
def costs_built_once():
    """Let commands build the tables of one of our spaces once: each time would give the same."""
    remembered = remembering(building.build_analytic_costs)
    with pytest.MonkeyPatch.context() as patch:
        for module in (building, widths):
            patch.setattr(module, "build_analytic_costs", remembered)
        yield


def remembering(original: Build) -> Build:
    known: dict[str, tuple[PathSpace, Costs]] = {}

    def remembered(recipe: Recipe) -> tuple[PathSpace, Costs]:
        if recipe.space.name not in SPACES or recipe.metrics:
            return original(recipe)  # its code may have changed
        spec = dataclasses.asdict(dataset_spec(recipe.data))
        key = json.dumps([recipe.space.name, recipe.space.arguments, spec], default=repr)
        if key not in known:
            known[key] = original(recipe)
        space, costs = known[key]
        return space, dict(costs)

    return remembered
