"""One YAML file that says everything about a run, from data to the retrained network.

Loading checks every key and value and imports neither PyTorch nor NNI, so that the tuner and
the command line can refuse a wrong recipe at once.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import schema

from nni_spos.constraint import Constraint
from nni_spos.errors import RecipeError, nearest
from nni_spos.files import check_name, unlinked
from nni_spos.settings import (
    BOOL,
    COUNT,
    FILE,
    POSITIVE_INT,
    TEXT,
    Rule,
    check_settings,
    is_file_name,
    one_of,
    optional,
    read_settings,
    real,
    setting,
)
from nni_spos.values import shown
from nni_spos.yaml_files import read_yaml

DATASETS = ("digits", "fashion_mnist", "cifar10", "image_folder")
KEPT = "supernets"
"""Folder of the supernets that searches keep, in the output folder."""

AUGMENTATIONS = ("none", "shift", "crop_flip", "imagenet")


def parse_constraints(texts: list[str]) -> tuple[Constraint, ...]:
    """Parse every text of a list. Raises ConstraintError."""
    return tuple(Constraint.parse(text) for text in texts)


def _pairs(mapping: Mapping[Any, float]) -> tuple[tuple[Any, float], ...]:
    return tuple(mapping.items())


QUANTILES: Rule = (schema.Schema([real(0, 1)[0]]), "a list such as [0, 0.25, 0.5]")
STRATEGY: Rule = one_of("auto", "ddp", "ddp_find_unused_parameters_true")
PRECISION: Rule = one_of("auto", "32-true", "16-mixed", "bf16-mixed")
DEVICES: Rule = (schema.Or("auto", POSITIVE_INT[0]), "auto, or a whole number > 0")
CONSTRAINTS: Rule = (schema.Schema([str]), "a list such as ['flops <= 330M']")
FACTORS: Rule = (
    schema.Schema({TEXT[0]: real(0)[0]}),
    "a mapping such as {classifier: 0.1}",
)
SIZES: Rule = (
    schema.Schema({POSITIVE_INT[0]: real(0, 1)[0]}),
    "a mapping of sizes in pixels to shares of the steps such as {16: 0.6, 24: 0.2}",
)
METRICS: Rule = (schema.Schema([TEXT[0]]), "a list such as [flops, params]")


@dataclass(frozen=True)
class SpaceSettings:
    """Which search space: a name of `nni_spos.spaces`, with arguments of its class."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class DataSettings:
    """Images and how they are split; see `nni_spos.data`.

    `crop_pct` is for an image folder: an image is resized so that the crop of its centre, of
    `image_size`, takes this share of the shorter side. By default 0.875, as 224 of 256 pixels; 1
    for images that are cropped already. The name is timm's.

    Images are decoded once and held in memory up to `held_mb` MB of 2^20 bytes. A search puts those
    that take more into files in the output folder, which all its processes share; a training reads
    them anew in every epoch. So it does where ``imagenet`` augments, which crops whole images.
    """

    name: str = setting(one_of(*DATASETS))
    root: str | None = setting(optional(FILE), None)
    download: bool = setting(BOOL, False)
    image_size: int | None = setting(optional(POSITIVE_INT), None)
    num_classes: int | None = setting(optional(POSITIVE_INT), None)
    crop_pct: float | None = setting(optional(real(0.1, 1)), None)
    augmentation: str | None = setting(optional(one_of(*AUGMENTATIONS)), None)
    num_train: int | None = setting(optional(POSITIVE_INT), None)
    num_validation: int | None = setting(optional(POSITIVE_INT), None)
    split_seed: int = setting(COUNT, 0)
    workers: int = setting(COUNT, 0)
    held_mb: int = setting(COUNT, 2048)

    def deciding(self) -> dict[str, Any]:
        """Return the settings that decide the images, and not where they are or who reads them.

        `crop_pct` came later and is named only where it is given, as in the files from before.
        """
        values = dataclasses.asdict(self)
        for name in ("root", "download", "workers", "held_mb"):
            del values[name]
        if values["crop_pct"] is None:
            del values["crop_pct"]
        return values


