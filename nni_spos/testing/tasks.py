"""What every task promises."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nni_spos.components import declared_keys
from nni_spos.data.targets import as_tensor, generate_targets
from nni_spos.errors import SpaceError
from nni_spos.recipe.dataset import TARGETS, DatasetSpec
from nni_spos.recipe.task import TaskSettings, find_task
from nni_spos.recipe.training_settings import TrainSettings
from nni_spos.scoring.tallies import Evaluation, Tallies
from nni_spos.tasks.base import LIKELIHOOD, LOSS, Task

NUM_IMAGES = 12


class TaskCase:
    """A task as a recipe names it, with images that nobody took.

    Parameters
    ----------
    name
        As in the section ``task`` of a recipe.
    folder
        Where a user's module is looked for: the recipe's folder.
    num_classes
        Classes, labels or values of the data.
    **keys
        Other keys of that section.
    """

    def __init__(
        self,
        name: str,
        folder: str | os.PathLike[str] | None = None,
        *,
        num_classes: int = 3,
        **keys: Any,
    ):
        place = None if folder is None else FilePath(folder).absolute()
        self.settings = TaskSettings(name, keys, place)
        self.task: Task = find_task(self.settings)
        size, one = 8, (0.5,)
        self.specs = [
            DatasetSpec("generated", num_classes, 1, size, size, one, one, target=target)
            for target in self.task.targets
        ]

    def batch(self, spec: DatasetSpec, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Return what a network may return for twelve images, and their targets."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(NUM_IMAGES, generator=generator)
        targets = as_tensor(np.array(generate_targets(spec, NUM_IMAGES)))[order]
        shape = (NUM_IMAGES, *self.task.output_shape(spec))
        return torch.randn(shape, generator=generator), targets

    def score(self, outputs: Tensor, targets: Tensor, size: int = NUM_IMAGES) -> Evaluation:
        """Return the figures of some outputs, counted in batches of a size."""
        tallies = Tallies(self.task, num_paths=1)
        for part in zip(outputs.split(size), targets.split(size), strict=True):
            tallies.add(0, *part)
        return tallies.conclude()[0]


def says_what_it_is_for(case: TaskCase) -> None:
    """It takes kinds of targets that there are, and one of its figures can be maximised."""
    task = case.task
    strange = [x for x in task.targets if x not in TARGETS]
    assert task.targets, "it takes no targets"
    assert not strange, f"it takes targets of the kind {strange[0]}; there are {TARGETS}"
    names = [x.name for x in task.figures]
    assert len(set(names)) == len(names), f"figures that have the same name: {names}"
    taken = {LOSS.name, LIKELIHOOD.name, "default", "path", "num_images"}.intersection(names)
    assert not taken, f"figures with a name that every task has: {taken}"
    wrong = [x.name for x in task.figures if x.is_better not in ("higher", "lower")]
    assert not wrong, f"is_better is neither 'higher' nor 'lower': {wrong}"
    assert any(x.is_better == "higher" for x in task.figures), "no figure can be maximised"
    task.check_objective(task.objective)


def describes_its_keys(case: TaskCase) -> None:
    """Every key that it declares has a description in the section Parameters of its docstring."""
    bare = [name for name, key in declared_keys(type(case.task)).items() if not key.description]
    assert not bare, f"the docstring does not describe {', '.join(bare)}"


def is_described_without_pytorch(case: TaskCase) -> None:
    """NNI's tuner asks it for its figures, and has ten seconds to start."""
    program = (
        "import pickle, sys\n"
        "from nni_spos.recipe.task import find_task\n"
        "task = find_task(pickle.load(sys.stdin.buffer))\n"
        "task.all_figures, task.objective, task.targets\n"
        "print([name for name in ('torch', 'torchmetrics', 'nni') if name in sys.modules])\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, input=pickle.dumps(case.settings), capture_output=True)
    assert not done.returncode, done.stderr.decode(errors="replace")
    found = done.stdout.decode().splitlines()[-1]
    assert found == "[]", f"saying what it is imports {found}; do that in methods that compute"


def can_be_trained(case: TaskCase) -> None:
    """Its loss is a finite number, with a gradient that a step can follow."""
    for spec in case.specs:
        outputs, targets = case.batch(spec)
        outputs.requires_grad_()
        loss = case.task.loss_of(TrainSettings(steps=1, label_smoothing=0.0))
        before = loss(outputs, targets)
        assert before.ndim == 0, f"the loss has the shape {tuple(before.shape)}"
        assert before.isfinite(), "the loss is not finite"
        before.backward()
        gradient = outputs.grad
        assert gradient is not None, "the loss has no gradient"
        assert gradient.abs().sum() > 0, "the gradient of the loss is zero"
        step = 1e-2 * gradient / gradient.norm()
        with torch.no_grad():
            after = loss(outputs - step, targets)
        assert after < before, "a small step against the gradient does not lower the loss"


def has_the_figures_that_it_names(case: TaskCase) -> None:
    """All of its figures are there, and are finite numbers."""
    for spec in case.specs:
        found = case.score(*case.batch(spec))
        names = [*(x.name for x in case.task.figures), LOSS.name]
        missing = [name for name in names if name not in found.figures]
        assert not missing, f"there is no figure {', '.join(missing)}"
        wrong = [name for name, x in found.figures.items() if not math.isfinite(x)]
        assert not wrong, f"not a finite number: {', '.join(wrong)}"


def does_not_depend_on_batches(case: TaskCase) -> None:
    """Figures are the same for batches of any size: paths are scored together so."""
    for spec in case.specs:
        outputs, targets = case.batch(spec)
        whole = case.score(outputs, targets)
        for size in (1, 5):
            parts = case.score(outputs, targets, size)
            for name, value in whole.figures.items():
                assert math.isclose(parts.figures[name], value, rel_tol=1e-5, abs_tol=1e-5), (
                    f"{name} is {value} of one batch and {parts.figures[name]} of batches of {size}"
                )


def does_not_depend_on_the_order(case: TaskCase) -> None:
    """Figures are the same for images in any order."""
    for spec in case.specs:
        outputs, targets = case.batch(spec)
        one, other = case.score(outputs, targets), case.score(outputs.flip(0), targets.flip(0))
        for name, value in one.figures.items():
            assert math.isclose(other.figures[name], value, rel_tol=1e-5, abs_tol=1e-5), name


def has_strata_of_the_images(case: TaskCase) -> None:
    """It says a whole number for each image, by which they are split, or nothing."""
    for spec in case.specs:
        found = case.task.strata(np.array(generate_targets(spec, NUM_IMAGES)))
        if found is not None:
            assert found.shape == (NUM_IMAGES,), f"strata of shape {found.shape}"
            assert found.dtype.kind in "iu", f"strata of type {found.dtype}"


def refuses_outputs_of_another_shape(case: TaskCase) -> None:
    """What a network returns is checked before it is trained."""
    for spec in case.specs:
        outputs, _ = case.batch(spec)
        assert case.task.check_outputs(outputs, NUM_IMAGES, spec) is outputs
        for wrong in (outputs[:-1], outputs[None], [outputs]):
            message = ""
            try:
                case.task.check_outputs(wrong, NUM_IMAGES, spec)
            except SpaceError as problem:
                message = str(problem)
            assert message, "it takes outputs of another shape"
            assert "\n" not in message, "the message is not one line"


CHECKS: tuple[Callable[[TaskCase], None], ...] = (
    says_what_it_is_for,
    describes_its_keys,
    is_described_without_pytorch,
    can_be_trained,
    has_the_figures_that_it_names,
    does_not_depend_on_batches,
    does_not_depend_on_the_order,
    has_strata_of_the_images,
    refuses_outputs_of_another_shape,
)
"""The suite."""
