"""Knowledge distillation: ``kd``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from nni_spos.components import load
from nni_spos.errors import RecipeError, text_of, unknown
from nni_spos.recipe.data_settings import RGB
from nni_spos.recipe.settings import TEXT, optional, real, setting
from nni_spos.training.technique import RETRAIN, Compute, Technique

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nni_spos.data import ImageData

LARGEST = "largest"
"""Stands for the space's largest path, which is trained first."""

TORCHVISION = "torchvision:"

KD_LOSS = "kd_loss"
"""Name under which is logged how far the network is from its teacher."""

LOAD_NETWORK = "nni_spos.retraining.network:load_network"
"""By name, as a registry has it: what retrains stands above what trains."""


class Distillation(Technique):
    """Let a trained network, the teacher, say beside the targets what the outputs should be.

    The loss is ``(1 - weight) * loss + weight * T^2 * KL(teacher / T, network / T)`` of the softmax
    of both outputs, with the temperature T. The teacher sees the images that the network sees. The
    loss of the targets and ``T^2 * KL`` are logged each by itself.

    References
    ----------
    Hinton et al., Distilling the Knowledge in a Neural Network, 2015.
    """

    title = "kd"
    targets = ("class",)

    @dataclass(frozen=True)
    class Settings:
        """What the technique takes from a recipe.

        Parameters
        ----------
        kd
            Teacher: a file of nni-spos retrain, torchvision:NAME, or, in retrain, largest: the
            space's path with the most multiply-adds, trained first with the same settings; null:
            none.
        kd_weights
            Weights of a model of torchvision.
        kd_temperature
            What outputs are divided by.
        kd_weight
            Share of the teacher in the loss.
        """

        kd: str | None = setting(optional(TEXT), None)
        kd_weights: str = setting(TEXT, "DEFAULT")
        kd_temperature: float = setting(real(0.01), 4.0)
        kd_weight: float = setting(real(0, 1), 0.5)

    @classmethod
    def files(cls, settings: Settings) -> Sequence[str]:
        """The teacher may be a file."""
        name = settings.kd or LARGEST
        return () if name == LARGEST or name.startswith(TORCHVISION) else ("kd",)

    def __init__(self, settings: Settings, training: Any):
        super().__init__(settings, training)
        if settings.kd == LARGEST and training.section != RETRAIN:
            raise RecipeError(
                "kd: largest is for retrain, whose settings train the teacher. Name the file of a "
                "retrained network."
            )
        self._teacher: _Teacher | None = None
        self._images: Tensor | None = None
        self._taught: Tensor | None = None
        self._figures: Mapping[str, Tensor] = {}

    def check_network(self, network: nn.Module) -> None:
        # The largest path is trained between this and the training.
        if self.settings.kd != LARGEST or self.training.place.teacher is not None:
            self._open()

    def begin(self, network: nn.Module, data: ImageData | None) -> None:
        device = next(network.parameters()).device
        self._teacher = self._open()
        self._teacher.to(device)

    def batch(self, images: Tensor, targets: Tensor, step: int) -> Tensor:
        self._images, self._taught = images, None
        return images

    def loss(self, compute: Compute, outputs: Tensor, targets: Tensor) -> Tensor:
        from torch.nn import functional

        assert self._teacher is not None
        assert self._images is not None
        temperature, weight = self.settings.kd_temperature, self.settings.kd_weight
        if self._taught is None:  # else another path of the step has asked
            self._taught = self._teacher(self._images)
        ours, theirs = (
            functional.log_softmax(x.float() / temperature, 1) for x in (outputs, self._taught)
        )
        distance = functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)
        plain = compute(outputs, targets)
        shown = temperature**2 * distance.detach()
        self._figures = {"loss": plain.detach(), KD_LOSS: shown}
        return (1 - weight) * plain + weight * temperature**2 * distance

    def step_figures(self) -> Mapping[str, Tensor]:
        return self._figures

    def end(self, network: nn.Module) -> None:
        self._teacher = self._images = self._taught = None
        self._figures = {}

    def _open(self) -> _Teacher:
        """Return the teacher. Raises RecipeError, or CheckpointError for a damaged file."""
        name: str = self.settings.kd
        spec = self.training.spec
        if name.startswith(TORCHVISION):
            teacher, classes = self._torchvision(name.removeprefix(TORCHVISION))
        else:
            teacher, classes = self._retrained(name)
        if classes != spec.num_classes:
            raise RecipeError(
                f"kd: the teacher {name} knows {classes} classes, the images have "
                f"{spec.num_classes}. Take a teacher of the same data set."
            )
        return teacher

    def _retrained(self, name: str) -> tuple[_Teacher, int]:
        from nni_spos.data.transforms import describe_preprocessing

        place, spec = self.training.place, self.training.spec
        file = place.teacher if name == LARGEST else None
        if file is None:
            file = (place.folder or FilePath()) / os.path.expanduser(name)
        if not file.is_file():
            raise RecipeError(
                f"kd: there is no file {file}. Give a file of nni-spos retrain, torchvision:NAME, "
                f"or {LARGEST}."
            )
        trained = load(LOAD_NETWORK)(file, self._users_space())
        prepared = describe_preprocessing(spec)
        for key in ("channels", "bits", "image_size", "mean", "std"):
            theirs, ours = trained.preprocessing.get(key), prepared[key]
            if theirs != ours:
                raise RecipeError(
                    f"kd: the teacher {name} takes images with {key} {theirs}, here it is {ours}. "
                    "Take one that was trained on images prepared alike."
                )
        return _Teacher(trained.network), trained.space.num_classes

    def _users_space(self) -> nn.Module | None:
        """Return the recipe's space if it is not ours: only that is imported, never a file's."""
        from nni_spos.spaces import SPACES, Form, build_space

        place, spec = self.training.place, self.training.spec
        if place.space is None or place.space in SPACES.ours:
            return None
        found: nn.Module = build_space(
            place.space,
            place.arguments,
            Form.SUBNET,
            num_classes=spec.num_classes,
            in_channels=spec.channels,
            input_size=spec.image_size,
            task_arguments={"num_classes": spec.num_classes, "num_outputs": spec.num_classes},
            folder=place.folder,
        )
        return found

    def _torchvision(self, name: str) -> tuple[_Teacher, int]:
        import torch
        from torchvision import models

        spec = self.training.spec
        known = models.list_models(module=models)
        if name not in known:
            raise RecipeError(f"kd: {unknown('torchvision model', name, known)}")
        choices = models.get_model_weights(name)
        if self.settings.kd_weights not in choices.__members__:
            problem = unknown("entry", self.settings.kd_weights, list(choices.__members__))
            raise RecipeError(f"kd_weights: {name} has it not: {problem}")
        if spec.channels != 3:
            raise RecipeError(f"kd: {name} takes images of 3 channels, these have {spec.channels}.")
        if spec.channel_order != RGB:
            raise RecipeError(
                f"kd: {name} takes images in the order {RGB}, and data.channel_order is "
                f"{spec.channel_order}. Name a teacher of your own."
            )
        weights = choices[self.settings.kd_weights]
        classes = len(weights.meta["categories"])
        if classes != spec.num_classes:
            return _Teacher(torch.nn.Identity()), classes  # refused before anything is downloaded
        try:
            network = models.get_model(name, weights=weights)
        except (OSError, RuntimeError) as problem:
            raise RecipeError(
                f"kd: cannot get the weights of {name} ({text_of(problem)}). Download them where "
                "there is a network, into torch.hub's folder."
            ) from None
        prepared = weights.transforms()
        ours, theirs = (
            torch.tensor([x.mean, x.std]).view(2, 1, -1, 1, 1) for x in (spec, prepared)
        )
        # Ours undone, theirs done: one factor and one summand for each channel.
        return _Teacher(network, ours[1] / theirs[1], (ours[0] - theirs[0]) / theirs[1]), classes


class _Teacher:
    """A network that only speaks, of images that another one gets.

    Parameters
    ----------
    network
        Returns logits.
    scale, offset
        From the other network's images to its own; None: they are the same.
    """

    def __init__(
        self, network: nn.Module, scale: Tensor | None = None, offset: Tensor | None = None
    ):
        self._network = network.eval().requires_grad_(requires_grad=False)
        self._scale = scale
        self._offset = offset

    def to(self, device: Any) -> None:
        """Move to a device."""
        self._network.to(device)
        if self._scale is not None and self._offset is not None:
            self._scale, self._offset = self._scale.to(device), self._offset.to(device)

    def __call__(self, images: Tensor) -> Tensor:
        import torch

        with torch.no_grad():
            images = images.to(next(self._network.parameters(), images).dtype)
            if self._scale is not None and self._offset is not None:
                images = images * self._scale + self._offset
            found: Tensor = self._network(images)
            return found
