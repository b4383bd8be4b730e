"""What the reference says of the code, read from the code. Needs neither Sphinx nor PyTorch."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from nni_spos import cli, errors
from nni_spos.recipe import (
    DataSettings,
    EvaluationSettings,
    RetrainSettings,
    SearchSettings,
    SupernetSettings,
    TrainSettings,
)
from nni_spos.recipe.conversion_settings import ChoiceSettings, ModelSettings
from nni_spos.recipe.output import Output, SearchFolder
from nni_spos.recipe.registries import TECHNIQUES
from nni_spos.recipe.techniques import technique_keys

ROOT = Path(__file__).parents[2]
SEARCH_SPACES = ROOT / "search_spaces"

POSITIONALS = {
    "recipe": "a recipe (YAML)",
    "config": "an NNI configuration (YAML)",
    "id": "NNI's id of the experiment",
}
"""Arguments whose name says enough for ``--help``."""


@dataclasses.dataclass(frozen=True)
class Fact:
    """One entry of the reference.

    Parameters
    ----------
    name
        As a user writes it.
    rule
        What it takes, in words, with its default; empty where there is nothing to say.
    text
        What it means; empty where a page says it.
    """

    name: str
    rule: str
    text: str = ""


def explanations(body: str, facts: Sequence[Fact]) -> list[Fact]:
    """Return entries with the explanations of a page, where the code has none of its own.

    Parameters
    ----------
    body
        Name to explanation, as YAML.
    facts
        Entries of the reference.

    Raises
    ------
    ValueError
        An entry is explained neither there nor in the code, or there is no such entry.
    """
    found = yaml.safe_load(body) or {}
    names = [fact.name for fact in facts]
    missing = [fact.name for fact in facts if not fact.text and fact.name not in found]
    unknown = [name for name in found if name not in names]
    if missing or unknown:
        raise ValueError(
            f"not explained here: {', '.join(missing) or 'none'}; "
            f"explained, but not in the code: {', '.join(unknown) or 'none'}"
        )
    return [dataclasses.replace(x, text=str(found.get(x.name, x.text))) for x in facts]


SECTIONS = {
    "model": ModelSettings,
    "choices": ChoiceSettings,
    "data": DataSettings,
    "training": TrainSettings,
    "supernet": SupernetSettings,
    "evaluation": EvaluationSettings,
    "search": SearchSettings,
    "retrain": RetrainSettings,
}
"""Sections of a recipe by name; ``training`` is what supernet and retrain have in common."""


def recipe_keys(section: str) -> list[Fact]:
    """Return the keys that a section declares itself, then those of the components that it names.

    Parameters
    ----------
    section
        Key of `SECTIONS`, or ``techniques``; keys of ``training`` are not repeated.
    """
    if section == "techniques":
        return _technique_keys()
    cls = SECTIONS[section]
    own = vars(cls).get("__annotations__", {})
    keys = [
        _key(field) for field in dataclasses.fields(cls) if field.name in own and field.metadata
    ]
    return [*keys, *_component_keys(cls)]


def _component_keys(cls: type[Any]) -> list[Fact]:
    """Return the keys of all of our components that a section can name, each once."""
    slot = getattr(cls, "slot", None)
    found: dict[str, tuple[Fact, list[str]]] = {}
    components = {name: slot.registry.find(name) for name in slot.registry.ours} if slot else {}
    if slot:
        components |= {f"{x}:": family for x, family in slot.registry.families().items()}
    for name, component in components.items():
        settings = getattr(component, "Settings", component)
        texts = _described(settings)
        for field in dataclasses.fields(settings):
            if field.metadata:
                key = dataclasses.replace(_key(field), text=texts.get(field.name, ""))
                found.setdefault(field.name, (key, []))[1].append(name)
    return [
        dataclasses.replace(key, rule=f"{key.rule}; with `{slot.key}: {' or '.join(names)}`")
        for key, names in found.values()
    ]


def _technique_keys() -> list[Fact]:
    """Return the keys of all our training techniques."""
    found = []
    for key, (name, declared) in technique_keys().items():
        sections = TECHNIQUES.find(name).sections
        only = f"; in {sections[0]} alone" if len(sections) == 1 else ""
        rule = f"{declared.rule}; default {_written(declared.default)}{only}"
        found.append(Fact(key, rule, declared.description))
    return found


def _described(settings: type[Any]) -> dict[str, str]:
    """Return what the docstring of a component's settings says of its keys."""
    from nni_spos.components import described_parameters

    return described_parameters(settings)


def _key(field: dataclasses.Field[Any]) -> Fact:
    words = field.metadata["rule"][1]
    if field.default is dataclasses.MISSING:
        return Fact(field.name, f"{words}; required")
    return Fact(field.name, f"{words}; default {_written(field.default)}")


