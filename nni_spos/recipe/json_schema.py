"""The JSON Schema of a recipe, with which editors complete and check it.

Everything in it is taken from where it is declared. It refuses nothing that loading a recipe and
building its space accept; what JSON Schema cannot say is left to these.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from nni_spos.components import Key, Registry, declared_keys, described_parameters
from nni_spos.recipe.conversion_settings import ChoiceSettings, ModelSettings
from nni_spos.recipe.named_components import NamesComponent, Slot
from nni_spos.recipe.recipe import KEYS, LATENCY, OPTIONAL, OUTPUT, SECTIONS, Recipe
from nni_spos.recipe.registries import METRICS, TASKS
from nni_spos.recipe.settings import component_rule
from nni_spos.recipe.spaces import SPACES
from nni_spos.recipe.techniques import technique_keys
from nni_spos.recipe.training_settings import TrainSettings

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]


def recipe_schema() -> Schema:
    """Return the JSON Schema of recipes, draft 2020-12; it names what is installed here.

    Raises
    ------
    RecipeError
        A plug-in cannot be imported.
    """
    about = described_parameters(Recipe)
    properties: Schema = {
        "output": {"description": about["output"], **OUTPUT.json_schema()},
        "space": _space(),
        "model": _model(),
        "choices": _choices_of_models(),
        "task": {"description": about["task"], **_task()},
        **{name: _section(name, cls) for name, cls in SECTIONS.items()},
        "latency": {"description": about["latency"], **LATENCY.json_schema()},
        "metrics": {"description": about["metrics"], **_metrics()},
    }
    return {
        "$schema": DIALECT,
        "title": "Recipe of nni-spos",
        "type": "object",
        "properties": {name: properties[name] for name in KEYS},
        "required": [name for name in KEYS if name not in OPTIONAL],
        "oneOf": [{"required": ["space"]}, {"required": ["model"]}],
        "additionalProperties": False,
    }


def _section(name: str, cls: type[Any]) -> Schema:
    keys = declared_keys(cls)
    if issubclass(cls, TrainSettings):
        keys |= {key: declared for key, (_, declared) in technique_keys(name).items()}
    properties = {key: _key(value) for key, value in keys.items()}
    found: Schema = {"description": _first_sentence(cls), "type": "object"}
    if name in OPTIONAL:
        found["type"] = ["object", "null"]
    if required := [key for key, value in keys.items() if value.is_required]:
        found["required"] = required
    if issubclass(cls, NamesComponent):
        return {**found, "properties": properties, "allOf": _components(cls.slot, keys)}
    return {**found, "properties": properties, "additionalProperties": False}


def _space() -> Schema:
    rule = component_rule(SPACES)
    name = {"description": f"{rule.words}.", **rule.json_schema()}
    return {
        "description": "The search space, with arguments of its class.",
        "type": "object",
        "properties": {"name": name},
        "required": ["name"],
        "allOf": _choices(SPACES, {"name": True}),
    }


def _model() -> Schema:
    """Return what a network is named by; a function of a user's takes other keys as well."""
    keys = declared_keys(ModelSettings)
    return {
        "description": _first_sentence(ModelSettings),
        "type": "object",
        "properties": {key: _key(value) for key, value in keys.items()},
        "required": ["name"],
    }


def _choices_of_models() -> Schema:
    keys = declared_keys(ChoiceSettings)
    return {
        "description": _first_sentence(ChoiceSettings),
        "type": ["object", "null"],
        "properties": {key: _key(value) for key, value in keys.items()},
        "additionalProperties": False,
    }


def _task() -> Schema:
    name = component_rule(TASKS).json_schema()
    entry = {
        "type": "object",
        "properties": {"name": name},
        "required": ["name"],
        "allOf": _choices(TASKS, {"name": True}),
    }
    return {"anyOf": [name, entry, {"type": "null"}]}


def _choices(registry: Registry[Any], common: Mapping[str, Any]) -> list[Schema]:
    """Return, for each name that is known, which keys there are; a user's may have any."""
    return [
        {
            "if": {"properties": {"name": {"const": name}}, "required": ["name"]},
            "then": {
                "properties": {
                    **dict.fromkeys(common, True),
                    **{key: _key(value) for key, value in registry.keys(name).items()},
                },
                "additionalProperties": False,
            },
        }
        for name in registry.names()
    ]


def _components(slot: Slot, common: Mapping[str, Key]) -> list[Schema]:
    """Return, for each component that is known, which keys its section has; others may have any."""
    registry = slot.registry
    keys = {name: registry.keys(name) for name in registry.names()}
    families = {x: declared_keys(found) for x, found in registry.families().items()}
    aside = {k: x for name in registry.ours for k, x in keys[name].items()}
    found = []
    for name, own in [*keys.items(), *families.items()]:
        is_family = name in families
        taken = {**aside, **own} if slot.ignores_others else own
        # A condition holds where the key is missing, unless it is required.
        required = [] if name == common[slot.key].default else [slot.key]
        found.append(
            {
                "if": {
                    "properties": {
                        slot.key: {"pattern": f"^{name}:"} if is_family else {"const": name}
                    },
                    "required": required,
                },
                "then": {
                    "properties": {
                        **dict.fromkeys(common, True),
                        **{key: _key(value) for key, value in taken.items()},
                    },
                    "additionalProperties": False,
                },
            }
        )
    return found


def _metrics() -> Schema:
    name = component_rule(METRICS).json_schema()
    entry = {"type": "object", "properties": {"name": name}, "required": ["name"]}
    return {"type": ["array", "null"], "items": {"anyOf": [name, entry]}}


def _key(key: Key) -> Schema:
    found = dict(key.schema)
    words = [key.description, f"Must be {key.rule}." if key.rule else ""]
    if text := " ".join(filter(None, words)):
        found["description"] = text
    if not key.is_required:
        found["default"] = _plain(key.default)
    return found


def _plain(value: Any) -> Any:
    """Return a default as JSON has it."""
    return [_plain(x) for x in value] if isinstance(value, list | tuple) else value


def _first_sentence(cls: type[Any]) -> str:
    return inspect.cleandoc(cls.__doc__ or "").partition("\n")[0]
