"""What every task says, without PyTorch, and what it computes, with it.

The tuner, every trial and whoever shows results ask a task for the names of its figures. So its
module must not import PyTorch but in methods that compute.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from nni_spos.errors import DataError, RecipeError, SpaceError, unknown
from nni_spos.recipe.dataset import DatasetSpec
from nni_spos.recipe.task import OF_TARGETS

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor
    from torchmetrics import Metric

    from nni_spos.recipe.training_settings import TrainSettings

LOG_LIKELIHOOD = "log_likelihood"
"""Minus the loss, so that it can be maximised; every task has it."""


@dataclass(frozen=True)
class Figure:
    """A figure that says how well a network does.

    Parameters
    ----------
    name
        As in results and in a recipe's ``objective``.
    title
        What an axis or a column is called, without the unit; "" for the name.
    short
        The same in a line of figures; "" for the title.
    unit
        Such as "%"; "" for none.
    digits
        Behind the point; None: four in all, of a figure that nobody has described.
    is_better
        Whether a network is better if it is "higher" or "lower".
    """

    name: str
    title: str = ""
    short: str = ""
    unit: str = ""
    digits: int | None = 4
    is_better: str = "higher"

    @property
    def full_title(self) -> str:
        """What an axis or a column is called, with the unit.

        >>> Figure("top1", "top-1 accuracy", unit="%").full_title
        'top-1 accuracy (%)'
        """
        title = self.title or self.name
        return f"{title} ({self.unit})" if self.unit else title

    @property
    def short_title(self) -> str:
        """The same for little room.

        >>> Figure("top1", "top-1 accuracy", "top-1", "%").short_title
        'top-1 (%)'
        """
        return f"{self.brief} ({self.unit})" if self.unit else self.brief

    @property
    def brief(self) -> str:
        """What it is called in a line of figures."""
        return self.short or self.title or self.name

    def format(self, value: float) -> str:
        """Write a value with its unit.

        >>> Figure("top1", unit="%", digits=2).format(71.5), Figure("r2").format(0.5)
        ('71.50 %', '0.5000')
        """
        return " ".join(filter(None, (self.number(value), self.unit)))

    def number(self, value: float) -> str:
        """Write a value without its unit, which a title has.

        >>> Figure("top1", unit="%", digits=2).number(71.5)
        '71.50'
        """
        return f"{value:.4g}" if self.digits is None else f"{value:.{self.digits}f}"


def plain_figure(name: str) -> Figure:
    """Return how a figure is shown that nobody has described.

    >>> plain_figure("my_figure").short_title, plain_figure("my_figure").format(0.00012345)
    ('my_figure', '0.0001234')
    """
    return Figure(name, digits=None)


LOSS = Figure("loss", is_better="lower")
"""Of every task: what a training lowers, without what is only for training."""

LIKELIHOOD = Figure(LOG_LIKELIHOOD, "log-likelihood")


@dataclass(frozen=True)
class Task(ABC):
    """What a network is to predict for an image.

    A class derived from this one is a frozen dataclass too. The keys that a recipe may give it are
    its fields that `nni_spos.recipe.settings.setting` makes.

    Outputs and targets are tensors with a row for each image. Sums that `tally` returns add up over
    batches and over the paths that are scored together.
    """

    targets: ClassVar[tuple[str, ...]]
    """Kinds of targets that it takes, see `nni_spos.recipe.dataset.TARGETS`."""

    compares_outputs: ClassVar[bool] = False
    """Whether only differences between the outputs of an image count, as of logits."""

    @property
    @abstractmethod
    def figures(self) -> Sequence[Figure]:
        """What is said of a network, `LOSS` aside; the first one is what a search maximises."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean of what a training lowers, over the images."""

    @abstractmethod
    def tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return sums over the images of a batch, shape (num_sums,); its size is always the same.

        Outputs are float32.
        """

    @abstractmethod
    def conclude(self, sums: Sequence[float], num_images: int) -> Mapping[str, float]:
        """Return the figures by name, from the sums over all images."""

    def metrics(self, num_outputs: int) -> Mapping[str, Metric]:
        """Return new metrics for the figures that do not follow from sums; none by default.

        They get what `for_metrics` returns, batch by batch, and keep what they need of it.
        """
        return {}

    def for_metrics(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return predictions and targets as the metrics take them."""
        return outputs, targets

    def total_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the sum of the loss over images; it is the same however they are batched."""
        return self.loss(outputs, targets) * len(targets)

    @property
    def image_figures(self) -> tuple[str, ...]:
        """Names of the objectives that are a mean over images, see `image_values`; by default none.

        Only for these can paths be dropped after some of the images.
        """
        return ()

    def image_values(self, objective: str, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return what each image gives for one of `image_figures`, shape (N,)."""
        raise NotImplementedError

    def loss_of(self, settings: TrainSettings) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the loss of a training with some settings."""
        return self.loss

    def step_figures(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """Return what is shown of a training step beside its loss; quick to compute."""
        return {}

    def strata(self, targets: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
        """Return a whole number for each image, whose shares the splits keep.

        None: by the targets. Those are the classes, or the combinations of labels; of values and
        masks there is one for all.
        """
        return None

    def space_arguments(self, spec: DatasetSpec) -> Mapping[str, Any]:
        """Return what a space is told, if its class has such arguments."""
        return {"num_classes": spec.num_classes, "num_outputs": spec.num_classes}

    def output_shape(self, spec: DatasetSpec) -> tuple[int, ...]:
        """Return the shape of the outputs for one image; of the first size there may be more."""
        return (spec.num_classes,)

    def check(self, spec: DatasetSpec) -> None:  # noqa: B027
        """Refuse a data set that the task, with its keys, is not for. Raises RecipeError."""

    @property
    def objective(self) -> str:
        """Name of the figure that a search maximises unless its recipe names another."""
        return next(x.name for x in self.figures if x.is_better == "higher")

    @property
    def all_figures(self) -> tuple[Figure, ...]:
        """Its figures, and those that every task has."""
        return (*self.figures, LOSS, LIKELIHOOD)

    def figure(self, name: str) -> Figure:
        """Return one of its figures; of a name that it does not have, a plain one."""
        return next((x for x in self.all_figures if x.name == name), plain_figure(name))

    def check_objective(self, name: str, *, is_complete: bool = True) -> None:
        """Refuse what cannot be maximised.

        Parameters
        ----------
        name
            Of a figure.
        is_complete
            Whether there are no figures but those of the task; a trial of a user's own may report
            others.

        Raises
        ------
        RecipeError
            A lower value is better, or there is no such figure.
        """
        names = [x.name for x in self.all_figures if x.is_better == "higher"]
        if self.figure(name).is_better == "lower":
            minus = "log_likelihood, which is minus the loss"
            others = minus if name == LOSS.name else f"{', '.join(names[:-1])} or {minus}"
            raise RecipeError(
                f"objective: must be something to maximise, got {name}. Use {others}."
            )
        if is_complete and name not in names:
            raise RecipeError(f"objective: {unknown('figure', name, names)}")

    def check_racing(self, objective: str) -> None:
        """Refuse to drop paths early where images say nothing one by one. Raises RecipeError."""
        if objective not in self.image_figures:
            known = ", ".join(self.image_figures)
            raise RecipeError(
                f"evaluation.racing: '{objective}' is no mean over images"
                + (f"; these are: {known}." if known else ", nor is any other figure of the task.")
                + " Leave 'racing' out, or change 'search.objective'."
            )

    def check_data(self, name: str, spec: DatasetSpec) -> None:
        """Refuse a data set that the task is not for; `name` is that of the task.

        Raises
        ------
        DataError
            Its targets are of another kind.
        RecipeError
            Its keys do not go with it.
        """
        if spec.target not in self.targets:
            raise DataError(
                f"task {name}: is for targets of the kind {' or '.join(self.targets)}, and the "
                f"data set {spec.name} has {spec.target}. Give the recipe other data, or another "
                f"task, such as {OF_TARGETS[spec.target]}."
            )
        try:
            self.check(spec)
        except RecipeError as problem:
            raise RecipeError(f"task {name}: {problem}") from None

    def check_outputs(
        self, outputs: Any, num_images: int, spec: DatasetSpec, *, training: bool = False
    ) -> Tensor:
        """Return what a network returned if it is what the task needs. Raises SpaceError."""
        wanted = self.output_shape(spec)
        shape = tuple(getattr(outputs, "shape", ()))
        fits = len(shape) == len(wanted) + 1 and shape[0] == num_images
        if fits and shape[1] >= wanted[0] and shape[2:] == wanted[1:]:
            return outputs
        found = f"a {type(outputs).__name__}"
        if shape:
            found = f"a tensor of shape {shape}"
        elif isinstance(outputs, list | tuple):
            found += f" of {len(outputs)}"
        mode = "in training mode the network" if training else "the space"
        count = "one image" if num_images == 1 else f"{num_images} images"
        advice = " Return it also if self.training." if training else ""
        raise SpaceError(
            f"{mode} returns {found} for {count} of the data. It must return one tensor of shape "
            f"({num_images}, {', '.join(map(str, wanted))}); take the number of outputs as the "
            f"argument {' or '.join(self.space_arguments(spec))}.{advice}"
        )

    def not_finite(self) -> dict[str, float]:
        """Return figures of outputs that are not finite: none of them would say anything."""
        return {x.name: math.nan for x in (*self.figures, LOSS)}
