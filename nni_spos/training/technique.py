"""What a training technique is: an object whose methods a training calls at its places.

A technique changes what it is for and nothing else: a method that it does not define leaves the
training as it is. This module, and those of our techniques, import PyTorch where they need it,
since reading a recipe imports them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, ClassVar

from nni_spos.errors import RecipeError
from nni_spos.recipe.named_components import NoSettings
from nni_spos.recipe.techniques import NOWHERE, RecipePlace
from nni_spos.tasks.base import Task
from nni_spos.tasks.classification import Classification

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from nni.nas.nn.pytorch import ModelSpace
    from pytorch_lightning import Callback
    from pytorch_lightning.loggers import Logger
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from nni_spos.data import ImageData
    from nni_spos.data.transforms import ImageAugmentation
    from nni_spos.path import Path
    from nni_spos.priors.base import Prior
    from nni_spos.recipe.dataset import DatasetSpec
    from nni_spos.recipe.training_settings import TrainSettings
    from nni_spos.training.sampling import Sampling

SUPERNET, RETRAIN = "supernet", "retrain"
"""Sections of a recipe that train."""

HELD_OUT = "validation_"
"""Before the names of what is logged of held-out images."""

Compute = Callable[["Tensor", "Tensor"], "Tensor"]
"""Takes what the network returned and the targets, and returns the loss, shape ()."""


@dataclass(frozen=True)
class Training:
    """What a technique is told of the training that it is a part of.

    Parameters
    ----------
    section
        ``supernet`` or ``retrain``; "" for settings that are in no recipe.
    settings
        How is trained.
    spec
        The images, and what is to be predicted.
    place
        Where the recipe is.
    task
        What the network learns.
    """

    section: str
    settings: TrainSettings
    spec: DatasetSpec
    place: RecipePlace = NOWHERE
    task: Task = Classification()  # noqa: RUF009


class Technique:
    """Base of all techniques.

    One object serves one training, in one process. It is made, and so refuses what it cannot be
    used with, before anything is written; and again in each process that trains.

    Parameters
    ----------
    settings
        An object of the class `Settings`.
    training
        What it is a part of.

    Attributes
    ----------
    Settings
        The keys: a frozen dataclass whose fields `nni_spos.recipe.settings.setting` makes.
    title
        Its name in messages; for ours the key that switches it on.
    sections
        Of a recipe that may have it.
    targets
        Kinds of targets that it knows, see `DatasetSpec.target`; None: all.
    decides
        Whether the weights depend on it.

    Raises
    ------
    RecipeError
        From the constructor: it cannot be a part of this training.
    """

    Settings: ClassVar[type[Any]] = NoSettings
    title: ClassVar[str] = "technique"
    sections: ClassVar[tuple[str, ...]] = (SUPERNET, RETRAIN)
    targets: ClassVar[tuple[str, ...] | None] = None
    decides: ClassVar[bool] = True

    def __init__(self, settings: Any, training: Training):
        self.settings = settings
        self.training = training
        self._check_place()

    @classmethod
    def switches(cls) -> Sequence[str]:
        """Return the keys that switch it on; by default the first one."""
        return [x.name for x in dataclasses.fields(cls.Settings)][:1]

    @classmethod
    def is_on(cls, settings: Any) -> bool:
        """Whether one of the keys that switch it on does so. A user's is on where it is listed."""
        return any(getattr(settings, key) for key in cls.switches())

    @classmethod
    def files(cls, settings: Any) -> Sequence[str]:
        """Return the keys whose values are files of weights, which count by their contents."""
        return ()

    @classmethod
    def change_supernet(cls, settings: Any, supernet: ModelSpace) -> None:
        """Change a supernet that was just built, in place.

        It is called wherever one is built, and so for a search too. What it does may depend on
        nothing but its arguments. Labels, their choices and the network of each path have to stay.
        Raises RecipeError.
        """

    def _check_place(self) -> None:
        """Refuse a section and targets that it is not for. Raises RecipeError."""
        section = self.training.section
        if section and section not in self.sections:
            raise RecipeError(
                f"{section}: {self.title} is not for this section. It goes into "
                f"{' or '.join(self.sections)}."
            )
        target = self.training.spec.target
        if self.targets is not None and target not in self.targets:
            raise RecipeError(
                f"{self.title}: does not know targets of the kind '{target}', only "
                f"{' and '.join(self.targets)}. Leave it out."
            )

    # Before the training.

    def check_network(self, network: nn.Module) -> None:
        """Refuse a network, or supernet, that it cannot be used with. Raises RecipeError."""

    def trainer_options(self) -> Mapping[str, Any]:
        """Return arguments of Lightning's Trainer."""
        return {}

    def callbacks(self) -> Sequence[Callback]:
        """Return callbacks of Lightning, which keep their own state."""
        return ()

    def logger(self, folder: FilePath) -> Logger | None:
        """Return what logs instead of TensorBoard, into a folder; None: TensorBoard does."""
        return None

    def augmentation(self) -> ImageAugmentation | None:
        """Return what is done to training images, as a function of each image's key alone.

        It is sent to processes that prepare images.
        """
        return None

    def order(
        self, targets: npt.NDArray[Any]
    ) -> Callable[[int, int], npt.NDArray[np.int64]] | None:
        """Return the order of the training images, a function of (seed, epoch); None: a shuffle.

        Parameters
        ----------
        targets
            Of all training images; what the function returns are positions in it, as many.
        """
        return None

    def parameter_groups(
        self, groups: list[dict[str, Any]], network: nn.Module
    ) -> list[dict[str, Any]]:
        """Return the groups of parameters that are updated, with their settings.

        Parameters
        ----------
        groups
            Parameters with their learning rate and weight decay, ``lr`` and ``weight_decay``; the
            rate of the first group is shown.
        network
            Whose parameters they are.
        """
        return groups

    def optimizer(self, groups: list[dict[str, Any]], network: nn.Module) -> Optimizer | None:
        """Return what updates the weights; None: SGD does.

        Parameters
        ----------
        groups
            Parameters with their learning rate and weight decay, ``lr`` and ``weight_decay``.
        network
            Whose parameters they are.
        """
        return None

    def schedule(self, num_steps: int, steps_per_epoch: int) -> Callable[[int], float] | None:
        """Return the factor of the learning rate by step, without warm-up; None: linear decay."""
        return None

    def prior(self, sampling: Sampling) -> Prior:
        """Return what draws the paths of a supernet's training, as a function of seed and step."""
        return sampling.prior

    # During the training.

    def begin(self, network: nn.Module, data: ImageData | None) -> None:
        """Prepare for the first step; the network is on its device."""

    def paths(self, paths: Sequence[Path], sampling: Sampling, step: int) -> Sequence[Path]:
        """Return the paths that a step trains on one batch, in their order.

        The step follows the mean of their gradients. All processes must get the same paths.

        Parameters
        ----------
        paths
            Those of the step without this technique: one that the prior drew.
        sampling
            What paths come from.
        step
            Of the training, from 0.
        """
        return paths

    def batch(self, images: Tensor, targets: Tensor, step: int) -> Tensor:
        """Return the images that the network gets in a step; targets stay as they are."""
        return images

    def begin_path(self, path: Path, position: int) -> None:
        """Learn which path of a step runs next, and its place among them, from 0.

        It is called where a step trains several paths; `loss` follows for each of them.
        """

    def loss(self, compute: Compute, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a step; `compute` is the loss without this technique."""
        return compute(outputs, targets)

    def step_figures(self) -> Mapping[str, Tensor]:
        """Return what to log of the loss just computed, by name, shape () each.

        What is called ``loss`` is logged instead of the loss that is minimised.
        """
        return {}

    def after_step(self, network: nn.Module, step: int) -> None:
        """Do what follows the update of the weights; `step` is the number of updates so far."""

    def after_epoch(self, network: nn.Module) -> Mapping[str, float]:
        """Return figures to log at the end of an epoch."""
        return {}

    def end(self, network: nn.Module) -> None:
        """Finish: the network's weights are the result of the training."""

    # For checkpoints.

    def state_dict(self) -> dict[str, Any]:
        """Return what a training must have to go on, as tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it back; called behind `begin`."""
