"""What a result depends on, and so when it is one of another model, of other images or settings.

A result is anything that is kept: a cost table, a search, a score, trained weights. `describe` is
the one place that says what it depends on, in parts with names for people; `PARTS_OF` says which
parts each kind of result takes. What is recorded with a result is compared with what `describe`
says today, see `nni_spos.values.changes`: nothing is shown as today's that is not.

Contents count, and not where they are: a folder may be moved or renamed. A part that there is
nothing of, such as weights that are not trained yet, is left out.

Needs neither PyTorch nor NNI, so that the tuner and trials can ask.
"""

from __future__ import annotations

import contextlib
import enum
import json
from collections.abc import Callable, Mapping
from pathlib import Path as FilePath
from typing import Any

from nni_spos._version import __version__
from nni_spos.errors import CostError
from nni_spos.files.atomic import read_json
from nni_spos.files.digests import DIGITS, digest_content, digest_file, digest_weights
from nni_spos.recipe.code_digest import digest_code, digest_space_code
from nni_spos.recipe.dataset import explained, find_dataset, is_ours, resolved_spec
from nni_spos.recipe.datasets import DATASETS
from nni_spos.recipe.image_digest import stamp_images
from nni_spos.recipe.named_components import digest_component
from nni_spos.recipe.recipe import Recipe
from nni_spos.recipe.registries import METRICS, PRIORS, SEARCHES, TASKS, TECHNIQUES
from nni_spos.recipe.task import find_task
from nni_spos.recipe.training_settings import TrainSettings
from nni_spos.values import DIGEST

Description = dict[str, dict[str, Any]]
"""Parts by name, each with its values by name, as JSON has them."""

CODE = "code of the space"
DATA_CODE = "code of the data set"
IMAGES = "training images"
TEST_IMAGES = "test images"
WEIGHTS = "weights of the supernet"
PRIOR_LATENCY = "latency table of the prior"
PRIOR_METRICS = "metrics of the prior"
METRICS_CODE = "code of the metrics"
PRIOR_CODE = "code of the prior"
SEARCH_CODE = "code of the search"
TASK_CODE = "code of the task"
TRAINING_CODE = "code of the techniques of the supernet"
RETRAINING_CODE = "code of the techniques of retraining"

COSTS_VERSION = 2
"""Version of the formulas of costs. Raise it when the cost of a path changes."""

SCORES_VERSION = 3
"""Version of the scoring. Raise it when the score of a path changes."""


class Result(enum.Enum):
    """Kinds of results."""

    COSTS = "cost tables"
    SEARCH = "search"
    SCORES = "scores"
    WORKER = "worker"
    MACHINES = "trials on other machines"
    STANDALONE = "stand-alone accuracies"
    BASELINE = "baseline"
    SUPERNET = "supernet"
    NETWORK = "retrained network"
    STEP = "step of an experiment"


_MODEL = ("space", CODE)
_METRICS = ("metrics", METRICS_CODE)
_PRIOR = ("supernet", PRIOR_CODE, TRAINING_CODE)
_SEARCH = ("search", SEARCH_CODE)
_DATA = ("data", DATA_CODE)
_TASK = ("task", TASK_CODE)
_TRAINED = (*_MODEL, *_DATA, *_TASK, IMAGES)
_SCORED = (*_TRAINED, WEIGHTS, "evaluation")
_RETRAINED = (*_TRAINED, "retrain", RETRAINING_CODE, "initial weights")

