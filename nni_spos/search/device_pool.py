"""Score a generation on several devices, each used by a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nni_spos.display.progress import Progress
from nni_spos.errors import CheckpointError, ExperimentError, RecipeError, ScoringWarning
from nni_spos.path import Choice, PathSpace
from nni_spos.recipe.recipe import Recipe
from nni_spos.scoring.failures import raise_for_path
from nni_spos.scoring.notes import collecting
from nni_spos.search.kept_supernets import check_kept, keep_supernet
from nni_spos.search.score_cache import ScoreCache, open_score_cache
from nni_spos.search.scorer import PathScorer, Scorer, open_scorer
from nni_spos.supernet import load_supernet

TICK_S = 0.2
"""Seconds between two looks at how far the processes are."""


def name_devices(devices: int | str) -> list[str]:
    """Return the names of the devices that a search uses, see `nni_spos.recipe.recipe`.

    Raises
    ------
    RecipeError
        More GPUs than are visible are asked for.
    """
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    number = max(1, num_gpus) if devices == "auto" else int(devices)
    if not num_gpus:
        return ["cpu"] * number
    if number > num_gpus:
        raise RecipeError(
            f"evaluation.devices: got {number}, but {num_gpus} GPUs are visible. "
            "Give at most that, or 'auto'."
        )
    return [f"cuda:{i}" for i in range(number)]


def open_device_scorer(recipe: Recipe, cached: bool = True) -> Scorer:
    """Open what scores the paths of a recipe on its devices. Errors are those of `open_scorer`."""
    devices = name_devices(recipe.evaluation.devices)
    if len(devices) == 1:
        return open_scorer(recipe, cached, devices[0])
    recipe = keep_supernet(recipe)  # the processes open it when they are needed
    checkpoint = load_supernet(recipe.checkpoint)
    space, weights = checkpoint.space, checkpoint.digest
    check_kept(recipe, weights)
    cached = cached and recipe.evaluation.cache
    cache = open_score_cache(recipe, space, weights) if cached else None
    return DevicePool(recipe, devices, space, cache, weights)


class DevicePool(Scorer):
    """Score paths in several processes, each with its own supernet on its own device.

    Each gets paths that are neighbours in the order of their choices, since those share most
    work. Close it, so that its processes end; they also end if this process is killed.

    Parameters
    ----------
    recipe
        What the processes open, see `nni_spos.search.scorer.open_scorer`.
    devices
        One for each process.
    space
        Labels and choices.
    cache, weights
        See `Scorer`; the processes refuse any other weights.
    """

    def __init__(
        self,
        recipe: Recipe,
        devices: Sequence[str],
        space: PathSpace,
        cache: ScoreCache | None = None,
        weights: str | None = None,
    ):
        super().__init__(cache, weights)
        self._space = space
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        free_devices = context.SimpleQueue()
        self._shares = context.Array("d", len(devices))
        self._closed = context.Event()
        for device in devices:
            free_devices.put(device)
        start = context.Barrier(len(devices))  # else the first to run takes the work of the others
        num_threads = max(1, torch.get_num_threads() // len(devices))
        own = _PoolContext(recipe, weights, self._shares, self._closed)
        self._pool = ProcessPoolExecutor(
            len(devices),
            context,
            _begin,
            (own, free_devices, start, num_threads),
        )
        self._num_devices = len(devices)

    def evaluate(
        self, paths: Sequence[Mapping[str, Choice]], progress: Progress | None = None
    ) -> list[dict[str, float]]:
        """Return the results of several paths.

        Raises
        ------
        FailedPathError
            It is one of the paths that fails.
        ExperimentError
            A process was killed.
        """
        checked = [self._space.validate(path) for path in paths]
        order = sorted(range(len(paths)), key=lambda i: self._space.key(checked[i]))
        parts = [part for part in np.array_split(order, self._num_devices) if len(part)]
        self._shares[:] = [0.0] * self._num_devices
        jobs = [
            self._pool.submit(_score, number, [checked[i] for i in part])
            for number, part in enumerate(parts)
        ]
        try:
            self._wait(jobs, progress)
            found = [job.result() for job in jobs]
        except BrokenProcessPool:
            raise ExperimentError(
                "a process that scored paths was killed, perhaps for want of memory. Run the "
                "search again: it goes on; with fewer 'devices' if it happens again."
            ) from None
        finally:
            for job in jobs:
                job.cancel()
        for note in dict.fromkeys(note for _, notes in found for note in notes):
            warnings.warn(note, ScoringWarning, stacklevel=2)
        scores = (results for part, _ in found for results in part)
        in_order = dict(zip((i for part in parts for i in part), scores, strict=True))
        return [in_order[i] for i in range(len(paths))]

    def close(self) -> None:
        """End the processes, which give up what they are doing."""
        self._closed.set()
        self._pool.shutdown(cancel_futures=True)

    def _wait(self, jobs: Sequence[Future[Any]], progress: Progress | None) -> None:
        waiting = set(jobs)
        while waiting:
            waiting = wait(waiting, timeout=TICK_S).not_done
            if progress is not None:
                progress(sum(self._shares[:]) / len(jobs))


@dataclass
class _PoolContext:
    """What a process of a pool is for."""

    recipe: Recipe
    weights: str | None
    shares: Any
    closed: Any
    device: str = ""
    scorer: PathScorer | None = None


_own: _PoolContext
"""That of this process."""


def _begin(context: _PoolContext, devices: Any, start: Any, num_threads: int) -> None:
    """Take a device, in a process that has just begun."""
    global _own
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(num_threads)
    context.device = devices.get()
    _own = context
    start.wait()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in a process of a pool"
    parent.join()
    os._exit(1)


def _score(
    number: int, paths: Sequence[Mapping[str, Choice]]
) -> tuple[list[dict[str, float]], list[str]]:
    """Score the paths of a job in the process of the device that is free; also return warnings."""
    # Opened here, so that what is wrong is raised where the paths are asked for.
    if _own.scorer is None:
        scorer = open_scorer(_own.recipe, cached=False, device=_own.device)
        if _own.weights not in (None, scorer.weights):
            raise CheckpointError(f"{_own.recipe.checkpoint}: was replaced meanwhile. Try again.")
        _own.scorer = scorer

    def show(share: float) -> None:
        if _own.closed.is_set():
            raise KeyboardInterrupt
        _own.shares[number] = share

    notes: list[str] = []
    try:
        with collecting(notes):
            return _own.scorer.evaluate(paths, show), notes
    except Exception as problem:
        raise_for_path(problem)  # where it was raised is not known in another process
        raise
