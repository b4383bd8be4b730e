"""One YAML file that says everything about a run, from data to the retrained network.

Loading checks every key and value and imports neither PyTorch nor NNI, so that the tuner and
the command line can refuse a wrong recipe at once.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from nni_spos.errors import RecipeError, unknown
from nni_spos.files.atomic import check_name, unlinked
from nni_spos.files.yaml_files import read_yaml
from nni_spos.recipe.conversion_settings import (
    CONVERTED,
    RETRAIN_DEFAULTS,
    SEARCH_DEFAULTS,
    SUPERNET_DEFAULTS,
    code_of,
    read_conversion,
)
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.named_components import read_section
from nni_spos.recipe.output import Output
from nni_spos.recipe.registries import METRICS, TASKS
from nni_spos.recipe.search_settings import EvaluationSettings, SearchSettings
from nni_spos.recipe.settings import FILE, Rule, list_of, optional
from nni_spos.recipe.spaces import SPACES
from nni_spos.recipe.task import TaskSettings, find_task, read_task
from nni_spos.recipe.techniques import RecipePlace
from nni_spos.recipe.training_settings import (
    ORIGINAL,
    RetrainSettings,
    SupernetSettings,
    TrainSettings,
    read_training,
)
from nni_spos.values import shown


@dataclass(frozen=True)
class SpaceSettings:
    """Which search space: a name of `nni_spos.spaces`, with arguments of its class."""

    name: str
    arguments: Mapping[str, Any]

    @property
    def is_converted(self) -> bool:
        """Whether it is made of a network that is there already, with its weights."""
        return self.name == CONVERTED

    @property
    def code_name(self) -> str:
        """Name of what makes the space, ``module:name`` if that is a user's."""
        own = code_of(self.arguments) if self.is_converted else None
        return own or self.name

    @property
    def portable(self) -> dict[str, Any]:
        """Arguments that build the space elsewhere too: without a file of weights."""
        if not self.is_converted:
            return dict(self.arguments)
        model = {k: v for k, v in self.arguments["model"].items() if k != "weights"}
        return {**self.arguments, "model": model}


