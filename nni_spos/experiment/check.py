"""Everything that can be wrong with an NNI configuration, found before NNI starts.

NNI itself finds out late and says little: wrong `classArgs`, for instance, show as "Tuner did
not connect in 10 seconds" in an experiment that was reported as successfully started.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from nni_spos.costs.stored import build_apart, load_costs
from nni_spos.display.announcement import announce
from nni_spos.display.loading import loading
from nni_spos.errors import RecipeError, SposError, unknown
from nni_spos.experiment.exchange import PLATFORMS
from nni_spos.experiment.image_warnings import image_warnings
from nni_spos.experiment.reachable import check_code_directory, reachable_warnings
from nni_spos.experiment.remote import check_remote, is_remote, remote_warnings
from nni_spos.experiment.trial_command import recipe_of_trials
from nni_spos.experiment.tuner_configuration import check_space, load_tuner_recipe
from nni_spos.files.atomic import check_name, read_json, unlinked
from nni_spos.files.yaml_files import read_yaml
from nni_spos.path import PathSpace
from nni_spos.priors.building import build_prior
from nni_spos.process.imports import many_imports
from nni_spos.recipe.recipe import Recipe
from nni_spos.recipe.settings import is_file_name
from nni_spos.search.building import build_search
from nni_spos.values import shown

TUNER = "nni_spos.experiment.tuner.EvolutionTuner"


@dataclass(frozen=True)
class CheckedConfig:
    """An NNI configuration without faults.

    Parameters
    ----------
    file
        The configuration.
    config
        Its content as NNI will use it, with NNI's defaults and absolute folders.
    recipe
        The tuner's recipe, with the changes that `classArgs` make.
    space
        The search space.
    concurrency
        Trials at a time.
    num_candidates
        Candidates of the whole search.
    warnings
        A sentence for each setting that is allowed, but perhaps not meant.
    """

    file: FilePath
    config: Mapping[str, Any]
    recipe: Recipe
    space: PathSpace
    concurrency: int
    num_candidates: int
    warnings: tuple[str, ...]


def check_config(
    file: str | os.PathLike[str], build: Callable[[Recipe], object] = build_apart
) -> CheckedConfig:
    """Check an NNI configuration, its tuner's arguments and its recipe.

    Parameters
    ----------
    file
        YAML as for ``nnictl create --config``; relative names in it are relative to its folder.
    build
        Builds cost tables, see `nni_spos.costs.stored.load_costs`.

    Raises
    ------
    RecipeError
        The first fault, in one line.
    """
    file = unlinked(file)
    check_name(file, RecipeError)
    content = read_yaml(file)
    announce("checking the configuration")
    _check_keys(content, file.name)
    _check_tuner(_get(content, "tuner"), file.name)
    _check_service(content, file.name)
    _check_space_file(_get(content, "searchSpaceFile"), file)
    config = _as_nni_reads_it(file)
    tuner = config["tuner"]
    check_code_directory(FilePath(tuner["codeDirectory"]), file.name)
    try:
        recipe = load_tuner_recipe(tuner.get("classArgs") or {}, FilePath(tuner["codeDirectory"]))
        space, costs = load_costs(recipe, build)
        check_space(config["searchSpace"], space, recipe)
        search = build_search(recipe.search, space, costs)
        search.ask()
        if recipe_of_trials(config) is not None:
            recipe.search.check_objective()
        if recipe_of_trials(config) is not None and not recipe.checkpoint.exists():
            build_prior(recipe.supernet, space, costs)  # the first trial is to train with it
    except SposError as problem:
        raise RecipeError(f"{file.name}: {problem}") from None
    _check_trial_command(config, recipe, file.name)
    notes = [*reachable_warnings(config, file.name), *image_warnings(recipe)]
    if is_remote(config):
        check_remote(config, recipe, file.name)
        notes += remote_warnings(config, recipe, file.name)
    limit = config.get("maxTrialNumber")
    if limit is not None and limit < search.num_candidates:
        notes.append(
            f"{file.name}: maxTrialNumber: {limit} ends the search before all "
            f"{search.num_candidates} candidates are evaluated. Leave it out to evaluate all."
        )
    return CheckedConfig(
        file=file,
        config=config,
        recipe=recipe,
        space=space,
        concurrency=config["trialConcurrency"],
        num_candidates=search.num_candidates,
        warnings=tuple(notes),
    )


def rehearse_trials(checked: CheckedConfig) -> None:
    """Run the training and the scoring of an experiment's recipe for a step each.

    A user's own trial script is not run: it may do anything with the recipe.

    Warns
    -----
    FormatWarning
        See `nni_spos.supernet.rehearsal.rehearse`.

    Raises
    ------
    RecipeError, RehearsalError, SpaceError
        See `nni_spos.supernet.rehearsal.rehearse`.
    """
    if recipe_of_trials(checked.config) is not None:
        with loading():
            from nni_spos.supernet.rehearsal import rehearse
        rehearse(checked.recipe)


def _as_nni_reads_it(file: FilePath) -> dict[str, Any]:
    """Return the configuration as NNI reads it; NNI's errors become a RecipeError."""
    from nni.experiment.config import ExperimentConfig  # takes more than a second
    from nni.experiment.config.utils import unset_base_path

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about passwords: we have a line of our own
            return ExperimentConfig.load(file).json()
    except Exception as problem:
        text = " ".join(str(problem).split()) or type(problem).__name__
        raise RecipeError(f"{file.name}: NNI does not accept it: {text}") from None
    finally:
        unset_base_path()  # NNI leaves it set after an error, and then refuses to load anything


