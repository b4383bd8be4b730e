"""The networks that a recipe can name, with their weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from pathlib import Path as FilePath
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from nni_spos.components import Registry, explain
from nni_spos.errors import CheckpointError, RecipeError, SpaceError, text_of, unknown
from nni_spos.files.tensors import load_tensors
from nni_spos.recipe.conversion_settings import check_model_name, is_weights_file

HOLDERS = ("state_dict", "model_state_dict", "model", "weights")
"""Keys under which checkpoints of others keep a state dict."""

PREFIXES = ("module.", "_orig_mod.", "model.")
"""What wrappers put before all names: DataParallel, torch.compile, Lightning modules."""


class ModelRegistry(Registry[Callable[..., nn.Module]]):
    """Functions and classes of a user's that make a network."""

    def problem(self, found: Any, module: ModuleType) -> str:
        """Return why what was found cannot make a network, or ""."""
        if inspect.isclass(found) and issubclass(found, nn.Module):
            return ""
        if not inspect.isfunction(found):
            return f"is a {type(found).__name__}, not a function that returns a torch.nn.Module."
        if found.__module__ != module.__name__:
            return (
                f"'{found.__name__}' comes from '{found.__module__}'. Write a function of your own "
                "that calls it."
            )
        return ""


MODELS = ModelRegistry("network", {}, group="nni_spos.networks", base="torch.nn:Module")


def build_model(
    model: Mapping[str, Any], num_classes: int | None, folder: FilePath | None
) -> nn.Module:
    """Build the network that a recipe names, with its weights, in evaluation mode.

    Parameters
    ----------
    model
        The section ``model`` of a recipe.
    num_classes
        Of the data, where the section does not say how many outputs there are.
    folder
        Of the recipe, where a user's module is looked for.

    Raises
    ------
    RecipeError
        There is no such network, or it refuses its arguments.
    SpaceError
        Published weights are not there and cannot be downloaded.
    CheckpointError
        A file of weights is missing, damaged, or one of another network.
    """
    name, weights = str(model["name"]), model.get("weights")
    check_model_name(name, "model.name")
    family, _, rest = name.partition(":")
    arguments = {k: v for k, v in model.items() if k not in ("name", "weights", "ignore")}
    if num_classes is not None:
        arguments.setdefault("num_classes", num_classes)
    published = weights if weights and not is_weights_file(weights) else None
    if family == "torchvision":
        network = _from_torchvision(rest, published, arguments)
    elif family == "timm":
        network = _from_timm(rest, published, arguments)
    else:
        if published:
            raise RecipeError(
                f"model: weights: {published!r} is no file. Networks of your own have weights in a "
                "file, such as mine.pt."
            )
        network = _from_user(name, arguments, folder)
    if weights and not published:
        load_weights(network, FilePath(weights))
    return network.eval()


def _from_torchvision(name: str, weights: str | None, arguments: dict[str, Any]) -> nn.Module:
    from torchvision import models

    names = models.list_models(module=models)
    if name not in names:
        raise RecipeError(f"model: {unknown('network of torchvision', name, names)}")
    network = _made(f"torchvision:{name}", models.get_model_builder(name), arguments)
    if weights is None:
        return network
    enum = models.get_model_weights(name)
    known = [x.name for x in enum]
    if weights != "DEFAULT" and weights not in known:
        raise RecipeError(f"model: {unknown('weights', weights, [*known, 'DEFAULT'])}")
    entry = enum.DEFAULT if weights == "DEFAULT" else enum[weights]
    file = FilePath(torch.hub.get_dir()) / "checkpoints" / FilePath(entry.url).name
    try:
        state = entry.get_state_dict(progress=False, check_hash=True)
    except Exception as problem:  # whatever a network and a file system can do
        raise _not_downloaded(f"torchvision:{name}", str(file), entry.url, problem) from None
    take_weights(network, state, f"weights {entry.name}")
    return network


def _from_timm(name: str, weights: str | None, arguments: dict[str, Any]) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise RecipeError(
            f"model: timm:{name} needs timm. Install it: pip install 'nni_spos[timm]'."
        ) from None
    names = [*timm.list_models(), *timm.list_pretrained()]
    if name not in names:
        raise RecipeError(f"model: {unknown('network of timm', name, names)}")
    if weights not in (None, "DEFAULT"):
        raise RecipeError(
            f"model: weights: got {weights!r}; must be DEFAULT, those that timm has for a network, "
            f"or a file. Others have names of their own: timm:{name}.TAG."
        )
    try:
        return _made(f"timm:{name}", timm.create_model, {"model_name": name, **arguments}, weights)
    except OSError as problem:
        config = timm.get_pretrained_cfg(name)
        source = (config and (config.url or config.hf_hub_id)) or "its page"
        raise _not_downloaded(f"timm:{name}", "a file", str(source), problem) from None