@dataclass(frozen=True)
class MetricSettings:
    """A metric beside ours: a plug-in's, or ``module:Class``, with its keys."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Recipe:
    """A checked recipe.

    Parameters
    ----------
    file
        Where it was read; relative file names in it are relative to its folder.
    output
        Folder for checkpoints, cost tables and results.
    space, data, supernet, evaluation, search, retrain
        Its sections.
    task
        What a network is to predict: a name, such as classification, or a mapping with the key
        ``name`` and the task's own keys.
    latency
        Files that ``nni-spos latency`` wrote, for constraints on ``latency_ms(cpu)`` and the like.
    metrics
        Those that the space's paths are priced by, beside ours.
    kept
        Digest of the supernet that a search keeps, see `nni_spos.search.kept_supernets`; None: the
        one that was trained last.
    """

    file: FilePath
    output: FilePath
    space: SpaceSettings
    data: DataSettings
    supernet: SupernetSettings
    evaluation: EvaluationSettings
    search: SearchSettings
    retrain: RetrainSettings
    latency: tuple[FilePath, ...] = ()
    metrics: tuple[MetricSettings, ...] = ()
    kept: str | None = None
    task: TaskSettings = field(default_factory=TaskSettings)

    @property
    def checkpoint(self) -> FilePath:
        """The trained supernet."""
        return self.files.supernet if self.kept is None else self.files.kept_supernet(self.kept)

    @property
    def files(self) -> Output:
        """Everything that is written into the output folder."""
        return Output(self.output)

    def with_search(self, changes: Mapping[str, Any], where: str) -> Recipe:
        """Return the recipe with some keys of its search section replaced. Raises RecipeError."""
        return dataclasses.replace(self, search=self.search.changed(changes, where))


SECTIONS: dict[str, type[Any]] = {
    "data": DataSettings,
    "supernet": SupernetSettings,
    "evaluation": EvaluationSettings,
    "search": SearchSettings,
    "retrain": RetrainSettings,
}


KEYS = ("output", "space", "model", "choices", "task", *SECTIONS, "latency", "metrics")
OPTIONAL = (
    "space",
    "model",
    "choices",
    "task",
    "evaluation",
    "search",
    "retrain",
    "latency",
    "metrics",
)
OUTPUT = Rule(FILE.check, "the name of a folder", FILE.json)
LATENCY_WORDS = "a list of files such as [latency_cpu.json]"
LATENCY = optional(list_of(FILE, LATENCY_WORDS))._replace(words=LATENCY_WORDS)


def load_recipe(file: str | os.PathLike[str]) -> Recipe:
    """Read and check a recipe.

    A folder that is reached by links is known by its own name, here and in the output folder: all
    processes of an experiment, whatever they were told, mean the same files.

    Raises
    ------
    RecipeError
        The file is missing or not YAML, or a key or value in it is wrong; the message names the
        file, the key and what is allowed.
    """
    file = unlinked(file)
    check_name(file, RecipeError)
    return check_recipe(read_yaml(file), file)


def check_recipe(content: Mapping[str, Any], file: FilePath) -> Recipe:
    """Return what a recipe says that is in `file`, or will be. Raises RecipeError."""
    strange = [key for key in content if key not in KEYS]
    if "trialCommand" in strange and "tuner" in strange:
        raise RecipeError(
            f"{file.name}: is an NNI configuration. Give the recipe that its tuner names."
        )
    if strange:
        raise RecipeError(f"{file.name}: {unknown('key', strange[0], KEYS)}")
    missing = [key for key in KEYS if key not in content and key not in OPTIONAL]
    if missing:
        raise RecipeError(f"{file.name}: the key '{missing[0]}' is missing.")
    if not OUTPUT.accepts(content["output"]):
        raise RecipeError(f"{file.name}: output: must be {OUTPUT.words}.")
    task = read_task(content.get("task"), f"{file.name}: task", file.parent)
    output = FilePath(os.path.realpath(file.parent / os.path.expanduser(content["output"])))
    space = _read_model_or_space(content, file)
    place = RecipePlace(file.parent, output, space.name, space.arguments)
    sections: dict[str, Any] = {}
    for name, cls in SECTIONS.items():
        where = f"{file.name}: {name}"
        content = _with_defaults(content, name, space)
        try:
            if name == "retrain" and content.get(name) is None:
                sections[name] = RetrainSettings.like(sections["supernet"])
            elif issubclass(cls, TrainSettings):
                sections[name] = read_training(cls, content.get(name), where, file.parent, place)
            else:
                sections[name] = read_section(cls, content.get(name), where, file.parent)
        except RecipeError as problem:
            text = str(problem)
            raise RecipeError(text if text.startswith(where) else f"{where}: {text}") from None
    if sections["supernet"].initial_weights == ORIGINAL and not space.is_converted:
        raise RecipeError(
            f"{file.name}: supernet.initial_weights: original is of a 'model', and there is a "
            "'space', whose weights are random."
        )
    if sections["search"].sensitivity and not space.is_converted:
        raise RecipeError(
            f"{file.name}: search.sensitivity: is of a 'model', and there is a 'space', in which "
            "no path is known to be good."
        )
    sections["search"] = _with_task(sections["search"], task, f"{file.name}: search")
    if sections["evaluation"].racing is not None and task.name in TASKS.ours:
        try:
            find_task(task).check_racing(sections["search"].maximised)
        except RecipeError as problem:
            raise RecipeError(f"{file.name}: {problem}") from None
    return Recipe(
        file=file,
        output=output,
        space=space,
        **sections,
        task=task,
        latency=_read_latency(content.get("latency"), file),
        metrics=read_metrics(content.get("metrics"), f"{file.name}: metrics"),
    )


def _with_task(search: SearchSettings, task: TaskSettings, where: str) -> SearchSettings:
    """Let a search maximise what the task says, unless it names another figure."""
    try:
        return dataclasses.replace(search, task=task)
    except RecipeError as problem:
        raise RecipeError(f"{where}: {problem}") from None


def _read_latency(content: Any, file: FilePath) -> tuple[FilePath, ...]:
    if not LATENCY.accepts(content):
        raise RecipeError(f"{file.name}: latency: must be {LATENCY.words}, got {shown(content)}.")
    return tuple(file.parent / os.path.expanduser(name) for name in content or ())


def _read_model_or_space(content: Mapping[str, Any], file: FilePath) -> SpaceSettings:
    """Return what is searched: a space, or a network that becomes one."""
    if ("model" in content) == ("space" in content):
        raise RecipeError(
            f"{file.name}: give either 'space', a search space, or 'model', a network that becomes "
            "one."
        )
    if "model" not in content:
        if "choices" in content:
            raise RecipeError(f"{file.name}: choices: belongs to 'model', and there is a 'space'.")
        return _read_space(content["space"], f"{file.name}: space")
    found = read_conversion(content["model"], content.get("choices"), file.name, file.parent)
    return SpaceSettings(CONVERTED, found)


def _with_defaults(
    content: Mapping[str, Any], name: str, space: SpaceSettings
) -> Mapping[str, Any]:
    """Return a recipe in which a section has the settings that suit a converted network."""
    found = {"supernet": SUPERNET_DEFAULTS, "retrain": RETRAIN_DEFAULTS, "search": SEARCH_DEFAULTS}
    defaults = found.get(name)
    given = content.get(name, {} if name == "search" else None)
    if not space.is_converted or defaults is None or not isinstance(given, Mapping):
        return content
    return {**content, name: {**defaults, **given}}


def _read_space(content: Any, where: str) -> SpaceSettings:
    if not isinstance(content, Mapping) or not isinstance(content.get("name"), str):
        raise RecipeError(f"{where}: must be a mapping with the key 'name', got {shown(content)}.")
    if content["name"] == CONVERTED:
        raise RecipeError(f"{where}: a network that is converted has the key 'model'.")
    try:
        SPACES.check_name(content["name"])
    except RecipeError as problem:
        raise RecipeError(f"{where}: {problem}") from None
    return SpaceSettings(
        content["name"], {key: value for key, value in content.items() if key != "name"}
    )


def read_metrics(content: Any, where: str) -> tuple[MetricSettings, ...]:
    """Check the metrics that a recipe lists; nobody's code is run.

    Parameters
    ----------
    content
        What the user wrote: a list of names, or of mappings with the key ``name`` and the metric's
        own keys; None for none.
    where
        Name for messages.

    Raises
    ------
    RecipeError
        It is no such list, a metric is unknown, or is there twice.
    """
    entries = [] if content is None else content
    if not isinstance(entries, list):
        entries = [None]
    found = [{"name": x} if isinstance(x, str) else x for x in entries]
    if not all(isinstance(x, Mapping) and isinstance(x.get("name"), str) for x in found):
        raise RecipeError(
            f"{where}: must be a list such as [my_metric:Energy], or with the metric's keys "
            f"[{{name: my_metric:Energy, pj_per_mac: 3}}], got {shown(content)}."
        )
    metrics: list[MetricSettings] = []
    for entry in found:
        name = entry["name"]
        try:
            METRICS.check_name(name)
        except RecipeError as problem:
            raise RecipeError(f"{where}: {problem}") from None
        if name in [x.name for x in metrics]:
            raise RecipeError(f"{where}: {name} is there twice.")
        metrics.append(MetricSettings(name, {k: v for k, v in entry.items() if k != "name"}))
    return tuple(metrics)
