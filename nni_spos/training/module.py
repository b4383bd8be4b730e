"""What one training step does, and the schedule of the learning rate."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from nni.nas.evaluator.pytorch import LightningModule
from torch import Tensor, nn

from nni_spos.errors import RecipeError, SpaceError, unknown
from nni_spos.mutables import ActiveSlices, sliced_operations
from nni_spos.recipe.training_settings import TrainSettings
from nni_spos.tasks.base import Task
from nni_spos.tasks.classification import Classification
from nni_spos.training.batchnorm import SynchronisedBatchNorm
from nni_spos.training.composed import NO_TECHNIQUES, Techniques
from nni_spos.training.finite_loss import FiniteLoss
from nni_spos.training.layout import find_layout
from nni_spos.training.optimizer import SlicedSGD
from nni_spos.training.resizing import resize, resize_targets, size_at


class TaskModule(LightningModule):
    """Train a network for its task as the paper does: SGD, and linear decay to 0 per step.

    NNI gives it the network; in `SinglePathOneShot` that is the supernet with one path active.
    A weight that the step did not use has no gradient, so that neither momentum nor weight decay
    touch it; nor do they touch what a narrower path left out of a weight, unless
    ``update_scope: tensor`` says so.

    Parameters
    ----------
    settings
        Learning rate, momentum, weight decay, smoothing, warm-up, sizes of the images, memory
        format and BatchNorm.
    layout
        The memory format, if it is known what the network allows; None: it is found out with the
        first batch, see `nni_spos.training.layout.find_layout`.
    techniques
        What changes a step, see `nni_spos.training.technique`.
    task
        Gives the loss; by default a classification.

    Notes
    -----
    A batch is images of shape (N, C, H, W) and targets of shape (N, ...). Logged in every step:
    ``loss``, what techniques and the task show of a step, such as ``top1``, and ``learning_rate``.
    With several processes a batch, and what is logged, is the part of one of them.
    """

    def __init__(
        self,
        settings: TrainSettings,
        layout: torch.memory_format | None = None,
        techniques: Techniques = NO_TECHNIQUES,
        task: Task | None = None,
    ):
        super().__init__()
        self.techniques = techniques
        self.settings = settings
        self.layout = layout
        self.task = task or Classification()
        self.loss = self.task.loss_of(settings)
        self.num_steps = 0
        self._finite = FiniteLoss()
        self._normalising: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()

    def set_model(self, model: nn.Module) -> None:
        """Take the network. Raises RecipeError for a learning rate of a part that it lacks."""
        super().set_model(model)
        self._rate_factors()
        self.techniques.check_network(model)

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)

    def on_fit_start(self) -> None:
        if self.layout is not None:
            self.model.to(memory_format=self.layout)
        if self.settings.sync_batchnorm and self.trainer.world_size > 1:
            self._normalising = SynchronisedBatchNorm()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss, figures = self.pass_through(*self.prepare(batch))
        self.show(figures)
        return loss

    def prepare(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the images that the network gets in this step, as it wants them, and targets."""
        images, targets = batch
        layout = self._lay_out(images)
        resizing = self.settings.progressive_resizing
        size = size_at(resizing, self.trainer.global_step, self.num_steps)
        images, targets = resize(images, size), resize_targets(targets, size)
        images = self.techniques.batch(images, targets, self.trainer.global_step)
        return images.to(memory_format=layout), targets

    def pass_through(self, images: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the network, or of the path that is set in it, and what is shown."""
        with self._normalising:
            outputs = check_outputs(self(images), targets)
        loss = self.techniques.loss(self.loss, outputs, targets)
        self._finite.note(loss.detach(), self.trainer.global_step)
        figures = self.task.step_figures(outputs.detach(), targets)
        return loss, {"loss": loss.detach(), **self.techniques.step_figures(), **figures}

    def show(self, figures: Mapping[str, Tensor]) -> None:
        """Log the figures of a step, and the learning rate."""
        for name, value in figures.items():
            self.log(name, value)
        self.log("learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"])

    def _lay_out(self, images: Tensor) -> torch.memory_format:
        """Return the memory format, in which the network is from the first batch on."""
        if self.layout is None:
            wanted, shape = self.settings.channels_last, images.shape[1:]
            self.layout = find_layout(self.model, wanted, self.device, shape)
            self.model.to(memory_format=self.layout)
        return self.layout

    def on_train_end(self) -> None:
        self._finite.check()

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = self.build_optimizer()
        self.num_steps = int(self.trainer.estimated_stepping_batches)
        loader = self.trainer.train_dataloader
        decay = self.techniques.schedule(self.num_steps, len(loader) if loader else 1)
        schedule = warmed_up(decay or linear_decay(self.num_steps), self.settings.warmup_steps)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def _rate_factors(self) -> dict[str, float]:
        names = (name for name, _ in self.model.named_parameters())
        return rate_factors(self.settings.learning_rate_factors, names)

    def build_optimizer(self) -> torch.optim.Optimizer:
        """Return the optimizer of the network, which decays and slices what it should."""
        # Decaying the weights and biases of BatchNorm, and clipping values, only hurts.
        factors = self._rate_factors()
        groups: dict[tuple[bool, float], list[Tensor]] = {}
        for name, parameter in self.model.named_parameters():
            groups.setdefault((parameter.dim() > 1, factors[name]), []).append(parameter)
        rate, decay = self.settings.learning_rate, self.settings.weight_decay
        # The rate of the first group is shown: it is the one that nothing multiplies.
        order = sorted(groups, key=lambda group: (not group[0], group[1] != 1, group[1]))
        parameters = [
            {"params": groups[key], "weight_decay": decay * key[0], "lr": rate * key[1]}
            for key in order
        ]
        parameters = self.techniques.parameter_groups(parameters, self.model)
        if (other := self.techniques.optimizer(parameters, self.model)) is not None:
            return other
        options: dict[str, Any] = {"lr": rate, "momentum": self.settings.momentum}
        if self.settings.update_scope == "slice" and any(sliced_operations(self.model)):
            return SlicedSGD(parameters, **options, slices=ActiveSlices(self.model))
        return torch.optim.SGD(parameters, **options)


def check_outputs(outputs: Any, targets: Tensor) -> Tensor:
    """Return what a network returned in training if it is a tensor with a row for every image.

    Raises
    ------
    SpaceError
        It is not.
    """
    if isinstance(outputs, Tensor) and outputs.ndim > 1 and len(outputs) == len(targets):
        return outputs
    found = f"a {type(outputs).__name__}"
    if isinstance(outputs, Tensor):
        found = f"a tensor of shape {tuple(outputs.shape)}"
    elif isinstance(outputs, list | tuple):
        found += f" of {len(outputs)}"
    raise SpaceError(
        f"in training mode the network returns {found} for {len(targets)} images; it is trained "
        "with its outputs alone, one row for each image. Return them also if self.training."
    )


def rate_factors(
    factors: Sequence[tuple[str, float]], parameters: Iterable[str]
) -> dict[str, float]:
    """Return by what the learning rate of each parameter is multiplied.

    Parameters
    ----------
    factors
        Names of modules or parameters, with a number for each; the longest that fits counts.
    parameters
        Names of all parameters.

    Raises
    ------
    RecipeError
        A name is of no parameter, nor of a module with any.

    Examples
    --------
    >>> rate_factors([("head", 0.1)], ["stem.weight", "head.weight", "head2.weight"])
    {'stem.weight': 1.0, 'head.weight': 0.1, 'head2.weight': 1.0}
    """
    found = dict.fromkeys(parameters, 1.0)
    for name, factor in sorted(factors, key=lambda pair: len(pair[0])):
        inside = [x for x in found if x == name or x.startswith(f"{name}.")]
        if not inside:
            parts = dict.fromkeys(x.partition(".")[0] for x in found)
            raise RecipeError(f"learning_rate_factors: {unknown('part', name, parts)}")
        found |= dict.fromkeys(inside, float(factor))
    return found


def linear_decay(num_steps: int) -> Callable[[int], float]:
    """Return the factor of the learning rate as a function of the step.

    Parameters
    ----------
    num_steps
        Steps of the whole training; the factor of step `num_steps` is 0.

    Examples
    --------
    >>> [linear_decay(4)(step) for step in range(5)]
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    return lambda step: max(0.0, 1 - step / num_steps)


def warmed_up(decay: Callable[[int], float], warmup_steps: int) -> Callable[[int], float]:
    """Return a schedule whose first steps rise linearly to what it is.

    Parameters
    ----------
    decay
        Factor of the learning rate as a function of the step.
    warmup_steps
        How many steps rise.

    Examples
    --------
    >>> [warmed_up(linear_decay(4), 2)(step) for step in range(5)]
    [0.5, 0.75, 0.5, 0.25, 0.0]
    """
    if not warmup_steps:
        return decay
    return lambda step: decay(step) * min(1.0, (step + 1) / warmup_steps)