def _from_user(name: str, arguments: dict[str, Any], folder: FilePath | None) -> nn.Module:
    factory = MODELS.find(name, folder)
    parameters = inspect.signature(factory).parameters
    takes_all = any(x.kind is x.VAR_KEYWORD for x in parameters.values())
    if "num_classes" not in parameters and not takes_all:
        arguments.pop("num_classes", None)
    strange = [key for key in arguments if key not in parameters]
    if strange and not takes_all:
        raise RecipeError(f"model {name}: {unknown('argument', strange[0], list(parameters))}")
    return _made(name, factory, arguments, folder=folder)


def _made(
    name: str,
    factory: Callable[..., Any],
    arguments: Mapping[str, Any],
    weights: str | None = None,
    folder: FilePath | None = None,
) -> nn.Module:
    """Return the network that a function makes. Raises RecipeError for whatever it raises."""
    more = {"pretrained": True} if weights else {}
    try:
        network = factory(**arguments, **more)
    except OSError:
        raise
    except Exception as problem:  # the code of others
        raise RecipeError(f"model {name}: {explain(problem, folder)}") from problem
    if not isinstance(network, nn.Module):
        raise RecipeError(f"model {name}: gave a {type(network).__name__}, not a torch.nn.Module.")
    return network


def _not_downloaded(name: str, file: str, source: str, problem: Exception) -> SpaceError:
    return SpaceError(
        f"model {name}: its weights are not here and could not be downloaded ({text_of(problem)}). "
        f"Where there is a network, download {source} to {file}, or give the file: weights: FILE."
    )


def load_weights(network: nn.Module, file: FilePath) -> None:
    """Give a network the weights of a file.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, would run code, or is one of another network.
    """
    take_weights(network, read_state_dict(file), str(file))


def read_state_dict(file: FilePath) -> Mapping[str, Any]:
    """Return the state dict of a file, or the one that it holds under one of `HOLDERS`.

    Nothing in the file is executed. The values are whatever stands under the names.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, would run code, or holds no state dict.
    """
    if file.suffix == ".safetensors":
        content = _read_safetensors(file)
    else:
        content = load_tensors(file, "Give the file of a state dict.")
    for holder in HOLDERS:
        if isinstance(content, Mapping) and isinstance(content.get(holder), Mapping):
            content = content[holder]
            break
    if not isinstance(content, Mapping) or not all(isinstance(x, str) for x in content):
        raise CheckpointError(f"{file}: is no state dict: it has no names of weights.")
    return content


def _read_safetensors(file: FilePath) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise CheckpointError(
            f"{file}: needs safetensors. Install it: pip install safetensors."
        ) from None
    try:
        return load_file(file)
    except Exception as problem:  # it has errors of its own
        raise CheckpointError(f"{file}: cannot be read ({text_of(problem)}).") from None


def without_wrapper(state: Mapping[str, Any], names: Collection[str]) -> Mapping[str, Any]:
    """Return a state dict without what a wrapper put before all its names.

    Parameters
    ----------
    state
        By name.
    names
        Those of the network, which may begin like that themselves.
    """
    for prefix in PREFIXES:
        is_wrapped = state and all(name.startswith(prefix) for name in state)
        if is_wrapped and not any(name.startswith(prefix) for name in names):
            state = {name.removeprefix(prefix): x for name, x in state.items()}
    return state


def take_weights(network: nn.Module, state: Mapping[str, Any], source: str) -> None:
    """Give a network the weights of a state dict; a last layer with other classes begins anew.

    Parameters
    ----------
    network
        It is changed in place.
    state
        Its names may have a prefix in common.
    source
        Where it comes from, for messages.

    Raises
    ------
    CheckpointError
        It is one of another network; names and shapes are said.
    """
    expected = network.state_dict()
    state = without_wrapper(state, expected)
    counters = {x for x in expected if x.endswith("num_batches_tracked")}
    missing = [x for x in expected if x not in state and x not in counters]
    strange = [x for x in state if x not in expected]
    shapes = {x: tuple(getattr(state[x], "shape", ())) for x in state}
    differ = [x for x in expected if x in state and shapes[x] != tuple(expected[x].shape)]
    if differ and {x.rpartition(".")[0] for x in differ} == {_last_layer(network)}:
        state = {name: x for name, x in state.items() if name not in differ}
        differ = []
    if missing or strange or differ:
        found = [
            *(f"'{x}' is missing" for x in missing[:2]),
            *(f"'{x}' is unknown" for x in strange[:2]),
            *(f"'{x}' is {shapes[x]}, not {tuple(expected[x].shape)}" for x in differ[:2]),
        ]
        raise CheckpointError(
            f"{source}: belongs to another network: {'; '.join(found)} ({len(missing)} missing, "
            f"{len(strange)} unknown, {len(differ)} of another shape)."
        )
    try:
        network.load_state_dict(dict(state), strict=False)
    except Exception as problem:  # values that are no tensors
        raise CheckpointError(f"{source}: cannot be loaded ({text_of(problem)}).") from None


def _last_layer(network: nn.Module) -> str:
    """Return the name of the last linear layer or convolution, which gives the classes."""
    names = [n for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    return names[-1] if names else ""
