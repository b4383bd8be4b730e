"""What a recipe says about the search: how paths are scored, and which are tried."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nni_spos.constraint import Constraint
from nni_spos.errors import RecipeError
from nni_spos.recipe.named_components import NamesComponent, Slot, check_section
from nni_spos.recipe.registries import SEARCHES, TASKS
from nni_spos.recipe.rules import CONSTRAINTS, DEVICES, PRECISION, parse_constraints
from nni_spos.recipe.settings import (
    BOOL,
    COUNT,
    POSITIVE_INT,
    TEXT,
    check_values,
    component,
    one_of,
    optional,
    setting,
)
from nni_spos.recipe.task import TaskSettings, find_task

STANDALONE = "standalone"
"""The evaluator that trains every path alone."""

PREDICTED = "predicted"
"""The objective that a model of trained paths predicts."""


@dataclass(frozen=True)
class EvaluationSettings:
    """How a path is scored with the supernet's weights (paper: section 3.4), and by whom.

    Parameters
    ----------
    recalibrate
        Whether BatchNorm's statistics are made anew for each path.
    recalibration_images
        Training images that they are made of.
    batch_size
        Images of a step.
    seed
        Decides which images recalibrate, and in which order.
    precision
        Of the computation; auto is 16-mixed on a GPU and 32-true elsewhere.
    devices
        GPUs that nni-spos search uses, each by a process of its own, or CPU processes where there
        is none; auto is all GPUs that are visible, or this process. Under NNI it is NNI that places
        the trials.
    evaluator
        Who scores the paths of an NNI experiment: a worker, one process on each machine that holds
        the supernet, or each trial for itself, inline; auto is a worker. With standalone a path is
        trained alone, as the section retrain says, wherever it is scored.
    worker_idle_s
        Seconds without a trial after which a worker ends.
    cache
        Whether a path that an earlier search with the same supernet scored is not scored again.
    racing
        How many of the best paths are sought: others are dropped after a part of the validation
        images, as soon as it is clear that they are none of them; by default none is dropped.
    supernet_input
        Whether the objective predicted also learns from the log-likelihood with the supernet's
        weights. It helps only if the supernet ranks well.
    """

    recalibrate: bool = setting(BOOL, True)
    recalibration_images: int = setting(POSITIVE_INT, 20_000)
    batch_size: int = setting(POSITIVE_INT, 256)
    seed: int = setting(COUNT, 0)
    precision: str = setting(PRECISION, "auto")
    devices: int | str = setting(DEVICES, "auto")
    evaluator: str = setting(one_of("auto", "worker", "inline", STANDALONE), "auto")
    worker_idle_s: int = setting(POSITIVE_INT, 300)
    cache: bool = setting(BOOL, True)
    racing: int | None = setting(optional(POSITIVE_INT), None)
    supernet_input: bool = setting(BOOL, False)

    def __post_init__(self) -> None:
        check_values(self)

    @property
    def trains_alone(self) -> bool:
        """Whether a path's score is what it reaches after a training of its own."""
        return self.evaluator == STANDALONE

    def deciding(self) -> dict[str, Any]:
        """Return the settings that decide the scores."""
        values = dataclasses.asdict(self)
        for name in ("devices", "evaluator", "worker_idle_s", "cache"):
            del values[name]
        # Only what is asked for counts, so that results of others stay theirs.
        if self.racing is None:
            del values["racing"]
        if not self.supernet_input:
            del values["supernet_input"]
        if self.trains_alone:
            values["evaluator"] = STANDALONE
        return values


@dataclass(frozen=True)
class SearchSettings(NamesComponent):
    """The search; the defaults are those of the paper's Algorithm 1.

    Parameters
    ----------
    algorithm
        Which search: one of ours, of a plug-in, or module:Class; its keys stand beside these.
    constraints
        Limits of costs, such as flops <= 330M, that every candidate keeps.
    population_size
        Candidates of a generation.
    num_generations
        Number of generations.
    objective
        The result to maximise: a figure of the task, log_likelihood (minus the loss), or what a
        trial of one's own reports; by default what the task says, such as top1. With predicted it
        is what a model of the paths that were trained alone predicts, see nni-spos landmarks.
    seed
        Of the search.
    sensitivity
        Whether each choice is tried alone first, in the network of a model as it is, so that the
        search begins with paths that lose least by the sum of that.
    task
        The task of the recipe, whose figures results are.
    """

    slot = Slot(SEARCHES, "search", "algorithm", ignores_others=True)

    algorithm: str = component(SEARCHES, "evolution")
    constraints: tuple[Constraint, ...] = setting(CONSTRAINTS, (), parse_constraints)
    population_size: int = setting(POSITIVE_INT, 50)
    num_generations: int = setting(POSITIVE_INT, 20)
    objective: str | None = setting(optional(TEXT), None)
    seed: int = setting(COUNT, 0)
    sensitivity: bool = setting(BOOL, False)
    task: TaskSettings = field(default_factory=TaskSettings, kw_only=True, compare=False)

    def __post_init__(self) -> None:
        check_values(self)
        if self.objective is not None and self.task.name in TASKS.ours:
            find_task(self.task).check_objective(self.objective, is_complete=False)
        self.check_own()

    @property
    def maximised(self) -> str:
        """Name of the result that the search maximises. Raises RecipeError like `find_task`."""
        return self.objective or find_task(self.task).objective

    @property
    def predicts(self) -> bool:
        """Whether the objective is what a model of trained paths predicts."""
        return self.objective == PREDICTED

    @property
    def reported(self) -> str:
        """Name of the result that a trial reports to NNI. Raises RecipeError like `find_task`."""
        return PREDICTED if self.predicts else find_task(self.task).objective

    def check_objective(self) -> None:
        """Refuse an objective that our own scorers do not have. Raises RecipeError."""
        if not self.predicts:
            find_task(self.task).check_objective(self.maximised)

    def changed(self, changes: Mapping[str, Any], where: str) -> SearchSettings:
        """Return the settings with some keys replaced, as a recipe has them. Raises RecipeError."""
        given = check_section(SearchSettings, changes, where, before=self)
        try:
            return dataclasses.replace(self, **given)
        except RecipeError as problem:
            raise RecipeError(f"{where}: {problem}") from None

    def deciding(self) -> dict[str, Any]:
        """Return the settings that decide which paths are candidates."""
        values = {x.name: getattr(self, x.name) for x in dataclasses.fields(self) if x.metadata}
        limits = [str(limit) for limit in self.constraints]
        if not self.sensitivity:  # results of searches without it stay theirs
            del values["sensitivity"]
        return {
            **values,
            "objective": self.maximised,
            "constraints": limits,
            **self.describe_own(),
        }
