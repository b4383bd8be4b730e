"""What every search space promises."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn

from nni_spos.modules.active_path import choice_units, set_path
from nni_spos.modules.subnet import extract_subnet
from nni_spos.path import Path, PathSpace
from nni_spos.priors import UniformPrior
from nni_spos.spaces import Form, build_space, default_input_shape
from nni_spos.supernet import SinglePathOneShot

NUM_KEPT = 3
"""Networks of paths that a case keeps: all would take gigabytes."""

TOLERANCE = 1e-5
"""Largest difference of outputs, as a share of the largest of them, but at least of 1."""


class SpaceCase:
    """A space as a recipe names it, and its supernet with weights that look trained.

    Otherwise outputs would vanish, and comparisons would show nothing.

    Parameters
    ----------
    name
        As in the section ``space`` of a recipe.
    arguments
        Other keys of that section.
    folder
        Where a user's module is looked for: the recipe's folder.
    num_classes
        Of the data.
    batch_size
        Images that networks are compared with.
    num_paths
        Random paths whose networks are compared, besides those that cover all choices.
    """

    def __init__(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        folder: str | os.PathLike[str] | None = None,
        num_classes: int = 10,
        batch_size: int = 4,
        num_paths: int = 5,
    ):
        self.name = name
        self._arguments = dict(arguments or {})
        self._folder = None if folder is None else FilePath(folder).absolute()
        self.num_classes = num_classes
        torch.manual_seed(0)
        self.space = self.build()
        self.path_space = PathSpace.from_model_space(self.space)
        self.supernet = SinglePathOneShot().mutate_model(copy.deepcopy(self.space)).eval()
        _randomize(self.supernet)
        self.x = torch.randn(batch_size, *default_input_shape(self.space))
        draws = UniformPrior(self.path_space).draw(num_paths, np.random.default_rng(0))
        # Every choice of every unit, and some mixtures of them.
        self.paths = self.path_space.covering() + self.path_space.decode(draws)

    def build(self, path: Path | None = None) -> ModelSpace:
        """Build the space, or the network of one of its paths."""
        return build_space(
            self.name,
            self._arguments,
            Form.SUPERNET,
            num_classes=self.num_classes,
            path=path,
            folder=self._folder,
        )

    @functools.cached_property
    def outputs(self) -> list[Tensor]:
        """Logits of the network of each path, shape (N, num_classes)."""
        return self._extracted[0]

    @functools.cached_property
    def subnets(self) -> list[nn.Module]:
        """Networks of the first paths, with the supernet's weights."""
        return self._extracted[1]

    @functools.cached_property
    def _extracted(self) -> tuple[list[Tensor], list[nn.Module]]:
        outputs: list[Tensor] = []
        subnets: list[nn.Module] = []
        for path in self.paths:
            subnet = extract_subnet(self.supernet, path).eval()
            shared = storages(subnet) & storages(self.supernet)
            assert not shared, "the network of a path shares its weights with the supernet"
            with torch.no_grad():
                outputs.append(subnet(self.x))
            if len(subnets) < NUM_KEPT:
                subnets.append(subnet)
        return outputs, subnets


def has_something_to_choose(case: SpaceCase) -> None:
    """It has labels with more than one choice, and its supernet has the same."""
    assert case.path_space.size > 1, "there is one path only"
    found = PathSpace.from_model_space(case.supernet)
    assert found == case.path_space, "the supernet has other labels or choices than the space"


def is_kept_as_a_search_space(case: SpaceCase) -> None:
    """NNI's search-space JSON has the same labels and choices."""
    json = case.path_space.to_search_space()
    assert PathSpace.from_search_space(json) == case.path_space


def returns_a_logit_for_every_class(case: SpaceCase) -> None:
    """The network of every path takes images and returns finite logits."""
    for path, output in zip(case.paths, case.outputs, strict=True):
        shape = (len(case.x), case.num_classes)
        assert output.shape == shape, f"{path}: outputs of shape {tuple(output.shape)}, not {shape}"
        assert output.isfinite().all(), f"{path}: outputs that are not finite"


def differs_from_path_to_path(case: SpaceCase) -> None:
    """Two paths are two networks: their outputs differ."""
    first, *rest = case.outputs
    assert first.std() > 0.01, "all outputs are the same"
    for path, other in zip(case.paths[1:], rest, strict=True):
        if path != case.paths[0]:
            assert _difference(first, other) > 0.01, f"{path} is the network of {case.paths[0]}"


def runs_a_path_as_its_own_network(case: SpaceCase) -> None:
    """The supernet at a path gives what the network of that path gives, whatever ran before."""
    first = case.paths[0], case.outputs[0]
    # The first once more at the end: what ran in between leaves nothing behind.
    for path, expected in [*zip(case.paths, case.outputs, strict=True), first]:
        with torch.no_grad():
            found = choose(case.supernet, path)(case.x)
        assert _is_close(found, expected), f"{path}: the supernet gives other outputs"


def builds_the_network_of_a_path(case: SpaceCase) -> None:
    """Built for a path, the class makes the network that takes the supernet's weights."""
    for path, subnet, expected in zip(case.paths, case.subnets, case.outputs, strict=False):
        network = case.build(path)
        assert not network.simplify(), f"{path}: something is left to choose"
        network.load_state_dict(subnet.state_dict(), strict=True)
        with torch.no_grad():
            found = network.eval()(case.x)
        assert _is_close(found, expected), f"{path}: built anew it gives others"


def freezes_to_the_network_of_a_path(case: SpaceCase) -> None:
    """NNI's own freeze makes the same layers."""
    names = [(name, x.shape) for name, x in case.subnets[0].state_dict().items()]
    frozen = case.space.freeze(case.paths[0]).state_dict()
    assert [(name, x.shape) for name, x in frozen.items()] == names


CHECKS: tuple[Callable[[SpaceCase], None], ...] = (
    has_something_to_choose,
    is_kept_as_a_search_space,
    returns_a_logit_for_every_class,
    differs_from_path_to_path,
    runs_a_path_as_its_own_network,
    builds_the_network_of_a_path,
    freezes_to_the_network_of_a_path,
)
"""The suite."""


def choose(supernet: nn.Module, path: Path) -> nn.Module:
    """Set a path in a supernet and return it."""
    set_path(choice_units(supernet), path)
    return supernet


def storages(network: nn.Module) -> set[int]:
    """Return where the values of a network lie in memory."""
    tensors = [*network.parameters(), *network.buffers()]
    return {tensor.untyped_storage().data_ptr() for tensor in tensors} - {0}


def _is_close(found: Tensor, expected: Tensor) -> bool:
    return _difference(found, expected) < TOLERANCE * max(1.0, expected.abs().max().item())


def _difference(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


def _randomize(supernet: nn.Module) -> None:
    for module in supernet.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, 0.0, (2 / fan_in) ** 0.5)
            if module.bias is not None:
                nn.init.normal_(module.bias, 0.0, 0.1)
        elif isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            nn.init.normal_(module.running_mean, 0.0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            module.num_batches_tracked.fill_(7)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.2)
                nn.init.normal_(module.bias, 0.0, 0.1)
        for parameter in module.parameters(recurse=False):
            if parameter.dim() == 0:  # a clipping value
                nn.init.uniform_(parameter, 1.0, 4.0)