PARTS_OF: Mapping[Result, tuple[str, ...]] = {
    Result.COSTS: (*_MODEL, "size of the images", *_METRICS, "version of the costs"),
    # The settings of the training too: a search may begin before there are weights.
    Result.SEARCH: (*_SCORED, *_PRIOR, *_METRICS, *_SEARCH, "version of the scoring"),
    Result.SCORES: (*_SCORED, "version of the scoring"),
    # It holds one file of weights, and the images: their stamps cost a trial less than contents.
    Result.WORKER: (*_MODEL, *_DATA, *_TASK, "folders of images", "evaluation", "nni_spos"),
    # The file of the weights is compared byte for byte, since it may have to be fetched.
    Result.MACHINES: ("nni_spos", *_TRAINED, *_METRICS, "evaluation"),
    Result.STANDALONE: _RETRAINED,
    Result.BASELINE: (*_RETRAINED, TEST_IMAGES),
    Result.SUPERNET: (*_TRAINED, *_PRIOR, PRIOR_METRICS, PRIOR_LATENCY),
    Result.NETWORK: (*_RETRAINED, TEST_IMAGES),
    # Any command: all that a recipe says. Weights are what such a command makes.
    Result.STEP: (
        *_TRAINED,
        TEST_IMAGES,
        *_METRICS,
        *_PRIOR,
        "evaluation",
        *_SEARCH,
        "retrain",
        RETRAINING_CODE,
        "latency tables",
    ),
}
"""Parts that each kind of result depends on; its path, where it has one, is in its own record."""


def describe(result: Result, recipe: Recipe, weights: str | None = None) -> Description:
    """Return what a result of a recipe depends on as things are now, as JSON values.

    Parameters
    ----------
    result
        The kind of result.
    recipe
        What it says, and the files that it names.
    weights
        Digest of the supernet's weights, where these were read: the file may be another by now.
    """
    found = {
        name: _digest(weights) if weights and name == WEIGHTS else dict(PARTS[name](recipe))
        for name in PARTS_OF[result]
    }
    kept = {name: values for name, values in found.items() if values}
    return json.loads(json.dumps(kept, default=str))


def _space(recipe: Recipe) -> Mapping[str, Any]:
    found = {"name": recipe.space.name, **recipe.space.portable}
    if recipe.space.is_converted and (weights := recipe.space.arguments["model"].get("weights")):
        # Of a file its content counts; published weights of one name are always the same.
        file = FilePath(weights)
        found["weights"] = digest_file(file)[:DIGITS] if file.is_file() else weights
    return found


def _code(recipe: Recipe) -> Mapping[str, Any]:
    return _digest(digest_space_code(recipe.space.code_name, recipe.file.parent))


def _data_code(recipe: Recipe) -> Mapping[str, Any]:
    module = DATASETS.module_of(recipe.data.name)
    return _digest(None if module is None else digest_code(module, recipe.file.parent))


def _size(recipe: Recipe) -> Mapping[str, Any]:
    spec = resolved_spec(find_dataset(recipe.data))
    size = {"image_size": spec.image_size, "num_classes": spec.num_classes or None}
    # The images of a component of ours have the same channels forever, if it is not files.
    is_fixed = is_ours(recipe.data) and spec.native_size is not None
    channels = {} if is_fixed else {"channels": spec.channels}
    told = find_task(recipe.task).space_arguments(spec)
    # What every space is told follows from the number of classes.
    others = {key: value for key, value in told.items() if value != spec.num_classes}
    return {"name": spec.name, **size, **channels, **others}


def _data(recipe: Recipe) -> Mapping[str, Any]:
    """Return the settings of the images, a default of ours as if it were written down.

    The defaults of a user's data set stand in its code, and every trial, which asks for this, would
    have to run that.
    """
    values = recipe.data.deciding()
    if is_ours(recipe.data):
        spec = resolved_spec(find_dataset(recipe.data))
        measured = values["normalisation"] is not None
        names = ("image_size", "augmentation", "crop_pct", "channels", "bits", "mean", "std")
        for name in names[:-2] if measured else names:
            values[name] = getattr(spec, name)
        values["num_classes"] = spec.num_classes or None
    return values


def _images(recipe: Recipe) -> Mapping[str, Any]:
    with explained(recipe.data):
        return _digest(find_dataset(recipe.data).digest_training_images())


def _test_images(recipe: Recipe) -> Mapping[str, Any]:
    with explained(recipe.data):
        return _digest(find_dataset(recipe.data).digest_test_images())


def _evaluation(recipe: Recipe) -> Mapping[str, Any]:
    return {**recipe.evaluation.deciding(), "channels_last": recipe.supernet.channels_last}


def _metrics(recipe: Recipe) -> Mapping[str, Any]:
    listed = (x for x in recipe.metrics if not METRICS.is_of_every_space(x.name))
    return {x.name: dict(x.arguments) for x in listed}


