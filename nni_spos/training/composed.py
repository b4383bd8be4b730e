"""The techniques of a training as one, and when Lightning lets them act."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn
from torch.optim import Optimizer

from nni_spos.components import explain
from nni_spos.data import ImageData
from nni_spos.errors import PathError, RecipeError, SposError
from nni_spos.path import Path
from nni_spos.priors.base import Prior
from nni_spos.recipe.dataset import DatasetSpec
from nni_spos.recipe.techniques import TechniqueSettings
from nni_spos.recipe.training_settings import TrainSettings
from nni_spos.tasks.base import Task
from nni_spos.tasks.classification import Classification
from nni_spos.training.sampling import Sampling
from nni_spos.training.technique import Compute, Technique, Training


class Techniques:
    """What a training does beside the paper's recipe; nothing, if there are no techniques.

    Parameters
    ----------
    members
        By their names, in the order in which they act.
    """

    def __init__(self, members: Mapping[str, Technique]):
        self._members = dict(members)

    def __iter__(self) -> Iterator[Technique]:
        return iter(self._members.values())

    def check_network(self, network: nn.Module) -> None:
        """Refuse a network that a technique cannot be used with. Raises RecipeError."""
        for member in self:
            member.check_network(network)

    def trainer_options(self) -> dict[str, Any]:
        """Return arguments of Lightning's Trainer."""
        return {key: x for member in self for key, x in member.trainer_options().items()}

    def callbacks(self) -> list[Callback]:
        """Return the callbacks that techniques bring."""
        return [callback for member in self for callback in member.callbacks()]

    def logger(self, folder: FilePath) -> Logger | None:
        """Return what logs instead of TensorBoard, or None."""
        return self._first("logger", folder)

    def loader_options(self) -> dict[str, Any]:
        """Return arguments of `ImageData.train_loader`; none where images are as always."""
        found: dict[str, Any] = {}
        if augmentations := [x for member in self if (x := member.augmentation()) is not None]:
            found["augmentations"] = augmentations
        if ordering := [x for x in self if type(x).order is not Technique.order]:
            found["order"] = ordering[0].order
        return found

    def parameter_groups(
        self, groups: list[dict[str, Any]], network: nn.Module
    ) -> list[dict[str, Any]]:
        """Return the groups of parameters that are updated; each technique changes the last's."""
        for member in self:
            groups = member.parameter_groups(groups, network)
        return groups

    def optimizer(self, groups: list[dict[str, Any]], network: nn.Module) -> Optimizer | None:
        """Return what updates the weights, or None for SGD."""
        return self._first("optimizer", groups, network)

    def schedule(self, num_steps: int, num_batches: int) -> Callable[[int], float] | None:
        """Return the factor of the learning rate by step, or None for linear decay."""
        accumulated = self.trainer_options().get("accumulate_grad_batches", 1)
        return self._first("schedule", num_steps, -(-num_batches // accumulated))

    def prior(self, sampling: Sampling) -> Prior:
        """Return what draws the paths; a later technique is given the prior of those before it."""
        for member in self:
            sampling = sampling.replace_prior(member.prior(sampling))
        return sampling.prior

    def paths(self, sampling: Sampling, step: int) -> list[Path]:
        """Return the paths of a step. Raises RecipeError if there are none, or wrong ones."""
        paths: Sequence[Path] = [sampling.prior.path(step)]
        for name, member in self._members.items():
            if type(member).paths is not Technique.paths:
                paths = _checked(name, member.paths(paths, sampling, step), sampling)
        return list(paths)

    def begin_path(self, path: Path, position: int) -> None:
        """Say which path of several runs next."""
        for member in self:
            member.begin_path(path, position)

    def batch(self, images: Tensor, targets: Tensor, step: int) -> Tensor:
        """Return the images that the network gets."""
        for member in self:
            images = member.batch(images, targets, step)
        return images

    def loss(self, compute: Compute, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a step; a later technique is around those before it."""
        for member in self:
            compute = _around(member, compute)
        return compute(outputs, targets)

    def step_figures(self) -> dict[str, Tensor]:
        """Return figures to log of the loss just computed.

        Of two with a name it is the earlier technique's: a later one's loss contains it.
        """
        members = reversed(list(self))
        return {key: x for member in members for key, x in member.step_figures().items()}

    def begin(self, network: nn.Module, data: ImageData | None, state: Mapping[str, Any]) -> None:
        """Prepare for the first step, or for the first one after those of a checkpoint."""
        for name, member in self._members.items():
            member.begin(network, data)
            if name in state:
                member.load_state_dict(state[name])

    def after_step(self, network: nn.Module, step: int) -> None:
        """Follow an update of the weights."""
        for member in self:
            member.after_step(network, step)

    def after_epoch(self, network: nn.Module) -> dict[str, float]:
        """Return figures to log at the end of an epoch."""
        return {key: x for member in self for key, x in member.after_epoch(network).items()}

    def end(self, network: nn.Module) -> None:
        """Finish the weights."""
        for member in self:
            member.end(network)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of those that have one, by name."""
        found = {name: member.state_dict() for name, member in self._members.items()}
        return {name: state for name, state in found.items() if state}

    def _first(self, method: str, *arguments: Any) -> Any:
        """Return what the first technique returns that returns anything."""
        found = (getattr(member, method)(*arguments) for member in self)
        return next((x for x in found if x is not None), None)


def _checked(name: str, paths: Sequence[Path], sampling: Sampling) -> Sequence[Path]:
    """Return what a technique wants to train. Raises RecipeError."""
    if not paths:
        raise RecipeError(f"technique {name}: paths must return at least one path of a step.")
    try:
        checked = [sampling.prior.space.validate(path) for path in paths]
    except PathError as problem:
        raise RecipeError(
            f"technique {name}: paths returned one of no such space: {problem}"
        ) from None
    sampling.check_filter(f"technique {name}", checked)
    return checked


def _around(member: Technique, compute: Compute) -> Compute:
    return lambda outputs, targets: member.loss(compute, outputs, targets)


NO_TECHNIQUES = Techniques({})


def build_techniques(
    settings: TrainSettings, spec: DatasetSpec, task: Task | None = None
) -> Techniques:
    """Make the techniques that a training asks for.

    Parameters
    ----------
    settings
        Of the training.
    spec
        Its images.
    task
        What the network learns; by default a classification.

    Raises
    ------
    RecipeError
        A technique cannot be found, made, or be a part of this training.
    """
    return Techniques(
        {
            x.name: technique
            for x in settings.techniques
            if (technique := _build(x, settings, spec, task or Classification())) is not None
        }
    )


def _build(asked: TechniqueSettings, settings: TrainSettings, spec: DatasetSpec, task: Task) -> Any:
    """Return a technique, or None for one of ours that is off, and for one not for the section."""
    own, cls = asked.own(settings.section), asked.find()
    if asked.is_ours and not cls.is_on(own):
        return None
    if asked.is_inherited and settings.section not in cls.sections:
        return None
    training = Training(settings.section, settings, spec, asked.place, task)
    try:
        return cls(own, training)
    except SposError:
        raise
    except Exception as problem:  # a user's own code runs
        if asked.is_ours:
            raise
        reason = explain(problem, asked.place.folder)
        raise RecipeError(f"technique {asked.name}: cannot be made: {reason}") from problem


class TechniqueHooks(Callback):
    """Let techniques act at their places, and keep their state in checkpoints.

    Parameters
    ----------
    techniques
        Those of the training.
    data
        Its images.
    """

    def __init__(self, techniques: Techniques, data: ImageData | None):
        self._techniques = techniques
        self._data = data
        self._state: Mapping[str, Any] = {}
        self._steps = 0
        self._has_begun = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Here and not at the first step: a finished training that is resumed has none.
        self._techniques.begin(network_of(pl_module), self._data, self._state)
        self._has_begun = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._steps = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step > self._steps:  # not in every batch where gradients accumulate
            self._steps = trainer.global_step
            self._techniques.after_step(network_of(pl_module), self._steps)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for name, value in self._techniques.after_epoch(network_of(pl_module)).items():
            pl_module.log(name, value, sync_dist=trainer.world_size > 1)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._techniques.end(network_of(pl_module))

    def state_dict(self) -> dict[str, Any]:
        return self._techniques.state_dict() if self._has_begun else dict(self._state)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._state = state_dict


def network_of(module: LightningModule) -> nn.Module:
    """Return the network, or supernet, that a module of Lightning trains."""
    inner: Any = getattr(module, "training_module", module)
    network: nn.Module = inner.model
    return network
