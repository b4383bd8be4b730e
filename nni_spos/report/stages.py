"""What the stages of a search cost, read from the files that they left (paper: Table 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from nni_spos.errors import CheckpointError
from nni_spos.path import Path
from nni_spos.process.stage_cost import StageCost, read_stage_cost
from nni_spos.recipe.identity import Result, describe
from nni_spos.recipe.recipe import Recipe
from nni_spos.search.kept_supernets import with_kept
from nni_spos.tasks.lookup import describe_figures, main_figure
from nni_spos.values import changes, is_finite, is_plain

UNKNOWN_RECIPE = "the recipe is not known"


@dataclass(frozen=True)
class ReportedStage:
    """One stage.

    Parameters
    ----------
    name
        For people.
    cost
        None where it was not recorded.
    remark
        What else there is to say, or ``""``.
    """

    name: str
    cost: StageCost | None
    remark: str = ""


def read_stages(
    recipe: Recipe | None,
    search: StageCost | None,
    best: Path,
    retrained: FilePath | None,
    weights: Any = None,
) -> list[ReportedStage]:
    """Return training of the supernet, search and retraining.

    Parameters
    ----------
    recipe
        Names the files; None if it is not known.
    search
        Cost of the search.
    best
        The path that was to be retrained.
    retrained
        File of the retrained network, instead of the recipe's.
    weights
        What the search's journal says of its supernet; None: nothing.
    """
    network = retrained or (recipe.files.retrained if recipe else None)
    return [
        _supernet(recipe and with_kept(recipe, weights)),
        ReportedStage("search: evaluation of all candidates", search),
        ReportedStage("retraining of the best path", None, UNKNOWN_RECIPE)
        if network is None
        else _retraining(network, best, recipe),
    ]


def add_up(stages: Sequence[ReportedStage]) -> StageCost | None:
    """Return the cost of all stages together; None if one is missing."""
    costs = [stage.cost for stage in stages]
    total = StageCost(0.0, None, "")
    for cost in costs:
        if cost is None:
            return None
        total += cost
    return total


def _supernet(recipe: Recipe | None) -> ReportedStage:
    name = "training of the supernet"
    if recipe is None:
        return ReportedStage(name, None, UNKNOWN_RECIPE)
    content, problem = _read(recipe.checkpoint)
    return ReportedStage(name, read_stage_cost(content.get("cost")), problem)


def _retraining(file: FilePath, best: Path, recipe: Recipe | None) -> ReportedStage:
    content, problem = _read(file)
    test, remark = content.get("test"), problem
    if isinstance(test, Mapping) and test and all(map(is_finite, test.values())):
        known = {"task": content.get("task")}
        name = main_figure(known, test).name
        remark = f"test: {describe_figures(known, {name: test[name]})}"
    if recipe is not None and isinstance(made_for := content.get("made_for"), Mapping):
        before, now = ({**x, "retrain": {}} for x in (made_for, describe(Result.NETWORK, recipe)))
        if found := changes(before, now):
            remark = "; ".join(filter(None, [remark, f"of another model than today's ({found})"]))
    is_best = not content or content.get("path") == best
    name = "retraining of the best path" if is_best else "retraining of another path"
    return ReportedStage(name, read_stage_cost(content.get("cost")), remark)


def _read(file: FilePath) -> tuple[Mapping[str, Any], str]:
    """Return what is in a file with tensors, or nothing and why."""
    # PyTorch is needed for nothing else here.
    from nni_spos.files.tensors import load_tensors

    if not file.exists():
        return {}, f"there is no {file.name} yet"
    try:
        content = load_tensors(file)
    except CheckpointError:
        return {}, f"{file.name} cannot be read"
    if not isinstance(content, Mapping):
        return {}, f"{file.name} is damaged"
    return {name: value for name, value in content.items() if is_plain(value)}, ""