def _written(value: Any) -> str:
    """Write a default as YAML has it."""
    if value == ():
        return "none"
    return str(value) if isinstance(value, str) else json.dumps(value)


def commands() -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of all commands, ``baseline fixed`` and the like included."""
    return dict(_commands(cli._parser(), ""))


def _commands(
    parser: argparse.ArgumentParser, before: str
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield f"{before}{name}", child
                yield from _commands(child, f"{before}{name} ")


def command_help(name: str) -> str:
    """Return what ``nni-spos --help`` says of a command."""
    parser: argparse.ArgumentParser = cli._parser()
    for word in name.split():
        (children,) = (x for x in parser._actions if isinstance(x, argparse._SubParsersAction))
        text = next(x.help for x in children._choices_actions if x.dest == word)
        parser = children.choices[word]
    return text or ""


def options(parser: argparse.ArgumentParser) -> list[Fact]:
    """Return arguments and options of a command, in the order of its help."""
    return [_option(x) for x in parser._actions if not _is_structure(x)]


def _is_structure(action: argparse.Action) -> bool:
    return isinstance(action, argparse._HelpAction | argparse._SubParsersAction)


def _option(action: argparse.Action) -> Fact:
    text = action.help or POSITIONALS.get(action.dest, "")
    if not action.option_strings:
        return Fact(action.dest.upper(), "" if action.nargs != "?" else "may be left out", text)
    name = ", ".join(action.option_strings)
    if action.nargs != 0:
        value = str(action.metavar or _values(action))
        name += f" [{value}]" if action.nargs == "?" else f" {value}"
    rules = ["required"] if action.required else []
    if isinstance(action, argparse._AppendAction):
        rules.append("may be repeated")
    return Fact(name, "; ".join(rules), text)


def _values(action: argparse.Action) -> str:
    if action.choices is not None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return action.dest.upper()


def spaces() -> list[Fact]:
    """Return every space that has a search-space file: units and number of paths."""
    found = []
    for file in sorted(SEARCH_SPACES.glob("*.json")):
        choices = [len(unit["_value"]) for unit in json.loads(file.read_text()).values()]
        found.append(Fact(file.stem, f"{len(choices)} units, {_size(choices)} paths"))
    return found


def _size(choices: list[int]) -> str:
    size = math.prod(choices)
    if size < 100_000:
        return f"{size:,}"
    if len(set(choices)) == 1:
        return f"{choices[0]}^{len(choices)}"
    return f"about 10^{round(math.log10(size))}"


def error_classes() -> list[Fact]:
    """Return errors and warnings that users see, each with the one that it is a kind of."""
    kinds = (errors.SposError, UserWarning, RuntimeWarning)
    return [
        Fact(cls.__name__, f"a kind of {cls.__bases__[0].__name__}", _first_paragraph(cls))
        for cls in vars(errors).values()
        if inspect.isclass(cls) and issubclass(cls, kinds) and cls.__module__ == errors.__name__
    ]


def output_files() -> list[Fact]:
    """Return every file and folder of an output folder, by its place in it, and what it is.

    Capitals stand for what differs: ``supernets/DIGEST.pt``.
    """
    return list(_places(Output(Path()), Output.search.fget))


def _places(owner: Output | SearchFolder, opened: Callable[..., Any] | None) -> Iterator[Fact]:
    """Yield what the members of an object name, and once what is in the folder of a search."""
    for member in vars(type(owner)).values():
        function = member.fget if isinstance(member, property) else member
        if not inspect.isfunction(function) or function.__name__.startswith("_"):
            continue
        names = list(inspect.signature(function).parameters)[1:]
        found = function(owner, *(name.upper() for name in names))
        if isinstance(found, SearchFolder):
            yield Fact(str(found.path), "", _first_paragraph(function))
            if function is opened:
                yield from _places(found, None)
        elif isinstance(found, Path):
            yield Fact(str(found), "", _first_paragraph(function))


def layers() -> list[list[Fact]]:
    """Return the rows of `tests/test_layers.py`, each with its parts and what is in them."""
    tree = ast.parse((ROOT / "tests" / "test_layers.py").read_text(encoding="utf-8"))
    assignments = [x for x in tree.body if isinstance(x, ast.Assign)]
    rows = next(x.value for x in assignments if ast.unparse(x.targets[0]) == "ROWS")
    return [[_part(name) for name in row if name] for row in ast.literal_eval(rows)]


def _part(name: str) -> Fact:
    folder = ROOT / "nni_spos" / name
    file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return Fact(f"{name}/" if folder.is_dir() else file.name, "", text.partition("\n\n")[0])


def _first_paragraph(documented: type | Callable[..., Any]) -> str:
    text = inspect.cleandoc(documented.__doc__ or "")
    return " ".join(text.partition("\n\n")[0].split())