def _metrics_code(recipe: Recipe) -> Mapping[str, Any]:
    """Return the digests of the metrics' code by their names."""
    names = (x.name for x in recipe.metrics)
    found = {name: digest_component(METRICS, name, recipe.file.parent) for name in names}
    return {name: digest[DIGEST] for name, digest in found.items() if digest}


def _techniques_code(settings: TrainSettings, folder: FilePath) -> Mapping[str, Any]:
    """Return the digests of the code of techniques that are not ours, by their names."""
    names = (x.name for x in settings.techniques)
    found = {name: digest_component(TECHNIQUES, name, folder) for name in names}
    return {name: digest[DIGEST] for name, digest in found.items() if digest}


def _costs_of_prior(recipe: Recipe) -> tuple[str, ...] | None:
    """Return the metrics that the prior may depend on; None if any: only ours say which."""
    if recipe.supernet.prior not in PRIORS.ours:
        return None
    return tuple(getattr(recipe.supernet.own(), "costs", ()))


def _prior_metrics(recipe: Recipe) -> Mapping[str, Any]:
    """Return the metrics, beside ours, that decide which paths a training draws, and their code."""
    costs = _costs_of_prior(recipe)
    if costs is not None and all(x in METRICS.ours for x in costs):
        return {}
    return {**_metrics(recipe), **{f"code of {k}": v for k, v in _metrics_code(recipe).items()}}


def _prior_latency(recipe: Recipe) -> Mapping[str, Any]:
    """Return the measured tables that decide which paths a training draws, if some do."""
    costs = _costs_of_prior(recipe)
    if costs is not None and all(x in METRICS.ours for x in costs):
        return {}
    found = {}
    for file in recipe.latency:
        with contextlib.suppress(CostError):  # whoever needs the table says what is wrong with it
            content = read_json(file, CostError)
            if isinstance(content, dict) and (costs is None or content.get("metric") in costs):
                found[str(content.get("metric"))] = digest_content(content.get("table"))
    return found


def _initial_weights(recipe: Recipe) -> Mapping[str, Any]:
    inherits = recipe.retrain.initial_weights == "supernet"
    return _digest(digest_weights(recipe.checkpoint) if inherits else None)


def _digest(digest: str | None) -> Mapping[str, Any]:
    return {} if digest is None else {DIGEST: digest}


PARTS: Mapping[str, Callable[[Recipe], Mapping[str, Any]]] = {
    "space": _space,
    CODE: _code,
    "task": lambda recipe: recipe.task.deciding(),
    TASK_CODE: lambda recipe: digest_component(TASKS, recipe.task.name, recipe.file.parent),
    "size of the images": _size,
    "data": _data,
    DATA_CODE: _data_code,
    IMAGES: _images,
    TEST_IMAGES: _test_images,
    "folders of images": lambda recipe: _digest(stamp_images(recipe.data)),
    "metrics": _metrics,
    METRICS_CODE: _metrics_code,
    "supernet": lambda recipe: recipe.supernet.deciding(),
    PRIOR_CODE: lambda recipe: digest_component(PRIORS, recipe.supernet.prior, recipe.file.parent),
    TRAINING_CODE: lambda recipe: _techniques_code(recipe.supernet, recipe.file.parent),
    RETRAINING_CODE: lambda recipe: _techniques_code(recipe.retrain, recipe.file.parent),
    PRIOR_METRICS: _prior_metrics,
    PRIOR_LATENCY: _prior_latency,
    WEIGHTS: lambda recipe: _digest(digest_weights(recipe.checkpoint)),
    "evaluation": _evaluation,
    "search": lambda recipe: recipe.search.deciding(),
    SEARCH_CODE: lambda recipe: digest_component(
        SEARCHES, recipe.search.algorithm, recipe.file.parent
    ),
    "retrain": lambda recipe: recipe.retrain.deciding(),
    "initial weights": _initial_weights,
    "latency tables": lambda recipe: {x.name: True for x in recipe.latency},
    "nni_spos": lambda recipe: {"version": __version__},
    "version of the costs": lambda recipe: {DIGEST: COSTS_VERSION},
    "version of the scoring": lambda recipe: {DIGEST: SCORES_VERSION},
}
"""How each part is found."""
