"""What a recipe says about the training of weights: of a supernet, or of a path."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, ClassVar, TypeVar

from nni_spos.components import declared_keys
from nni_spos.errors import RecipeError
from nni_spos.files.digests import digest_weights
from nni_spos.recipe.conversion_settings import is_weights_file
from nni_spos.recipe.image_size import ImageSize, height_width
from nni_spos.recipe.named_components import NamesComponent, Slot, read_section
from nni_spos.recipe.registries import PRIORS
from nni_spos.recipe.rules import DEVICES, PRECISIONS
from nni_spos.recipe.settings import (
    BOOL,
    COUNT,
    FILE,
    POSITIVE_INT,
    TEXT,
    Rule,
    check_values,
    component,
    either,
    is_file_name,
    mapping_of,
    one_of,
    optional,
    real,
    setting,
)
from nni_spos.recipe.techniques import (
    LISTED,
    RecipePlace,
    TechniqueSettings,
    check_once,
    read_listed,
    refuse_unknown,
    split_techniques,
)


def _pairs(mapping: Mapping[Any, float]) -> tuple[tuple[Any, float], ...]:
    return tuple(mapping.items())


def _is_weights_file(value: Any) -> bool:
    return is_file_name(value) and is_weights_file(value)


ORIGINAL = "original"
"""The weights that a converted network was given with."""

INITIAL_WEIGHTS = either(
    one_of("random", ORIGINAL),
    Rule(_is_weights_file, "", FILE.json),
    f"random, {ORIGINAL}, or a file such as float/supernet.pt",
)
STRATEGY = one_of("auto", "ddp", "ddp_find_unused_parameters_true")
FACTORS = mapping_of(TEXT, real(0), "a mapping such as {classifier: 0.1}")
SIZES = mapping_of(
    POSITIVE_INT,
    real(0, 1),
    "a mapping of sizes in pixels to shares of the steps such as {16: 0.6, 24: 0.2}",
)


@dataclass(frozen=True)
class TrainSettings:
    """How weights are trained, of the supernet or of a retrained path (paper: section 4).

    Learning rate and batch size are those of a step, so that they stay as they are however many
    processes train: each gets its part of the batch.

    Parameters
    ----------
    epochs
        How long, in passes over the training images; or give `steps`.
    steps
        How long, in batches; or give `epochs`.
    batch_size
        Images of a step, of all processes together.
    learning_rate
        At the beginning; it falls linearly to 0.
    momentum
        Of stochastic gradient descent.
    weight_decay
        Of weights, not of BatchNorm's parameters or of biases.
    label_smoothing
        How much of a label is spread over all classes.
    warmup_steps
        Steps in which the learning rate rises from 0.
    gradient_clip
        Largest norm of the gradient of a step; by default there is no limit.
    channels_last
        Whether networks run in this memory format, where they can.
    precision
        Of the computation; auto is 16-mixed on a GPU and 32-true elsewhere.
    seed
        Of the initial weights, of the order of the images and of their augmentation.
    keep_checkpoints
        How many checkpoints of a training stay; by default the last one.
    update_scope
        Where momentum and weight decay act on a weight of which a path used a part: on that slice,
        or on the whole tensor.
    devices
        GPUs on each machine that train together, each with a process of its own, or CPU processes
        where there is none; auto is all GPUs that are visible, or as many processes as a launcher
        started.
    num_nodes
        Machines that train together.
    strategy
        How gradients are averaged: auto sends those of the sampled weights only, the others are
        Lightning's.
    sync_batchnorm
        Whether BatchNorm normalises the whole batch, and not the part of a process.
    learning_rate_factors
        Names of modules or parameters, such as classifier, and by what the learning rate is
        multiplied there; the longest name that fits counts.
    progressive_resizing
        Sizes in pixels below that of the images, and the share of the steps with each. Of images
        that are not square it is the shorter side; the other one shrinks with it. The training
        begins with images of the first size, and what the shares leave is done with the images as
        they are.
    techniques
        Training techniques of your own or of a plug-in, by name or with their keys; the keys of
        ours stand beside these.
    """

    section: ClassVar[str] = ""

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
    precision: str = setting(one_of(*PRECISIONS, "64-true"), "auto")
    seed: int = setting(COUNT, 0)
    keep_checkpoints: int | None = setting(optional(POSITIVE_INT), None)
    update_scope: str = setting(one_of("slice", "tensor"), "slice")
    devices: int | str = setting(DEVICES, 1)
    num_nodes: int = setting(POSITIVE_INT, 1)
    strategy: str = setting(STRATEGY, "auto")
    sync_batchnorm: bool = setting(BOOL, False)
    learning_rate_factors: tuple[tuple[str, float], ...] = setting(FACTORS, (), _pairs)
    progressive_resizing: tuple[tuple[int, float], ...] = setting(SIZES, (), _pairs)
    techniques: tuple[TechniqueSettings, ...] = setting(LISTED, (), read_listed)

    def __post_init__(self) -> None:
        check_values(self)
        shares = math.fsum(share for _, share in self.progressive_resizing)
        if shares > 1:
            raise RecipeError(
                f"progressive_resizing: the shares must add up to at most 1, got {shares:g}."
            )
        if (self.epochs is None) == (self.steps is None):
            raise RecipeError("give either 'epochs' or 'steps'.")
        if self.devices != "auto":
            self.check_split(int(self.devices) * self.num_nodes)

    def check_split(self, num_processes: int) -> None:
        """Refuse a batch that cannot be shared evenly. Raises RecipeError."""
        if self.batch_size % num_processes:
            raise RecipeError(
                f"batch_size: {num_processes} processes (devices x num_nodes) cannot share "
                f"{self.batch_size} images evenly. Give a multiple of {num_processes}, or fewer "
                "devices."
            )

    def check_sizes(self, image_size: ImageSize) -> None:
        """Refuse sizes that are not below the shorter side of images. Raises RecipeError."""
        least = min(height_width(image_size))
        for size, _ in self.progressive_resizing:
            if size >= least:
                raise RecipeError(
                    f"progressive_resizing: sizes must be smaller than the images, {least} "
                    f"pixels, got {size}. Leave it out: the last steps use the whole images."
                )

    def deciding(self) -> dict[str, Any]:
        """Return the settings that decide the weights.

        A training may go on with another number of processes. Settings that came later are named
        only where they are asked for, as in the files that were written before there were such.
        """
        values = dataclasses.asdict(dataclasses.replace(self, techniques=()))
        for name in ("keep_checkpoints", "devices", "num_nodes", "strategy", "techniques"):
            del values[name]
        if not self.sync_batchnorm:
            del values["sync_batchnorm"]
        for name in ("learning_rate_factors", "progressive_resizing"):
            pairs = values.pop(name)
            if pairs:
                values[name] = dict(pairs)
        asked = {x.name: x.deciding() for x in self.techniques}
        if found := {name: keys for name, keys in asked.items() if keys is not None}:
            values["techniques"] = found
        return values


@dataclass(frozen=True)
class SupernetSettings(TrainSettings, NamesComponent):
    """Training of the supernet: how, and which prior draws the paths.

    Parameters
    ----------
    epochs
        How long, in passes over the training images, 0 for a converted network that is searched
        with the weights that it has; or give `steps`.
    prior
        What draws the path of a step: one of ours, such as uniform, of a plug-in, or module:Class;
        its keys stand beside these.
    channel_warmup_steps
        Steps at first in which narrow channel numbers are let in one by one, the widest first, and
        paths are uniform.
    initial_weights
        Whether the training begins with random weights; with the original ones of a network that is
        converted, which is the default there; or with what fits of a file, relative to the recipe.
    """

    section: ClassVar[str] = "supernet"
    slot = Slot(PRIORS, "supernet", "prior")

    epochs: int | None = setting(optional(COUNT), None)
    prior: str = component(PRIORS, "uniform")
    channel_warmup_steps: int = setting(COUNT, 0)
    initial_weights: str = setting(INITIAL_WEIGHTS, "random")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs == 0 and self.initial_weights != ORIGINAL:
            raise RecipeError("epochs: 0 needs the weights of a converted network to begin with.")
        self.check_own()

    @property
    def initial_file(self) -> FilePath | None:
        """The file that the training begins with; None without one."""
        if self.initial_weights in ("random", ORIGINAL):
            return None
        return (self.folder or FilePath()) / os.path.expanduser(self.initial_weights)

    def deciding(self) -> dict[str, Any]:
        """Return the settings that decide the weights."""
        values = super().deciding()
        del values["arguments"], values["folder"]
        if self.initial_weights == "random":
            del values["initial_weights"]
        if self.initial_file is not None:  # its content counts, and not where it is
            values["initial_weights"] = digest_weights(self.initial_file) or self.initial_weights
        return {**values, **self.describe_own()}


@dataclass(frozen=True)
class RetrainSettings(TrainSettings):
    """Training of one path: from fresh weights, or from those of the supernet.

    A recipe without this section trains a path as it trains the supernet, see `like`.

    Parameters
    ----------
    initial_weights
        Whether the training begins with random weights or with those of the supernet.
    """

    section: ClassVar[str] = "retrain"

    initial_weights: str = setting(one_of("random", "supernet"), "random")

    @classmethod
    def like(cls, supernet: SupernetSettings) -> RetrainSettings:
        """Return the settings of a supernet's training, without what draws its paths."""
        common = [x.name for x in dataclasses.fields(cls) if x.name in TRAINING]
        found = {name: getattr(supernet, name) for name in common}
        if supernet.initial_weights != "random":
            found["initial_weights"] = "supernet"
        if supernet.epochs == 0:
            raise RecipeError("is missing: with 0 epochs the supernet's are no example.")
        # Which of a user's are for retraining is known to their code alone.
        techniques = [dataclasses.replace(x, is_inherited=True) for x in supernet.techniques]
        return cls(**{**found, "techniques": tuple(techniques)})


