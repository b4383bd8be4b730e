"""A step of a training that leaves the weights as they are."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from nni_spos.data import DatasetSpec
from nni_spos.data.generated import GeneratedData
from nni_spos.recipe.training_settings import TrainSettings
from nni_spos.tasks.base import Task
from nni_spos.training.composed import build_techniques
from nni_spos.training.evaluator import choose_precision
from nni_spos.training.module import TaskModule
from nni_spos.training.resizing import resize, resize_targets


def choose_device() -> torch.device:
    """Return the device that trainings and searches use."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Trainee:
    """A network that can be trained for a step, and has the weights of before afterwards."""

    def __init__(
        self,
        network: nn.Module,
        settings: TrainSettings,
        layout: torch.memory_format,
        spec: DatasetSpec,
        task: Task,
    ):
        self._settings = settings
        self._layout = layout
        self._spec = spec
        self._task = task
        self._module = TaskModule(settings, layout, task=task)
        self._module.set_model(network)  # refuses learning rates of parts that it lacks
        build_techniques(settings, spec, task).check_network(network)
        self._optimizer = self._module.build_optimizer()
        for group in self._optimizer.param_groups:
            group["lr"] = 0.0

    def train(self, num_images: int) -> None:
        """Do a step at every size that the images of a training have."""
        images, targets = GeneratedData(self._spec, num_images, 0).train_batch()
        device = choose_device()
        images, targets = images.to(device), targets.to(device)
        self._module.train()
        for size in (None, *(size for size, _ in self._settings.progressive_resizing)):
            self._optimizer.zero_grad()
            resized = resize(images, size).to(memory_format=self._layout)
            with _autocast(self._settings.precision, device):
                spec = replace(self._spec, image_size=tuple(resized.shape[-2:]))
                outputs = self._task.check_outputs(
                    self._module(resized), len(targets), spec, training=True
                )
                loss = self._module.loss(outputs, resize_targets(targets, size))
            loss.backward()
            if self._has_finite_gradients():  # else not even a learning rate of 0 keeps the weights
                self._optimizer.step()
        self._optimizer.zero_grad()

    def _has_finite_gradients(self) -> bool:
        parameters = (p for group in self._optimizer.param_groups for p in group["params"])
        return all(bool(p.grad.isfinite().all()) for p in parameters if p.grad is not None)


def _autocast(precision: str, device: torch.device) -> torch.autocast:
    name = choose_precision(precision)
    dtype = torch.float16 if name == "16-mixed" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=name != "32-true")
