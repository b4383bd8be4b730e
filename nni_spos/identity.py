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
import dataclasses
import enum
import json
from collections.abc import Callable, Mapping
from pathlib import Path as FilePath
from typing import Any

from nni_spos._version import __version__
from nni_spos.code_digest import digest_space_code
from nni_spos.dataset_specs import SPECS, class_names
from nni_spos.digests import digest_content, digest_weights
from nni_spos.errors import CostError
from nni_spos.files import read_json
from nni_spos.image_digest import digest_test_images, digest_training_images, stamp_images
from nni_spos.recipe import DataSettings, Recipe
from nni_spos.values import DIGEST

Description = dict[str, dict[str, Any]]
"""Parts by name, each with its values by name, as JSON has them."""

CODE = "code of the space"
IMAGES = "training images"
TEST_IMAGES = "test images"
WEIGHTS = "weights of the supernet"
PRIOR_LATENCY = "latency table of the prior"

COSTS_VERSION = 2
"""Of the formulas of costs; raise it with every change of what a cost is."""

SCORES_VERSION = 2
"""Of the scoring; raise it with every change of what a path scores."""


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
_TRAINED = (*_MODEL, "data", IMAGES)
_SCORED = (*_MODEL, "data", IMAGES, WEIGHTS, "evaluation")
_RETRAINED = (*_TRAINED, "retrain", "initial weights")

PARTS_OF: Mapping[Result, tuple[str, ...]] = {
    Result.COSTS: (*_MODEL, "size of the images", "version of the costs"),
    # The settings of the training too: a search may begin before there are weights.
    Result.SEARCH: (*_SCORED, "supernet", "search", "version of the scoring"),
    Result.SCORES: (*_SCORED, "version of the scoring"),
    # It holds one file of weights, and the images: their stamps cost a trial less than contents.
    Result.WORKER: (*_MODEL, "data", "folders of images", "evaluation", "nni_spos"),
    # The file of the weights is compared byte for byte, since it may have to be fetched.
    Result.MACHINES: ("nni_spos", *_TRAINED, "evaluation"),
    Result.STANDALONE: _RETRAINED,
    Result.BASELINE: (*_RETRAINED, TEST_IMAGES),
    Result.SUPERNET: (*_TRAINED, "supernet", PRIOR_LATENCY),
    Result.NETWORK: (*_RETRAINED, TEST_IMAGES),
    # Any command: all that a recipe says. Weights are what such a command makes.
    Result.STEP: (
        *_TRAINED,
        TEST_IMAGES,
        "supernet",
        "evaluation",
        "search",
        "retrain",
        "latency tables",
    ),
}
"""Parts that each kind of result depends on; its path, where it has one, is in its own record."""


def describe(result: Result, recipe: Recipe, weights: str | None = None) -> Description:
    """Return what a result of a recipe depends on as things are now, as JSON values.

    Parameters
    ----------
    result
        Of which kind.
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
    return {"name": recipe.space.name, **recipe.space.arguments}


def _code(recipe: Recipe) -> Mapping[str, Any]:
    return _digest(digest_space_code(recipe.space.name, recipe.file.parent))


def _size(recipe: Recipe) -> Mapping[str, Any]:
    data = _data(recipe)
    return {name: data[name] for name in ("name", "image_size", "num_classes")}


def _data(recipe: Recipe) -> Mapping[str, Any]:
    """Return the settings of the images, a default as if it were written down."""
    spec = SPECS[recipe.data.name]
    values = recipe.data.deciding()
    for name in ("image_size", "augmentation", "crop_pct"):
        values[name] = values.get(name) or getattr(spec, name)
    values["num_classes"] = spec.num_classes or _num_classes(recipe.data)
    return values


def _num_classes(data: DataSettings) -> int | None:
    """Return what an image folder's recipe says, or the number of its folders if they are there."""
    if data.num_classes is not None or data.root is None:
        return data.num_classes
    return len(class_names(FilePath(data.root) / "train")) or None


def _evaluation(recipe: Recipe) -> Mapping[str, Any]:
    return {**recipe.evaluation.deciding(), "channels_last": recipe.supernet.channels_last}


def _search(recipe: Recipe) -> Mapping[str, Any]:
    values = dataclasses.asdict(recipe.search)
    return {**values, "constraints": [str(limit) for limit in recipe.search.constraints]}


def _prior_latency(recipe: Recipe) -> Mapping[str, Any]:
    """Return the measured table that decides which paths a training draws, if one does."""
    settings = recipe.supernet
    if settings.prior == "uniform" or not settings.metric_of_prior.startswith("latency"):
        return {}
    for file in recipe.latency:
        with contextlib.suppress(CostError):  # whoever needs the table says what is wrong with it
            content = read_json(file, CostError)
            if isinstance(content, dict) and content.get("metric") == settings.metric_of_prior:
                return _digest(digest_content(content.get("table")))
    return {}


def _initial_weights(recipe: Recipe) -> Mapping[str, Any]:
    inherits = recipe.retrain.initial_weights == "supernet"
    return _digest(digest_weights(recipe.checkpoint) if inherits else None)


def _digest(digest: str | None) -> Mapping[str, Any]:
    return {} if digest is None else {DIGEST: digest}


PARTS: Mapping[str, Callable[[Recipe], Mapping[str, Any]]] = {
    "space": _space,
    CODE: _code,
    "size of the images": _size,
    "data": _data,
    IMAGES: lambda recipe: _digest(digest_training_images(recipe.data)),
    TEST_IMAGES: lambda recipe: _digest(digest_test_images(recipe.data)),
    "folders of images": lambda recipe: _digest(stamp_images(recipe.data)),
    "supernet": lambda recipe: recipe.supernet.deciding(),
    PRIOR_LATENCY: _prior_latency,
    WEIGHTS: lambda recipe: _digest(digest_weights(recipe.checkpoint)),
    "evaluation": _evaluation,
    "search": _search,
    "retrain": lambda recipe: recipe.retrain.deciding(),
    "initial weights": _initial_weights,
    "latency tables": lambda recipe: {x.name: True for x in recipe.latency},
    "nni_spos": lambda recipe: {"version": __version__},
    "version of the costs": lambda recipe: {DIGEST: COSTS_VERSION},
    "version of the scoring": lambda recipe: {DIGEST: SCORES_VERSION},
}
"""How each part is found."""