TRAINING = frozenset(x.name for x in dataclasses.fields(TrainSettings))
"""Names of the settings that both trainings have."""

SettingsT = TypeVar("SettingsT", bound=TrainSettings)


def read_training(
    cls: type[SettingsT], content: Any, where: str, folder: FilePath, place: RecipePlace
) -> SettingsT:
    """Build a section that trains: its own keys, those of techniques, and of its component.

    Parameters
    ----------
    cls
        Of the section.
    content
        What the user wrote.
    where
        Name for messages.
    folder
        Of the recipe.
    place
        What techniques are told of the recipe.

    Raises
    ------
    RecipeError
        See `nni_spos.recipe.settings.read_settings`.
    """
    if not isinstance(content, Mapping):
        return read_section(cls, content, where, folder)  # which refuses it, or a missing key
    own = [x.name for x in dataclasses.fields(cls) if x.metadata]
    rest, found = split_techniques(content, own, where)
    strange = [key for key in rest if key not in own]
    known = _keys_of_component(cls, rest) if strange else []
    if known is not None and (strange := [key for key in strange if key not in known]):
        refuse_unknown(strange[0], [*own, *known], cls.section, where)
    settings = read_section(cls, rest, where, folder)
    asked = (*found, *settings.techniques)
    check_once(asked)
    techniques = tuple(dataclasses.replace(x, place=place) for x in asked)
    return dataclasses.replace(settings, techniques=techniques) if techniques else settings


def _keys_of_component(cls: type[TrainSettings], content: Mapping[str, Any]) -> list[str] | None:
    """Return the keys that components of ours can have in a section; None: any.

    Those of a user's component are known to its own code alone.
    """
    if not issubclass(cls, NamesComponent):
        return []
    slot = cls.slot
    name = content.get(slot.key, next(iter(slot.registry.ours)))
    if not isinstance(name, str) or name not in slot.registry.ours:
        return None
    found = (declared_keys(slot.registry.load_ours(x).Settings) for x in slot.registry.ours)
    return [key for keys in found for key in keys]
