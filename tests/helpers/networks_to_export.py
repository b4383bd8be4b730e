"""Trained networks in files, with their recipes, and a format that only remembers them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from tiny_space import TINY_SPACE
from torch import nn
from trained_recipes import write_untrained

from nni_spos.data import open_data
from nni_spos.recipe.recipe import Recipe, load_recipe
from nni_spos.retraining.network import SpaceArguments, TrainedNetwork, save_network
from nni_spos.spaces import Form
from nni_spos.supernet.building import build_recipe_space

PATH = {"layer_1": "k5", "layer_2": "xcep", "layer_3": "k3"}

MEMORY = '''
"""A format that remembers networks, and may get them wrong."""

import dataclasses

from nni_spos.export.base import Exporter
from nni_spos.recipe.settings import real, setting

WRITTEN = {}


@dataclasses.dataclass(frozen=True)
class Memory(Exporter):
    """Remembers a network.

    Parameters
    ----------
    error
        Added to its outputs.
    """

    error: float = setting(real(0), 0.0)
    file = "model.txt"
    is_graph = False

    def write(self, model, folder):
        (folder / self.file).write_text("here")
        WRITTEN["network"] = model.network

    def open(self, folder, threads=None, network=None):
        import torch

        def run(images):
            with torch.no_grad():
                return WRITTEN["network"](torch.from_numpy(images)).numpy() + self.error

        return run
'''


def write_retrained(
    folder: Path,
    path: dict[str, Any] = PATH,
    space: dict[str, Any] | None = None,
    **sections: Any,
) -> Recipe:
    """Write a recipe, and a network of a path as if it was trained, and the format beside it."""
    recipe = write_untrained(folder, **sections)
    if space is not None:
        content = yaml.safe_load(recipe.file.read_text())
        recipe.file.write_text(yaml.safe_dump({**content, "space": space}))
        recipe = load_recipe(recipe.file)
    data = open_data(recipe.data, task=recipe.task)
    network = build_recipe_space(recipe, Form.SUBNET, 0, path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.bias, -0.5, 0.5)
                module.momentum = None  # statistics of the images below
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.5)
        images = next(iter(data.validation_batches(50)))[0]
        with torch.no_grad():
            network.train()(images)
        centre(network.eval(), images)
    spec = data.spec
    trained = TrainedNetwork(
        network=network.eval(),
        path=path,
        costs={"flops": 1000.0},
        settings={"epochs": 1},
        preprocessing=data.preprocessing,
        space=SpaceArguments(
            recipe.space.name,
            dict(recipe.space.arguments),
            spec.num_classes,
            spec.channels,
            spec.image_size,
            dict(data.task.space_arguments(spec)),
        ),
        test={"top1": 10.0, "num_images": 20},
        task={"name": recipe.task.name, **recipe.task.arguments},
    )
    save_network(recipe.files.retrained, trained)
    (folder / "memory_format.py").write_text(MEMORY)
    return recipe


def centre(network: nn.Module, images: torch.Tensor) -> None:
    """Let the outputs of images have the mean 0, so that not all are of one class."""
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    seen: list[torch.Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        mean = network(images).mean(0)
        features = seen[0].mean(0)
        last.weight -= torch.outer(mean, features) / (features @ features)
    hook.remove()


__all__ = ["MEMORY", "PATH", "TINY_SPACE", "write_retrained"]