@dataclass(frozen=True)
class TrainSettings:
    """How weights are trained, of the supernet or of a retrained path (paper: section 4).

    With channel numbers as choices, `update_scope` says where momentum and weight decay act on a
    weight of which a path used a part: on that ``slice``, or on the whole ``tensor``.

    `devices` (on each of `num_nodes` machines) is how many GPUs train together, each with a process
    of its own, or CPU processes where there is none; ``auto`` is all GPUs that are visible, or as
    many processes as a launcher started. `batch_size` and `learning_rate` are those of a step, so
    that they stay as they are: every process gets its part of the batch. BatchNorm normalises the
    part of a process, with `sync_batchnorm` the batch. `strategy` says how gradients are averaged:
    ``auto`` sends those of the sampled weights only, the others are Lightning's.

    `learning_rate_factors` are names of modules or parameters, such as ``classifier``, and by what
    the learning rate is multiplied there; the longest name that fits counts.

    `progressive_resizing` maps sizes in pixels below that of the images to shares of the steps:
    the training begins with images of the first size, and what the shares leave is done with the
    images as they are.
    """

    epochs: int | None = setting(optional(POSITIVE_INT), None)
    steps: int | None = setting(optional(POSITIVE_INT), None)
    batch_size: int = setting(POSITIVE_INT, 1024)
    learning_rate: float = setting(real(0), 0.5)
    momentum: float = setting(real(0, 1), 0.9)
    weight_decay: float = setting(real(0), 4e-5)
    label_smoothing: float = setting(real(0, 1), 0.1)
    warmup_steps: int = setting(COUNT, 0)
    gradient_clip: float | None = setting(optional(real(0)), None)
    channels_last: bool = setting(BOOL, True)
    precision: str = setting(PRECISION, "auto")
    seed: int = setting(COUNT, 0)
    keep_checkpoints: int | None = setting(optional(POSITIVE_INT), None)
    update_scope: str = setting(one_of("slice", "tensor"), "slice")
    devices: int | str = setting(DEVICES, 1)
    num_nodes: int = setting(POSITIVE_INT, 1)
    strategy: str = setting(STRATEGY, "auto")
    sync_batchnorm: bool = setting(BOOL, False)
    learning_rate_factors: tuple[tuple[str, float], ...] = setting(FACTORS, (), _pairs)
    progressive_resizing: tuple[tuple[int, float], ...] = setting(SIZES, (), _pairs)

    def __post_init__(self) -> None:
        shares = math.fsum(share for _, share in self.progressive_resizing)
        if shares > 1:
            raise RecipeError(
                f"progressive_resizing: the shares of the steps add up to {shares:g}; at most 1."
            )
        if (self.epochs is None) == (self.steps is None):
            raise RecipeError("give either 'epochs' or 'steps'.")
        if self.devices != "auto":
            self.check_split(int(self.devices) * self.num_nodes)

    def check_split(self, num_processes: int) -> None:
        """Refuse a batch that processes cannot share evenly. Raises RecipeError."""
        if self.batch_size % num_processes:
            raise RecipeError(
                f"batch_size: {self.batch_size} images cannot be shared evenly by {num_processes} "
                "processes (devices x num_nodes). Give a multiple, or fewer devices."
            )

    def check_sizes(self, image_size: int) -> None:
        """Refuse to resize images to `image_size`, which they have, or more. Raises RecipeError."""
        for size, _ in self.progressive_resizing:
            if size >= image_size:
                raise RecipeError(
                    f"progressive_resizing: {size} pixels is not below the size of the images, "
                    f"{image_size}. Leave it out: the last steps use that size anyway."
                )

    def deciding(self) -> dict[str, Any]:
        """Return the settings that decide the weights.

        A training may go on with another number of processes. Settings that came later are named
        only where they are asked for, as in the files that were written before there were such.
        """
        values = dataclasses.asdict(self)
        for name in ("keep_checkpoints", "devices", "num_nodes", "strategy"):
            del values[name]
        if not self.sync_batchnorm:
            del values["sync_batchnorm"]
        for name in ("learning_rate_factors", "progressive_resizing"):
            pairs = values.pop(name)
            if pairs:
                values[name] = dict(pairs)
        return values


