"""The recipes of an experiment: variants of one recipe."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

from nni_spos.errors import RecipeError
from nni_spos.files.yaml_files import parse_yaml, read_yaml
from nni_spos.study.description import OUTPUT, Study

Content = dict[str, Any]


def merge_recipes(
    study: Study, scale_name: str, overrides: Sequence[Content], output: FilePath
) -> dict[str, Content]:
    """Return the contents of a scale's recipes by name, with absolute file names.

    Later changes win: the scale's, the variant's, then `overrides`. A key that is changed to null
    is left out, and so has its default; a new ``name`` of the space brings its own arguments.

    Parameters
    ----------
    study, scale_name
        Which recipes.
    overrides
        Changes of all recipes.
    output
        Folder of the experiment's results. Every variant has a folder in it, of its own name or,
        to share a supernet, of another's (its key ``output``).

    Raises
    ------
    RecipeError
        A base recipe cannot be read.
    """
    scale = study.scale(scale_name)
    recipes = {}
    for name, changes in scale.variants.items():
        variant = dict(changes or {})
        base = variant.pop("base", scale.base)
        content = _located(
            read_yaml(os.path.realpath(study.file.parent / base)), (study.folder / base).parent
        )
        for layer in (scale.changes, variant):
            content = merge(content, _located(layer, study.folder))
        for layer in overrides:
            content = merge(content, _located(layer, FilePath.cwd()))
        content[OUTPUT] = str(output / variant.get(OUTPUT, name))
        recipes[name] = content
    return recipes


def merge(content: Mapping[str, Any], changes: Mapping[str, Any]) -> Content:
    """Return a recipe's content with some keys of its sections changed.

    >>> merge({"search": {"seed": 0, "top_k": 5}}, {"search": {"seed": 1, "top_k": None}})
    {'search': {'seed': 1}}
    >>> merge({"space": {"name": "fbnet", "dropout": 0.2}}, {"space": {"name": "resnet18"}})
    {'space': {'name': 'resnet18'}}
    """
    merged = dict(copy.deepcopy(content))
    for name, section in changes.items():
        before = merged.get(name)
        if isinstance(before, dict) and isinstance(section, Mapping):
            section = {**({} if name == "space" and "name" in section else before), **section}
            section = {key: value for key, value in section.items() if value is not None}
        merged[name] = section
    return merged


def read_override(text: str) -> Content:
    """Read ``SECTION.KEY=VALUE``; the value is YAML. Raises RecipeError.

    >>> read_override("search.constraints=[flops <= 2M]")
    {'search': {'constraints': ['flops <= 2M']}}
    """
    key, equals, value = text.partition("=")
    section, dot, name = key.strip().partition(".")
    if not (equals and dot and section and name):
        raise RecipeError(f"--set: {text!r:.80} is not SECTION.KEY=VALUE, e.g. supernet.epochs=2.")
    try:
        return {section: {name: parse_yaml(value)}}
    except Exception as problem:  # PyYAML fails in many ways
        raise RecipeError(f"--set: {text!r:.80}: the value is not YAML ({problem}).") from None


def _located(content: Mapping[str, Any], folder: FilePath) -> Content:
    """Return a copy whose files are named from anywhere."""
    located = copy.deepcopy(dict(content))
    data, latency = located.get("data"), located.get("latency")
    if isinstance(data, dict) and isinstance(data.get("root"), str):
        data["root"] = _absolute(data["root"], folder)
    if isinstance(latency, list):
        located["latency"] = [
            _absolute(file, folder) if isinstance(file, str) else file for file in latency
        ]
    return located


def _absolute(file: str, folder: FilePath) -> str:
    return os.path.realpath(folder / os.path.expanduser(file))