def _check_keys(content: Mapping[str, Any], name: str) -> None:
    with many_imports():
        from nni.experiment.config import ExperimentConfig

    if "space" in content and "supernet" in content:
        raise RecipeError(
            f"{name}: is a recipe. Give an NNI configuration whose tuner names it, e.g. spos.yml."
        )
    known = [_camel(field.name) for field in dataclasses.fields(ExperimentConfig)]
    for key in content:
        if _plain(key) not in map(_plain, known):
            raise RecipeError(f"{name}: {unknown('key', key, known)}")
    spaces = [key for key in ("searchSpace", "searchSpaceFile") if _get(content, key) is not None]
    if len(spaces) != 1:
        raise RecipeError(
            f"{name}: give either 'searchSpaceFile' or 'searchSpace', got "
            f"{'both' if spaces else 'neither'}."
        )
    for key in ("trialCommand", "trialConcurrency", "trainingService", "tuner"):
        if _get(content, key) is None:
            raise RecipeError(f"{name}: the key '{key}' is missing.")


def _check_tuner(tuner: Any, name: str) -> None:
    if not isinstance(tuner, Mapping):
        raise RecipeError(f"{name}: tuner: must map keys to values, got {shown(tuner)}.")
    known = ["className", "codeDirectory", "classArgs"]
    strange = [key for key in tuner if _plain(key) not in map(_plain, known)]
    if _get(tuner, "className") != TUNER:
        given = _get(tuner, "className") or _get(tuner, "name")
        raise RecipeError(f"{name}: tuner.className must be {TUNER}, got {shown(given)}.")
    if strange:
        raise RecipeError(f"{name}: tuner: {unknown('key', strange[0], known)}")
    if _get(tuner, "codeDirectory") is None:
        raise RecipeError(f"{name}: tuner.codeDirectory is missing; usually 'codeDirectory: .'.")


def _check_service(content: Mapping[str, Any], name: str) -> None:
    """Refuse what hangs, or gives wrong results, with NNI 3.0."""
    service = _get(content, "trainingService")
    if not isinstance(service, Mapping) or _get(service, "platform") not in PLATFORMS:
        given = _get(service, "platform") if isinstance(service, Mapping) else service
        raise RecipeError(
            f"{name}: trainingService.platform must be 'local' or 'remote', got {shown(given)}. "
            "On other platforms trials cannot read their path."
        )
    is_named = _get(service, "nniManagerIp") or _get(content, "nniManagerIp")
    if _get(service, "platform") == "remote" and not is_named:
        raise RecipeError(
            f"{name}: the key 'nniManagerIp' is missing. Give the address at which the machines "
            "of machineList reach this one."
        )
    num_gpus = _get(service, "trialGpuNumber", _get(content, "trialGpuNumber"))
    machines = _get(service, "machineList")
    places = [x for x in machines if isinstance(x, Mapping)] if isinstance(machines, list) else []
    if num_gpus and any((_get(x, "maxTrialNumberPerGpu") or 1) == 1 for x in places or [service]):
        raise RecipeError(
            f"{name}: with trialGpuNumber: {num_gpus} and maxTrialNumberPerGpu: 1, NNI 3.0 hangs "
            f"on a machine with {num_gpus} GPU(s). Leave trialGpuNumber out (trials use the GPU "
            "anyway), or set maxTrialNumberPerGpu to 2 or more."
        )
    if _get(service, "reuseMode"):
        raise RecipeError(
            f"{name}: trainingService.reuseMode is not supported: trials could not read their "
            "path. Leave it out."
        )


def _check_space_file(space_file: Any, file: FilePath) -> None:
    """Refuse a file that is too large or never ends: NNI would read all of it."""
    if space_file is None:
        return
    if not is_file_name(space_file):
        raise RecipeError(f"{file.name}: searchSpaceFile: must be the name of a file.")
    named = file.parent / os.path.expanduser(space_file)
    try:
        try:
            read_json(named, RecipeError)
        except RecipeError:
            read_yaml(named)  # NNI takes that as well
    except RecipeError as problem:
        raise RecipeError(f"{file.name}: searchSpaceFile: {problem}") from None


def _check_trial_command(config: Mapping[str, Any], recipe: Recipe, name: str) -> None:
    """Check that ``nni-spos trial RECIPE`` and the tuner mean the same recipe."""
    service = config["trainingService"]
    given = recipe_of_trials(config)
    if given is None:
        return  # the user's own script
    file = FilePath(service["trialCodeDirectory"]) / os.path.expanduser(given)
    if not file.exists():
        raise RecipeError(f"{name}: trialCommand: {file}: no such file.")
    if not file.samefile(recipe.file):
        raise RecipeError(
            f"{name}: the trials use the recipe {file}, but the tuner uses {recipe.file}. "
            "Name the same file in trialCommand and in classArgs."
        )


def _get(content: Mapping[str, Any], key: str, default: Any = None) -> Any:
    """Look a key up as NNI does: letter case and underscores do not matter."""
    return next((v for k, v in content.items() if _plain(k) == _plain(key)), default)


def _plain(key: object) -> str:
    return str(key).lower().replace("_", "")


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)