@dataclass(frozen=True)
class SupernetSettings(TrainSettings):
    """Training of the supernet: how, and which prior draws the paths.

    The ``constrained`` prior draws a bin, then a path in it. Its bins are intervals of one cost,
    given as such or by the quantiles of the costs of all paths between which they lie; quantiles
    that part the whole space into equal shares make the uniform prior again. In the first
    `channel_warmup_steps` steps narrow channel numbers are let in one by one, the widest first, and
    paths are uniform.
    """

    prior: str = setting(one_of("uniform", "constrained"), "uniform")
    prior_bins: tuple[Constraint, ...] = setting(CONSTRAINTS, (), parse_constraints)
    prior_quantiles: tuple[float, ...] = setting(QUANTILES, (), tuple)
    prior_metric: str = setting(TEXT, "flops")
    channel_warmup_steps: int = setting(COUNT, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        num_ways = bool(self.prior_bins) + bool(self.prior_quantiles)
        if self.prior == "uniform" and num_ways:
            raise RecipeError(
                "the uniform prior has neither prior_bins nor prior_quantiles; did you mean "
                "'prior: constrained'?"
            )
        if self.prior == "constrained" and num_ways != 1:
            raise RecipeError(
                "the constrained prior needs either prior_bins, e.g. ['290M <= flops <= 300M'], "
                "or prior_quantiles, e.g. [0, 0.25, 0.5]."
            )
        if len({limit.metric for limit in self.prior_bins}) > 1:
            raise RecipeError("prior_bins: all bins must be of the same metric.")

    @property
    def metric_of_prior(self) -> str:
        """The cost that the bins of the prior are of."""
        return self.prior_bins[0].metric if self.prior_bins else self.prior_metric

    def deciding(self) -> dict[str, Any]:
        """Return the settings that decide the weights."""
        bins = [str(limit) for limit in self.prior_bins]
        return {
            **super().deciding(),
            "prior_bins": bins,
            "prior_quantiles": [*self.prior_quantiles],
        }


@dataclass(frozen=True)
class RetrainSettings(TrainSettings):
    """Training of one path: from fresh weights, or from those of the supernet."""

    initial_weights: str = setting(one_of("random", "supernet"), "random")


@dataclass(frozen=True)
class EvaluationSettings:
    """How a path is scored with the supernet's weights (paper: section 3.4), and by whom.

    The trials of an NNI experiment either let a ``worker`` score their paths, one process on each
    machine that holds the supernet and ends after `worker_idle_s` seconds without a trial, or do it
    ``inline``, each for itself. ``auto`` is a worker. With `cache` a path that an earlier search
    with the same supernet scored is not scored again.

    `devices` is how many GPUs ``nni-spos search`` uses, each by a process of its own, or CPU
    processes where there is none; ``auto`` is all GPUs that are visible, or this process. Under
    NNI it is NNI that places the trials.
    """

    recalibrate: bool = setting(BOOL, True)
    recalibration_images: int = setting(POSITIVE_INT, 20_000)
    batch_size: int = setting(POSITIVE_INT, 256)
    seed: int = setting(COUNT, 0)
    precision: str = setting(PRECISION, "auto")
    devices: int | str = setting(DEVICES, "auto")
    evaluator: str = setting(one_of("auto", "worker", "inline"), "auto")
    worker_idle_s: int = setting(POSITIVE_INT, 300)
    cache: bool = setting(BOOL, True)

    def deciding(self) -> dict[str, Any]:
        """Return the settings that decide the scores."""
        values = dataclasses.asdict(self)
        for name in ("devices", "evaluator", "worker_idle_s", "cache"):
            del values[name]
        return values


@dataclass(frozen=True)
class SearchSettings:
    """The search; the defaults are those of the paper's Algorithm 1.

    `objective` is the result to maximise: ``top1``, ``top5``, ``log_likelihood`` (minus the loss),
    or what a trial of one's own reports.

    ``nsga2`` minimises the costs `cost_objectives` beside the maximised `objective`; by default
    the cost of the first constraint, without constraints ``flops``.
    """

    algorithm: str = setting(one_of("evolution", "nsga2", "random"), "evolution")
    constraints: tuple[Constraint, ...] = setting(CONSTRAINTS, (), parse_constraints)
    population_size: int = setting(POSITIVE_INT, 50)
    num_generations: int = setting(POSITIVE_INT, 20)
    top_k: int = setting(POSITIVE_INT, 10)
    num_mutations: int | None = setting(optional(COUNT), None)
    num_crossovers: int | None = setting(optional(COUNT), None)
    mutation_prob: float = setting(real(0, 1), 0.1)
    objective: str = setting(TEXT, "top1")
    cost_objectives: tuple[str, ...] = setting(METRICS, (), tuple)
    seed: int = setting(COUNT, 0)

    def __post_init__(self) -> None:
        bred = (self.num_mutations or 0) + (self.num_crossovers or 0)
        if bred > self.population_size:
            raise RecipeError(
                f"num_mutations + num_crossovers = {bred} exceeds population_size = "
                f"{self.population_size}."
            )
        if self.objective == "loss":
            raise RecipeError(
                "objective: a search maximises it, and a loss should be low. Say log_likelihood, "
                "which is minus the loss."
            )


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
    latency
        Files that ``nni-spos latency`` wrote, for constraints on ``latency_ms(cpu)`` and the like.
    kept
        Digest of the supernet that a search keeps, see `nni_spos.kept_supernets`; None: the one
        that was trained last.
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
    kept: str | None = None

    @property
    def checkpoint(self) -> FilePath:
        """The trained supernet."""
        if self.kept is not None:
            return self.output / KEPT / f"{self.kept}.pt"
        return self.output / "supernet.pt"

    @property
    def retrained(self) -> FilePath:
        """The retrained network, unless another file is asked for."""
        return self.output / "retrained.pt"

    def with_search(self, changes: Mapping[str, Any], where: str) -> Recipe:
        """Return the recipe with some keys of its search section replaced. Raises RecipeError."""
        given = check_settings(SearchSettings, changes, where)
        try:
            search = dataclasses.replace(self.search, **given)
        except RecipeError as problem:
            raise RecipeError(f"{where}: {problem}") from None
        return dataclasses.replace(self, search=search)


_SECTIONS: dict[str, type[Any]] = {
    "data": DataSettings,
    "supernet": SupernetSettings,
    "evaluation": EvaluationSettings,
    "search": SearchSettings,
    "retrain": RetrainSettings,
}


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
    keys = ["output", "space", *_SECTIONS, "latency"]
    unknown = [key for key in content if key not in keys]
    if unknown:
        raise RecipeError(
            f"{file.name}: unknown key {shown(unknown[0])}{nearest(unknown[0], keys) or '.'} "
            f"Keys: {', '.join(keys)}."
        )
    optional_keys = ("evaluation", "search", "latency")
    missing = [key for key in keys if key not in content and key not in optional_keys]
    if missing:
        raise RecipeError(f"{file.name}: the key '{missing[0]}' is missing.")
    if not is_file_name(content["output"]):
        raise RecipeError(f"{file.name}: output: must be the name of a folder.")
    sections = {}
    for name, cls in _SECTIONS.items():
        where = f"{file.name}: {name}"
        try:
            sections[name] = read_settings(cls, content.get(name), where)
        except RecipeError as problem:
            text = str(problem)
            raise RecipeError(text if text.startswith(where) else f"{where}: {text}") from None
    data: DataSettings = sections["data"]
    if data.root is not None:
        root = file.parent / os.path.expanduser(data.root)
        sections["data"] = dataclasses.replace(data, root=str(root))
    return Recipe(
        file=file,
        output=FilePath(os.path.realpath(file.parent / os.path.expanduser(content["output"]))),
        space=_read_space(content["space"], f"{file.name}: space"),
        **sections,
        latency=_read_latency(content.get("latency"), file),
    )


def _read_latency(content: Any, file: FilePath) -> tuple[FilePath, ...]:
    names = [] if content is None else content
    if not isinstance(names, list) or not all(map(is_file_name, names)):
        raise RecipeError(
            f"{file.name}: latency: must be a list of files such as [latency_cpu.json], "
            f"got {shown(content)}."
        )
    return tuple(file.parent / os.path.expanduser(name) for name in names)


def _read_space(content: Any, where: str) -> SpaceSettings:
    if not isinstance(content, Mapping) or not isinstance(content.get("name"), str):
        raise RecipeError(f"{where}: must be a mapping with the key 'name', got {shown(content)}.")
    return SpaceSettings(
        content["name"], {key: value for key, value in content.items() if key != "name"}
    )
