"""What ``nni-spos latency`` does: measure the latencies of a space, and keep them in a file."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from nni.nas.nn.pytorch import ModelSpace
from tqdm import tqdm

from nni_spos.costs.figures import plot_latency
from nni_spos.data import dataset_spec
from nni_spos.display.progress import open_bar
from nni_spos.files.yaml_files import is_yaml_name
from nni_spos.latency.exported import RuntimeProfiler
from nni_spos.latency.profiler import LatencyProfiler
from nni_spos.latency.runtimes import RUNTIMES
from nni_spos.latency.table import LatencyTable
from nni_spos.recipe.recipe import load_recipe
from nni_spos.spaces import Form, build_space, default_input_shape
from nni_spos.supernet.building import build_recipe_space

SEED = 0
"""Of weights, paths and the order of measurements; none of them matters much."""


def run_latency(
    space_or_recipe: str | os.PathLike[str],
    file: str | os.PathLike[str],
    *,
    device: str = "cpu",
    batch_size: int = 1,
    threads: int | None = None,
    num_paths: int = 30,
    plot: str | os.PathLike[str] | None = None,
    progress: bool = True,
    profiler: LatencyProfiler | RuntimeProfiler | None = None,
) -> LatencyTable:
    """Measure a space's latencies, validate the table and write it.

    Parameters
    ----------
    space_or_recipe
        A name as in `nni_spos.spaces.SPACES` or ``module:Class``, or a recipe, whose file ends in
        ``.yml`` or ``.yaml``: then with the recipe's images, classes and memory format.
    file
        Where the table goes, as JSON.
    device
        ``cpu``, ``cuda``, or a runtime such as ``onnxruntime``.
    batch_size, threads
        See `nni_spos.latency.profiler.LatencyProfiler`.
    num_paths
        Random whole networks that predictions are compared with.
    plot
        Where a scatter plot of the comparison goes, as PNG; None for no plot.
    progress
        Whether to show a progress bar on standard error.
    profiler
        What measures, instead of one for `device`, `batch_size` and `threads`.

    Returns
    -------
    The table, with its validation.

    Raises
    ------
    RecipeError, DataError
        See `nni_spos.recipe.recipe.load_recipe` and `nni_spos.spaces.build_space`.
    CostError
        See `LatencyProfiler`.
    """
    name, model, input_shape, channels_last = _open(space_or_recipe)
    profiler = profiler or make_profiler(device, batch_size, threads, channels_last=channels_last)
    with _RoundsBar(profiler.rounds, shown=progress) as bar:
        table = profiler.profile(
            model, input_shape, num_paths=num_paths, seed=SEED, name=name, on_round=bar.advance
        )
    table.save(file)
    if plot is not None:
        validation = table.validation
        plot_latency(validation.predicted_ms, validation.measured_ms, plot)
    return table


def make_profiler(
    device: str, batch_size: int, threads: int | None, *, channels_last: bool
) -> LatencyProfiler | RuntimeProfiler:
    """Return what measures on a device, or in a runtime of the CPU."""
    if device in RUNTIMES:
        return RuntimeProfiler(device, batch_size, threads)
    return LatencyProfiler(device, batch_size, threads, channels_last)


class _RoundsBar:
    """A bar over the rounds. It appears with the first one: what is refused is one line, no bar.

    Parameters
    ----------
    rounds
        Number of rounds.
    shown
        Whether anything is.
    """

    def __init__(self, rounds: int, shown: bool):
        self._rounds = rounds
        self._shown = shown
        self._bar: tqdm[None] | None = None

    def __enter__(self) -> _RoundsBar:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self) -> None:
        """Count one more round."""
        if self._bar is None:
            self._bar = open_bar(
                "latency", self._rounds, "round", initial=1, disable=not self._shown
            )
        else:
            self._bar.update()


def _open(
    space_or_recipe: str | os.PathLike[str],
) -> tuple[str, ModelSpace, Sequence[int], bool]:
    """Return name, model, shape of an image, and whether it is channels_last."""
    if is_yaml_name(space_or_recipe):
        recipe = load_recipe(space_or_recipe)
        spec = dataset_spec(recipe.data)
        model = build_recipe_space(recipe, Form.SUBNET, SEED)
        return recipe.space.name, model, spec.input_shape, recipe.retrain.channels_last
    name = os.fspath(space_or_recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = build_space(name, {}, Form.SUBNET)
    return name, model, default_input_shape(model), True
